"""What has been learned of servers by calling them: a fold over calls and what came of them.

The same calls in the same order make the same experience, whether they are watched live or read back from a
recording, so a campaign that was interrupted knows what it knew.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from recorder.canonical import canonical_json
from recorder.exchange import Json, NoReply, RpcError, ToolCall, ToolResult
from recorder.explore.complaints import Complaint, read_complaint
from recorder.explore.dictionary import written_like
from recorder.explore.effective import Verdict, verdict
from recorder.explore.harvest import Harvest
from recorder.explore.names import EVERY, Words, qualified, words_in
from recorder.explore.outputs import Path, leaves, output_of, text_of
from recorder.explore.parameters import input_schema, properties_of, required_of
from recorder.explore.paths import MADE
from recorder.tool import ToolSpec
from recorder.verbs import READING, suggested

MOST_WORKED = 40
"""Argument sets kept of one tool's calls that worked, newest last."""

MOST_LINES = 40

MOST_INTRODUCED = 2000

SET_UP_VERBS = frozenset(
    """
    set register init initialize initialise create open load connect start configure select use new import
    begin login attach build index switch activate
    """.split()  # noqa: SIM905
)

MOST_IDLE = 2
"""Walks without a new call of a tool after which all that is known has been tried with it."""

HOPELESS = 12
"""Failures of a tool that never worked after which it is left alone, unless something was learned since."""


@dataclass(slots=True)
class ToolExperience:
    spec: ToolSpec
    calls: int = 0
    effective: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    tried: set[str] = field(default_factory=set)
    """Arguments, as canonical text."""
    worked: list[dict[str, Json]] = field(default_factory=list)
    in_vain: int = 0
    """Calls in a row that told nothing, since the last that did or since something new was learned of it."""
    required: list[str] = field(default_factory=list)
    """Parameters that errors said are missing, though the schema does not require them."""
    unexpected: set[str] = field(default_factory=set)
    types: dict[str, str] = field(default_factory=dict)
    allowed: dict[str, list[str]] = field(default_factory=dict)
    """Parameter → values that errors said would be right."""
    written: dict[str, list[Json]] = field(default_factory=dict)
    """Parameter → dates or times in a form that an error asked for."""
    patterns: dict[str, str] = field(default_factory=dict)
    limits: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    extensions: list[str] = field(default_factory=list)
    absolute: bool | None = None
    needs: list[dict[str, Any]] = field(default_factory=list)
    """Calls of other tools, as {tool, arguments}, after which a call that had failed worked."""
    asks_for: list[str] = field(default_factory=list)
    """Tools that its errors named."""
    asks_set_up: bool = False
    blame: dict[Path, dict[str, float]] = field(default_factory=dict)
    """Parameter → canonical value → how much of failures it is blamed for."""
    exclusive: list[tuple[str, ...]] = field(default_factory=list)
    """Parameters of which errors said that only one may be given."""
    directory: dict[str, bool] = field(default_factory=dict)
    """Parameter → whether its path has to name a directory, or must not."""
    idle: int = 0
    """Walks in a row that were to call it and found nothing new to call it with."""
    existing: set[str] = field(default_factory=set)
    """Parameters whose path has to be there: a new one was refused."""
    said: str = ""
    """The last error."""

    @property
    def parameters(self) -> dict[str, Any]:
        return properties_of(input_schema(self.spec.entry))

    @property
    def hopeless(self) -> bool:
        return not self.effective and self.in_vain >= HOPELESS

    def lessons(self) -> tuple[object, ...]:
        """Return what changes when an error teaches something new."""
        lists = (self.required, self.unexpected, self.types, self.extensions, self.asks_for)
        return (*map(len, lists), self.absolute, self.asks_set_up, sum(map(len, self.allowed.values())))

    @property
    def spent(self) -> bool:
        return self.idle >= MOST_IDLE

    def required_parameters(self) -> list[str]:
        declared = required_of(input_schema(self.spec.entry))
        return [name for name in dict.fromkeys([*declared, *self.required]) if name not in self.unexpected]


