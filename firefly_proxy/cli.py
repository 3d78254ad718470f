"""The `firefly-proxy` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from firefly_proxy.command_line import run

DB = click.option(
    "--db",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The recording, an SQLite file.",
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
    command: tuple[str, ...],
) -> None:
    """Pass a client's conversation through to a server, and record it.

    Speaks MCP on standard input and output, so it stands where the server's command stood in a client's
    configuration. A reply is released only once it is on disk.

    \b
    firefly-proxy record --db world.db -- npx -y @modelcontextprotocol/server-memory
    firefly-proxy record --db world.db --url https://example.com/mcp --header 'Authorization: Bearer …'
    firefly-proxy record --db world.db --config ~/.cursor/mcp.json --server github
    """
    from firefly_proxy.record import record as run_record
    from firefly_proxy.server_config import Server, from_command, from_file, from_url

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
@click.option("--group", metavar="GROUP", help="Answer from this group's sessions alone.")
def replay(db: Path, server: str | None, session_id: str | None, group: str | None) -> None:
    """Serve a recorded server on standard input and output, from the recording alone.

    What was not recorded is a miss: an error that names the nearest recorded calls, never a guess.

    \b
    firefly-proxy replay --db world.db --server git
    """
    from firefly_proxy.replay import ReplayServer, serve
    from recorder.store import Store
    from replayer.index import RequestIndex, select_sessions

    store = Store(db)
    sessions = select_sessions(store, server=server, session_id=session_id, group=group)
    serve(ReplayServer(store, sessions, RequestIndex(store, sessions)), sys.stdin.buffer)


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


def main() -> None:
    run(cli, "firefly-proxy")


if __name__ == "__main__":
    main()
