"""The command `export`."""

from __future__ import annotations

from pathlib import Path

import click

from firefly_proxy.cli import DB, JSON
from synth.export import FORMATS, TRAJECTORIES


@click.command()
@click.option(
    "--tasks",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The tasks, as firefly synth wrote them.",
)
@DB
@click.option("--format", "format_", required=True, type=click.Choice(list(FORMATS)), help="Who reads them.")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where to: a new or empty folder, or an earlier export, which is replaced.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(["train", "test", "test_unseen_servers"]),
    help="Only this split; repeatable [default: all].",
)
@click.option(
    "--replay-url",
    metavar="URL",
    help="Where the trainer reaches the replay server; {server} in it stands for a server's name. It is"
    " written into the rows of trl-grpo, verl and nemo-gym, and into the task of inspect, which otherwise"
    " starts replays itself.",
)
@click.option(
    "--rollouts",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also export a policy's own conversations, as firefly eval wrote them, where their answer is right"
    f" ({', '.join(TRAJECTORIES)}).",
)
@JSON
def export(
    tasks: Path,
    db: Path,
    format_: str,
    out: Path,
    splits: tuple[str, ...],
    replay_url: str | None,
    rollouts: Path | None,
    as_json: bool,
) -> None:
    """Write tasks in the form that a trainer or an evaluator reads.

    trl-sft, sharegpt and openai hold whole conversations: the question, the recorded calls with what they
    returned, and the answer. trl-grpo, verl, nemo-gym and inspect hold the question, the tools and the right
    answer, for a model that makes the calls itself. The folder's README.md says how to load it.

    \b
    firefly export --tasks tasks/ --db world.db --format trl-sft --out sft/
    firefly export --tasks tasks/ --db world.db --format trl-sft --out sft/ --rollouts rollouts.jsonl
    firefly export --tasks tasks/ --db world.db --format verl --out verl/ --replay-url http://host/{server}
    """
    from typing import cast

    from firefly_proxy.progress import progress_to_stderr
    from recorder.canonical import readable_json
    from recorder.store import Store
    from replayer.replayer import Replayer, ensure_learned
    from synth.export.dataset import SPLITS
    from synth.export.dataset import export as run_export
    from synth.task import Split, read_tasks
    from synth.world import World

    if rollouts is not None and format_ not in TRAJECTORIES:
        raise click.UsageError(f"--rollouts goes with {', '.join(TRAJECTORIES)}, not with {format_}")
    if replay_url is not None and format_ in TRAJECTORIES:
        asking = ", ".join(name for name in FORMATS if name not in TRAJECTORIES)
        raise click.UsageError(f"--replay-url goes with {asking}; {format_} makes no calls")
    found = read_tasks(tasks)
    store = Store(db)
    world = World(store, Replayer(store, ensure_learned(store, progress_to_stderr())))
    written = run_export(
        world,
        found,
        format_,
        out,
        splits=cast(tuple[Split, ...], splits) or SPLITS,
        rollouts=rollouts,
        replay_url=replay_url,
    )
    if as_json:
        click.echo(readable_json({"out": str(out), **written.model_dump(mode="json")}))
        return
    for split, counts in written.splits.items():
        and_rollouts = f", {counts['rollouts']} rollouts" if rollouts is not None else ""
        click.echo(f"{split}: {counts['tasks']} tasks{and_rollouts}")
    click.echo(f"wrote {out}")
