"""The commands `synth` and `synth check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from firefly_proxy.cli import JSON

if TYPE_CHECKING:
    from firefly_proxy.fallback import LiveFallback
    from synth.world import World

DB = click.option(
    "--db",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The recording, an SQLite file.",
)
CONFIG = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A client's mcpServers JSON with the real servers, for --live.",
)
LIVE = click.option("--live", is_flag=True, help="Also make the calls anew, to the real servers of --config.")


@click.group(invoke_without_command=True)
@DB
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path), help="Where to: a new or empty folder."
)
@click.option(
    "--count",
    metavar="N",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="At most so many tasks.",
)
@click.option(
    "--seed", metavar="S", type=int, default=0, show_default=True, help="Same recording and seed, same tasks."
)
@click.option(
    "--phraser",
    metavar="MODEL",
    help="Have a model word the questions: claude, or NAME or NAME@URL of an endpoint that speaks the"
    " Anthropic"
    " Messages API [default: templates].",
)
@click.option(
    "--judge",
    "judges",
    metavar="MODEL",
    multiple=True,
    help="Have a model solve each task blind; repeatable. A verdict needs two families.",
)
@click.option(
    "--closed-book",
    "closed_book",
    metavar="MODEL",
    multiple=True,
    help="Drop what a model answers without any tool; repeatable.",
)
@click.option(
    "--solver",
    metavar="MODEL",
    help="Have a model try each task in the replay, and note how often it is right.",
)
@click.option(
    "--samples",
    metavar="K",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Tries of --closed-book and --solver.",
)
@LIVE
@CONFIG
@click.option(
    "--test-server",
    "test_servers",
    metavar="NAME",
    multiple=True,
    help="Hold this server out of training; repeatable [default: chosen, about a tenth of the tasks].",
)
@click.option(
    "--max-usd", metavar="X", type=click.FloatRange(0), help="The most that the models of this run may cost."
)
@click.option("--resume", is_flag=True, help="Go on with a data set whose models were interrupted.")
@JSON
@click.pass_context
def synth(
    context: click.Context,
    db: Path | None,
    out: Path | None,
    count: int,
    seed: int,
    phraser: str | None,
    judges: tuple[str, ...],
    closed_book: tuple[str, ...],
    solver: str | None,
    samples: int,
    live: bool,
    config: Path | None,
    test_servers: tuple[str, ...],
    max_usd: float | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Make tasks backward from a recording: the answer exists before the question.

    Programs are proposed over recorded outputs, and each is a question with a checkable answer. Gates drop
    what is ambiguous, guessable, unstable or leaky. DIR gets tasks.jsonl, dropped.jsonl with the gate of
    each, manifest.json and a card.

    \b
    firefly synth --db world.db --out tasks/
    firefly synth --db world.db --out tasks/ --count 500 --phraser claude --max-usd 5
    firefly synth --db world.db --out tasks/ --live --config mcp.json
    firefly synth check tasks/ --db world.db
    """
    if context.invoked_subcommand is not None:
        return
    for name, value in (("--db", db), ("--out", out)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}'.")
    assert db is not None
    assert out is not None
    if live != (config is not None):
        raise click.UsageError("--live and --config go together")
    from contextlib import ExitStack

    from firefly_proxy.progress import progress_to_stderr
    from recorder.canonical import readable_json
    from synth import dataset
    from synth.claude_phraser import ClaudePhraser
    from synth.gates import Gate
    from synth.gates.closed_book import ClosedBook
    from synth.gates.judges import Judges
    from synth.gates.live import NAME as LIVE_NAME
    from synth.gates.live import Live
    from synth.gates.solvability import Solvability
    from synth.model import Models
    from synth.pipeline import Wanted, synthesise
    from synth.synth_view import print_made

    options = {
        "count": count,
        "seed": seed,
        "phraser": phraser,
        "judges": list(judges),
        "closed_book": list(closed_book),
        "solver": solver,
        "samples": samples,
        "live": live,
        "test_servers": list(test_servers),
        "max_usd": max_usd,
    }
    world = _world(db)
    unknown = sorted(set(test_servers) - {tool.server for tool in world.tools})
    if unknown:
        known = ", ".join(sorted({tool.server for tool in world.tools}))
        raise click.UsageError(f"--test-server {unknown[0]} is not in {db} (servers: {known})")
    dataset.ready(out, options, dataset.recording_hash(world), resume=resume)
    asked = [*([phraser] if phraser else []), *judges, *closed_book, *([solver] if solver else [])]
    with ExitStack() as stack:
        models = Models(out / dataset.COMPLETIONS, max_usd=max_usd) if asked else None
        gates: dict[str, Gate] = {}
        if models is not None:
            models.check([_spec(each) for each in asked])
            if closed_book:
                gates["closed book"] = ClosedBook(models, list(closed_book), samples)
            if solver:
                gates["solvability"] = Solvability(models, _spec(solver), samples)
            if judges:
                gates["judges"] = Judges(models, list(judges))
        if config is not None:
            servers = _servers(config)
            stack.callback(servers.close)
            gates[LIVE_NAME] = Live(servers)
        out.mkdir(parents=True, exist_ok=True)
        wanted = Wanted(
            count,
            seed,
            list(test_servers) or None,
            ClaudePhraser(models, _spec(phraser)) if models is not None and phraser else None,
            gates,
        )
        made = synthesise(world, wanted, progress_to_stderr())
        used = models.used if models is not None else None
    cost = {
        "completions": used.completions if used else 0,
        "input_tokens": used.input_tokens if used else 0,
        "output_tokens": used.output_tokens if used else 0,
        "usd": used.cost_usd if used else 0.0,
    }
    told = dataset.write(out, world, made, options, cost)
    if as_json:
        click.echo(readable_json({"out": str(out), **told}))
    else:
        print_made(out, told)
    if made.stopped:
        click.echo(f"firefly: {made.stopped}; go on with --resume", err=True)
        sys.exit(1)
    if not made.tasks:
        click.echo(f"firefly: {_why_none(made.observed, db)}", err=True)
        sys.exit(1)


