import importlib
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorder.embedder import SentenceEmbedder
from recorder.errors import FireflyError
from tests.tiny_embedder import DIMENSION, build_tiny_embedder

NEEDED = "embeddings need sentence-transformers: pip install 'firefly-proxy[semantic]'"
TEXTS = ["weather in paris", "weather in oslo", "cancel the order", "weather in paris", ""]


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(FireflyError, match=r"pip install 'firefly-proxy\[semantic\]'$"):
        SentenceEmbedder("any")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentence_transformers", reason=NEEDED)
    return build_tiny_embedder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What was connected to; nothing can be."""
    hub = pytest.importorskip("huggingface_hub", reason=NEEDED)
    detection = importlib.import_module("huggingface_hub.utils._detect_agent")
    # Where the hub's list of agents was fetched before, asking for it again would not show.
    monkeypatch.setattr(detection, "_registry", None)
    monkeypatch.setattr(hub.constants, "AGENT_HARNESSES_PATH", str(tmp_path / "agents.json"))
    tried: list[Any] = []

    def refuse(_: socket.socket, address: Any) -> None:
        tried.append(address)
        raise ConnectionRefusedError(f"no network here: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: refuse(None, address))  # type: ignore[arg-type]
    return tried


def test_texts_become_unit_rows_in_order(folder: Path, connections: list[Any]) -> None:
    embedder = SentenceEmbedder(folder)
    rows = embedder.embed(TEXTS)
    assert embedder.name == str(folder)
    assert (rows.shape, str(rows.dtype)) == ((5, DIMENSION), "float32")
    similar = rows @ rows.T
    assert [similar[at, at] for at in range(5)] == pytest.approx([1.0] * 5, abs=1e-5)
    assert similar[0, 3] == pytest.approx(1.0, abs=1e-5)
    assert similar[0, 1] > similar[0, 2]
    assert connections == []


def test_a_row_depends_on_its_text_alone(folder: Path) -> None:
    embedder = SentenceEmbedder(str(folder))
    together = embedder.embed(TEXTS)
    assert abs(together[2] - embedder.embed([TEXTS[2]])[0]).max() < 1e-5
    assert abs(together - SentenceEmbedder(folder).embed(TEXTS)).max() < 1e-5


def test_no_texts_and_odd_texts(folder: Path) -> None:
    embedder = SentenceEmbedder(folder)
    assert embedder.embed([]).shape == (0, DIMENSION)
    assert embedder.embed(["\ud800", "x" * 10_000, "東京 €\x00"]).shape == (3, DIMENSION)


def test_threads_may_embed_at_once(folder: Path) -> None:
    embedder = SentenceEmbedder(folder)
    expected = embedder.embed(TEXTS)
    wrong: list[object] = []

    def embed(length: int) -> None:
        try:
            for _ in range(5):
                rows = embedder.embed([*TEXTS, "x" * length])[:-1]
                wrong.extend([rows] if abs(rows - expected).max() > 1e-5 else [])
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=embed, args=(length,)) for length in (1, 20, 60, 120)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def nothing(folder: Path) -> str | Path:
    return folder / "absent"


def empty(folder: Path) -> str | Path:
    folder.mkdir()
    return str(folder)


def named(_: Path) -> str | Path:
    return "firefly-tests/no-such-model"


def damaged(folder: Path) -> str | Path:
    build_tiny_embedder(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return folder


def senseless(folder: Path) -> str | Path:
    build_tiny_embedder(folder)
    (folder / "modules.json").write_text("[{}]")
    return folder


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (nothing, "there is no such folder"),
        (empty, "ValueError: Unrecognized model"),
        (named, "it is neither a folder nor in the cache of this machine, and is not downloaded unasked"),
        (damaged, "SafetensorError: "),
        (senseless, "KeyError: 'type'"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_line_and_no_download(
    make: Callable[[Path], str | Path], reason: str, tmp_path: Path, connections: list[Any]
) -> None:
    pytest.importorskip("sentence_transformers", reason=NEEDED)
    model = make(tmp_path / "model")
    with pytest.raises(FireflyError) as refused:
        SentenceEmbedder(model)
    assert str(refused.value).startswith(f"the embedding model {model} cannot be loaded: {reason}")
    assert "\n" not in str(refused.value)
    assert connections == []
