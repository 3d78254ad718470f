"""A model's chat template: conversations into token ids, and token ids into messages.

Training and evaluation share it, and it does what TRL's GRPOTrainer does: what the model wrote is never
tokenised again, results of tools are appended as ids, and the parser is TRL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl.chat_template_utils import (
    add_response_schema,
    get_training_chat_template,
    is_chat_template_prefix_preserving,
    parse_response,
    supports_tool_calling,
)

from recorder.errors import FireflyError
from recorder.exchange import Json
from train.environment import TOO_DEEP, Message, is_deep


class Chat:
    """
    Args:
        tokenizer: Of a model whose template can render calls; `checked` makes sure of it.
        kwargs: For the template, such as `enable_thinking`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, kwargs: dict[str, Any] | None = None) -> None:
        self.tokenizer, self._kwargs = tokenizer, kwargs or {}
        self.template: str | None = None
        """What stands in for the tokenizer's own template, where that does not keep what stands before a
        message as it was."""
        if not is_chat_template_prefix_preserving(tokenizer):
            self.template = get_training_chat_template(tokenizer)

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Json]) -> list[int]:
        """Return a conversation up to where the model's next message begins."""
        return self._ids(list(messages), begins=True, tools=list(tools) or None)

    def suffix_ids(self, results: Sequence[Message]) -> list[int]:
        """Return what comes between a message with calls and the next one: the tools' results."""
        function = {"name": results[0]["name"], "arguments": {}}
        before: list[Message] = [
            {"role": "user", "content": "dummy"},
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]},
        ]
        head = self._ids(before, begins=False)
        whole = self._ids([*before, *results], begins=True)
        # A template may end a turn with more than its end token; the model wrote up to that.
        ends = [place for place, token in enumerate(head) if token == self.tokenizer.eos_token_id]
        if ends:
            head = head[: ends[-1] + 1]
        if whole[: len(head)] != head:
            raise FireflyError(
                "the chat template renders a message otherwise once a tool's result follows it"
            )
        return whole[len(head) :]

    def parse(self, ids: list[int], prefix: list[int], tools: Sequence[Json]) -> Message:
        """Return the message that token ids are. A malformed call makes all of it plain text."""
        try:
            parsed: Message = parse_response(self.tokenizer, ids, prefix=prefix, tools=list(tools))
        except RecursionError:
            return {"role": "assistant", "content": self.tokenizer.decode(ids, skip_special_tokens=True)}
        for call in parsed.get("tool_calls") or []:
            if is_deep(call["function"]["arguments"]):
                call["function"]["arguments"] = TOO_DEEP
        return parsed

    def _ids(self, messages: list[Message], *, begins: bool, tools: list[Json] | None = None) -> list[int]:
        ids: Any = self.tokenizer.apply_chat_template(
            messages,
            tools=tools,
            chat_template=self.template,
            add_generation_prompt=begins,
            tokenize=True,
            return_dict=False,
            **self._kwargs,
        )
        return list(ids)


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Return a model's tokenizer, able to render calls and to read them.

    Raises:
        FireflyError: there is none, or its template knows no tools.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise FireflyError(f"no tokenizer in {model}: {str(error).splitlines()[0]}") from error
    return checked(tokenizer, model)


def checked(tokenizer: PreTrainedTokenizerBase, model: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer with what parses its model's messages.

    Raises:
        FireflyError: its template knows no tools, or nobody knows how to read its calls.
    """
    if tokenizer.chat_template is None or not supports_tool_calling(tokenizer):
        has = "no chat template" if tokenizer.chat_template is None else "a chat template without tools"
        raise FireflyError(
            f"{model} has {has}: a model for tool use is needed, such as Qwen/Qwen3-4B-Instruct-2507"
        )
    if getattr(tokenizer, "response_template", None) is None:
        try:
            add_response_schema(tokenizer)
        except ValueError as error:
            raise FireflyError(
                f"it is not known how {model} writes its calls: set response_template in its tokenizer"
                " (transformers' documentation of response parsing says how)"
            ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
