"""The `firefly-proxy` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from firefly_proxy.command_line import run

if TYPE_CHECKING:
    from recorder.completer import Completer
    from recorder.embedder import Embedder
    from replayer.fidelity import Split

DB = click.option(
    "--db",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The recording, an SQLite file.",
)

MIN_TRUST = click.option(
    "--min-trust",
    metavar="X",
    type=click.FloatRange(0, 1),
    help="Serve what is right with at least this probability, instead of the threshold that was learned. "
    "0 answers everything, from the nearest call at last.",
)

SEMANTIC = click.option(
    "--semantic",
    metavar="MODEL",
    help="Also answer calls whose prose means the same, by this sentence-transformers model.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="firefly-proxy")
def cli() -> None:
    """Record real MCP servers, and replay the recording in their place.

    \b
    firefly-proxy record --db world.db -- uvx mcp-server-time
    firefly-proxy show   --db world.db
    firefly-proxy replay --db world.db
    """


JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@cli.command(context_settings={"allow_interspersed_args": False})
@DB
@click.option(
    "--name", metavar="NAME", help="The server's name in the recording [default: the command's base name]."
)
@click.option(
    "--group",
    metavar="GROUP",
    help="The task or start state that repeated sessions share "
    "[default: a hash of the server's configuration].",
)
@click.option("--run", metavar="RUN", help="Which repetition of the group this is.")
@click.option("--url", metavar="URL", help="Record the streamable HTTP server at URL instead of a command.")
@click.option("--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="Sent to URL; repeatable.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Take the server from a client's mcpServers JSON.",
)
@click.option("--server", metavar="NAME", help="Which server of --config.")
@click.option(
    "--redact",
    metavar="NAME",
    multiple=True,
    help="An environment variable or header whose value is secret; repeatable. Names with KEY, TOKEN, "
    "SECRET, PASSWORD or AUTH in them always are.",
)
@click.option(
    "--durable", is_flag=True, help="Sync every commit to disk: survives the loss of power, and is slower."
)
@click.option(
    "--from-misses",
    is_flag=True,
    help="Ask the servers of --config what replays of this recording missed, and record that; serves nobody.",
)
@click.option(
    "--with-changes",
    is_flag=True,
    help="With --from-misses: also what may change the world, and what was missed after such a call.",
)
@click.option("--sandbox", metavar="FOLDER", hidden=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--work", metavar="PATH", multiple=True, hidden=True, type=click.Path(path_type=Path))
@JSON
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def record(
    db: Path,
    name: str | None,
    group: str | None,
    run: str | None,
    url: str | None,
    headers: tuple[str, ...],
    config: Path | None,
    server: str | None,
    redact: tuple[str, ...],
    durable: bool,
    from_misses: bool,
    with_changes: bool,
    sandbox: Path | None,
    work: tuple[Path, ...],
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Pass a client's conversation through to a server, and record it.

    Speaks MCP on standard input and output, so it stands where the server's command stood in a client's
    configuration. A reply is released only once it is on disk.

    \b
    firefly-proxy record --db world.db -- npx -y @modelcontextprotocol/server-memory
    firefly-proxy record --db world.db --url https://example.com/mcp --header 'Authorization: Bearer …'
    firefly-proxy record --db world.db --config ~/.cursor/mcp.json --server github
    firefly-proxy record --db world.db --from-misses --config ~/.cursor/mcp.json
    """
    if from_misses:
        if config is None or command or url or name or server or group or run or headers or durable:
            raise click.UsageError("--from-misses takes --config, and besides it --redact and --with-changes")
        _record_misses(db, config, redact, with_changes, as_json)
        return
    if with_changes or as_json:
        raise click.UsageError("--with-changes and --json go with --from-misses")
    from firefly_proxy.record import record as run_record
    from firefly_proxy.server_config import Server, StdioServer, from_command, from_file, from_url

    if sum(map(bool, (command, url, config))) != 1:
        raise click.UsageError("name one server: a command after --, --url URL, or --config FILE")
    if server and not config:
        raise click.UsageError("--server goes with --config")
    if headers and not url:
        raise click.UsageError("--header goes with --url")
    if command:
        target: Server = from_command(command, name)
    elif url:
        target = from_url(url, headers, name)
    else:
        assert config is not None
        target = from_file(config, server, os.environ, name)
    if sandbox is not None and isinstance(target, StdioServer):
        # What an exploration asks for: the recording keeps the server as configured.
        from firefly_proxy.sandbox import sandboxed

        target = sandboxed(target, sandbox, list(work) or None)
    ending = run_record(target, db, group=group, run=run, redact=redact, durable=durable)
    if ending.failure:
        click.echo(f"firefly-proxy: {ending.failure}", err=True)
    sys.exit(ending.exit_code)


