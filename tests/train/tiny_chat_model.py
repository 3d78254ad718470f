"""A model of random weights that makes calls and answers: phrases by chance, as its context has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tests.train.scripted_model import byte_tokenizer

HIDDEN = 32
SEED = 5
"""With it, rollouts end in many ways."""
STRENGTH = 6.0
"""Of what is not left to chance."""


def chat_tokenizer(phrases: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes to which each phrase is one token."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken(phrase, special=False, normalized=False) for phrase in phrases])
    return tokenizer


def chat_model(
    tokenizer: PreTrainedTokenizerFast, phrases: Sequence[str], *, seed: int = SEED, longest: int = 16_384
) -> Qwen3ForCausalLM:
    """Return a model that writes phrases and ends, and hardly ever anything else."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=longest,
        tie_word_embeddings=False,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config).eval()
    said = tokenizer.convert_tokens_to_ids(list(phrases))
    with torch.no_grad():
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        # Dimension 0 stands in every token and speaks for phrases; dimension 1, in phrases, for an end.
        embedding[:, 0], embedding[:, 1] = STRENGTH, 0.0
        embedding[said, 1] = STRENGTH
        head[:, 0], head[:, 1] = -STRENGTH, 0.0
        head[said, 0] = STRENGTH
        head[tokenizer.eos_token_id, 1] = 3 * STRENGTH
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def saved(folder: Path, phrases: Sequence[str], *, seed: int = SEED) -> Path:
    """Write a model as a checkpoint like any other."""
    tokenizer = chat_tokenizer(phrases)
    chat_model(tokenizer, phrases, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
