"""A model of random weights learns to solve tasks of a recorded server, and only from its own rewards."""

import json
from pathlib import Path

from tests.train.conftest import Learned


def test_success_rises_by_a_quarter_or_more_on_tasks_about_unseen_articles(learned: list[Learned]) -> None:
    for each in learned:
        figures = each.figures
        assert 0 < figures["after_sft"] < 0.6, figures
        assert figures["after_grpo"] >= figures["after_sft"] + 0.25, figures


def test_shuffled_rewards_teach_nothing(learned: list[Learned]) -> None:
    figures = learned[0].figures
    assert figures["control"] <= figures["after_sft"] + 0.05, figures


def test_the_tasks_are_of_a_recording_and_held_out_by_entity(learned: list[Learned]) -> None:
    for each in learned:
        tasks = [json.loads(line) for line in (each.folder / "tasks" / "tasks.jsonl").open(encoding="utf-8")]
        entities = {
            split: {name for task in tasks if task["split"] == split for name in task["entities"]}
            for split in ("train", "test")
        }
        assert len(entities["test"]) > 20
        assert not entities["train"] & entities["test"]


def test_a_run_leaves_what_people_read(learned: list[Learned]) -> None:
    folder = learned[0].folder
    card = (folder / "grpo" / "README.md").read_text(encoding="utf-8")
    settings = json.loads((folder / "grpo" / "settings.json").read_text(encoding="utf-8"))
    assert settings["world"] in card
    assert "| reward |" in card
    assert (folder / "grpo" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "find_" in (folder / "grpo" / "samples.md").read_text(encoding="utf-8")
    assert list((folder / "grpo" / "runs").rglob("events.out.tfevents.*"))
    assert "pass@1" in (folder / "eval-grpo" / "report.html").read_text(encoding="utf-8")


def rewards(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open(encoding="utf-8")]
    return [row["reward"] for row in rows if "reward" in row]


def test_the_reward_in_training_rises(learned: list[Learned]) -> None:
    for each in learned:
        found = rewards(each.folder / "grpo")
        assert sum(found[-5:]) / 5 > sum(found[:5]) / 5 + 0.2