@cli.command()
@DB
@click.option(
    "--server", metavar="NAME", help="Which recorded server to stand in for; may be left out if there is one."
)
@click.option("--session", "session_id", metavar="ID", help="Answer from this session alone.")
@click.option(
    "--group",
    metavar="GROUP",
    help="The task and start state of the conversation, as recorded [default: the only one there is, else "
    "unknown].",
)
@MIN_TRUST
@SEMANTIC
@click.option(
    "--on-miss",
    type=click.Choice(["error", "live", "record"]),
    default="error",
    show_default=True,
    help="What a miss is answered with: an error, the answer of the real server, or that answer, recorded.",
)
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --on-miss live or record: a client's mcpServers JSON with the real server.",
)
@click.option("--simulate", is_flag=True, help="Let a language model make up answers to what was missed.")
@click.option("--model", metavar="NAME", help="The model of --simulate.")
@click.option("--base-url", metavar="URL", help="Of an endpoint that speaks the Anthropic Messages API.")
@click.option(
    "--max-usd", metavar="X", type=click.FloatRange(min=0), help="The most that --simulate may cost."
)
def replay(
    db: Path,
    server: str | None,
    session_id: str | None,
    group: str | None,
    min_trust: float | None,
    semantic: str | None,
    on_miss: str,
    config: Path | None,
    simulate: bool,
    model: str | None,
    base_url: str | None,
    max_usd: float | None,
) -> None:
    """Serve a recorded server on standard input and output, from the recording alone.

    What was not recorded, or cannot be trusted, is a miss: an error that names the nearest recorded calls,
    never a guess.

    \b
    firefly-proxy replay --db world.db --server git
    firefly-proxy replay --db world.db --server git --group task-7
    firefly-proxy replay --db world.db --server git --on-miss record --config ~/.cursor/mcp.json
    """
    from firefly_proxy.progress import progress_to_stderr
    from firefly_proxy.replay import ReplayServer, serve
    from recorder.store import Store
    from replayer.replayer import Replayer, ensure_learned, journal_beside
    from replayer.selection import select_sessions
    from replayer.semantic import SemanticTier

    if (on_miss == "error") == (config is not None):
        raise click.UsageError("--on-miss live and record need --config, and --config goes with them")
    if not simulate and (model or base_url or max_usd is not None):
        raise click.UsageError("--model, --base-url and --max-usd go with --simulate")
    store = Store(db)
    sessions = select_sessions(store, server=server, session_id=session_id)
    groups = {session.group for session, _ in sessions}
    if group is None and len(groups) == 1:
        (group,) = groups
    elif group is not None and group not in groups:
        click.echo(
            f"firefly-proxy: group {group!r} is not recorded: answering as for an unseen task", err=True
        )
    completer = _completer(model, base_url, max_usd) if simulate else None
    embedder = _embedder(semantic)
    learned = ensure_learned(store, progress_to_stderr(), embedder)
    live = None
    if config is not None:
        from firefly_proxy.fallback import LiveFallback

        live = LiveFallback(config, db=db if on_miss == "record" else None, group=group)
    replayer = Replayer(
        store,
        learned,
        min_trust=min_trust,
        session_id=session_id,
        journal=journal_beside(store),
        tiers=[SemanticTier(learned, embedder)] if embedder else [],
        live=live,
        completer=completer,
    )
    try:
        serve(ReplayServer(replayer, sessions, group), sys.stdin.buffer)
    finally:
        if live is not None:
            live.close()


@cli.command()
@DB
@click.option(
    "--policy",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML that overrides what is learned of tools; kept for later. An empty file takes it back.",
)
@SEMANTIC
@JSON
def learn(db: Path, policy: Path | None, semantic: str | None, as_json: bool) -> None:
    """Learn from a recording how far its answers can be trusted, and show what was learned.

    Which calls change the world, what may differ in a call or an answer without mattering, and how often an
    answer of each kind is right. It is kept beside the recording, in FILE.replay.db. `replay` does this by
    itself when the recording has changed.

    \b
    firefly-proxy learn --db world.db
    firefly-proxy learn --db world.db --policy policy.toml
    """
    from firefly_proxy.learned_view import learned_json, print_learned
    from firefly_proxy.progress import progress_to_stderr
    from recorder.canonical import readable_json
    from recorder.store import Store
    from replayer.learn import learn as run_learn
    from replayer.policy import Policy

    learned = run_learn(
        Store(db),
        policy=Policy.read(policy) if policy else None,
        embedder=_embedder(semantic),
        progress=progress_to_stderr(),
    )
    if as_json:
        click.echo(readable_json(learned_json(learned)))
    else:
        print_learned(learned)


