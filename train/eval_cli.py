"""The commands `eval` and `eval compare`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from firefly_proxy.cli import JSON
from train.policies import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synth.task import Split, Task
    from train.environment import World
    from train.evaluate import Played
    from train.rollout import Limits
    from train.suite import Suite

TASKS = click.option(
    "--tasks", metavar="DIR", type=click.Path(path_type=Path), help="The tasks, as firefly synth wrote them."
)
DB = click.option(
    "--db",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The recording that the tasks were made from.",
)
MISS = click.option(
    "--miss",
    type=click.Choice(["exclude", "keep"]),
    default="exclude",
    show_default=True,
    help="A rollout that met a miss: exclude it, and count it; or keep it, and score it by its answer.",
)
MIN_TRUST = click.option(
    "--min-trust",
    metavar="T",
    type=click.FloatRange(0, 1),
    help="Answer what is trusted this much, instead of by the learned threshold.",
)
MAX_TURNS = click.option(
    "--max-turns",
    metavar="N",
    type=click.IntRange(1),
    default=12,
    show_default=True,
    help="Rounds of calls in a rollout.",
)
MAX_TOKENS = click.option(
    "--max-tokens",
    metavar="N",
    type=click.IntRange(1),
    default=8192,
    show_default=True,
    help="Tokens of a rollout after its prompt; of a model behind an API, those that it writes.",
)


@click.group(invoke_without_command=True)
@TASKS
@DB
@click.option(
    "--live",
    is_flag=True,
    help="Make the calls to the real servers of --config instead; --db then only says what tools were like.",
)
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A client's mcpServers JSON with the real servers, for --live.",
)
@click.option("--policy", "kind", type=click.Choice(NAMES), help="Who answers.")
@click.option("--model", metavar="M", help="A folder or a name on the Hub (local), or the API's name for it.")
@click.option("--base-url", metavar="URL", help="Where the API is, such as http://localhost:8000/v1 (vLLM).")
@click.option("--price", metavar="IN,OUT", help="Dollars for a million tokens, where the price is not known.")
@click.option("--max-usd", metavar="X", type=click.FloatRange(0), help="The most that the run may cost.")
@click.option("--temperature", metavar="T", type=click.FloatRange(0), help="0 is greedy [default: 1, local].")
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(["train", "test", "test_unseen_servers"]),
    help="Only this split; repeatable [default: both test splits].",
)
@click.option(
    "--samples", metavar="K", type=click.IntRange(1), default=1, show_default=True, help="Tries of each task."
)
@click.option(
    "--concurrency",
    metavar="N",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Rollouts at once; of a local model, how many make a batch.",
)
@click.option("--seed", metavar="S", type=int, default=0, show_default=True, help="Of all chance.")
@MAX_TURNS
@MAX_TOKENS
@MISS
@MIN_TRUST
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where rollouts.jsonl, summary.json and the report go: a new or empty folder.",
)
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@click.option("--inspect", is_flag=True, help="Run the tasks under Inspect AI, for its log viewer.")
@JSON
@click.pass_context
def eval_(
    context: click.Context,
    tasks: Path | None,
    db: Path | None,
    live: bool,
    config: Path | None,
    kind: str | None,
    model: str | None,
    base_url: str | None,
    price: str | None,
    max_usd: float | None,
    temperature: float | None,
    splits: tuple[str, ...],
    samples: int,
    concurrency: int,
    seed: int,
    max_turns: int,
    max_tokens: int,
    miss: str,
    min_trust: float | None,
    out: Path | None,
    resume: bool,
    inspect: bool,
    as_json: bool,
) -> None:
    """Let a policy try tasks, offline against the recording, and say how often it is right.

    Every rollout is written as soon as it ends, so that an interrupted run goes on with --resume. Rollouts
    that met a miss, and those whose API gave no answer, are counted apart: neither is a wrong answer.

    \b
    firefly eval --tasks tasks/ --db world.db --policy oracle
    firefly eval --tasks tasks/ --db world.db --policy local --model out/model --samples 8 --out run/
    firefly eval --tasks tasks/ --db world.db --policy anthropic --model claude-sonnet-5-5 --out c/
    firefly eval --tasks tasks/ --db world.db --policy openai --model qwen3 --base-url http://host:8000/v1
    firefly eval --tasks tasks/ --live --config mcp.json --policy oracle
    firefly eval compare run/ c/
    """
    if context.invoked_subcommand is not None:
        return
    if inspect:
        if kind is not None or live or resume:
            raise click.UsageError("--inspect goes with --model alone: not with --policy, --live or --resume")
        kind = "inspect"
        if model is None:
            raise click.UsageError(
                "--inspect needs --model, as Inspect names it: anthropic/claude-sonnet-5-5"
            )
    for name, value in (("--tasks", tasks), ("--db", db or config), ("--policy", kind)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}'.")
    assert tasks is not None
    if live != (config is not None):
        raise click.UsageError("--live and --config go together")
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder of the run")
    assert kind is not None
    from contextlib import ExitStack

    from firefly_proxy.progress import progress_to_stderr
    from train import run_folder
    from train.environment import replayed
    from train.evaluate import ROLLOUTS, Plan, RolloutFile, evaluate
    from train.policies import make
    from train.reward import MissRule
    from train.rollout import Limits
    from train.suite import open_suite

    chosen = cast("tuple[Split, ...]", splits) or ("test", "test_unseen_servers")
    if db is None:
        assert config is not None
        suite = _of_servers(tasks, config, chosen)
    else:
        suite = open_suite(tasks, db, splits=chosen, min_trust=min_trust, journalled=not live)
    limits = Limits(turns=max_turns, tokens=max_tokens, miss=cast(MissRule, miss))
    settings = {
        "policy": kind,
        "model": model,
        "base_url": base_url,
        "temperature": temperature,
        "splits": list(chosen),
        "samples": samples,
        "seed": seed,
        "max_turns": max_turns,
        "max_tokens": max_tokens,
        "miss": miss,
        "min_trust": min_trust,
        "live": live,
        "tasks": suite.tasks_hash,
        "world": suite.world_hash,
        # A local model's batches are part of what it computes.
        **({"concurrency": concurrency} if kind == "local" else {}),
    }
    if inspect:
        assert model is not None
        _inspect(suite, settings, limits, model, samples, base_url, temperature, concurrency, out, as_json)
        return
    if out is not None:
        # Before a model is loaded, and begun after: one that is not there leaves no folder.
        run_folder.check(out, settings, resume=resume)
    policy = make(kind, model, base_url=base_url, price=price, max_usd=max_usd, temperature=temperature)
    plan = Plan(samples, concurrency, seed, limits, blocking=live)
    with ExitStack() as stack:
        stack.callback(policy.close)
        file = None
        if out is not None:
            run_folder.begin(out, settings, resume=resume)
            file = RolloutFile(out / ROLLOUTS)
            stack.callback(file.close)
        played = evaluate(
            suite,
            _real(suite, config) if config is not None else replayed(suite.world.replayer),
            policy,
            plan,
            done=file.read_ones if file is not None else (),
            keep=file.append if file is not None else None,
            progress=progress_to_stderr(),
        )
    _finish(suite, played, policy.name, settings, samples, out, as_json)


@eval_.command()
@click.argument("runs", metavar="A B...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--markdown", is_flag=True, help="Print Markdown, for a report.")
@JSON
def compare(runs: tuple[Path, ...], markdown: bool, as_json: bool) -> None:
    """Compare runs on the tasks that both have, with tests for pairs: each run with the first.

    \b
    firefly eval compare before/ after/
    """
    from recorder.canonical import readable_json
    from train.evaluate import read_rollouts
    from train.report import compare_markdown, compare_text
    from train.summary import compare as compared

    if len(runs) < 2:
        raise click.UsageError("name two runs or more")
    first, *others = runs
    base = read_rollouts(first)
    found = [(other, compared(base, read_rollouts(other))) for other in others]
    if as_json:
        rows = [{"runs": [str(first), str(other)], **_plain(each)} for other, each in found]
        click.echo(readable_json({"comparisons": rows}))
        return
    names = _told_apart(runs)
    for other, each in found:
        click.echo((compare_markdown if markdown else compare_text)(each, (names[first], names[other])))


def _told_apart(runs: Sequence[Path]) -> dict[Path, str]:
    """Return the end of each path that tells them apart: a table has room for little more."""
    longest = max(len(run.parts) for run in runs)
    for length in range(1, longest + 1):
        names = {run: "/".join(run.parts[-length:]) for run in runs}
        if len(set(names.values())) == len(names):
            break
    return names


def _ks(samples: int) -> list[int]:
    """Return the powers of two up to the number of samples, and that itself."""
    return sorted({1 << power for power in range(samples.bit_length()) if 1 << power <= samples} | {samples})


def _plain(record: Any) -> dict[str, Any]:
    return dict(record.model_dump(mode="json"))


def _real(suite: Suite, config: Path) -> World:
    """Return worlds that are the real servers, started for each rollout."""
    from train.live_world import real

    return real(config, _servers_of(suite.tasks))


def _of_servers(tasks: Path, config: Path, splits: tuple[Split, ...]) -> Suite:
    """Open tasks without their recording: the tools are as the servers list them now."""
    from synth.task import read_tasks
    from train.live_world import listings
    from train.suite import open_suite

    needed = _servers_of(task for task in read_tasks(tasks) if task.split in splits)
    return open_suite(tasks, listings(config, needed), splits=splits, listings_only=True)


def _servers_of(tasks: Iterable[Task]) -> set[str]:
    from synth.export.conversation import offered

    # Those of distractors, too: a call to one would be a miss otherwise.
    return {ref.server for task in tasks for ref in offered(task)}


def _inspect(
    suite: Suite,
    settings: dict[str, Any],
    limits: Limits,
    model: str,
    samples: int,
    base_url: str | None,
    temperature: float | None,
    concurrency: int,
    out: Path | None,
    as_json: bool,
) -> None:
    from train import run_folder
    from train.environment import replayed
    from train.evaluate import Played
    from train.inspect_eval import run_inspect

    if out is not None:
        run_folder.begin(out, settings, resume=False)
    made = run_inspect(
        suite.tasks,
        replayed(suite.world.replayer),
        suite.functions,
        model=model,
        split="_".join(settings["splits"]),
        samples=samples,
        limits=limits,
        log_dir=Path("logs") if out is None else out / "inspect",
        base_url=base_url,
        temperature=temperature,
        concurrency=concurrency,
        display="none" if as_json else "plain",
    )
    _finish(suite, Played(made.rollouts, made.stopped), model, settings, samples, out, as_json)
    if not as_json:
        click.echo(f"inspect view --log-dir {made.log.parent}")


def _finish(
    suite: Suite,
    played: Played,
    name: str,
    settings: dict[str, Any],
    samples: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Sum a run up, write what belongs in its folder, and print."""
    from recorder.canonical import readable_json
    from train.evaluate import ROLLOUTS, write_sorted
    from train.report import print_summary, write_report
    from train.summary import summarise

    summary = summarise(played.rollouts, suite.by_id, _ks(samples))
    told = {"policy": name, "settings": settings, "stopped": played.stopped, **_plain(summary)}
    if out is not None:
        write_sorted(out / ROLLOUTS, played.rollouts)
        (out / "summary.json").write_text(readable_json(told) + "\n", encoding="utf-8")
        title = f"{name}: {', '.join(settings['splits'])}"
        write_report(out, summary, played.rollouts, suite.by_id, title=title, settings=settings)
    if as_json:
        click.echo(readable_json(told))
    else:
        print_summary(summary)
        if out is not None:
            click.echo(f"wrote {out / 'report.html'}")
    if played.stopped is not None:
        on = "; go on with --resume" if out is not None else ""
        click.echo(f"firefly: {played.stopped}{on}", err=True)
        sys.exit(1)
