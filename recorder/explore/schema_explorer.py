"""An explorer without a language model: it walks with what schemas, outputs and errors tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from recorder.caller import ToolCaller
from recorder.canonical import canonical_json
from recorder.exchange import Json, ToolCall, ToolRef
from recorder.explore.draw import Drawer, Seeds
from recorder.explore.effective import Verdict
from recorder.explore.experience import ServerExperience, ToolExperience, destructive_words, is_set_up
from recorder.explore.outputs import leaves
from recorder.explore.parameters import properties_of, resolved, type_of
from recorder.explore.roots import Roots, joined
from recorder.tool import ToolSpec

PATIENCE = 4
"""Calls in vain of a tool that never worked before the walk goes on to the next; half for one that did."""

MOST_REPAIRS = 3
"""Set-up calls that are tried for one failing call."""

MOST_REFUSED = 12
"""Draws for one call that may be refused before it is given up."""

Permits = Callable[[ToolSpec, Mapping[str, Json]], bool]
"""Whether a call may be made."""


class SchemaExplorer:
    """Calls tools in the order given, each until it works or patience ends, then varies what worked.

    Args:
        seeds: The user's values.
        roots: Server → the folders and files it was told of.
        permits: Asked before each call.
    """

    def __init__(self, seeds: Seeds, roots: Mapping[str, Roots], permits: Permits) -> None:
        self._seeds, self._roots, self._permits = seeds, roots, permits

    def walk(
        self,
        tools: Sequence[ToolRef],
        known: Mapping[str, ServerExperience],
        call: ToolCaller,
        *,
        calls: int,
        rng: Random,
        number: int,
    ) -> None:
        """Walk along `tools`, producers first, with at most `calls` calls.

        Args:
            known: Experience by server, added to on the way; it must hold the servers of `tools`.
            call: May raise to end the walk, which passes through.
            number: The walk's, for telling what was learned in it.
        """
        _Walk(self._seeds, self._roots, self._permits, known, call, calls, rng, number).along(tools)


class _Walk:
    """One walk, with what it has left."""

    def __init__(
        self,
        seeds: Seeds,
        roots: Mapping[str, Roots],
        permits: Permits,
        known: Mapping[str, ServerExperience],
        call: ToolCaller,
        calls: int,
        rng: Random,
        number: int,
    ) -> None:
        self._permits, self._known, self._call_tool, self._left = permits, known, call, calls
        self._rng, self._number = rng, number
        self._repairs: dict[ToolRef, int] = {}
        self._drawers = {
            name: Drawer(
                server,
                [other for other in known.values() if other is not server],
                roots.get(name, Roots()),
                joined([other for of, other in roots.items() if of != name]),
                seeds,
                rng,
                number,
            )
            for name, server in known.items()
        }

    def along(self, tools: Sequence[ToolRef]) -> None:
        for tool in tools:
            if self._left <= 0:
                return
            self._open(tool)
            self._visit(tool)
        # What is left goes to the tools that work, those called least first.
        open_to = [tool for tool in tools if not self._experience(tool).hopeless]
        while self._left > 0 and open_to:
            tool = min(open_to, key=lambda ref: (self._experience(ref).calls, ref))
            if not self._visit(tool, patience=1 + bool(not self._experience(tool).effective)):
                open_to.remove(tool)

    def _visit(self, ref: ToolRef, patience: int | None = None, *, deep: bool = True) -> bool:
        """Call a tool until it tells something; return whether it did.

        Args:
            deep: Whether set-up calls may be made for it.
        """
        tool = self._experience(ref)
        for _ in range(patience or (PATIENCE // 2 if tool.effective else PATIENCE)):
            if self._left <= 0:
                return False
            arguments = self._draw(ref, tool)
            if arguments is None:
                return False
            judged = self._make(ref, arguments)
            if judged == "effective" or (deep and self._repair(ref, tool, arguments)):
                return True
        return False

    def _draw(self, ref: ToolRef, tool: ToolExperience) -> dict[str, Json] | None:
        for _ in range(MOST_REFUSED):
            arguments = self._drawers[ref.server].arguments(tool)
            if arguments is None or self._permits(tool.spec, arguments):
                return arguments
        return None

    def _open(self, ref: ToolRef) -> None:
        """Make the set-up calls that the tool is known to need, once a walk."""
        server = self._known[ref.server]
        for need in self._experience(ref).needs:
            done = any(
                made.tool.name == need["tool"] and judged == "effective"
                for made, judged in server.done_in_walk(self._number)
            )
            spec = server.tools[need["tool"]].spec if need["tool"] in server.tools else None
            if not done and self._left > 0 and spec is not None and self._permits(spec, need["arguments"]):
                self._make(ToolRef(ref.server, need["tool"]), need["arguments"])

    def _repair(self, ref: ToolRef, tool: ToolExperience, arguments: dict[str, Json]) -> bool:
        """Try whether a call that failed works after a set-up call; return whether it did."""
        server = self._known[ref.server]
        done = {made.tool.name for made, judged in server.done_in_walk(self._number) if judged == "effective"}
        worked_before = bool(tool.effective) and ref.name not in done
        for call in self._lost(server, tool, arguments):
            self._repairs[ref] = self._repairs.get(ref, 0) + 1
            if self._repairs[ref] > MOST_REPAIRS or self._left <= 1:
                return False
            if self._make(call.tool, call.arguments) == "effective":
                if self._left > 0 and self._make(ref, arguments) == "effective":
                    return True
                if self._visit(ref, patience=1, deep=False):  # it may have another id now
                    return True
        if not (tool.asks_for or tool.asks_set_up or worked_before):
            return False
        wanted = [need["tool"] for need in tool.needs] + tool.asks_for
        if tool.asks_set_up or worked_before:
            wanted += [name for name in server.tools if is_set_up(name) and not destructive_words(name)]
        for name in dict.fromkeys(wanted):
            if self._repairs.get(ref, 0) >= MOST_REPAIRS or self._left <= 1:
                return False
            if name in done or name == ref.name or name not in server.tools:
                continue
            self._repairs[ref] = self._repairs.get(ref, 0) + 1
            if self._set_up(ToolRef(ref.server, name)) and self._make(ref, arguments) == "effective":
                return True
        return False

    def _lost(
        self, server: ServerExperience, tool: ToolExperience, arguments: dict[str, Json]
    ) -> list[ToolCall]:
        """Return the calls that once made what these arguments name, if the error speaks of it and it may be
        gone."""
        made = server.done_in_walk(self._number)
        found: list[ToolCall] = []
        for _, value in leaves(arguments):
            call = server.introduced.get(canonical_json(value))
            if (
                call is None
                or call in found
                or str(value) not in tool.said
                or call.tool.name == tool.spec.name
            ):
                continue
            at = max(
                (i for i, (done, judged) in enumerate(made) if done == call and judged == "effective"),
                default=None,
            )
            gone = at is None or any(destructive_words(done.tool.name) for done, _ in made[at:])
            if gone and self._permits(server.tools[call.tool.name].spec, call.arguments):
                found.append(call)
        return found

    def _set_up(self, ref: ToolRef) -> bool:
        tool = self._experience(ref)
        if tool.worked and self._permits(tool.spec, tool.worked[-1]):
            return self._make(ref, tool.worked[-1]) == "effective"
        return self._visit(ref, patience=2, deep=False)

    def _make(self, ref: ToolRef, arguments: dict[str, Json]) -> Verdict:
        self._left -= 1
        call = ToolCall(tool=ref, arguments=arguments)
        return self._known[ref.server].observe(call, self._call_tool(call), self._number)

    def _experience(self, ref: ToolRef) -> ToolExperience:
        return self._known[ref.server].tools[ref.name]


def survey_order(server: ServerExperience, allowed: Sequence[str]) -> list[ToolRef]:
    """Order a server's tools for the first look at it.

    Tools that need nothing come first, then set-up, then those with the fewest required arguments that only a
    lucky guess would find; what deletes comes last.
    """

    def unmet(name: str) -> int:
        tool = server.tools[name]
        properties = tool.parameters
        schemas = (resolved(properties.get(needed), properties) for needed in tool.required_parameters())
        return sum(
            type_of(schema) in ("string", "integer", None)
            and not {"enum", "const", "default", "examples"} & set(schema)
            for schema in schemas
        ) + sum(bool(properties_of(resolved(schema, properties))) for schema in properties.values())

    def key(name: str) -> tuple[bool, bool, bool, int]:
        required = server.tools[name].required_parameters()
        return destructive_words(name), bool(required), not is_set_up(name), unmet(name)

    return [ToolRef(server.name, name) for name in sorted(allowed, key=key)]