@cli.command()
@DB
@click.option(
    "--holdout",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Sessions to replay, one a line as JSON, plain or gzip (as for import).",
)
@click.option(
    "--split",
    "how",
    type=click.Choice(["leave-run", "task", "random"]),
    help="Hold recorded sessions out instead: one of each group that has several, all of 30 % of the groups, "
    "or 30 % of all.",
)
@MIN_TRUST
@SEMANTIC
@JSON
@click.option(
    "--rows",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one line of JSON a call: session_id, index, tier, trust, answered, source, output.",
)
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw wrong answers over calls answered, as SVG.",
)
def fidelity(
    db: Path,
    holdout: Path | None,
    how: Split | None,
    min_trust: float | None,
    semantic: str | None,
    as_json: bool,
    rows: Path | None,
    plot: Path | None,
) -> None:
    """Measure how often a replay is right: replay sessions held out, and compare with the truth.

    Each session is one rollout with its group; only server, tool and arguments are passed, in order.
    Beside it stands the baseline that always answers: the equal call, else the nearest.

    \b
    firefly-proxy fidelity --db world.db --split random
    firefly-proxy fidelity --db world.db --holdout later.jsonl.gz --rows rows.jsonl --plot curve.svg
    """
    from firefly_proxy.fidelity_view import print_fidelity, write_plot
    from firefly_proxy.progress import progress_to_stderr
    from recorder.canonical import readable_json
    from recorder.store import Store
    from replayer.fidelity import held_from_file, held_from_recording, measure, split, write_rows
    from replayer.learn import learn as run_learn
    from replayer.replayer import ensure_learned, temporary_file
    from replayer.semantic import SemanticTier

    if (holdout is None) == (how is None):
        raise click.UsageError("name what to hold out: --holdout FILE or --split leave-run, task or random")
    store, progress, embedder = Store(db), progress_to_stderr(), _embedder(semantic)
    if holdout is not None:
        held, learned = held_from_file(holdout), ensure_learned(store, progress, embedder)
    else:
        assert how is not None
        ids = split(store, how)
        if not ids:
            raise click.UsageError(f"{db} has nothing to hold out by {how}")
        learned = run_learn(
            store, temporary_file("held-out.replay.db"), without=ids, embedder=embedder, progress=progress
        )
        held = list(held_from_recording(store, ids))
    measured = measure(
        store,
        learned,
        held,
        min_trust=min_trust,
        progress=progress,
        tiers=[SemanticTier(learned, embedder)] if embedder else [],
        labels={"recording": str(db), "holdout": str(holdout) if holdout else None, "split": how},
    )
    view = measured.as_json()
    if rows is not None:
        write_rows(measured, rows)
    if plot is not None:
        write_plot(view, plot)
    if as_json:
        click.echo(readable_json(view))
    else:
        print_fidelity(view)


@cli.command()
@DB
@JSON
def misses(db: Path, as_json: bool) -> None:
    """List what replays of a recording missed, most often asked first.

    \b
    firefly-proxy misses --db world.db
    """
    from firefly_proxy.misses import misses_json, print_misses
    from recorder.canonical import readable_json
    from recorder.store import Store
    from replayer.replayer import journalled

    missed = journalled(Store(db))
    if as_json:
        click.echo(readable_json(misses_json(missed)))
    else:
        print_misses(missed)


@cli.command()
@DB
@click.option(
    "--config",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A client's mcpServers JSON, with the servers as they are named in the recording.",
)
@click.option("--only-read", is_flag=True, help="Ask only tools whose server declares them read-only.")
@JSON
def verify(db: Path, config: Path, only_read: bool, as_json: bool) -> None:
    """Ask the real servers again what was recorded, and report what has changed.

    Asked are calls that change nothing, made before anything changed in their session. The exit status is 1
    if any answer has changed.

    \b
    firefly-proxy verify --db world.db --config ~/.cursor/mcp.json
    """
    from firefly_proxy.progress import progress_to_stderr
    from firefly_proxy.verify import print_drift
    from firefly_proxy.verify import verify as run_verify
    from recorder.canonical import readable_json
    from recorder.store import Store
    from replayer.mask import error_text, masked, result_text
    from replayer.replayer import Replayer, ensure_learned

    store, progress = Store(db), progress_to_stderr()
    replayer = Replayer(store, ensure_learned(store, progress))

    def same(recorded: object, live: object) -> bool:
        is_error = isinstance(recorded, dict) and "message" in recorded and "content" not in recorded
        text = error_text if is_error else result_text
        return masked(text(recorded)) == masked(text(live))

    report = run_verify(
        store,
        config,
        only_read=only_read,
        reads=replayer.is_declared_read,
        changes=replayer.call_changes,
        same=same,
        progress=(lambda done, of: progress("asking", done, of)) if progress else None,
    )
    if as_json:
        click.echo(readable_json(report.as_json()))
    else:
        print_drift(report)
    sys.exit(1 if report.total("drifted") else 0)


