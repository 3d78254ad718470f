"""What is exported, and the folder that it is written to."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from recorder.canonical import readable_json
from recorder.errors import FireflyError
from recorder.exchange import Record, ToolRef
from synth.export import FORMATS
from synth.export.conversation import Conversation, Function, aliases, function_of, offered, reference
from synth.export.rollouts import Trajectory, read_rollouts
from synth.task import Split, Task
from synth.world import World

SPLITS: tuple[Split, ...] = get_args(Split)

MARK = "export.json"
"""The file that tells a folder of ours."""


class Written(Record):
    """What was exported; it stands in the folder, too."""

    format: str
    splits: dict[Split, dict[str, int]]
    """Split → how many `tasks` and `rollouts` of it, where there are tasks."""
    replay_url: str | None
    files: list[str]
    """In the folder, besides this one; sorted."""


class Dataset:
    """Tasks that are exported together, so that a tool has one name in all of them.

    Args:
        tasks: All of a data set, also those of other splits: what is exported must not change names.
        rollouts: By task.
        replay_url: Where a trainer finds the replay server; `{server}` in it stands for a server's name.
    """

    def __init__(
        self,
        world: World,
        tasks: Iterable[Task],
        *,
        splits: Collection[Split] = SPLITS,
        rollouts: Mapping[str, list[Trajectory]] | None = None,
        replay_url: str | None = None,
    ) -> None:
        self.world, self.replay_url = world, replay_url
        self._all = list(tasks)
        self._rollouts = rollouts or {}
        chosen = {split: [task for task in self._all if task.split == split] for split in SPLITS}
        self.tasks: dict[Split, list[Task]] = {
            split: found for split, found in chosen.items() if found and split in splits
        }

    @cached_property
    def functions(self) -> dict[ToolRef, Function]:
        """Every tool that a task of the data set offers or calls, by its name."""
        called = (call.ref for task in self._all for call in task.calls)
        named = aliases([*called, *(ref for task in self._all for ref in offered(task))])
        return {ref: function_of(self.world, ref, name) for ref, name in named.items()}

    def conversations(self, split: Split) -> Iterator[Conversation]:
        """Yield each task's reference trajectory, and after it its rollouts."""
        for task in self.tasks[split]:
            made = reference(self.world, task, self.functions)
            yield made
            for steps, answer in self._rollouts.get(task.task_id, ()):
                yield Conversation(task, made.functions, steps, answer, "rollout")

    def counts(self) -> dict[Split, dict[str, int]]:
        return {
            split: {
                "tasks": len(tasks),
                "rollouts": sum(len(self._rollouts.get(task.task_id, ())) for task in tasks),
            }
            for split, tasks in self.tasks.items()
        }

    def at(self, server: str) -> str | None:
        """Return where the replay of a server is, if that is told."""
        return None if self.replay_url is None else self.replay_url.replace("{server}", server)


def write_jsonl(folder: Path, data: Dataset, row: Callable[[Conversation], Mapping[str, Any]]) -> None:
    """Write a file a split, a line a conversation."""
    for split in data.tasks:
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for conversation in data.conversations(split):
                file.write(readable_json(row(conversation)) + "\n")


def export(
    world: World,
    tasks: list[Task],
    format: str,
    out: Path,
    *,
    splits: Collection[Split] = SPLITS,
    rollouts: Path | None = None,
    replay_url: str | None = None,
) -> Written:
    """Write tasks to a folder, all or nothing; an earlier export there is replaced.

    Args:
        format: One of `FORMATS`.
        rollouts: A file of them; those of reward 1 are exported besides the reference trajectories.

    Raises:
        FireflyError: there is nothing to export, the folder holds something else, or what is read is wrong.
    """
    _check_folder(out)
    tried = read_rollouts(rollouts, {task.task_id: task for task in tasks}) if rollouts is not None else {}
    data = Dataset(world, tasks, splits=splits, rollouts=tried, replay_url=replay_url)
    if not data.tasks:
        there = ", ".join(sorted({task.split for task in tasks})) or "none"
        raise FireflyError(f"no task is in {' or '.join(splits)}; splits with tasks: {there}")
    module = import_module(FORMATS[format])
    target = out.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
        fresh = Path(beside) / "new"
        fresh.mkdir()
        module.write(fresh, data)
        (fresh / "README.md").write_text(_readme(module.README, data), encoding="utf-8")
        written = Written(
            format=format,
            splits=data.counts(),
            replay_url=replay_url,
            files=sorted(path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file()),
        )
        (fresh / MARK).write_text(readable_json(written.model_dump(mode="json")) + "\n", encoding="utf-8")
        _put(fresh, target, Path(beside) / "old")
    return written


def _put(fresh: Path, target: Path, aside: Path) -> None:
    """Put a folder in another one's place; where that fails, the other is back."""
    if not target.exists():
        fresh.rename(target)
        return
    target.rename(aside)
    try:
        fresh.rename(target)
    except OSError:
        aside.rename(target)
        raise


def _readme(text: str, data: Dataset) -> str:
    counted = [
        f"{found['tasks']} tasks in {split}"
        + (f" and {found['rollouts']} rollouts" if found["rollouts"] else "")
        for split, found in data.counts().items()
    ]
    return f"{text.strip()}\n\nExported by `firefly export`: {', '.join(counted)}.\n"


def _check_folder(out: Path) -> None:
    """Refuse a folder that holds what we did not write.

    Raises:
        FireflyError: it does.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise FireflyError(f"{out} is a file; --out must name a folder, new, empty or of an earlier export")
    there = {
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    if there:
        foreign = sorted(there - _own_files(out))
        if foreign:
            raise FireflyError(
                f"{out} holds {foreign[0]}, which is of no export; --out must name another folder"
            )


def _own_files(out: Path) -> set[str]:
    try:
        mark = Written.model_validate(json.loads((out / MARK).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return set()
    return {*mark.files, MARK}
