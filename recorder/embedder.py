"""Texts into vectors, so that texts which mean nearly the same are near each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from recorder.canonical import encodable
from recorder.errors import FireflyError

if TYPE_CHECKING:
    # numpy comes with the extra `semantic`: without it these are unknown types, and nothing runs.
    from numpy import float32  # type: ignore[import-not-found, unused-ignore]
    from numpy.typing import NDArray  # type: ignore[import-not-found, unused-ignore]

EXTRA = "firefly-proxy[semantic]"

REASON_CHARACTERS = 200
"""Characters of a library's own words that an error message repeats."""


class Embedder(Protocol):
    """Gives each text a vector; the inner product of two is their cosine similarity."""

    @property
    def name(self) -> str:
        """Names the model: vectors of different names do not compare."""

    def embed(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return (N, D) rows of length 1, one for each text in order; (0, D) for no texts.

        A row depends on its text alone but for rounding, in about the seventh digit.
        """


class SentenceEmbedder:
    """A model of sentence-transformers. May be used from several threads, one of which embeds at a time.

    Args:
        model: A folder with a model, or the name of one on the Hugging Face hub.
        local_files_only: Take a named model from the cache of this machine and never go to the network.
            Otherwise a model that is not there is downloaded.

    Raises:
        FireflyError: the package is not installed, or the model cannot be loaded.
    """

    def __init__(self, model: str | Path, *, local_files_only: bool = True) -> None:
        try:
            # The extra need not be installed where this is type-checked.
            import sentence_transformers  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise FireflyError(
                f"embeddings need sentence-transformers, which cannot be imported: pip install '{EXTRA}'"
            ) from error
        self.name = str(model)
        if not Path(model).exists() and isinstance(model, Path):
            raise FireflyError(f"the embedding model {model} cannot be loaded: there is no such folder")
        try:
            with _offline() if local_files_only else nullcontext():
                self._model = sentence_transformers.SentenceTransformer(
                    self.name, local_files_only=local_files_only
                )
        except Exception as error:  # a damaged model raises nearly anything, KeyError included
            if local_files_only and not Path(model).exists():
                reason = (
                    "it is neither a folder nor in the cache of this machine, and is not downloaded unasked"
                )
            else:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:REASON_CHARACTERS]
            raise FireflyError(f"the embedding model {model} cannot be loaded: {reason}") from error
        # A tokenizer keeps how it pads to itself, and fails when two threads use it at once.
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> NDArray[float32]:
        # It comes with the extra, which need not be installed where this is type-checked.
        import numpy  # type: ignore[import-not-found, unused-ignore]

        if not texts:
            return self.embed([""])[:0]
        with self._lock:
            rows = self._model.encode(
                # Tokenizers take no lone surrogates.
                [encodable(text) for text in texts],
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return numpy.asarray(rows, dtype=numpy.float32)


@contextmanager
def _offline() -> Iterator[None]:
    """Keep huggingface_hub from connecting, in all threads.

    With `local_files_only` alone it still asks its server for a list of coding agents, to say in the headers
    of a request that is never sent which of them runs this process.
    """
    # As above: it comes with the extra.
    from huggingface_hub import constants  # type: ignore[import-not-found, unused-ignore]

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
