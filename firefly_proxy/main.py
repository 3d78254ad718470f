"""The `firefly` command: every command of the house, each loaded when it is used."""

from __future__ import annotations

from importlib import import_module

import click

from firefly_proxy.command_line import run

COMMANDS = {
    "record": (
        "firefly_proxy.cli:record",
        "Pass a client's conversation through to a server, and record it.",
    ),
    "replay": ("firefly_proxy.cli:replay", "Serve a recorded server from the recording alone."),
    "show": ("firefly_proxy.cli:show", "Show what a recording holds."),
    "import": ("firefly_proxy.cli:import_", "Import sessions that were recorded elsewhere."),
    "learn": ("firefly_proxy.cli:learn", "Learn how far a recording's answers can be trusted."),
    "fidelity": ("firefly_proxy.cli:fidelity", "Measure how often a replay is right."),
    "explore": ("firefly_proxy.explore_cli:explore", "Explore real servers along a graph of their tools."),
    "graph": ("firefly_proxy.graph_cli:graph", "Show which tool's output can feed which tool."),
    "synth": ("synth.cli:synth", "Make tasks with known answers from a recording."),
    "export": ("synth.export_cli:export", "Write tasks in the form that a trainer or an evaluator reads."),
    "train": ("train.train_cli:train", "Train a model on tasks, in replay."),
    "eval": ("train.eval_cli:eval_", "Let a model try tasks, and say how often it is right."),
    "misses": ("firefly_proxy.cli:misses", "List what replays missed."),
    "verify": ("firefly_proxy.cli:verify", "Ask the real servers again, and report what has changed."),
}
"""Name → where the command is, and what it does. Strings, so that `--help` and `record` load nothing else."""


class Switchboard(click.Group):
    """A group that imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])


@click.group(cls=Switchboard, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="firefly-proxy")
def firefly() -> None:
    """Record real MCP servers, replay them offline, and learn from what was recorded.

    \b
    firefly record --db world.db -- uvx mcp-server-time
    firefly replay --db world.db
    """


def main() -> None:
    run(firefly, "firefly")


if __name__ == "__main__":
    main()
