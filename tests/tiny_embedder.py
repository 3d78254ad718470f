"""A sentence-transformers model that is made in a second, for tests: random weights, a few hundred KB.

It has learned nothing, but texts that share words come out nearer to each other than texts that do not.
"""

from __future__ import annotations

import string
import tempfile
from pathlib import Path

# fmt: off
WORDS = [
    "weather", "forecast", "city", "country", "paris", "oslo", "tokyo", "rain", "sun", "wind",
    "temperature", "today", "tomorrow", "flight", "train", "ticket", "book", "cancel", "order", "list",
    "get", "read", "write", "file", "folder", "time", "zone", "a", "the", "in", "for", "of", "to",
]
# fmt: on
DIMENSION = 32


def build_tiny_embedder(folder: Path) -> Path:
    """Save a model in `folder`, which must not exist, and return it; equal weights each time."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*WORDS, *characters, *(f"##{character}" for character in characters)]
    vocabulary = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=DIMENSION,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    with tempfile.TemporaryDirectory() as bert, torch.random.fork_rng(devices=[]):
        vocab = Path(bert) / "vocab.txt"
        vocab.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        torch.manual_seed(0)
        BertModel(config).save_pretrained(bert)
        BertTokenizerFast(str(vocab), model_max_length=128).save_pretrained(bert)
        # Without a model card, for which the library would ask the hub.
        model = SentenceTransformer(
            modules=[Transformer(bert), Pooling(DIMENSION)], device="cpu", local_files_only=True
        )
        model.save(str(folder), create_model_card=False)
    return folder
