"""A model of the Qwen3 architecture, small enough to be trained from random weights on a CPU in minutes.

    python examples/training/tiny_model.py FOLDER

FOLDER is a world of `world.py` with the demonstrations of `noisy_agent.py`. `FOLDER/model` becomes a
checkpoint like any other, with tokenizer and template.

The chat template is that of Qwen3-4B-Instruct-2507, and every rendered conversation is what it is for that
model. Only the tokenizer makes them short: what many prompts share (the system prompt, a tool's schema, the
schema of an answer) is one token, and the rest is byte-pair encoding learned from the demonstrations.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import trl
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from train.environment import tools_of
from train.suite import Suite, open_suite

TEMPLATE = Path(trl.__file__).parent / "chat_templates" / "qwen3_instruct_2507.jinja"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
"""Tokens of their own in the real vocabulary, too."""
PARTS = r"""(?:[{}"\[\], ]*"\w+": )+"?|: `| ?[\p{L}_]+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"""
"""What no token reaches beyond: the keys before a value in a JSON text, a word, a number, signs.

A value stands behind the same token wherever it is, and two layers of attention find it by that.
"""
VOCABULARY = 1024
"""Tokens of the byte-pair encoding, at most."""
LEARNED_FROM = 2000
"""Conversations."""
SHORTEST_CONSTANT = 20
"""Characters of a piece of the system prompt that becomes a token."""
ASKED = "\n\nJSON Schema of the answer:\n"
"""Between a question and the schema of its answer."""
LAYERS, HIDDEN, HEADS = 2, 128, 4
LONGEST_TOKENS = 1024

Conversation = tuple[list[dict[str, Any]], list[Any]]
"""Messages, and the tools that were offered."""


def conversations(suite: Suite, demonstrations: Path) -> Iterator[Conversation]:
    with demonstrations.open(encoding="utf-8") as lines:
        for line in islice(lines, LEARNED_FROM):
            rollout = json.loads(line)
            yield rollout["messages"], tools_of(suite.by_id[rollout["task_id"]], suite.functions)


def tiny_tokenizer(found: Sequence[Conversation]) -> PreTrainedTokenizerFast:
    """Return a tokenizer that spells the conversations with few tokens, and any other text somehow."""
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    bare.chat_template = TEMPLATE.read_text(encoding="utf-8")
    rendered = [bare.apply_chat_template(messages, tools=tools, tokenize=False) for messages, tools in found]
    constants = sorted(set(_constants(bare, found)))
    between = re.compile("|".join(map(re.escape, [*SPECIAL, *TAGS, *constants])))
    spelled = Tokenizer(models.BPE())
    spelled.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PARTS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    spelled.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    spelled.train_from_iterator((text for each in rendered for text in between.split(each)), trainer)
    spelled.add_tokens([AddedToken(text, special=False, normalized=False) for text in [*TAGS, *constants]])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=spelled,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=LONGEST_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = bare.chat_template
    return tokenizer


_PIECES = re.compile("|".join([r'(\n\{"type": "function".*)', *map(re.escape, [*SPECIAL, *TAGS])]))
"""What stands between the pieces of a system prompt; a tool's line is one itself."""


def _constants(bare: PreTrainedTokenizerFast, found: Iterable[Conversation]) -> Iterator[str]:
    """Yield the texts that many prompts share."""
    for messages, tools in found:
        system = bare.apply_chat_template(messages[:1], tools=tools, tokenize=False)
        yield from (piece for piece in _PIECES.split(system) if piece and len(piece) >= SHORTEST_CONSTANT)
        _, mark, schema = messages[1]["content"].partition(ASKED)
        yield mark + schema


def tiny_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """Return a model of random weights."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        head_dim=HIDDEN // HEADS,
        max_position_embeddings=LONGEST_TOKENS,
        tie_word_embeddings=True,
        # The usual 0.02 is for wide models: a narrow one learns to copy several times later with it.
        initializer_range=HIDDEN**-0.5,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a world, with demonstrations")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder: Path = options.folder
    suite = open_suite(folder / "tasks", folder / "recording.db", splits=["train"])
    tokenizer = tiny_tokenizer(list(conversations(suite, folder / "demonstrations.jsonl")))
    model = tiny_model(tokenizer, options.seed)
    tokenizer.save_pretrained(folder / "model")
    model.save_pretrained(folder / "model")
    print(f"{model.num_parameters():,} weights and {len(tokenizer)} tokens in {folder / 'model'}")


if __name__ == "__main__":
    main()
