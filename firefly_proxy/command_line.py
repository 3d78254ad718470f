"""How a command of ours ends: an error that the operator can fix is one line, and no traceback."""

from __future__ import annotations

import sys

import click

from recorder.errors import FireflyError


def run(command: click.Command, name: str) -> None:
    """Run a command with the arguments of this process, then exit."""
    if sys.stdin is None or sys.stdout is None:
        click.echo(f"{name}: standard input and output must be open", err=True)
        sys.exit(2)
    try:
        command.main(prog_name=name)
    except FireflyError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(1)
