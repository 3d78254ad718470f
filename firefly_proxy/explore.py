"""`firefly explore`: a campaign over the servers of a client's configuration."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from firefly_proxy.live import MOST_PAGES, TIMEOUT_S, LiveError, LiveServer, live_servers
from firefly_proxy.sandbox import work_paths
from firefly_proxy.server_config import ConfigError, Server, StdioServer, from_file, secrets_of
from recorder.caller import ToolCaller
from recorder.canonical import content_hash
from recorder.errors import FireflyError
from recorder.exchange import NoReply, RpcError, ToolCall, ToolRef, ToolResult
from recorder.explore.campaign import Campaign, Explorer, Limits, Upstream, WalkOver
from recorder.explore.claude import ClaudeExplorer
from recorder.explore.coverage import CoverageReport, coverage
from recorder.explore.experience import ServerExperience
from recorder.explore.graph import SubDag, ToolGraph
from recorder.explore.log import CampaignLog
from recorder.explore.permission import Permission
from recorder.explore.roots import Roots, look
from recorder.explore.schema_explorer import SchemaExplorer
from recorder.explore.seeds import Seeds
from recorder.redact import Redactor

MOST_SILENT = 3
"""Calls in a row without an answer, each of another start of the server, after which a walk ends."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """What the user asked for; `settings` of it has to be the same when a campaign is taken up."""

    config: Path
    db: Path
    servers: tuple[str, ...]
    explorer: str = "schema"
    limits: Limits = field(default_factory=Limits)
    permission: Permission = field(default_factory=Permission)
    seeds: Seeds = field(default_factory=Seeds)
    seed: int = 0
    group: str | None = None
    concurrency: int = 4
    timeout_s: float = 30.0
    rate: float | None = None
    """Calls a second to one server."""
    sandbox: bool = False
    work: tuple[Path, ...] = ()
    redact: tuple[str, ...] = ()
    model: str | None = None
    base_url: str | None = None
    budget_usd: float | None = None

    def settings(self, start: str) -> dict[str, Any]:
        return {
            "servers": list(self.servers),
            "start": start,
            "explorer": self.explorer,
            "model": self.model,
            "seed": self.seed,
            "group": self.group,
            "writes": self.permission.writes,
            "allow": list(self.permission.allow),
            "deny": list(self.permission.deny),
            "sandbox": self.sandbox,
            "work": [str(path) for path in self.work],
            "seeds": content_hash(repr(self.seeds)),
        }


@dataclass(frozen=True, slots=True)
class Explored:
    report: CoverageReport
    graph: ToolGraph


def explore(
    wanted: Exploration, *, resume: bool = False, progress: Callable[[Campaign, float], None] | None = None
) -> Explored:
    """Explore until a limit is reached, nothing is left to do, or the user interrupts.

    Args:
        resume: Take up the last campaign with the same settings.
        progress: Told of each call, with what was spent in US dollars.

    Raises:
        FireflyError: a server's configuration cannot be used, there is no campaign to take up, or the model
            cannot be asked.
    """
    servers = {name: from_file(wanted.config, name, os.environ) for name in wanted.servers}
    secrets = {
        secret for server in servers.values() for secret in secrets_of(server, os.environ, wanted.redact)
    }
    start = _start_state(servers, secrets)
    roots = roots_of(servers, wanted.work)
    within = Roots(folders=tuple(map(str, _work(servers, wanted.work))))
    began = time.monotonic()
    if resume and not wanted.db.exists():
        raise FireflyError(f"{wanted.db} does not exist, so there is no campaign to resume")
    log = CampaignLog(wanted.db, secrets)
    try:
        settings = wanted.settings(start)
        if not resume:
            log.start(settings)
        elif not log.resume(settings):
            raise FireflyError(_cannot_resume(wanted.db, settings, log.last_settings()))

        def permits(spec: Any, arguments: Mapping[str, Any]) -> bool:
            return wanted.permission.permits(spec, arguments, within)

        schema = SchemaExplorer(wanted.seeds, roots, permits)

        def survey(
            dag: SubDag, known: Mapping[str, ServerExperience], call: ToolCaller, *, calls: int, rng: Random,
            number: int, run: str,
        ) -> None:  # fmt: skip
            schema.walk(dag.tools, known, call, calls=calls, rng=rng, number=number)

        claude = _claude(wanted, log) if wanted.explorer == "claude" else None
        walker: Explorer = _with_claude(claude, log, permits) if claude is not None else survey
        upstreams = _Upstreams(wanted, wanted.group or start, servers)
        campaign = Campaign(
            wanted.servers,
            upstreams.open,
            walker,
            survey,
            log,
            permission=wanted.permission,
            roots=roots,
            limits=wanted.limits,
            seed=wanted.seed,
            concurrency=wanted.concurrency,
            progress=(lambda at: progress(at, claude.spent_usd if claude else 0.0)) if progress else None,
        )
        with _interruptible(campaign):
            ending = campaign.run()
        report = coverage(
            campaign,
            wanted.permission,
            ending=ending,
            name=log.id,
            cost_usd=log.spent_usd(),
            seconds=time.monotonic() - began,
        )
        return Explored(report, campaign.graph)
    finally:
        log.close()


def chosen_servers(config: Path, only: Sequence[str]) -> tuple[str, ...]:
    """Return the servers of a configuration, or those of them that were asked for.

    Raises:
        ConfigError: it cannot be read, or has no such server.
    """
    names = live_servers(config)
    unknown = [name for name in only if name not in names]
    if unknown:
        raise ConfigError(f"{config} has no server {unknown[0]!r}; it has: {', '.join(names) or 'none'}")
    chosen = tuple(name for name in names if not only or name in only)
    if not chosen:
        raise ConfigError(f"{config} has no servers")
    return chosen


def roots_of(servers: Mapping[str, Server], work: Sequence[Path] = ()) -> dict[str, Roots]:
    """Look into the folders that each server was given.

    Args:
        work: Folders to look into instead.
    """
    roots: dict[str, Roots] = {}
    for name, server in servers.items():
        if work:
            roots[name] = look(work)
        elif isinstance(server, StdioServer):
            paths = work_paths(server)
            said = [Path(text) for text in (*server.command[1:], *server.env.values()) if os.path.isabs(text)]
            within = [path for path in said if any(path.is_relative_to(at) for at in paths)]
            named = [path for path in within if path.is_file()]
            # What arguments name is meant more than the folder that a server is started in.
            folders = [path for path in within if path.is_dir()] or [path for path in paths if path.is_dir()]
            roots[name] = look(folders, named or [path for path in paths if path.is_file()])
    here = Path.cwd()
    if not any(found.folders for found in roots.values()) and here not in (Path.home(), Path(here.root)):
        return {name: look([here]) for name in servers}
    return roots


def _work(servers: Mapping[str, Server], asked: Sequence[Path]) -> list[Path]:
    """Return all folders and files that the servers work on."""
    stdio = [server for server in servers.values() if isinstance(server, StdioServer)]
    return list(asked) or list(dict.fromkeys(path for server in stdio for path in work_paths(server)))


class LiveUpstream:
    """A real server for one walk, started anew after it gave no answer."""

    def __init__(self, make: Callable[[], LiveServer], rate: float | None, ended: Callable[[], None]) -> None:
        self._make, self._rate, self._ended = make, rate, ended
        self._server: LiveServer | None = None
        self._silent = 0
        self._next = 0.0

    def tools(self) -> list[dict[str, Any]]:
        """
        Raises:
            LiveError: it gave no list, tried twice.
        """
        try:
            return self._list()
        except LiveError:
            self._restart()
            return self._list()

    def _list(self) -> list[dict[str, Any]]:
        tools: list[dict[str, Any]] = []
        cursor: object = None
        for _ in range(MOST_PAGES):
            reply = self._asked().ask("tools/list", {} if cursor is None else {"cursor": cursor})
            result = reply.get("result")
            if not isinstance(result, dict) or not isinstance(result.get("tools"), list):
                break
            tools += [entry for entry in result["tools"] if isinstance(entry, dict)]
            cursor = result.get("nextCursor")
            if cursor is None:
                break
        return tools

    def __call__(self, call: ToolCall, /) -> ToolResult | RpcError | NoReply:
        """
        Raises:
            WalkOver: it gave no answer `MOST_SILENT` times in a row.
        """
        if self._silent >= MOST_SILENT:
            raise WalkOver
        if self._rate is not None:
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + 1 / self._rate
        try:
            reply = self._asked().ask("tools/call", {"name": call.tool.name, "arguments": call.arguments})
        except LiveError as error:
            self._silent += 1
            self._restart()
            return NoReply(reason="cancelled" if "no answer within" in error.reason else "disconnected")
        self._silent = 0
        return ToolResult(result=reply["result"]) if "result" in reply else RpcError(error=reply.get("error"))

    def close(self) -> None:
        self._restart()
        self._ended()

    def _asked(self) -> LiveServer:
        if self._server is None:
            self._server = self._make()
        return self._server

    def _restart(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


class _Upstreams:
    """Makes upstreams; those of one walk share what a sandbox keeps private."""

    def __init__(self, wanted: Exploration, group: str, servers: Mapping[str, Server]) -> None:
        self._wanted, self._group = wanted, group
        self._work = _work(servers, wanted.work)
        self._lock = threading.Lock()
        self._scratch: dict[str, tuple[tempfile.TemporaryDirectory[str], int]] = {}

    def open(self, name: str, run: str) -> Upstream:
        wanted = self._wanted
        scratch = self._enter(run) if wanted.sandbox else None

        def make() -> LiveServer:
            return LiveServer(
                name,
                wanted.config,
                db=wanted.db,
                group=self._group,
                run=run,
                redact=wanted.redact,
                sandbox=scratch,
                work=self._work if scratch is not None else (),
                timeout_s=wanted.timeout_s,
                start_timeout_s=max(wanted.timeout_s, TIMEOUT_S),
            )

        return LiveUpstream(make, wanted.rate, lambda: self._leave(run))

    def _enter(self, run: str) -> Path:
        with self._lock:
            if run not in self._scratch:
                made = tempfile.TemporaryDirectory(prefix="firefly-sandbox-", dir="/var/tmp")
                self._scratch[run] = made, 0
            folder, users = self._scratch[run]
            self._scratch[run] = folder, users + 1
            return Path(folder.name)

    def _leave(self, run: str) -> None:
        with self._lock:
            if run in self._scratch:
                folder, users = self._scratch.pop(run)
                if users > 1:
                    self._scratch[run] = folder, users - 1
                else:
                    folder.cleanup()


def _claude(wanted: Exploration, log: CampaignLog) -> ClaudeExplorer:
    assert wanted.model is not None
    left = None if wanted.budget_usd is None else max(0.0, wanted.budget_usd - log.spent_usd())
    return ClaudeExplorer(wanted.model, base_url=wanted.base_url, max_usd=left)


def _with_claude(
    claude: ClaudeExplorer, log: CampaignLog, permits: Callable[[Any, Mapping[str, Any]], bool]
) -> Explorer:
    """Let a model walk the sub-DAGs, with what is known of their servers."""

    def walk(
        dag: SubDag, known: Mapping[str, ServerExperience], call: ToolCaller, *, calls: int, rng: Random,
        number: int, run: str,
    ) -> None:  # fmt: skip
        tools = {ref: known[ref.server].tools[ref.name].spec for ref in dag.tools}
        for ref in dag.tools:  # what set-up they need is offered, too
            for need in known[ref.server].tools[ref.name].needs:
                if need["tool"] in known[ref.server].tools:
                    spec = known[ref.server].tools[need["tool"]].spec
                    tools.setdefault(ToolRef(ref.server, need["tool"]), spec)

        def checked(wanted: ToolCall, /) -> ToolResult | RpcError | NoReply:
            if not permits(tools[wanted.tool], wanted.arguments):
                return ToolResult(
                    result={
                        "content": [{"type": "text", "text": "not allowed: choose other arguments"}],
                        "isError": True,
                    }
                )
            return call(wanted)

        ending = claude.walk(
            dag, tools, _values(dag, known), checked, calls=calls, keep=lambda t: log.keep(run, t)
        )
        if ending.reason == "budget":
            from recorder.completer import BudgetError

            raise BudgetError(ending.detail)

    return walk


def _values(dag: SubDag, known: Mapping[str, ServerExperience]) -> dict[str, list[Any]]:
    """Return some harvested values by readable name, of the servers of a sub-DAG."""
    found: dict[str, list[Any]] = {}
    for name in dag.servers:
        for words, values in list(known[name].harvest.by_words.items())[-60:]:
            some = [value.value for value in list(values.values())[-4:]]
            found[f"{name}: {' '.join(words)}"] = some
    return found


def _start_state(servers: Mapping[str, Server], secrets: Collection[str]) -> str:
    """Name the state that every walk starts from: the servers as configured, without what is secret."""
    text = Redactor(b"group", secrets)
    configs = {name: text.redact(repr(sorted(server.config.items()))) for name, server in servers.items()}
    return "explore-" + content_hash(configs)[:12]


def _cannot_resume(db: Path, settings: Mapping[str, Any], last: Mapping[str, Any] | None) -> str:
    if last is None:
        return f"{db} holds no campaign to resume"
    different = [name for name in settings if settings[name] != last.get(name)]
    differs = ", ".join(different) or "secrets"
    return f"{db} holds no campaign with these settings; its last differs in: {differs}"


@contextmanager
def _interruptible(campaign: Campaign) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the campaign after the calls under way, and another one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: object) -> None:
        if campaign.stop.is_set():
            raise KeyboardInterrupt
        campaign.stop.set()

    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
