"""Whether recorded answers are still true: calls that change nothing, asked anew and compared."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from firefly_proxy.live import TIMEOUT_S, LiveError, LiveServer, live_servers
from firefly_proxy.server_config import ConfigError, Server, StdioServer, from_file, secrets_of
from firefly_proxy.tables import cell, console, table
from recorder.canonical import canonical_json, readable_json
from recorder.exchange import Exchange, Json, Record, RpcError, ToolCall, ToolRef, ToolResult
from recorder.redact import Redactor, map_text
from recorder.store import Store

Judge = Callable[[ToolCall], bool]
"""Says something of a call."""

Same = Callable[[object, object], bool]
"""Whether a recorded and a live answer say the same. Both are results or both are errors, as sent, without
`_meta` and without what only one protocol era adds to every result."""

Progress = Callable[[int, int], None]
"""Told after each call how many have been asked, of how many."""

Skipped = Literal["secret", "chain", "unreadable", "gave up"]
"""Why a call is not asked: its arguments hold a placeholder; it is a leg of a chain, which means nothing
alone; it is nested too deep; `MOST_FAILURES` calls to its server in a row got no answer."""

MOST_EXAMPLES = 3
"""For each tool."""

MOST_FAILURES = 3
"""Calls in a row without an answer after which a server is left alone: each may take the whole timeout."""

EXCERPT = 60
"""Characters to show of each text around the place where they differ."""

LEAD = 15
"""Of these, before that place."""

_PLACEHOLDER = re.compile(r"\[redacted:[0-9a-f]+\]")


class Example(Record):
    """A call whose answer is not what it was."""

    arguments: dict[str, Json]
    difference: str
    """How the two texts differ, or why no answer came."""


class ToolDrift(Record):
    """What became of one tool's recorded answers; `asked` is the sum of the three numbers after it."""

    server: str
    tool: str
    asked: int
    same: int
    drifted: int
    failed: int
    """No answer came."""
    examples: list[Example]
    """Of what drifted or failed, at most `MOST_EXAMPLES`."""


class DriftReport(Record):
    """What became of a recording's answers."""

    recording: str
    config: str
    only_read: bool
    tools: list[ToolDrift]
    """By server and name."""
    unknown_servers: list[str]
    """Recorded, and not in the configuration."""
    skipped: dict[Skipped, int]
    """Distinct calls that were not asked, by reason."""

    def as_json(self) -> dict[str, Any]:
        return self.model_dump()

    def total(self, number: Literal["asked", "same", "drifted", "failed"]) -> int:
        return sum(getattr(tool, number) for tool in self.tools)


def verify(
    store: Store,
    config: Path,
    *,
    only_read: bool,
    reads: Judge,
    changes: Judge,
    same: Same,
    progress: Progress | None = None,
    timeout_s: float = TIMEOUT_S,
) -> DriftReport:
    """Ask real servers again what they were asked in a recording, and compare the answers.

    Asked are distinct tool calls that were answered, do not change the world, and were made before their
    session's first call to the same server that does: what came later was true in another state. Of equal
    calls, the latest is compared. Nothing is written to the recording, and no secret into the report.

    Args:
        config: A client's configuration, whose servers have the names they have in the recording.
        only_read: Ask only what `reads` says is declared to be read-only.
        changes: Whether a tool may change the world; such a tool is never called.
        timeout_s: For each answer.

    Raises:
        ConfigError: the configuration cannot be used; then nothing was asked.
    """
    names = live_servers(config)
    unknown = {tool.server for tool in store.call_counts()} - set(names)
    latest: dict[str, tuple[ToolCall, Exchange]] = {}
    for call, exchange in _first_state(store, changes):
        if exchange.server in names and (reads(call) or not only_read):
            key = _key(call, exchange)
            if key not in latest or latest[key][1].id < exchange.id:
                latest[key] = (call, exchange)
    skipped: Counter[Skipped] = Counter()
    wanted: dict[str, list[tuple[ToolCall, Exchange]]] = {}
    for call, exchange in sorted(latest.values(), key=lambda asked: asked[1].id):
        if (reason := _not_askable(call, exchange)) is not None:
            skipped[reason] += 1
        else:
            wanted.setdefault(exchange.server, []).append((call, exchange))
    secrets = {name: secrets_of(_real_server(config, name), os.environ) for name in wanted}
    tallies: dict[ToolRef, _Tally] = {}
    done, total = 0, sum(map(len, wanted.values()))
    for name, asked in wanted.items():
        hide = _Hide(store, secrets[name])
        with closing(_Patient(name, config, timeout_s)) as server:
            for call, exchange in asked:
                if server.gave_up:
                    skipped["gave up"] += 1
                else:
                    _compare(call, exchange, server, same, hide, tallies.setdefault(call.tool, _Tally()))
                done += 1
                if progress is not None:
                    progress(done, total)
    return DriftReport(
        recording=str(store.path),
        config=str(config),
        only_read=only_read,
        tools=[tallies[tool].of(tool) for tool in sorted(tallies)],
        unknown_servers=sorted(unknown),
        skipped=dict(skipped),
    )


