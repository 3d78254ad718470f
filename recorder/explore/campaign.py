"""A campaign: many walks over many servers, within limits, that can be interrupted and taken up again.

It goes in rounds. In a round no two walks touch the same server, each walk works on what was known when the
round began, and what the walks learned is taken in afterwards, in their order. So the calls depend on the
seed and on what the servers answer, and not on which walk was quicker; and a campaign that is taken up knows
what it knew, by reading its own sessions back.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, Protocol

from recorder.caller import ToolCaller
from recorder.canonical import content_hash
from recorder.claude_api import BudgetError
from recorder.errors import FireflyError
from recorder.exchange import NoReply, OtherResult, RpcError, ToolCall, ToolRef, ToolResult
from recorder.explore.effective import Verdict, verdict
from recorder.explore.experience import ServerExperience, ToolExperience
from recorder.explore.graph import SubDag, ToolGraph
from recorder.explore.infer import build_graph
from recorder.explore.log import CampaignLog, FinishedWalk
from recorder.explore.observed import observed_edges
from recorder.explore.outputs import output_of
from recorder.explore.permission import Permission, effect_of
from recorder.explore.roots import Roots
from recorder.explore.sample import Sampler, restricted
from recorder.explore.schema_explorer import survey_order
from recorder.explore.shapes import ShapeLog, schema_edges
from recorder.redact import map_text
from recorder.store import Store
from recorder.tool import ToolSpec

CALLS_PER_WALK = 24
"""Enough to vary each of 2 to 8 tools a few times, few enough for many sub-DAGs."""

SURVEY_CALLS = 3
"""Calls for each tool in a server's first walk."""

REPEATS_OF_A_TOOL = 6
"""Repeated calls after which a tool is known to answer alike, or not to; others are repeated first."""

REPEAT_EVERY = 8
"""One call in eight to a server is one that was made before, in a fresh session: equal calls are evidence
of what can be replayed."""

FEWEST_BEFORE = 24
"""Calls to a server before any is made again."""

MOST_FAILURES = 3
"""Walks in a row in which a server gave no answer after which it is left alone."""

STUCK_ROUNDS = 3
"""Rounds without a call after which there is nothing left to do."""

Ending = Literal["calls", "sub-DAGs", "minutes", "budget", "exhausted", "interrupted"]


class Upstream(Protocol):
    """One server for one walk, in a session of its own."""

    def tools(self) -> list[dict[str, Any]]:
        """List the tools.

        Raises:
            FireflyError: the server does not start, or gives no list.
        """

    def __call__(self, call: ToolCall, /) -> ToolResult | RpcError | NoReply: ...

    def close(self) -> None: ...


Open = Callable[[str, str], Upstream]
"""Server and run → the server, started with its first request."""


class Explorer(Protocol):
    """Walks one sub-DAG. `WalkOver`, raised by `call`, passes through it."""

    def __call__(
        self, dag: SubDag, known: Mapping[str, ServerExperience], call: ToolCaller, *, calls: int,
        rng: Random, number: int, run: str,
    ) -> None: ...  # fmt: skip


class WalkOver(Exception):
    """No more calls may be made in this walk."""


class Interrupted(Exception):
    """The user wants the campaign to stop."""


@dataclass(frozen=True, slots=True)
class Limits:
    calls: int | None = None
    """Of the whole campaign."""
    calls_per_server: int | None = None
    sub_dags: int | None = None
    minutes: float | None = None
    calls_per_walk: int = CALLS_PER_WALK


@dataclass(slots=True)
class Tally:
    """What was done to one server."""

    verdicts: dict[str, Counter[Verdict]] = field(default_factory=dict)
    """By tool."""
    errors: dict[str, str] = field(default_factory=dict)
    """By tool, the last."""
    seen: set[str] = field(default_factory=set)
    calls: int = 0
    effective: int = 0
    distinct: int = 0
    restarts: int = 0
    """Sessions in which it gave no answer to some call."""
    failures: int = 0
    """Walks in a row without any answer."""
    problem: str = ""

    @property
    def gone(self) -> bool:
        return self.failures >= MOST_FAILURES


