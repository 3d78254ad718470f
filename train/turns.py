"""What models behind APIs have in common: a rollout's turns as they are sent, calls as models write them, and
what a refusal means."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from recorder.canonical import readable_json
from recorder.claude_api import sendable
from recorder.errors import FireflyError
from recorder.exchange import Json
from recorder.explore.claude_wire import LONGEST_NAME
from train.environment import TOO_DEEP, Message, is_deep
from train.policy import PolicyFailed

T = TypeVar("T")

LEAST_ROOM = 256
"""Tokens of a message below which it is not asked for again with less."""

_NO_ROOM = re.compile(
    r"context[ _-]?(length|window|limit|size)|(prompt|input) is too long|request_too_large"
    r"|reduce the length|max_tokens must be at least 1, got -",
    re.IGNORECASE,
)
"""How APIs say that a conversation does not fit into the model's context: OpenAI's and Anthropic's, vLLM,
SGLang, llama.cpp."""

_NO_MONEY = re.compile(r"insufficient_quota|credit balance", re.IGNORECASE)
"""How they say that an account is empty, with the statuses of a busy server or a wrong request."""


class NoRoom(Exception):
    """The conversation, with the message that is asked for, does not fit into the model's context."""


class Refused(Exception):
    """The API refused a request, or kept failing.

    Args:
        line: What happened, in one line.
        status: `None` where it was not reached, or gave no answer in time.
    """

    def __init__(self, line: str, status: int | None) -> None:
        super().__init__(line)
        self.line, self.status = line, status

    @property
    def is_for_form(self) -> bool:
        """Whether it is for what the request says, and not for who asks or when."""
        return self.status in (400, 413, 422)

    @property
    def is_for_room(self) -> bool:
        return self.is_for_form and _NO_ROOM.search(self.line) is not None

    def error(self, *, answered: bool) -> FireflyError:
        """Return what the policy raises.

        Args:
            answered: The API took other requests, so that what is wrong with the form of this one is a matter
                of this rollout. Else every rollout would fail alike, and the run ends.
        """
        status = self.status
        if _NO_MONEY.search(self.line):
            return FireflyError(self.line)
        transient = status is None or status in (408, 409, 429) or status >= 500
        if transient or (answered and self.is_for_form):
            return PolicyFailed(self.line)
        return FireflyError(self.line)


@dataclass(slots=True)
class Turns:
    """A rollout as its API knows it; kept at its seat."""

    messages: list[Json]
    """In the API's form: what the model wrote as it wrote it."""
    most_tokens: int
    """More than the next prompt can have."""
    taken: int = 0
    """Messages of the conversation that these stand for."""
    ids: set[str] = field(default_factory=set)
    """Of its calls so far."""

    def new(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return the messages of a conversation that are not taken yet, and take them."""
        new = messages[self.taken :]
        self.taken = len(messages)
        return new

    def new_id(self, written: Json) -> str:
        """Return the id of a call: the one that the model's server gave it, if that is one and is new."""
        made = (
            f"call{len(self.ids):05}"  # nine letters and digits, as some servers of Mistral's models ask for
        )
        identifier = written if isinstance(written, str) and written.strip() else made
        while identifier in self.ids:
            identifier = made
            made += "x"
        self.ids.add(identifier)
        return identifier


async def with_room(ask: Callable[[int], Awaitable[T]], room: int) -> T | None:
    """Ask for a message of up to `room` tokens, for half as long a one while the context has no room for it.

    Returns:
        `None`: there is none for `LEAST_ROOM` tokens.
    """
    while True:
        try:
            return await ask(room)
        except NoRoom:
            if room <= LEAST_ROOM:
                return None
            room = max(room // 2, LEAST_ROOM)


def from_model(text: str, calls: Sequence[Json]) -> Message:
    """Return a message of the conversation, in characters that can be stored."""
    message: Message = {"role": "assistant", "content": sendable(text)}
    if calls:
        message["tool_calls"] = list(calls)
    return message


def call_of(identifier: str, name: Json, arguments: Json) -> Json:
    """Return a call, its name `""` where the model wrote none, without arguments that are too deep."""
    arguments = TOO_DEEP if is_deep(arguments) else arguments
    function = {"name": name if isinstance(name, str) else "", "arguments": arguments}
    return {"id": identifier, "type": "function", "function": sendable(function)}


def legal_name(name: Json) -> str:
    """Return a tool's name as the APIs take it back, even where the model made one up."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name if isinstance(name, str) else "")[:LONGEST_NAME] or "_"


def arguments_in(written: Json) -> Json:
    """Return the arguments that a model wrote as JSON: an object, or the text where it is none.

    Nothing at all is an object without members: that is how some servers give a call of a tool that takes no
    arguments.
    """
    match written:
        case None:
            return {}
        case str() if not written.strip():
            return {}
        case str():
            try:
                found = json.loads(written)
            except (ValueError, RecursionError):
                return written
            return found if isinstance(found, dict) else written
        case dict():
            return written
    return readable_json(written)
