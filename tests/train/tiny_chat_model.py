"""A model of random weights that makes calls and answers: it writes phrases by chance, as its context has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tests.train.scripted_model import byte_tokenizer

HIDDEN = 32
APART = 3.0
"""What stands in the first dimension of every embedding; the head reads from it what is a phrase."""


def chat_tokenizer(phrases: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes to which each phrase is one token."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken(phrase, special=False, normalized=False) for phrase in phrases])
    return tokenizer


def chat_model(
    tokenizer: PreTrainedTokenizerFast, phrases: Sequence[str], *, seed: int = 0, longest: int = 16_384
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
    written = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list(phrases))]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = APART
        model.lm_head.weight[:, 0] = -APART
        model.lm_head.weight[written, 0] = APART
        model.lm_head.weight[written, 1:] *= 4.0
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def saved(folder: Path, phrases: Sequence[str], *, seed: int = 0) -> Path:
    """Write a model as a checkpoint like any other."""
    tokenizer = chat_tokenizer(phrases)
    chat_model(tokenizer, phrases, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