@dataclass(slots=True)
class ServerExperience:
    name: str
    tools: dict[str, ToolExperience] = field(default_factory=dict)
    harvest: Harvest = field(default_factory=Harvest)
    worked_values: dict[Words, dict[str, tuple[Json, int]]] = field(default_factory=dict)
    """Qualified parameter → canonical value → the value, and how many effective calls it was part of."""
    lines: dict[str, list[str]] = field(default_factory=dict)
    """Canonical argument → lines of the text that was read or written under it: a file's content."""
    failed_values: dict[Words, dict[str, int]] = field(default_factory=dict)
    """Qualified parameter → canonical value → how many failures it was blamed for, of any tool."""
    introduced: dict[str, ToolCall] = field(default_factory=dict)
    """Canonical value → the call that brought it into the world: it was its argument or stood in its
    answer."""
    calls: int = 0
    _walk: int = -1
    _recent: list[tuple[ToolCall, Verdict]] = field(default_factory=list)
    """Calls of this walk."""

    def learn_tools(self, specs: Iterable[ToolSpec]) -> None:
        for spec in specs:
            known = self.tools.get(spec.name)
            if known is None:
                self.tools[spec.name] = ToolExperience(spec)
            else:
                known.spec = spec

    def observe(self, call: ToolCall, outcome: ToolResult | RpcError | NoReply, walk: int) -> Verdict:
        """Take in what came of a call."""
        if walk != self._walk:
            self._walk, self._recent = walk, []
        self.calls += 1
        judged = verdict(call.arguments, outcome)
        tool = self.tools.get(call.tool.name)
        if tool is None:
            return judged
        tool.calls += 1
        tool.verdicts[judged] += 1
        tool.tried.add(canonical_json(call.arguments))
        if judged == "effective":
            assert isinstance(outcome, ToolResult)
            self._learn_success(tool, call, outcome.result, walk)
        else:
            self._learn_failure(tool, call, outcome, judged)
        self._recent.append((call, judged))
        return judged

    @property
    def absolute(self) -> bool | None:
        """Whether paths have to be absolute, where the errors of several tools agree on it."""
        said = [tool.absolute for tool in self.tools.values() if tool.absolute is not None]
        return said[0] if len(said) > 1 and len(set(said)) == 1 else None

    def done_in_walk(self, walk: int) -> list[tuple[ToolCall, Verdict]]:
        return self._recent if walk == self._walk else []

    def _learn_success(self, tool: ToolExperience, call: ToolCall, result: Json, walk: int) -> None:
        tool.effective += 1
        tool.in_vain = 0
        tool.worked.append(call.arguments)
        del tool.worked[:-MOST_WORKED]
        for path, value in leaves(call.arguments):
            words = qualified(path, call.tool.name)
            values = self.worked_values.setdefault(words, {})
            key = canonical_json(value)
            values[key] = (value, values.pop(key, (value, 0))[1] + 1)
            if len(values) > MOST_WORKED:
                del values[next(iter(values))]
            if path in tool.blame:
                tool.blame[path].pop(key, None)
            self.failed_values.get(words, {}).pop(key, None)
        self.harvest.take(call.tool, call.arguments, result, self.calls, walk)
        self._learn_lines(call, result)
        self._learn_needs(tool, call)
        if not destructive_words(call.tool.name) and suggested(call.tool.name) is not False:
            told = [value for _, value in zip(range(40), leaves(output_of(result)), strict=False)]
            for _, value in [*leaves(call.arguments), *told]:
                if isinstance(value, str) and 2 < len(value) < 200:
                    self.introduced[canonical_json(value)] = call
            for key in list(self.introduced)[: max(0, len(self.introduced) - MOST_INTRODUCED)]:
                del self.introduced[key]

    def _learn_lines(self, call: ToolCall, result: Json) -> None:
        plain = [(path, value) for path, value in leaves(call.arguments) if isinstance(value, str)]
        texts = [
            value
            for path, value in plain
            if "\n" in value.strip() or {"content", "text", "body"} & set(words_in(path[-1]))
        ]
        if suggested(call.tool.name) and not texts:
            return  # what such a tool answers is a report, and no content
        content = texts[0] if texts else text_of(result)
        lines = [line for line in content[:20_000].splitlines() if len(line.strip()) > 3][:MOST_LINES]
        for _, value in leaves(call.arguments):
            if isinstance(value, str) and value not in texts and lines:
                self.lines[canonical_json(value)] = lines

    def _learn_needs(self, tool: ToolExperience, call: ToolCall) -> None:
        """See whether the same call failed earlier in this walk, and what was done in between."""
        between: list[ToolCall] = []
        for earlier, judged in reversed(self._recent):
            if earlier.tool == call.tool:
                if judged != "effective" and earlier.arguments == call.arguments:
                    for done in between:
                        need = {"tool": done.tool.name, "arguments": done.arguments}
                        if need not in tool.needs:
                            tool.needs.append(need)
                    del tool.needs[:-3]
                return
            words = words_in(earlier.tool.name)
            if judged == "effective" and (not words or words[0] not in READING):
                between.insert(0, earlier)

    def _learn_failure(
        self, tool: ToolExperience, call: ToolCall, outcome: ToolResult | RpcError | NoReply, judged: Verdict
    ) -> None:
        tool.in_vain += 1
        said = failure_text(outcome)
        tool.said = said[:400]
        complaint = read_complaint(
            said, call.arguments, tool.parameters, [n for n in self.tools if n != call.tool.name]
        )
        if judged != "no reply" and judged != "empty" and self._learn_complaint(tool, call, complaint, said):
            tool.in_vain = max(0, tool.in_vain - 2)
        self._blame(tool, call, complaint)

    def _learn_complaint(self, tool: ToolExperience, call: ToolCall, complaint: Complaint, said: str) -> bool:
        """Keep what an error says would be right; return whether any of it is new."""
        before = tool.lessons()
        tool.required += [name for name in complaint.required if name not in tool.required]
        tool.unexpected |= set(complaint.unexpected)
        tool.types.update(complaint.types)
        tool.extensions += [ending for ending in complaint.extensions if ending not in tool.extensions]
        if complaint.absolute is not None:
            tool.absolute = complaint.absolute
        tool.asks_for += [name for name in complaint.tools if name not in tool.asks_for]
        tool.asks_set_up = tool.asks_set_up or complaint.set_up
        if len(complaint.exclusive) > 1 and complaint.exclusive not in tool.exclusive:
            tool.exclusive.append(complaint.exclusive)
        about = [name for name in complaint.about if name in tool.parameters]
        if complaint.missing:
            tool.existing |= {name for name, value in call.arguments.items() if MADE in str(value)}
        if complaint.directory is not None:
            for name in about[:1] or list(call.arguments)[:1]:
                tool.directory[name] = complaint.directory
        if complaint.allowed:
            for name in [complaint.allowed_for] if complaint.allowed_for is not None else []:
                values = tool.allowed.setdefault(name, [])
                values += [value for value in complaint.allowed if value not in values]
        for name in about[:1]:
            if complaint.pattern is not None:
                tool.patterns[name] = complaint.pattern
            if complaint.minimum is not None or complaint.maximum is not None:
                tool.limits[name] = (complaint.minimum, complaint.maximum)
            if written := written_like(said[:1000]):
                tool.written[name] = list(written)
        return before != tool.lessons()

    def _blame(self, tool: ToolExperience, call: ToolCall, complaint: Complaint) -> None:
        """Share the blame for a failure among the arguments.

        It is the values that the error quotes; else the one in which the call differs from one that worked;
        else each a little.
        """
        plain = [(path, canonical_json(value)) for path, value in leaves(call.arguments)]
        quoted = [(path, key) for path, key in plain if path[0] in complaint.about]
        changed = None
        if not quoted:
            for worked in reversed(tool.worked):
                different = [
                    name for name in call.arguments if call.arguments[name] != worked.get(name, worked)
                ]
                if len(different) == 1 and set(worked) <= set(call.arguments):
                    changed = [(path, key) for path, key in plain if path[0] == different[0]]
                    break
        if complaint.exclusive and len(complaint.exclusive) > 1:
            return  # it is not the values
        suspects = quoted or changed or plain
        if complaint.set_up and not quoted:
            return
        share = 1 / len(plain) if suspects is plain and plain else 1
        for path, key in suspects:
            blamed = tool.blame.setdefault(path, {})
            if key in self.introduced:
                # It exists, or did: rather something else is missing.
                blamed[key] = blamed.get(key, 0) + share / 4
                continue
            blamed[key] = blamed.get(key, 0) + share
            if share == 1:
                words = qualified(path, call.tool.name)
                if key not in self.worked_values.get(words, {}):
                    failed = self.failed_values.setdefault(words, {})
                    failed[key] = failed.get(key, 0) + 1


def failure_text(outcome: ToolResult | RpcError | NoReply) -> str:
    """Return what an outcome says, for whoever wants to know why it failed."""
    match outcome:
        case ToolResult(result=result):
            return text_of(result)
        case RpcError():
            return outcome.message
        case NoReply(reason=reason):
            return f"no answer: {reason}"


def parameter_words(path: Path, tool: str) -> Words:
    """Return the qualified name of a parameter; a list's items are named as the list is."""
    return qualified(tuple(name for name in path if name != EVERY), tool)


def is_set_up(tool: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Za-z][a-z]*", tool)]
    return bool(words) and words[0] in SET_UP_VERBS


def destructive_words(tool: str) -> bool:
    words = set(words_in(tool))
    return bool(
        words
        & {"delete", "remove", "drop", "clear", "reset", "purge", "cancel", "move", "rename", "truncate"}
    )
