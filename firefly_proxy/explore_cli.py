"""The command `explore`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from firefly_proxy.cli import DB, JSON

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--config",
    required=True,
    metavar="FILE",
    type=FILE,
    help="A client's mcpServers JSON: all its servers are explored.",
)
@DB
@click.option("--only", metavar="A,B", help="Only these servers of it.")
@click.option("--calls", metavar="N", type=click.IntRange(1), help="At most this many calls in all.")
@click.option(
    "--calls-per-server", metavar="N", type=click.IntRange(1), help="At most this many to each server."
)
@click.option(
    "--sub-dags", metavar="N", type=click.IntRange(1), help="Walk this many parts of the tool graph."
)
@click.option("--minutes", metavar="M", type=click.FloatRange(0, min_open=True), help="Stop after this time.")
@click.option(
    "--explorer",
    type=click.Choice(["schema", "claude"]),
    default="schema",
    show_default=True,
    help="What walks: schemas, outputs and errors, which needs no key; or a model.",
)
@click.option(
    "--model", metavar="NAME", help="The model of --explorer claude; its key is in ANTHROPIC_API_KEY."
)
@click.option("--base-url", metavar="URL", help="Of another endpoint that speaks the Anthropic Messages API.")
@click.option("--budget-usd", metavar="X", type=click.FloatRange(0), help="The most that the model may cost.")
@click.option(
    "--seed", metavar="S", type=int, default=0, show_default=True, help="Same seed and servers, same calls."
)
@click.option(
    "--concurrency", metavar="K", type=click.IntRange(1), default=4, show_default=True, help="Walks at once."
)
@click.option("--timeout", "timeout_s", metavar="S", type=click.FloatRange(0, min_open=True), default=30.0,
              show_default=True, help="Seconds to wait for one answer.")  # fmt: skip
@click.option(
    "--rate",
    metavar="R",
    type=click.FloatRange(0, min_open=True),
    help="At most R calls a second to each server.",
)
@click.option(
    "--allow-writes", is_flag=True, help="Also call what changes the world, unless it is destructive."
)
@click.option(
    "--allow",
    metavar="TOOL",
    multiple=True,
    help="Also call this tool, whatever it does: NAME or SERVER/NAME, with globs; repeatable.",
)
@click.option("--deny", metavar="TOOL", multiple=True, help="Never call this tool; repeatable.")
@click.option(
    "--sandbox",
    is_flag=True,
    help="Run stdio servers under bubblewrap: no network, and of their folders a private copy."
    " Nothing else can be written.",
)
@click.option(
    "--work",
    metavar="PATH",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="The folders that servers work on [default: those that the configuration names]; repeatable.",
)
@click.option(
    "--seeds", metavar="FILE", type=FILE, help="YAML with values that work, by server, tool and field."
)
@click.option(
    "--write-seeds", metavar="FILE", type=FILE, help="Write a seeds file to be filled in, and stop."
)
@click.option(
    "--resume", is_flag=True, help="Take up the campaign that was interrupted, with the same settings."
)
@click.option(
    "--group",
    metavar="G",
    help="The start state that its sessions share [default: a hash of the servers' configuration].",
)
@click.option("--redact", metavar="NAME", multiple=True, help="As for record; repeatable.")
@JSON
def explore(
    config: Path,
    db: Path,
    only: str | None,
    calls: int | None,
    calls_per_server: int | None,
    sub_dags: int | None,
    minutes: float | None,
    explorer: str,
    model: str | None,
    base_url: str | None,
    budget_usd: float | None,
    seed: int,
    concurrency: int,
    timeout_s: float,
    rate: float | None,
    allow_writes: bool,
    allow: tuple[str, ...],
    deny: tuple[str, ...],
    sandbox: bool,
    work: tuple[Path, ...],
    seeds: Path | None,
    write_seeds: Path | None,
    resume: bool,
    group: str | None,
    redact: tuple[str, ...],
    as_json: bool,
) -> None:
    """Explore real servers along a graph of their tools, and record it.

    Each server is surveyed first. From what its tools ask for and answer, a graph is inferred of which value
    can feed which parameter; then parts of it are walked, what was walked least first, each in sessions of
    their own. Only reads are called, unless more is allowed. Ctrl-C stops it, --resume goes on.

    \b
    firefly explore --config mcp.json --db world.db --calls-per-server 100
    firefly explore --config mcp.json --db world.db --calls 5000 --allow-writes --sandbox
    firefly explore --config mcp.json --db world.db --explorer claude --model claude-sonnet-5-5 --budget-usd 5
    """
    from firefly_proxy.explore import Exploration, chosen_servers
    from firefly_proxy.explore import explore as run_explore
    from firefly_proxy.explore_view import print_coverage, progress_line
    from firefly_proxy.sandbox import unavailable
    from recorder.canonical import readable_json
    from recorder.explore.campaign import Limits
    from recorder.explore.permission import Permission
    from recorder.explore.seeds import Seeds

    if (explorer == "claude") != (model is not None):
        raise click.UsageError("--explorer claude and --model go together")
    if explorer != "claude" and (base_url or budget_usd is not None):
        raise click.UsageError("--base-url and --budget-usd go with --explorer claude")
    servers = chosen_servers(config, [name.strip() for name in (only or "").split(",") if name.strip()])
    if write_seeds is not None:
        _write_seeds(config, db, servers, write_seeds)
        return
    if sandbox and (why := unavailable()):
        raise click.UsageError(f"--sandbox cannot be used here: {why}")
    limits = Limits(calls=calls, calls_per_server=calls_per_server, sub_dags=sub_dags, minutes=minutes)
    if limits == Limits():
        limits = Limits(calls_per_server=DEFAULT_CALLS)
    wanted = Exploration(
        config=config,
        db=db,
        servers=servers,
        explorer=explorer,
        limits=limits,
        permission=Permission(allow_writes, allow, deny, confined=not sandbox),
        seeds=Seeds.read(seeds) if seeds is not None else Seeds(),
        seed=seed,
        group=group,
        concurrency=concurrency,
        timeout_s=timeout_s,
        rate=rate,
        sandbox=sandbox,
        work=work,
        redact=redact,
        model=model,
        base_url=base_url,
        budget_usd=budget_usd,
    )
    with progress_line(limits) as progress:
        explored = run_explore(wanted, resume=resume, progress=progress)
    if as_json:
        click.echo(readable_json(explored.report.as_json()))
    else:
        print_coverage(explored.report)
    sys.exit(130 if explored.report.ending == "interrupted" else 0)


DEFAULT_CALLS = 100
"""To each server, where no limit is given."""


def _write_seeds(config: Path, db: Path, servers: tuple[str, ...], path: Path) -> None:
    """Ask the servers for their tools, recorded as any client's request is, and draft a seeds file."""
    import os

    from firefly_proxy.explore import roots_of
    from firefly_proxy.graph_cli import list_new_servers, tools_of
    from firefly_proxy.server_config import from_file
    from recorder.errors import FireflyError
    from recorder.explore.seeds import draft_seeds
    from recorder.store import Store

    if path.exists():
        raise FireflyError(f"{path} is there already; it is not overwritten")
    for failure in list_new_servers(db, config):
        click.echo(f"firefly: {failure}", err=True)
    tools = [spec for spec in tools_of(Store(db)) if spec.server in servers]
    roots = roots_of({name: from_file(config, name, os.environ) for name in servers})
    named = {name: [*found.folders, *found.named] for name, found in roots.items()}
    path.write_text(draft_seeds(tools, named), encoding="utf-8")
    click.echo(f"wrote {path}: fill it in, then firefly explore --seeds {path} …")
