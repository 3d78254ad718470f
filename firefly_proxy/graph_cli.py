"""`firefly graph`: the graph of a recording's tools, counted, written and drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from firefly_proxy.cli import DB, JSON, _completer, _embedder

if TYPE_CHECKING:
    from recorder.embedder import Embedder
    from recorder.exchange import ToolRef
    from recorder.explore.graph import Edge, ToolGraph
    from recorder.explore.judged import Estimate, Judged
    from recorder.store import Store
    from recorder.tool import ToolSpec

    Tell = Callable[[str, int, int], None]

SERVERS_AT_ONCE = 4
"""Servers that are started together to be asked for their tools; many begin with a download."""

JUDGES = 4
"""Prompts under way together: an API answers in some seconds, and allows a few at once on every plan."""

MOST_LIST_PAGES = 100


@click.command()
@DB
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A client's mcpServers JSON: servers that the recording does not hold are asked for their tools, "
    "and that is recorded.",
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write nodes and edges, as JSON.",
)
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw it: one page to look around in, which needs no network.",
)
@click.option(
    "--semantic",
    metavar="MODEL",
    help="Also link names that mean the same, by this sentence-transformers model.",
)
@click.option(
    "--judge",
    metavar="MODEL",
    help="Also ask this language model about links that are not sure. What that costs is shown before.",
)
@click.option("--base-url", metavar="URL", help="Of an endpoint that speaks the Anthropic Messages API.")
@click.option("--max-usd", metavar="X", type=click.FloatRange(min=0), help="The most that --judge may cost.")
@click.option("--yes", is_flag=True, help="Do not ask before --judge begins.")
@JSON
def graph(
    db: Path,
    config: Path | None,
    out: Path | None,
    html: Path | None,
    semantic: str | None,
    judge: str | None,
    base_url: str | None,
    max_usd: float | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Show which tool's output can feed which tool's parameter.

    Links come from values that were seen to flow in the recording, from schemas and the shapes of outputs,
    and where asked for from an embedding and a language model. What a model judged is kept beside the
    recording, in FILE.graph.db, and not asked again.

    \b
    firefly graph --db world.db --html graph.html
    firefly graph --db world.db --config ~/.cursor/mcp.json --out graph.json
    firefly graph --db world.db --judge claude-haiku-5-5 --max-usd 2
    """
    from firefly_proxy.graph_view import print_graph, summary, write_graph, write_page
    from firefly_proxy.progress import progress_to_stderr
    from recorder.canonical import readable_json
    from recorder.store import Store

    if judge is None and (base_url or max_usd is not None or yes):
        raise click.UsageError("--base-url, --max-usd and --yes go with --judge")
    tell = progress_to_stderr()
    failures = list_new_servers(db, config, tell) if config is not None else []
    for failure in failures:
        click.echo(f"firefly: {failure}", err=True)
    store = Store(db)
    tools = tools_of(store)
    built = tool_graph(store, tools, embedder=_embedder(semantic), tell=tell)
    judged = None
    if judge is not None:
        built, judged = _judged(
            store, tools, built, judge, base_url=base_url, max_usd=max_usd, yes=yes, tell=tell
        )
    if out is not None:
        write_graph(built, out)
    if html is not None:
        write_page(built, tools, db.name, html)
    view = summary(built)
    if judged is not None:
        view["judged"] = judged.as_json()
    if as_json:
        click.echo(readable_json({**view, **built.as_json()}))
    else:
        print_graph(view)
        if html is not None:
            click.echo(f"drawn in {html}")
    sys.exit(1 if failures or (judged is not None and judged.stopped) else 0)


def tools_of(store: Store) -> list[ToolSpec]:
    """Return the latest version of each tool that was listed, and the called ones of servers without a list.

    Imported sessions often come without what their servers listed. Of those tools the arguments that were
    given make a schema.
    """
    from recorder.canonical import content_hash
    from recorder.explore.infer import latest_versions
    from recorder.explore.parameters import json_type
    from recorder.tool import ToolSpec

    listed = list(latest_versions(store.tools()))
    servers = {tool.server for tool in listed}
    arguments: dict[ToolRef, dict[str, Any]] = {
        ref: {} for ref in sorted(store.call_counts()) if ref.server not in servers
    }
    if arguments:
        for exchange in store.exchanges(method="tools/call"):
            call = exchange.call
            if call is not None and call.tool in arguments:
                for name, value in call.arguments.items():
                    arguments[call.tool].setdefault(name, {"type": json_type(value)})
    for (server, name), properties in arguments.items():
        entry = {"name": name, "inputSchema": {"type": "object", "properties": properties}}
        listed.append(ToolSpec(server=server, name=name, version=content_hash(entry), entry=entry))
    return listed


