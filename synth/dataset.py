"""A data set on disk: the tasks, what was dropped and by which gate, and what it was all made from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recorder.canonical import content_hash
from recorder.errors import FireflyError
from recorder.exchange import Json
from synth.gates.duplicates import kind_of
from synth.pipeline import Synthesised
from synth.task import Task, write_tasks
from synth.values import READER
from synth.world import World

FORMAT = 1
"""Of the files of a data set."""

TASKS, DROPPED, MANIFEST, CARD, COMPLETIONS = (
    "tasks.jsonl",
    "dropped.jsonl",
    "manifest.json",
    "README.md",
    "completions.jsonl",
)


def ready(folder: Path, options: Mapping[str, Json], recording: str, *, resume: bool) -> None:
    """Make sure that a folder can hold a data set, or that the one in it is to be gone on with.

    Args:
        recording: The recording's content hash.

    Raises:
        FireflyError: it holds something else, or a data set with other options, or one and `resume` is not
        set.
    """
    if folder.exists() and not folder.is_dir():
        raise FireflyError(f"{folder} is no folder")
    ours = (TASKS, DROPPED, MANIFEST, CARD, COMPLETIONS)
    inside = folder.iterdir() if folder.exists() else ()
    foreign = sorted(path.name for path in inside if path.name.removesuffix(".new") not in ours)
    if foreign:
        raise FireflyError(
            f"{folder} holds {foreign[0]}, which is no part of a data set; name an empty folder"
        )
    known = manifest(folder)
    if known is None:
        if resume and not (folder / COMPLETIONS).exists():
            raise FireflyError(f"{folder} holds nothing to resume")
        return
    if not resume:
        raise FireflyError(f"{folder} holds a data set: name another folder, or go on with it (--resume)")
    if known.get("recording") != recording:
        raise FireflyError(
            f"{folder} was made of another recording, or the recording has grown: it has to be made anew"
        )
    before = {name: value for name, value in known.get("options", {}).items() if name != "max_usd"}
    now = {name: value for name, value in options.items() if name != "max_usd"}
    different = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if different:
        name = different[0]
        raise FireflyError(
            f"{folder} was made with {name} {before.get(name)!r}, and {now.get(name)!r} is asked for:"
            " --resume"
            " needs the same options"
        )


def manifest(folder: Path) -> dict[str, Any] | None:
    """Return what a data set was made from; `None` where there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FireflyError(f"{path} is no JSON: {error}") from error
    return found if isinstance(found, dict) else None


def write(
    folder: Path, world: World, made: Synthesised, options: Mapping[str, Json], cost: Mapping[str, Json]
) -> dict[str, Any]:
    """Write a data set; the manifest comes last, so that a folder with one is complete. Returns the
    manifest."""
    write_tasks(folder / TASKS, made.tasks)
    write_tasks(folder / DROPPED, made.dropped)
    told: dict[str, Any] = {
        "format": FORMAT,
        "recording": recording_hash(world),
        "servers": server_versions(world),
        "packages": {"firefly-proxy": version("firefly-proxy"), "reader": READER},
        "options": dict(options),
        "complete": not made.stopped,
        "stopped": made.stopped,
        "funnel": {name: {"came": came, "dropped": dropped} for name, (came, dropped) in made.funnel.items()},
        "figures": figures(made.tasks) | {"calls_read": made.observed, "attempts": made.attempts},
        "cost": dict(cost),
    }
    (folder / CARD).write_text(card(told, made.tasks), encoding="utf-8")
    beside = folder / f"{MANIFEST}.new"
    beside.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(folder / MANIFEST)
    return told


def recording_hash(world: World) -> str:
    """Return the content hash of all sessions of a recording."""
    return content_hash(sorted(world.session_hash(session.id) for session in world.store.sessions()))


def server_versions(world: World) -> dict[str, Json]:
    """Return the name and version that each server gave of itself, the last one."""
    found: dict[str, Json] = {}
    for session in world.store.sessions():
        for server in session.servers:
            if isinstance(server.info, dict):
                found[server.name] = {name: server.info.get(name) for name in ("name", "version")}
    return dict(sorted(found.items()))


def figures(tasks: Sequence[Task]) -> dict[str, Any]:
    """Return what can be counted of a set of tasks; rates are shares in [0, 1]."""
    several = [task for task in tasks if len(task.calls) > 1]
    kinds = Counter(map(kind_of, tasks))
    return {
        "tasks": len(tasks),
        "servers": len({server for task in tasks for server in task.servers}),
        "unique_questions": len({task.question for task in tasks}),
        "mean_calls": _mean(len(task.calls) for task in tasks),
        "multi_call": _rate(len(several), len(tasks)),
        "with_flow_of_multi_call": _rate(sum(bool(task.program.arguments) for task in several), len(several)),
        "across_servers": _rate(sum(len(task.servers) > 1 for task in tasks), len(tasks)),
        "mean_fields": _mean(len(task.answer) for task in tasks),
        "largest_kind": _rate(max(kinds.values(), default=0), len(tasks)),
        "by_server": dict(sorted(Counter(server for task in tasks for server in task.servers).items())),
        "by_split": dict(sorted(Counter(task.split for task in tasks).items())),
        "by_level": dict(sorted(Counter(task.difficulty.level for task in tasks).items())),
        "by_pattern": dict(sorted(Counter(task.template.partition(":")[0] for task in tasks).items())),
    }


def card(told: Mapping[str, Any], tasks: Sequence[Task]) -> str:
    """Return the data set's card, with what a hub reads at its head."""
    counted = told["figures"]
    size = "n<1K" if len(tasks) < 1000 else "1K<n<10K" if len(tasks) < 10_000 else "10K<n<100K"
    names = ", ".join(
        f"{name} ({info.get('name')} {info.get('version')})" for name, info in told["servers"].items()
    )
    lines = [
        "---",
        "task_categories:\n- text-generation",
        "language:\n- en",
        "tags:\n- tool-use\n- mcp\n- reinforcement-learning",
        f"size_categories:\n- {size}",
        "configs:\n- config_name: default\n  data_files: tasks.jsonl",
        "---",
        "",
        "# Tool-use tasks from recorded MCP servers",
        "",
        f"{counted['tasks']} questions, each with an answer that a program computes from recorded tool"
        " outputs, the"
        " calls that lead to it, and the verdicts of the gates that it passed. Made by `firefly synth`;"
        " `firefly synth"
        " check` derives every answer anew. What each field means is said in Firefly's README.",
        "",
        f"- recording: `{told['recording']}` (content hash of its sessions)",
        f"- servers: {names or 'unknown'}. Their outputs are quoted in answers and questions: their"
        " terms hold.",
        f"- splits: {', '.join(f'{name} {count}' for name, count in counted['by_split'].items())}. No"
        " server of"
        " `test_unseen_servers` and no entity of `test` occurs in `train`.",
        f"- calls a task: {counted['mean_calls']:.2f}; across servers:"
        f" {100 * counted['across_servers']:.0f} %; fields"
        f" an answer: {counted['mean_fields']:.2f}",
        "- secrets: what the recorder replaced stays replaced, and outputs with a placeholder were not"
        " used. Personal"
        " data in the servers' outputs was not looked for.",
        "",
        "| gate | came | dropped |",
        "|---|---:|---:|",
        *(f"| {name} | {count['came']} | {count['dropped']} |" for name, count in told["funnel"].items()),
        "",
    ]
    return "\n".join(lines)


def _mean(values: Any) -> float:
    found = list(values)
    return round(sum(found) / len(found), 4) if found else 0.0


def _rate(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
