"""What a run came to, for people: a page, its Markdown, and what the terminal shows."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from firefly_proxy.tables import console
from recorder.canonical import readable_json
from recorder.exchange import Json
from synth.task import Task
from train.document import (
    Block,
    Conversation,
    Figures,
    Heading,
    Plot,
    Table,
    Text,
    Turn,
    html_page,
    markdown,
    markdown_page,
    print_blocks,
)
from train.environment import Message
from train.plots import FIRST, INK, LINE, PAPER, SECOND, NoPlots, summary_plots, worst_first
from train.rollout import Rollout
from train.statistics import Estimate
from train.summary import Change, Comparison, Group, Summary

WORST_SERVERS = 15
MISSED_CALLS = 15
REASONS_SHOWN = 10
CHANGES_SHOWN = 10
"""Of losses, and of gains."""

LONGEST_TEXT = 1_500
"""Characters of a message that are shown."""
MOST_TURNS = 40
LONGEST_TITLE = 160

MOST_LEFT_OUT = 0.1
"""Share of the tasks that a headline may leave out."""

SAMPLED = {"right": 4, "wrong": 4, "missed": 2, "failed": 1}
"""Rollouts that are shown of each kind, at most."""

COLOURS = (
    (INK, "var(--text)"),
    (LINE, "var(--line)"),
    (PAPER, "var(--panel)"),
    (FIRST, "var(--accent)"),
    (SECOND, "var(--second)"),
)

PLOT_TITLES = {
    "pass_at_k": "pass@k and pass^k, with 95 % intervals",
    "servers": "pass@1 by server, the lowest first (tasks)",
    "difficulty": "pass@1 by difficulty (tasks)",
    "calls": "pass@1 by calls of the reference trajectory (tasks)",
    "number_of_servers": "pass@1 by number of servers (tasks)",
    "stops": "What ended the rollouts",
}


def write_report(
    folder: Path,
    summary: Summary,
    rollouts: Sequence[Rollout],
    tasks: Mapping[str, Task],
    *,
    title: str,
    settings: Mapping[str, object],
) -> Path:
    """Write report.html, which needs no other file, and report.md with its plots as .svg beside it.

    Without matplotlib there are no plots, and the report says so.

    Args:
        settings: What the run was made with; shown as it is.

    Returns:
        The path of report.html.
    """
    try:
        drawn = summary_plots(summary)
        missing = None
    except NoPlots as error:
        drawn, missing = {}, str(error)
    plots = {name: Plot(name, PLOT_TITLES[name], svg) for name, svg in drawn.items()}
    blocks = list(_blocks(summary, rollouts, tasks, settings, plots, missing))
    folder.mkdir(parents=True, exist_ok=True)
    for plot in plots.values():
        (folder / f"{plot.name}.svg").write_text(plot.svg, encoding="utf-8")
    (folder / "report.md").write_text(markdown_page(title, blocks), encoding="utf-8")
    page = folder / "report.html"
    page.write_text(html_page(title, blocks, COLOURS), encoding="utf-8")
    return page


def _blocks(
    summary: Summary,
    rollouts: Sequence[Rollout],
    tasks: Mapping[str, Task],
    settings: Mapping[str, object],
    plots: Mapping[str, Plot],
    missing: str | None,
) -> Iterator[Block]:
    yield Figures(tuple(_headline(summary)))
    if missing is not None:
        yield Text(f"There are no plots here: {missing}")
    yield Heading("Success")
    yield Text(
        "pass@k is the chance that at least one of k tries is right, pass^k that all of them are; both are"
        " means over tasks. Intervals are of 95 %, by bootstrap over tasks; over few tasks they are too"
        " narrow. Rollouts that are not scored count in none, and a task with fewer than k scored rollouts is"
        " left out of its row."
    )
    yield from _those(plots, "pass_at_k", "stops")
    yield _pass_table(summary)
    yield Text(_misses_hide(summary))
    yield Heading("Where it succeeds")
    yield from _those(plots, "difficulty", "calls", "number_of_servers")
    yield _grouped_table(summary)
    yield Heading("Servers, the worst first")
    yield from _those(plots, "servers")
    ordered = worst_first(summary.by_server)
    yield _group_table("server", ordered[:WORST_SERVERS], code=True)
    if len(ordered) > WORST_SERVERS:
        yield Text(f"{len(ordered) - WORST_SERVERS} more do better.")
    if unscored := [group.name for group in summary.by_server if group.pass_1.value is None]:
        yield Text(f"Without a scored rollout: {', '.join(unscored)}.")
    if summary.counts.missed:
        yield Heading("Misses")
        yield Text("Calls that the recording had no answer for, the most frequent first.")
        yield _missed_table(rollouts)
    if summary.failures:
        yield Heading("Failures")
        yield _failure_table(summary)
    yield Heading("Calls and cost")
    yield _calls_table(summary)
    yield Heading("Some rollouts")
    yield Text("Picked evenly from those that were right, wrong, missed and failed; long texts are cut.")
    for rollout in sampled(rollouts):
        yield conversation_of(rollout, tasks[rollout.task_id])
    yield Heading("Settings")
    yield Table(
        ("setting", "value"),
        tuple((name, _shown(value)) for name, value in settings.items()),
        code=frozenset({"value"}),
    )


def _those(plots: Mapping[str, Plot], *names: str) -> Iterator[Plot]:
    return (plots[name] for name in names if name in plots)


# --- numbers ------------------------------------------------------------------------------------------------


def percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.1f} %"


def interval(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return "—"
    return f"{100 * found.low:.1f} – {100 * found.high:.1f}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({percent(part / whole)})" if whole else f"{part:,}"


def _per_rollout(total: float, rollouts: int) -> str:
    return f"{total / rollouts:,.1f}" if rollouts else "—"


def _headline(summary: Summary) -> Iterator[tuple[str, str, str]]:
    counts, first = summary.counts, summary.pass_at[1]
    yield "pass@1", percent(first.value), f"95 % interval {interval(first)}"
    # Of a few tasks only it would be another number: those that are scored most are easy to replay.
    enough = [k for k, at in summary.pass_at.items() if at.left_out <= MOST_LEFT_OUT * summary.tasks]
    most = max(enough, default=1)
    if most > 1:
        yield f"pass@{most}", percent(summary.pass_at[most].value), "one of them is right"
        yield f"pass^{most}", percent(summary.pass_all[most].value), "all of them are right"
    yield "fields right", percent(summary.fields_right), "of those asked for"
    untried = f"; {summary.untried:,} more not tried" if summary.untried else ""
    yield "tasks", f"{summary.tasks:,}", f"{summary.samples} rollouts each at most{untried}"
    yield "scored", f"{counts.scored:,}", f"of {counts.rollouts:,} rollouts"
    yield (
        "met a miss",
        percent(_of(counts.missed, counts.rollouts)),
        f"{counts.missed:,} of {counts.rollouts:,} rollouts",
    )
    if counts.failed:
        yield (
            "failed",
            percent(_of(counts.failed, counts.rollouts)),
            f"{counts.failed:,} of {counts.rollouts:,} rollouts",
        )


def _of(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _pass_table(summary: Summary) -> Table:
    columns = ("k", "pass@k", "95 %", "pass^k", "95 %", "tasks", "left out")
    rows = []
    for k, at in summary.pass_at.items():
        every = summary.pass_all[k]
        rows.append(
            (
                str(k),
                percent(at.value),
                interval(at),
                percent(every.value),
                interval(every),
                f"{at.tasks:,}",
                f"{at.left_out:,}",
            )
        )
    return Table(columns, tuple(rows), right=frozenset(columns))


def _misses_hide(summary: Summary) -> str:
    if not summary.counts.missed:
        return "No rollout met a miss."
    counts, least = summary.counts, summary.pass_1_misses_wrong
    return (
        f"{counts.missed:,} of {counts.rollouts:,} rollouts met a miss"
        f" ({percent(counts.missed / counts.rollouts)}). Were all of them wrong, pass@1 would be"
        f" {percent(least.value)} ({interval(least)})."
    )


def _group_rows(groups: Sequence[Group]) -> Iterator[tuple[str, ...]]:
    for group in groups:
        yield (
            group.name,
            f"{group.tasks:,}",
            percent(group.pass_1.value),
            interval(group.pass_1),
            percent(_of(group.missed, group.rollouts)),
        )


_GROUP_COLUMNS = ("tasks", "pass@1", "95 %", "met a miss")


def _group_table(what: str, groups: Sequence[Group], *, code: bool = False) -> Table:
    return Table(
        (what, *_GROUP_COLUMNS),
        tuple(_group_rows(groups)),
        right=frozenset(_GROUP_COLUMNS),
        code=frozenset({what}) if code else frozenset(),
    )


def _grouped_table(summary: Summary) -> Table:
    kinds = (
        ("difficulty", summary.by_difficulty),
        ("reference calls", summary.by_calls),
        ("servers", summary.by_servers),
    )
    rows = [(kind, *row) for kind, groups in kinds for row in _group_rows(groups)]
    return Table(("by", "group", *_GROUP_COLUMNS), tuple(rows), right=frozenset(_GROUP_COLUMNS))


def _calls_table(summary: Summary) -> Table:
    counts, calls, cost = summary.counts, summary.calls, summary.cost
    answers = sum(calls.tiers.values())
    rows = [
        ("calls per rollout", _per_rollout(calls.made, counts.rollouts)),
        ("invalid calls", _share(calls.invalid, calls.made)),
        ("calls answered with an error", _share(calls.errors, calls.made)),
        ("calls that missed", _share(calls.misses, calls.made)),
        *((f"answered by {tier}", _share(number, answers)) for tier, number in calls.tiers.items()),
        ("mean trust of answers", "—" if calls.mean_trust is None else f"{calls.mean_trust:.3f}"),
        ("mean reward", "—" if summary.reward is None else f"{summary.reward:.3f}"),
        ("prompt tokens per rollout", _per_rollout(cost.prompt_tokens, counts.rollouts)),
        ("of them cached", percent(_of(cost.cached_tokens, cost.prompt_tokens))),
        ("completion tokens per rollout", _per_rollout(cost.completion_tokens, counts.rollouts)),
        ("cost, US dollars", "unknown" if cost.usd is None else f"{cost.usd:,.4f}"),
        ("seconds per rollout", _per_rollout(cost.seconds, counts.rollouts)),
    ]
    return Table(("what", "value"), tuple(rows), right=frozenset({"value"}))


def _failure_table(summary: Summary) -> Table:
    rows = list(summary.failures.items())[:REASONS_SHOWN]
    return Table(
        ("rollouts", "reason"),
        tuple((f"{count:,}", _cut(reason, 300)) for reason, count in rows),
        right=frozenset({"rollouts"}),
        code=frozenset({"reason"}),
    )


def _missed_table(rollouts: Sequence[Rollout]) -> Table:
    found: Counter[tuple[str, str]] = Counter()
    for rollout in rollouts:
        said = [message for message in rollout.messages if message.get("role") == "tool"]
        # One message a call, in the order that they were made.
        for call, message in zip(rollout.calls, said, strict=False):
            if call.outcome == "miss":
                tool = call.name if call.tool is None else f"{call.tool.server}/{call.tool.name}"
                told = _content(message).removeprefix(f"no recorded answer for {tool}")
                found[tool, told.removeprefix("(").removesuffix(")")] += 1
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:MISSED_CALLS]
    return Table(
        ("times", "tool", "arguments"),
        tuple((f"{times:,}", tool, _cut(arguments, 200)) for (tool, arguments), times in ordered),
        right=frozenset({"times"}),
        code=frozenset({"tool", "arguments"}),
    )


# --- rollouts to read ---------------------------------------------------------------------------------------

Kind = Literal["right", "wrong", "missed", "failed"]


def kind_of(rollout: Rollout) -> Kind:
    if rollout.failure is not None:
        return "failed"
    if rollout.reward is None:
        return "missed"
    return "right" if rollout.right else "wrong"


def sampled(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Pick a few rollouts of each kind, evenly spread over the run, so over its tasks."""
    by_kind: dict[str, list[Rollout]] = {kind: [] for kind in SAMPLED}
    for rollout in rollouts:
        by_kind[kind_of(rollout)].append(rollout)
    picked = []
    for kind, most in SAMPLED.items():
        there = by_kind[kind]
        count = min(most, len(there))
        picked += [there[(2 * place + 1) * len(there) // (2 * count)] for place in range(count)]
    return picked


def conversation_of(rollout: Rollout, task: Task) -> Conversation:
    turns = [
        turn for message in rollout.messages if message.get("role") != "system" for turn in _turns(message)
    ]
    if len(turns) > MOST_TURNS:
        half = MOST_TURNS // 2
        between = Turn("assistant", "", f"… {len(turns) - 2 * half} more messages and calls …")
        turns = [*turns[:half], between, *turns[-half:]]
    facts = [
        f"task {rollout.task_id}, sample {rollout.sample}",
        f"{task.difficulty.level}, {_counted(len(task.calls), 'reference call')}",
        f"{_counted(len(rollout.calls), 'call')} made",
        f"ended by {rollout.stop}",
        *([] if rollout.failure is None else [_cut(rollout.failure, 200)]),
    ]
    names = [*task.answer, *(name for name in rollout.fields if name not in task.answer)]
    return Conversation(
        title=task.question if len(task.question) <= LONGEST_TITLE else f"{task.question[:LONGEST_TITLE]} …",
        verdict=kind_of(rollout),
        facts="; ".join(facts),
        turns=tuple(turns),
        fields=Table(
            ("field", "expected", "given"),
            tuple((_cut(name, 80), *_field(rollout, task, name)) for name in names),
            code=frozenset({"field", "expected"}),
        ),
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _field(rollout: Rollout, task: Task, name: str) -> tuple[str, str]:
    if name not in task.answer:
        return "", "not asked for"
    right = rollout.fields.get(name, False)
    return _cut(readable_json(task.answer[name]), 200), "right" if right else "wrong or absent"


def _turns(message: Message) -> Iterator[Turn]:
    text = _content(message)
    match message.get("role"):
        case "tool":
            yield Turn("tool", _name(message.get("name")), _cut(text))
        case "assistant":
            if text.strip():
                yield Turn("assistant", "", _cut(text))
            for call in message.get("tool_calls") or []:
                function = call.get("function", {})
                yield Turn("call", _name(function.get("name")), _cut(_shown(function.get("arguments"))))
        case _:
            yield Turn("user", "", _cut(text))


def _name(name: Json) -> str:
    return _cut(name, 80) if isinstance(name, str) else "tool"


def _content(message: Message) -> str:
    content = message.get("content")
    return "" if content is None else _shown(content)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else readable_json(value)


def _cut(text: str, longest: int = LONGEST_TEXT) -> str:
    """Cut a text in its midst, where it matters least: answers stand at the end."""
    if len(text) <= longest:
        return text
    end = longest // 5
    return f"{text[: longest - end]} … {len(text) - longest:,} more characters … {text[-end:]}"


# --- terminal -----------------------------------------------------------------------------------------------


def print_summary(summary: Summary) -> None:
    counts = summary.counts
    found = [
        f"{summary.tasks:,} tasks, {counts.rollouts:,} rollouts: {counts.scored:,} scored,"
        f" {counts.missed:,} met a miss, {counts.failed:,} failed",
        *([f"{summary.untried:,} tasks were not tried"] if summary.untried else []),
    ]
    ended = ", ".join(f"{stop} {_share(number, counts.rollouts)}" for stop, number in summary.stops.items())
    print_blocks(
        [
            *map(Text, found),
            _pass_table(summary),
            Text(_misses_hide(summary)),
            _grouped_table(summary),
            _group_table("worst servers", worst_first(summary.by_server)[:5], code=True),
            Text(f"ended by: {ended}"),
            _calls_table(summary),
            *([_failure_table(summary)] if summary.failures else []),
        ],
        console(),
    )


def compare_text(comparison: Comparison, names: tuple[str, str] = ("first", "second")) -> str:
    """Return a comparison as it is printed."""
    out = io.StringIO()
    print_blocks(_comparison(comparison, names), Console(file=out, width=120, color_system=None))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def compare_markdown(comparison: Comparison, names: tuple[str, str] = ("first", "second")) -> str:
    return markdown(_comparison(comparison, names))


def _comparison(comparison: Comparison, names: tuple[str, str]) -> list[Text | Table]:
    found, runs = comparison.success, (comparison.first, comparison.second)
    columns = ("", *names)
    rows = (
        (f"success on the {found.tasks:,} shared tasks", percent(found.first), percent(found.second)),
        ("rollouts", *(f"{run.rollouts:,}" for run in runs)),
        ("scored", *(_share(run.scored, run.rollouts) for run in runs)),
        ("met a miss", *(_share(run.missed, run.rollouts) for run in runs)),
        ("failed", *(_share(run.failed, run.rollouts) for run in runs)),
        ("tasks that only this run scored", f"{comparison.only_first:,}", f"{comparison.only_second:,}"),
    )
    blocks: list[Text | Table] = [Table(columns, rows, right=frozenset(columns[1:]))]
    blocks += [Text(line) for line in _verdict(comparison)]
    losses = [change for change in comparison.changes if change.second < change.first][:CHANGES_SHOWN]
    gains = [change for change in comparison.changes if change.second > change.first][-CHANGES_SHOWN:]
    for title, changes in (("greatest losses", losses), ("greatest gains", gains[::-1])):
        if changes:
            blocks.append(_change_table(title, columns, changes))
    return blocks


def _verdict(comparison: Comparison) -> Iterator[str]:
    found = comparison.success
    if found.difference is None or found.low is None or found.high is None or found.p is None:
        yield "The runs share no task that both have a scored rollout of."
        return
    test = {
        "mcnemar": "exact McNemar test",
        "permutation": f"{'exact ' if found.exact else ''}permutation test of the tasks' differences",
    }[found.test]
    yield (
        f"difference {100 * found.difference:+.1f} points, 95 % interval {100 * found.low:+.1f} to"
        f" {100 * found.high:+.1f}; p = {found.p:.2g} ({test}, two-sided)"
    )
    yield f"better on {found.better:,} tasks, worse on {found.worse:,}, the same on {found.same:,}"


def _change_table(title: str, columns: tuple[str, ...], changes: Sequence[Change]) -> Table:
    return Table(
        (title, *columns[1:]),
        tuple((change.task_id, percent(change.first), percent(change.second)) for change in changes),
        right=frozenset(columns[1:]),
        code=frozenset({title}),
    )
