"""What a campaign reached, and what it did not and why."""

from __future__ import annotations

from collections import Counter
from typing import Any

from recorder.exchange import Record
from recorder.explore.campaign import Campaign, Ending
from recorder.explore.effective import Verdict
from recorder.explore.experience import ToolExperience
from recorder.explore.graph import Evidence
from recorder.explore.permission import Permission, effect_of, named


class ToolCoverage(Record):
    tool: str
    calls: int
    effective: int
    failed: dict[Verdict, int]
    """Why the rest told nothing."""
    waits_for: str | None
    """What keeps a tool without an effective call from one."""


class ServerCoverage(Record):
    server: str
    calls: int
    effective_rate: float | None
    """Effective calls among distinct ones; `None` without any."""
    reached: int
    """Tools with an effective call."""
    open: int
    """Tools that may be called."""
    restarts: int
    """Times that it was started anew within a walk."""
    problem: str | None
    tools: list[ToolCoverage]


class CoverageReport(Record):
    campaign: str
    ending: Ending
    calls: int
    effective_rate: float | None
    """The mean of the servers' rates."""
    reached: int
    open: int
    listed: int
    """Tools of all servers, those that may not be called among them."""
    walks: dict[str, int]
    edges: dict[Evidence, int]
    """By evidence."""
    edges_confirmed: int
    """Between two tools, seen to flow at least twice."""
    cost_usd: float
    seconds: float
    servers: list[ServerCoverage]

    def as_json(self) -> dict[str, Any]:
        return self.model_dump()


def coverage(
    campaign: Campaign, permission: Permission, *, ending: Ending, name: str, cost_usd: float, seconds: float
) -> CoverageReport:
    servers = [_server(campaign, server, permission) for server in campaign.servers]
    rates = [server.effective_rate for server in servers if server.effective_rate is not None]
    edges = campaign.graph.edges
    return CoverageReport(
        campaign=name,
        ending=ending,
        calls=campaign.calls,
        effective_rate=sum(rates) / len(rates) if rates else None,
        reached=sum(server.reached for server in servers),
        open=sum(server.open for server in servers),
        listed=sum(len(server.tools) for server in servers),
        walks=dict(Counter(walk.kind for walk in campaign.walks)),
        edges=campaign.graph.counts(),
        edges_confirmed=sum(edge.seen >= 2 and edge.producer != edge.consumer for edge in edges),
        cost_usd=cost_usd,
        seconds=round(seconds, 1),
        servers=servers,
    )


def _server(campaign: Campaign, name: str, permission: Permission) -> ServerCoverage:
    tally = campaign.tallies[name]
    known = campaign.known.get(name)
    tools = []
    for tool in known.tools.values() if known is not None else ():
        verdicts = tally.verdicts.get(tool.spec.name, Counter())
        tools.append(
            ToolCoverage(
                tool=tool.spec.name,
                calls=verdicts.total(),
                effective=verdicts["effective"],
                failed={why: count for why, count in sorted(verdicts.items()) if why != "effective"},
                waits_for=None if verdicts["effective"] else _waits_for(tool, permission),
            )
        )
    return ServerCoverage(
        server=name,
        calls=tally.calls,
        effective_rate=tally.effective / tally.distinct if tally.distinct else None,
        reached=sum(tool.effective > 0 for tool in tools),
        open=sum(permission.permits_tool(tool.spec) for tool in known.tools.values()) if known else 0,
        restarts=tally.restarts,
        problem=tally.problem or None,
        tools=tools,
    )


def _waits_for(tool: ToolExperience, permission: Permission) -> str:
    """Say in one line what a tool lacks that was never called with effect."""
    spec = tool.spec
    if not permission.permits_tool(spec):
        if named(spec, permission.deny):
            return "denied"
        effect = effect_of(spec)
        how = f"--allow {spec.name}" if effect == "destructive" else "--allow-writes"
        return f"{'it is destructive' if effect == 'destructive' else 'it may change the world'}: {how}"
    if not tool.calls:
        wanted = ", ".join(tool.required_parameters())
        return f"a value for {wanted}" if wanted else "a call: the limits came first"
    if tool.asks_for:
        return f"a call of {', '.join(tool.asks_for[:3])} first"
    said = " ".join(tool.said.split())
    return said[:160] if said else "an answer that is not empty"