def print_drift(report: DriftReport) -> None:
    """Print the numbers of each tool, then the examples, then what was left out."""
    out = console()
    counts = ("asked", "same", "drifted", "failed")
    listing = table("server", "tool", *counts, right=counts)
    for tool in report.tools:
        numbers = (tool.asked, tool.same, tool.drifted, tool.failed)
        listing.add_row(cell(tool.server), cell(tool.tool), *map(str, numbers))
    if report.tools:
        out.print(listing)
    lines = []
    for tool in report.tools:
        for example in tool.examples:
            lines.append(f"{tool.server}/{tool.tool}({_shortened(readable_json(example.arguments), 0)})")
            lines.append(f"    {example.difference}")
    if report.unknown_servers:
        lines.append(f"not in {report.config}: {', '.join(report.unknown_servers)}")
    reasons: dict[Skipped, str] = {
        "secret": "carry a secret that the recording does not hold",
        "chain": "belong to a chain",
        "unreadable": "are nested too deep",
        "gave up": f"were left out after {MOST_FAILURES} in a row without an answer",
    }
    lines += [f"not asked: {number} that {reasons[reason]}" for reason, number in report.skipped.items()]
    totals = (f"{report.total('same')} same", f"{report.total('drifted')} drifted")
    lines.append(f"{report.total('asked')} asked: {', '.join(totals)}, {report.total('failed')} failed")
    for line in lines:
        out.print(cell(line), soft_wrap=True)


def _first_state(store: Store, changes: Judge) -> Iterator[tuple[ToolCall, Exchange]]:
    """Yield each session's answered tool calls that were over before its server's state was first changed."""
    exchanges = store.exchanges(method="tools/call")
    for _, session in groupby(exchanges, key=lambda exchange: exchange.session_id):
        calls = [(call, exchange) for exchange in session if (call := exchange.call) is not None]
        first_changes: dict[str, Exchange] = {}
        for call, exchange in calls:
            if changes(call):
                first_changes.setdefault(exchange.server, exchange)
        for call, exchange in calls:
            if isinstance(exchange.outcome, ToolResult | RpcError) and not changes(call):
                change = first_changes.get(exchange.server)
                if change is None or _was_over(exchange, change):
                    yield call, exchange


def _was_over(exchange: Exchange, change: Exchange) -> bool:
    """Whether an exchange had ended when another began; one still under way may have seen the change."""
    ended_at = exchange.started_at + (exchange.duration_s or 0.0)
    return exchange.id < change.id and ended_at <= change.started_at


def _key(call: ToolCall, exchange: Exchange) -> str:
    """Return what distinct calls differ in."""
    try:
        return canonical_json([*call.tool, call.arguments, *map(exchange.params.get, _CHAIN)])
    except RecursionError:
        return f"exchange {exchange.id}"


_CHAIN = ("inputResponses", "requestState")


def _not_askable(call: ToolCall, exchange: Exchange) -> Skipped | None:
    try:
        text = readable_json([call.tool.name, call.arguments])
    except RecursionError:
        return "unreadable"
    if _PLACEHOLDER.search(text):
        return "secret"
    result = getattr(exchange.outcome, "result", None)
    asks = isinstance(result, dict) and result.get("resultType", "complete") != "complete"
    return "chain" if asks or any(name in exchange.params for name in _CHAIN) else None


def _real_server(config: Path, name: str) -> Server:
    """Read a server's configuration.

    Raises:
        ConfigError: it cannot be used, or is our own recorder, which would record what we ask.
    """
    server = from_file(config, name, os.environ)
    if isinstance(server, StdioServer) and "record" in server.command:
        ours = {os.path.basename(part) for part in server.command[: server.command.index("record")]}
        if ours & {"firefly-proxy", "firefly_proxy.cli"}:
            raise ConfigError(
                f"{config}: server {name!r} is firefly-proxy record, which would record what is asked;"
                " name the server itself"
            )
    return server


class _Patient:
    """A live server that is started anew after it failed, a few times: calls here need no state."""

    def __init__(self, name: str, config: Path, timeout_s: float) -> None:
        self._name, self._config, self._timeout_s = name, config, timeout_s
        self._failures = 0
        self._server: LiveServer | None = None

    @property
    def gave_up(self) -> bool:
        return self._failures >= MOST_FAILURES

    def call(self, call: ToolCall) -> dict[str, Any]:
        """
        Raises:
            LiveError: no answer came.
        """
        if self._server is None:
            self._server = LiveServer(self._name, self._config, timeout_s=self._timeout_s)
        try:
            reply = self._server.ask("tools/call", {"name": call.tool.name, "arguments": call.arguments})
        except LiveError:
            self._failures += 1
            self.close()  # it may hang on this call for good
            raise
        self._failures = 0
        return reply

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