@synth.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@DB
@LIVE
@CONFIG
@click.option(
    "--sample", metavar="N", type=click.IntRange(1), help="Of --live, only so many tasks, spread evenly."
)
@JSON
def check(
    folder: Path, db: Path | None, live: bool, config: Path | None, sample: int | None, as_json: bool
) -> None:
    """Audit a data set: derive every answer anew, replay every trajectory, run every executable gate again.

    Any recording will do that holds the sessions which the tasks cite. Ends with 1 if anything differs.

    \b
    firefly synth check tasks/ --db world.db
    firefly synth check tasks/ --db world.db --live --config mcp.json --sample 200
    """
    if db is None:
        raise click.UsageError("Missing option '--db'.")
    if live != (config is not None):
        raise click.UsageError("--live and --config go together")
    from contextlib import ExitStack
    from dataclasses import asdict

    from firefly_proxy.progress import progress_to_stderr
    from recorder.canonical import readable_json
    from synth.check import audit
    from synth.gates.live import Live
    from synth.synth_view import print_audit
    from synth.task import read_tasks

    tasks, world = read_tasks(folder), _world(db)
    with ExitStack() as stack:
        gate = None
        if config is not None:
            servers = _servers(config)
            stack.callback(servers.close)
            gate = Live(servers)
        found = audit(tasks, world, gate, progress_to_stderr(), most_live=sample)
    if as_json:
        click.echo(readable_json({"ok": not found.findings, **asdict(found)}))
    else:
        print_audit(found)
    sys.exit(1 if found.findings else 0)


def _world(db: Path) -> World:
    from firefly_proxy.progress import progress_to_stderr
    from recorder.store import Store
    from replayer.replayer import Replayer, ensure_learned
    from synth.world import World

    store = Store(db)
    return World(store, Replayer(store, ensure_learned(store, progress_to_stderr())))


def _servers(config: Path) -> LiveFallback:
    from firefly_proxy.fallback import LiveFallback

    return LiveFallback(config)


def _spec(model: str) -> str:
    return PHRASER if model == "claude" else model


PHRASER = "claude-sonnet-5-5"
"""What `claude` alone stands for."""


def _why_none(observed: int, db: Path) -> str:
    if observed:
        return f"no task of {observed} recorded reads passed the gates: dropped.jsonl says why"
    return (
        f"{db} holds no read that a replay answers exactly: record or explore more, with repeats"
        f" (firefly-proxy learn --db {db} shows what is trusted)"
    )
