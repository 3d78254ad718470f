from pathlib import Path

import pytest

from synth.pipeline import Wanted, synthesise
from tests.synth.garden import Garden, opened, record
from tests.synth.policies import scores


@pytest.mark.parametrize("seed", [0, 1])
def test_the_test_splits_cannot_be_guessed_and_the_oracle_solves_them(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "garden.db"
    record(path, Garden.grown(seed=20 + seed))
    world = opened(path)
    tasks = synthesise(world, Wanted(300, seed)).tasks
    assert sum(task.split == "test" for task in tasks) >= 20
    assert sum(task.split == "test_unseen_servers" for task in tasks) >= 10
    found = scores(tasks, world)
    assert found["nothing"] == 0
    assert found["from the question"] == 0
    assert found["majority"] <= 0.02
    assert found["oracle"] == 1