def tool_graph(
    store: Store,
    tools: Sequence[ToolSpec],
    *,
    extra: Sequence[Edge] = (),
    embedder: Embedder | None = None,
    tell: Tell | None = None,
) -> ToolGraph:
    """Build the graph of a recording's tools from all evidence that needs no language model."""
    from recorder.explore.infer import build_graph
    from recorder.explore.observed import observed_edges
    from recorder.explore.semantic_edges import semantic_edges
    from recorder.explore.shapes import schema_edges, shapes_of

    shapes = shapes_of(store)
    alike: list[Edge] = []
    if embedder is not None:
        progress = (lambda done, of: tell("embedding", done, of)) if tell else None
        alike = semantic_edges(tools, embedder, shapes=shapes, progress=progress)
    return build_graph(tools, observed_edges(store), schema_edges(tools, shapes), [*alike, *extra])


def list_new_servers(db: Path, config: Path, tell: Tell | None = None) -> list[str]:
    """Ask the servers of a configuration whose tools are not recorded for them, and record that.

    Returns:
        One line for each server that gave no list.

    Raises:
        ConfigError: the configuration cannot be read.
        RecordingError: the recording is there and cannot be read.
    """
    from firefly_proxy.live import live_servers
    from recorder.store import Store

    held = {tool.server for tool in Store(db).tools()} if db.exists() else set()
    names = [name for name in live_servers(config) if name not in held]
    failures = []
    with ThreadPoolExecutor(SERVERS_AT_ONCE) as pool:
        for done, failure in enumerate(pool.map(lambda name: _list_tools(name, config, db), names), 1):
            if failure:
                failures.append(failure)
            if tell is not None:
                tell("asking servers for their tools", done, len(names))
    return failures


def _list_tools(name: str, config: Path, db: Path) -> str:
    """Let a server list its tools, while our recorder listens; return why it did not, if it did not."""
    from firefly_proxy.live import LiveError, LiveServer
    from recorder.canonical import readable_json
    from recorder.frame import as_object

    cursor: Any = None
    with LiveServer(name, config, db=db, run="graph") as server:
        try:
            for _ in range(MOST_LIST_PAGES):
                reply = server.ask("tools/list", {} if cursor is None else {"cursor": cursor})
                if "error" in reply:
                    return f"live server {name!r}, tools/list: {readable_json(reply['error'])[:200]}"
                cursor = as_object(reply.get("result")).get("nextCursor")
                if cursor is None:
                    break
        except LiveError as error:
            return str(error)
    return ""


def _judged(
    store: Store,
    tools: Sequence[ToolSpec],
    built: ToolGraph,
    model: str,
    *,
    base_url: str | None,
    max_usd: float | None,
    yes: bool,
    tell: Tell | None,
) -> tuple[ToolGraph, Judged]:
    """Have a model judge the edges that are not sure, and return the graph with what it said."""
    from recorder.explore.infer import build_graph
    from recorder.explore.judged import candidates_among, estimate, judge, pair_of, verdicts_beside

    candidates, cache = candidates_among(built.edges), verdicts_beside(store.path)
    costs = estimate(candidates, tools, model, cache)
    completer = None
    if costs.prompts:
        # Before the question: without a key there is nothing to ask.
        completer = _completer(model, base_url, max_usd)
        if not yes and not _agreed(costs, model, max_usd):
            completer = None
        elif yes:
            click.echo(_cost_line(costs, model, max_usd), err=True)
    judged = judge(
        candidates,
        tools,
        model,
        completer,
        cache,
        concurrency=JUDGES,
        progress=(lambda done, of: tell("judging", done, of)) if tell else None,
    )
    spent = "at an unknown price" if judged.cost_usd is None else f"for ${judged.cost_usd:.4f}"
    click.echo(
        f"judged: {judged.judged} pairs now in {judged.prompts} prompts {spent}, {judged.cached} known before"
        f", {judged.unjudged} left without a verdict ({judged.broken} broken answers)",
        err=True,
    )
    if judged.stopped:
        click.echo(f"firefly: judging stopped: {judged.stopped}", err=True)
    # A verdict stands in place of the guess that it is about; what was observed is no guess.
    said = {(pair_of(edge), edge.output) for edge in judged.edges}
    kept = [
        edge
        for edge in built.edges
        if edge.evidence == "observed"
        or (pair_of(edge) not in judged.rejected and (pair_of(edge), edge.output) not in said)
    ]
    return build_graph(tools, extra=[*kept, *judged.edges]), judged


def _agreed(costs: Estimate, model: str, max_usd: float | None) -> bool:
    """Show what judging costs and ask whether to go on.

    Raises:
        FireflyError: there is nobody to ask.
    """
    from recorder.errors import FireflyError

    line = _cost_line(costs, model, max_usd)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise FireflyError(f"{line}: add --yes to go on, since there is no terminal to ask at")
    click.echo(line, err=True)
    return click.confirm("Go on?", err=True)


def _cost_line(costs: Estimate, model: str, max_usd: float | None) -> str:
    if costs.usd is None:
        price = f"no price is known for {model}"
    else:
        price = f"about ${costs.usd:.{2 if costs.usd >= 0.1 else 4}f}"
    limit = f", at most ${max_usd:g}" if max_usd is not None else ""
    return (
        f"judging {costs.pairs - costs.cached:,} pairs by {model} takes {costs.prompts:,} prompts with about"
        f" {costs.tokens:,} tokens ({price}{limit})"
    )
