"""A model that writes what a script says: a real tokenizer and template, tiny weights, and no chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trl
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

TEMPLATE = Path(trl.__file__).parent / "chat_templates" / "qwen3_instruct_2507.jinja"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
"""No special tokens, in Qwen's tokenizers either."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes, with the template of Qwen3-Instruct-2507."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return fast


def tiny_model(tokenizer: PreTrainedTokenizerFast, *, longest: int = 16_384) -> Qwen3ForCausalLM:
    """Return a model of one small layer; what it would write means nothing."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=longest,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


class Script:
    """What each rollout's model writes, turn by turn, by where the conversation stands.

    Rollouts are told apart by their place at first, and later by what they wrote, so no two may write alike.

    Args:
        turns: Of each rollout; each ends with an end token unless it is cut off by `most`.
        most: Tokens of a turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, turns: Sequence[Sequence[str]], most: int) -> None:
        self._turns = [
            [tokenizer(f"{text}<|im_end|>")["input_ids"][:most] for text in rollout] for rollout in turns
        ]
        self._said: list[list[int]] = [[] for _ in turns]
        self._done = [0] * len(turns)

    def write(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Return the next turn of each conversation."""
        rows = range(len(prompts)) if not any(self._done) else map(self._row, prompts)
        written = []
        for row, prompt in zip(list(rows), prompts, strict=True):
            ids = self._turns[row][self._done[row]]
            self._done[row] += 1
            self._said[row] = [*prompt, *ids]
            written.append(ids)
        return written

    def _row(self, prompt: list[int]) -> int:
        found = [row for row, said in enumerate(self._said) if prompt[: len(said)] == said]
        assert len(found) == 1, "no rollout, or several, have come this way"
        return found[0]


def call(name: str, arguments: Any) -> str:
    """Return a call as the model writes it; `arguments` as JSON text."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