class _Hide:
    """Replaces secrets in what servers say, by the recording's placeholders where it knows them.

    Args:
        secrets: Those of today, which may not be those of the recording.
    """

    def __init__(self, store: Store, secrets: set[str]) -> None:
        self._known = store.known_secrets()
        self._recorded = store.redactor()
        self._today = Redactor(b"verify", secrets)

    def text(self, text: str) -> str:
        if self._known:
            text = self._recorded.redact_unknown(text, self._known)
        return self._recorded.redact(self._today.redact(text))

    def value(self, value: object) -> object:
        return map_text(value, self.text)


@dataclass(frozen=True, slots=True)
class _Answer:
    kind: Literal["result", "tool error", "error"]
    value: object

    @property
    def text(self) -> str:
        """What a person compares: the text of a result, the message of an error; else all of it."""
        match self.value:
            case {"message": str(message)} if self.kind == "error":
                return message
            case {"content": [_, *_] as blocks} if all(map(_is_text, blocks)):
                return "\n".join(block["text"] for block in blocks)
        return canonical_json(self.value)


def _is_text(block: object) -> bool:
    return isinstance(block, dict) and isinstance(block.get("text"), str)


def _recorded_answer(exchange: Exchange) -> _Answer:
    match exchange.outcome:
        case RpcError(error=error):
            return _Answer("error", error)
        case ToolResult(result=result):
            return _answer_with(result)
    raise ValueError(f"exchange {exchange.id} holds no answer to a tool call")


def _answer_with(result: object) -> _Answer:
    """Leave out of a result what depends on the protocol's era, or says nothing.

    A recorded client may have spoken another era with the same server than we do.
    """
    if not isinstance(result, dict):
        return _Answer("result", result)
    dropped = {"_meta", "isError"}
    if result.get("resultType") == "complete":
        dropped |= {"resultType", "ttlMs", "cacheScope"}
    plain = {name: value for name, value in result.items() if name not in dropped}
    return _Answer("tool error" if result.get("isError") is True else "result", plain)


class _Tally:
    """Counts one tool's answers."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: list[Example] = []

    def add(
        self, verdict: Literal["same", "drifted", "failed"], call: ToolCall, difference: str = ""
    ) -> None:
        self.counts[verdict] += 1
        if difference and len(self.examples) < MOST_EXAMPLES:
            self.examples.append(Example(arguments=call.arguments, difference=difference))

    def of(self, tool: ToolRef) -> ToolDrift:
        return ToolDrift(
            server=tool.server,
            tool=tool.name,
            asked=self.counts.total(),
            same=self.counts["same"],
            drifted=self.counts["drifted"],
            failed=self.counts["failed"],
            examples=self.examples,
        )


def _compare(
    call: ToolCall, exchange: Exchange, server: _Patient, same: Same, hide: _Hide, tally: _Tally
) -> None:
    """Ask one call again and count what became of its answer."""
    recorded = _recorded_answer(exchange)
    try:
        reply = server.call(call)
    except LiveError as error:
        tally.add("failed", call, hide.text(error.reason))
        return
    live = _answer_with(reply["result"]) if "result" in reply else _Answer("error", reply.get("error"))

    def alike() -> bool:
        return recorded.kind == live.kind and same(recorded.value, live.value)

    try:
        if not alike():
            # Only now, since looking for secrets takes time: a placeholder was recorded in the place of each.
            live = _Answer(live.kind, hide.value(live.value))
        if alike():
            tally.add("same", call)
        else:
            tally.add("drifted", call, _difference(recorded, live))
    except RecursionError:
        tally.add("failed", call, "the answers are nested too deep to be compared")


def _difference(recorded: _Answer, live: _Answer) -> str:
    """Show both texts around the place where they begin to differ."""
    before, now = recorded.text, live.text
    if before == now and recorded.kind == live.kind:
        before, now = canonical_json(recorded.value), canonical_json(live.value)
    pairs = enumerate(zip(before, now, strict=False))
    alike = next((at for at, (was, is_now) in pairs if was != is_now), min(len(before), len(now)))
    kinds = ("", "") if recorded.kind == live.kind else (f"{recorded.kind} ", f"{live.kind} ")
    was, is_now = (readable_json(_shortened(text, alike)) for text in (before, now))
    return f"recorded {kinds[0]}{was}, now {kinds[1]}{is_now}"


def _shortened(text: str, at: int) -> str:
    """Return `EXCERPT` characters of `text` around `at`, with an ellipsis for what is left out."""
    start = max(0, min(at - LEAD, len(text) - EXCERPT))
    end = start + EXCERPT
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