@dataclass(slots=True)
class Walk:
    number: int
    kind: Literal["survey", "sub-dag", "repeat"]
    dag: SubDag
    calls: int
    repeats: list[ToolCall] = field(default_factory=list)
    run: str = ""
    made: list[tuple[ToolCall, ToolResult | RpcError | NoReply]] = field(default_factory=list)
    tools: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    ending: str = "done"

    def plan(self) -> dict[str, Any]:
        edges = [[*edge.producer, edge.output, *edge.consumer, edge.parameter] for edge in self.dag.edges]
        return {"kind": self.kind, "tools": [list(ref) for ref in self.dag.tools], "edges": edges}


class Campaign:
    """
    Args:
        servers: In the order of the configuration.
        open_server: Makes the upstreams.
        explorer: Walks sub-DAGs.
        surveyor: Walks a server's tools for the first time; an explorer that needs no graph.
        progress: Told of each call, from several threads.
    """

    def __init__(
        self,
        servers: Sequence[str],
        open_server: Open,
        explorer: Explorer,
        surveyor: Explorer,
        log: CampaignLog,
        *,
        permission: Permission,
        roots: Mapping[str, Roots],
        limits: Limits,
        seed: int,
        concurrency: int = 4,
        progress: Callable[[Campaign], None] | None = None,
    ) -> None:
        self.servers = list(servers)
        self._open, self._explorer, self._surveyor, self._log = open_server, explorer, surveyor, log
        self._permission, self._roots, self.limits, self._seed = permission, roots, limits, seed
        self._concurrency, self._progress = concurrency, progress
        self.known: dict[str, ServerExperience] = {}
        self.tallies: dict[str, Tally] = {name: Tally() for name in servers}
        self.graph = ToolGraph(nodes=(), edges=())
        self.walks: list[Walk] = []
        self.walked: Counter[tuple[ToolRef, ToolRef]] = Counter()
        self.started = time.monotonic()
        self.stop = threading.Event()
        self.under_way = 0
        """Calls of walks that have not ended."""
        self._shapes = ShapeLog()
        self._graph_calls = -1
        self._lock = threading.Lock()
        self._in_vain: Mapping[str, int] = {}
        """Server → calls of walks that were begun and not finished, before the campaign was taken up."""

    @property
    def calls(self) -> int:
        return sum(tally.calls for tally in self.tallies.values()) + sum(self._in_vain.values())

    def run(self) -> Ending:
        """Walk until a limit is reached or nothing is left to do; the log is told of each walk's end."""
        for finished in self._log.finished():
            self._take_in(self._read_back(finished))
        self._in_vain = self._log.calls_in_vain()
        ending = self._rounds()
        self._refresh_graph(force=True)
        self._log.end(ending)
        return ending

    def _rounds(self) -> Ending:
        stuck = 0
        while True:
            ending = self._limit_reached()
            if ending is not None:
                return ending
            walks = self._next_round()
            if not walks or stuck >= STUCK_ROUNDS:
                return "exhausted" if any(map(self.left, self.servers)) else "calls"
            before = self.calls
            try:
                self._walk_all(walks)
            except (Interrupted, KeyboardInterrupt):
                return "interrupted"
            if self._log_budget_spent():
                return "budget"
            surveyed = any(walk.kind == "survey" for walk in walks)
            stuck = stuck + 1 if self.calls == before and not surveyed else 0

    def _log_budget_spent(self) -> bool:
        return any(walk.ending == "budget" for walk in self.walks[-len(self.servers) :])

    def _limit_reached(self) -> Ending | None:
        limits = self.limits
        if self.stop.is_set():
            return "interrupted"
        if limits.calls is not None and self.calls >= limits.calls:
            return "calls"
        if limits.minutes is not None and time.monotonic() - self.started >= 60 * limits.minutes:
            return "minutes"
        walked = sum(walk.kind == "sub-dag" for walk in self.walks)
        if limits.sub_dags is not None and walked >= limits.sub_dags:
            return "sub-DAGs"
        return None

    def left(self, server: str) -> int:
        """Return how many calls a server may still get."""
        most = self.limits.calls_per_server
        made = self.tallies[server].calls + self._in_vain.get(server, 0)
        left = most - made if most is not None else 10**9
        return 0 if self.tallies[server].gone else max(0, left)

    def _next_round(self) -> list[Walk]:
        """Plan walks that touch no server twice; which ones depends only on the seed and what is known."""
        number = len(self.walks)
        unseen = [name for name in self.servers if name not in self.known and self.left(name)]
        if unseen:
            plans = [Walk(number + i, "survey", SubDag(tools=(), edges=()), 0) for i, _ in enumerate(unseen)]
            # So that all of them can be looked at in one round: each gets an equal share.
            most = self.limits.calls
            share = 10**9 if most is None else max(1, (most - self.calls) // len(unseen))
            for walk, name in zip(plans, unseen, strict=True):
                walk.tools[name] = []
                walk.calls = min(self.left(name), share)
            return self._within_budget(plans)
        self._refresh_graph()
        usable = self._usable()
        if not usable:
            return []
        specs = [self._tool(ref).spec for ref in usable]
        sampler = Sampler(restricted(self.graph, usable), specs)
        explored = {ref: self.known[ref.server].tools[ref.name].calls for ref in usable}
        rng = Random(f"{self._seed} round {number}")
        busy: set[str] = set()
        round_: list[Walk] = []
        for _ in range(3 * len(self.servers)):
            at = number + len(round_)
            repeat = self._repeat(at, busy)
            if repeat is not None:
                walk = repeat
            else:
                dag = sampler.sample(rng, explored, self.walked)
                if busy & set(dag.servers):
                    continue
                most = min(self.left(server) for server in dag.servers)
                walk = Walk(at, "sub-dag", dag, min(self.limits.calls_per_walk, most))
                explored = {**explored, **{ref: explored[ref] + 1 for ref in dag.tools}}
            busy |= set(walk.dag.servers)
            round_.append(walk)
            if len(busy) == len({ref.server for ref in usable}):
                break
        return self._within_budget(round_)

    def _within_budget(self, walks: list[Walk]) -> list[Walk]:
        """Share what is left of the campaign's calls and sub-DAGs out among the walks, in order."""
        if self.limits.calls is not None:
            left = self.limits.calls - self.calls
            for walk in walks:
                walk.calls = min(walk.calls, left)
                left -= walk.calls
        if self.limits.sub_dags is not None:
            done = sum(walk.kind == "sub-dag" for walk in self.walks)
            kept = []
            for walk in walks:
                if walk.kind == "sub-dag" and done >= self.limits.sub_dags:
                    break  # and none after it, as numbers have no gaps
                kept.append(walk)
                done += walk.kind == "sub-dag"
            walks = kept
        return [walk for walk in walks if walk.calls > 0]

    def _usable(self) -> list[ToolRef]:
        return [
            ToolRef(name, tool.spec.name)
            for name, server in sorted(self.known.items())
            if self.left(name)
            for tool in server.tools.values()
            if self._permission.permits_tool(tool.spec) and not tool.hopeless and not tool.spent
        ]

    def _repeat(self, number: int, busy: set[str]) -> Walk | None:
        """Return a walk that does again what an earlier one did, on a server of which too little was
        repeated.

        Of its reads only those are made that told something and were not repeated yet, first of all of
        tools that never were; of what changes the world, all, so that the reads meet the same state.
        """
        repeated = [call for walk in self.walks if walk.kind == "repeat" for call, _ in walk.made]
        again, done = Counter(call.tool for call in repeated), set(map(str, repeated))
        of_server = Counter(call.tool.server for call in repeated)
        best: tuple[int, list[ToolCall], Walk] | None = None
        for walk in self.walks:
            servers = {call.tool.server for call, _ in walk.made}
            if walk.kind == "repeat" or not servers or servers & busy or not all(map(self.left, servers)):
                continue
            made = {name: self.tallies[name].calls for name in servers}
            if any(
                made[name] < FEWEST_BEFORE or of_server[name] * REPEAT_EVERY >= made[name] for name in servers
            ):
                continue
            most = min(self.limits.calls_per_walk, sum(made.values()) // 4, *map(self.left, servers))
            calls, new = self._again(walk, again, done, most)
            if new and (best is None or new > best[0]):
                best = new, calls, walk
        if best is None:
            return None
        _, calls, walk = best
        return Walk(number, "repeat", walk.dag, len(calls), calls)

    def _again(
        self, walk: Walk, again: Counter[ToolRef], done: set[str], most: int
    ) -> tuple[list[ToolCall], int]:
        """Return what of a walk is to be made again, at most so much, and how much is gained by it."""
        reads: dict[ToolRef, list[int]] = {}
        changes = []
        for place, (call, outcome) in enumerate(walk.made):
            if effect_of(self._tool(call.tool).spec, call.arguments) != "read":
                changes.append(place)
            elif str(call) not in done and verdict(call.arguments, outcome) == "effective":
                reads.setdefault(call.tool, []).append(place)
        # Tool by tool one call, the least repeated tools first, then another one of each.
        order = sorted(
            (again[tool] + turn, tool, place)
            for tool, places in reads.items()
            for turn, place in enumerate(places)
        )
        chosen = [place for turn, _, place in order if turn < REPEATS_OF_A_TOOL][:most]
        last = max(chosen, default=-1)
        kept = sorted([*chosen, *(place for place in changes if place < last)])
        gained = sum(REPEATS_OF_A_TOOL - turn for turn, _, place in order if place in set(chosen))
        if len(kept) > most:  # too much had to be changed before
            return [], 0
        return [walk.made[place][0] for place in kept], gained

    def _walk_all(self, walks: list[Walk]) -> None:
        """Walk them at once, then take in what each learned, in order."""
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="walk") as pool:
            futures = [pool.submit(self._walk, walk) for walk in walks]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self.stop.set()
                for future in futures:
                    future.cancel()
                raise
        if self.stop.is_set():
            for walk in walks:  # for the report alone: as they are not finished, they will be walked again
                self._take_in(walk)
            raise Interrupted
        for walk in walks:
            self._log.finish(FinishedWalk(walk.number, walk.run, walk.plan(), walk.ending))
            self._take_in(walk)
        self.under_way = 0

    def _walk(self, walk: Walk) -> None:
        walk.run = f"{self._log.id}/{walk.number}.{self._log.attempts(walk.number) + 1}"
        rng = Random(f"{self._seed} walk {walk.number}")
        own = set(walk.dag.servers) | set(walk.tools)
        known = {
            name: copy.deepcopy(server) if name in own else server for name, server in self.known.items()
        }
        with ExitStack() as stack:
            upstreams: dict[str, Upstream] = {}

            def upstream(name: str) -> Upstream:
                if name not in upstreams:
                    upstreams[name] = self._open(name, walk.run)
                    stack.callback(upstreams[name].close)
                return upstreams[name]

            def call(wanted: ToolCall) -> ToolResult | RpcError | NoReply:
                with self._lock:
                    if self.stop.is_set():
                        raise WalkOver
                    if len(walk.made) >= walk.calls or wanted.tool.server in walk.problems:
                        raise WalkOver
                    minutes = self.limits.minutes
                    if minutes is not None and time.monotonic() - self.started >= 60 * minutes:
                        raise WalkOver
                outcome = self._redacted(upstream(wanted.tool.server)(wanted))
                with self._lock:
                    walk.made.append((wanted, outcome))
                    self.under_way += 1
                if self._progress is not None:
                    self._progress(self)
                return outcome

            try:
                if walk.kind == "survey":
                    self._survey(walk, known, upstream, call, rng)
                elif walk.kind == "repeat":
                    for wanted in walk.repeats:
                        call(wanted)
                else:
                    self._explorer(
                        walk.dag, known, call, calls=walk.calls, rng=rng, number=walk.number, run=walk.run
                    )
            except WalkOver:
                pass
            except FireflyError as error:
                walk.ending = "budget" if isinstance(error, BudgetError) else "failed"
                for name in own:
                    walk.problems.setdefault(name, str(error))
                if walk.kind == "sub-dag" and walk.ending == "failed" and not walk.made:
                    raise

    def _survey(
        self,
        walk: Walk,
        known: dict[str, ServerExperience],
        upstream: Callable[[str], Upstream],
        call: ToolCaller,
        rng: Random,
    ) -> None:
        (name,) = walk.tools
        redact = self._log.redactor.redact
        entries: list[Any] = [map_text(entry, redact) for entry in upstream(name).tools()]
        walk.tools[name] = entries
        server = ServerExperience(name)
        server.learn_tools(specs_of(name, entries))
        known[name] = server
        allowed = [tool for tool, at in server.tools.items() if self._permission.permits_tool(at.spec)]
        order = survey_order(server, allowed)
        walk.dag = SubDag(tools=tuple(order), edges=())
        walk.calls = min(walk.calls, SURVEY_CALLS * len(order) + 6)
        if order:
            self._surveyor(walk.dag, known, call, calls=walk.calls, rng=rng, number=walk.number, run=walk.run)

    def _take_in(self, walk: Walk) -> None:
        """Learn what a walk did, as if it had been watched."""
        self.walks.append(walk)
        for name, entries in walk.tools.items():
            server = self.known.setdefault(name, ServerExperience(name))
            server.learn_tools(specs_of(name, entries))
            tally = self.tallies[name]
            if name in walk.problems:
                tally.problem, tally.failures = walk.problems[name], MOST_FAILURES
        answered: Counter[str] = Counter()
        lost: Counter[str] = Counter()
        before = {ref: len(self._tool(ref).tried) for ref in walk.dag.tools}
        for call, outcome in walk.made:
            judged = self.known[call.tool.server].observe(call, outcome, walk.number)
            self._count(call, outcome, judged)
            (lost if isinstance(outcome, NoReply) else answered)[call.tool.server] += 1
        for name in {*answered, *lost}:
            tally = self.tallies[name]
            tally.restarts += bool(lost[name])
            tally.failures = 0 if answered[name] else tally.failures + 1
        if walk.kind == "sub-dag":
            self.walked.update({(edge.producer, edge.consumer) for edge in walk.dag.edges})
            for ref in walk.dag.tools:
                tool = self._tool(ref)
                tool.idle = 0 if len(tool.tried) > before[ref] else tool.idle + 1

    def _tool(self, ref: ToolRef) -> ToolExperience:
        return self.known[ref.server].tools[ref.name]

    def _count(self, call: ToolCall, outcome: ToolResult | RpcError | NoReply, judged: Verdict) -> None:
        tally = self.tallies[call.tool.server]
        tally.calls += 1
        tally.verdicts.setdefault(call.tool.name, Counter())[judged] += 1
        key = content_hash([call.tool.name, call.arguments])
        if key not in tally.seen:
            tally.seen.add(key)
            tally.distinct += 1
            tally.effective += judged == "effective"
        if judged == "effective" and isinstance(outcome, ToolResult):
            self._shapes.add(call.tool, output_of(outcome.result))
        elif judged != "effective":
            tally.errors[call.tool.name] = self._tool(call.tool).said

    def _refresh_graph(self, *, force: bool = False) -> None:
        """Infer the graph anew when the calls have grown by half: often in the beginning, seldom later."""
        if not force and self._graph_calls >= 0 and self.calls < 1.5 * self._graph_calls:
            return
        self._graph_calls = self.calls
        specs = [tool.spec for _, server in sorted(self.known.items()) for tool in server.tools.values()]
        seen = observed_edges(Store(self._log.path)) if self.calls else []
        refs = {spec.ref for spec in specs}
        seen = [edge for edge in seen if edge.producer in refs and edge.consumer in refs]
        self.graph = build_graph(specs, observed=seen, shapes=schema_edges(specs, self._shapes.shapes()))

    def _redacted(self, outcome: ToolResult | RpcError | NoReply) -> ToolResult | RpcError | NoReply:
        """Take secrets out of an answer, so that no explorer uses them, or sends them to a model."""
        redact = self._log.redactor.redact
        match outcome:
            case ToolResult(result=result):
                return ToolResult(result=map_text(result, redact))
            case RpcError(error=error):
                return RpcError(error=map_text(error, redact))
        return outcome

    def _read_back(self, finished: FinishedWalk) -> Walk:
        """Make a walk of what was recorded of it."""
        plan = finished.plan
        dag = SubDag(tools=tuple(ToolRef(*ref) for ref in plan["tools"]), edges=())
        walk = Walk(finished.number, plan["kind"], dag, 0, run=finished.run, ending=finished.ending)
        by_pair = {(tuple(edge[0:2]), tuple(edge[3:5])) for edge in plan["edges"]}
        self.walked.update((ToolRef(*a), ToolRef(*b)) for a, b in by_pair if plan["kind"] == "sub-dag")
        store = Store(self._log.path)
        for session_id in store.sessions_of_run(finished.run):
            for exchange in store.exchanges(session_id=session_id):
                if exchange.method == "tools/list" and isinstance(exchange.outcome, OtherResult):
                    if plan["kind"] == "survey" and isinstance(exchange.outcome.result, dict):
                        walk.tools.setdefault(exchange.server, []).extend(
                            exchange.outcome.result.get("tools") or []
                        )
                elif exchange.call is not None and not isinstance(exchange.outcome, OtherResult):
                    walk.made.append((exchange.call, exchange.outcome))
        return walk


def specs_of(server: str, entries: Sequence[dict[str, Any]]) -> list[ToolSpec]:
    """Return tools as listed, those without a name left out."""
    return [
        ToolSpec(server=server, name=entry["name"], version=content_hash(entry), entry=entry)
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    ]
