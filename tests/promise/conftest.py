from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.promise.conversation import FICKLE
from tests.promise.lifeline import Lifeline


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Where a test's recording goes; nothing is there yet, and nothing else in its folder."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    return folder / "session.db"


@pytest.fixture
def lifeline() -> Iterator[Lifeline]:
    lifeline = Lifeline()
    yield lifeline
    lifeline.close()


@pytest.fixture
def fickle(lifeline: Lifeline) -> list[str]:
    """The fickle server's command, its processes watched by `lifeline`."""
    return [*FICKLE, "--lifeline", str(lifeline.port)]