@cli.command("import")
@DB
@click.option(
    "--tools",
    metavar="FILE",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Tool schemas, one a line: server, name, description, inputSchema; repeatable.",
)
@JSON
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path(dir_okay=False, path_type=Path))
def import_(db: Path, tools: tuple[Path, ...], as_json: bool, files: tuple[Path, ...]) -> None:
    """Import sessions that were recorded elsewhere.

    FILE holds one session a line, plain or gzip: {"session_id", "group", "run", "calls": [{"server", "tool",
    "arguments", "output", "is_error"}]}. Message transcripts with tool calls are read, too, in the form of
    Anthropic's or of OpenAI's API. Bad lines are reported, with exit status 1, and the rest is imported.
    Importing a file again changes nothing. Nothing else can record into the file meanwhile.

    \b
    firefly-proxy import sessions.jsonl.gz --db world.db
    firefly-proxy import transcript.json --db world.db --tools tools.jsonl
    """
    from dataclasses import asdict

    from firefly_proxy.progress import progress_to_stderr
    from recorder.canonical import readable_json
    from recorder.importer import import_files

    if not files and not tools:
        raise click.UsageError("name at least one FILE to import")
    tell = progress_to_stderr()
    report = import_files(
        db, files, tools=tools, progress=(lambda calls: tell("imported calls", calls, 0)) if tell else None
    )
    for problem in report.problems:
        click.echo(f"firefly-proxy: {problem}", err=True)
    if as_json:
        click.echo(readable_json(asdict(report)))
    else:
        there = f", {report.already_there} already there" if report.already_there else ""
        versions = f", {report.tools} tools" if tools else ""
        click.echo(f"{report.sessions} sessions with {report.calls} calls imported{there}{versions}")
    sys.exit(1 if report.problems else 0)


@cli.command()
@DB
@click.option("--session", "session_id", metavar="ID", help="Show the calls of this session.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(db: Path, session_id: str | None, as_json: bool) -> None:
    """Show what a recording holds: sessions, servers, tools and calls.

    \b
    firefly-proxy show --db world.db
    firefly-proxy show --db world.db --session 936ec7f754a8
    firefly-proxy show --db world.db --json | jq .exchanges
    """
    from firefly_proxy.show import print_overview, print_session, summary
    from recorder.canonical import readable_json
    from recorder.store import Store

    store = Store(db)
    if as_json:
        click.echo(readable_json(summary(store, session_id)))
    elif session_id:
        print_session(store, session_id)
    else:
        print_overview(store)


def _record_misses(
    db: Path, config: Path, redact: tuple[str, ...], with_changes: bool, as_json: bool
) -> None:
    from firefly_proxy.misses import ask_again
    from firefly_proxy.progress import progress_to_stderr
    from recorder.canonical import readable_json
    from recorder.store import Store
    from replayer.replayer import Replayer, ensure_learned, journal_beside

    store = Store(db)
    journal = journal_beside(store)
    replayer = Replayer(store, ensure_learned(store, progress_to_stderr()))
    if journal is None:
        raise click.UsageError(f"{db} is in a folder that cannot be written")
    asked = ask_again(
        db,
        journal,
        config,
        changes=replayer.request_changes,
        with_changes=with_changes,
        redact=redact,
        progress=progress_to_stderr(),
    )
    if as_json:
        click.echo(readable_json(asked.as_json()))
    else:
        for reason, number in asked.skipped.items():
            click.echo(f"not asked: {number}: {reason}", err=True)
        click.echo(f"{asked.recorded} misses asked and recorded")
    for failure in asked.failed:
        click.echo(f"firefly-proxy: {failure}", err=True)
    sys.exit(1 if asked.failed else 0)


def _embedder(model: str | None) -> Embedder | None:
    if model is None:
        return None
    from recorder.embedder import SentenceEmbedder

    return SentenceEmbedder(model)


def _completer(model: str | None, base_url: str | None, max_usd: float | None) -> Completer:
    from recorder.completer import ClaudeCompleter

    if model is None:
        raise click.UsageError("--simulate needs --model NAME")
    return ClaudeCompleter(model, base_url=base_url, max_usd=max_usd)


def main() -> None:
    run(cli, "firefly-proxy")


if __name__ == "__main__":
    main()
