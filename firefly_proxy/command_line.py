"""How a command of ours ends: an error that the operator can fix is one line, and no traceback."""

from __future__ import annotations

import sys

import click

from recorder.errors import FireflyError


def run(command: click.Command, name: str) -> None:
    """Run a command with the arguments of this process, then exit."""
    try:
        command.main(prog_name=name)
    except FireflyError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(error.exit_code)
