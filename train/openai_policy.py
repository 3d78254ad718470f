"""A model behind the chat completions API of OpenAI as a policy: hosted ones, and servers such as vLLM."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio import move_on_after

from recorder.canonical import readable_json
from recorder.claude_api import (
    FRAME_TOKENS,
    MAX_RETRIES,
    Price,
    asks_for_long_wait,
    check_key,
    check_url,
    most_tokens,
    one_line,
    sendable,
    size_tokens,
    without_key,
)
from recorder.errors import FireflyError
from recorder.exchange import Json
from train.environment import Message
from train.policy import OutOfBudget, PolicyFailed, Reply, Seat
from train.turns import NoRoom, Refused, Turns, arguments_in, call_of, from_model, legal_name, with_room

if TYPE_CHECKING:
    import openai

KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"

NO_KEY = "none"
"""What is sent to a server that was named without a key: the SDK wants one, and vLLM asks for none."""


class OpenAIPolicy:
    """Asks for one message a request.

    Args:
        model: The model's name in the API.
        base_url: Such as `http://localhost:8000/v1`; by default `OPENAI_BASE_URL`, or OpenAI's own.
        api_key: By default `OPENAI_API_KEY`.
        max_usd: A request is made only if all rollouts together cannot spend more, however long its answer.
        temperature: By default the server's.
        price: By default it is not known what rollouts cost. Cached input is counted in full.
        timeout_s: How long one attempt may take.

    Raises:
        FireflyError: the SDK is not installed, there is no usable key, `base_url` is no URL, or there is a
            budget without a price.
    """

    batched = False

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        max_usd: float | None = None,
        temperature: float | None = None,
        price: Price | None = None,
        timeout_s: float = 300.0,
    ) -> None:
        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be positive, got {timeout_s}")
        if max_usd is not None and max_usd < 0:
            raise ValueError(f"max_usd must not be negative, got {max_usd}")
        if max_usd is not None and price is None:
            raise FireflyError(f"a budget needs a price, and none is known for {model}")
        url = base_url or os.environ.get(URL_VARIABLE) or None
        key = api_key or os.environ.get(KEY_VARIABLE) or (NO_KEY if url is not None else None)
        if key is None:
            raise FireflyError(f"{KEY_VARIABLE} is not set, and {model} needs an API key")
        check_url(url)
        check_key(key, model, KEY_VARIABLE)
        try:
            import openai  # noqa: F401 - a run ends before it begins where it is not there
        except ImportError as error:
            raise FireflyError(
                "models behind the API of OpenAI need its SDK: pip install 'firefly-proxy[eval]'"
            ) from error
        self.name = model
        self._url, self._key, self._timeout_s = url, key, timeout_s
        self._temperature, self._price, self._max_usd = temperature, price, max_usd
        self._spent_usd = 0.0
        self._answered = False
        self._limit = "max_tokens"
        """The parameter's name: all servers know this one but OpenAI's, whose newer models refuse it."""
        self._seeded = True
        """Whether the API is thought to take seeds."""
        self._client: openai.AsyncOpenAI | None = None
        self._requests = 0
        """Under way."""

    @property
    def spent_usd(self) -> float:
        """What the requests so far cost; 0 where the price is not known.

        Counted in full, as if each had used all its tokens: requests under way, and those that timed out,
        were given up or had a reply that could not be read.
        """
        return self._spent_usd

    def under_way(self, rollouts: int) -> None:
        pass

    def close(self) -> None:
        pass

    async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Reply:
        """Return the next message, as `Policy.act` says.

        Raises:
            FireflyError: no rollout would get an answer, as the key or the model's name is wrong.
        """
        room = seat.max_tokens - seat.spent_tokens
        if room < 1:
            return Reply(None)
        if seat.kept is None:
            seat.kept = Turns([], most_tokens([], "", tools))
        turns: Turns = seat.kept
        new = [_sent(message) for message in turns.new(messages)]
        turns.messages += new
        turns.most_tokens += size_tokens(new)
        completion = await with_room(partial(self._ask, turns, tools, seat.seed), room)
        if completion is None:
            return Reply(None)
        turns.taken += 1
        used = (completion.prompt_tokens or turns.most_tokens) + completion.completion_tokens
        turns.most_tokens = used + FRAME_TOKENS
        return Reply(
            _message(completion, turns),
            prompt_tokens=completion.prompt_tokens,
            cached_tokens=completion.cached_tokens,
            completion_tokens=completion.completion_tokens,
            cost_usd=self._cost_usd(completion.prompt_tokens, completion.completion_tokens),
            truncated=completion.finish_reason == "length",
        )

    async def _ask(self, turns: Turns, tools: Sequence[Json], seed: int, room: int) -> _Completion:
        """Ask, and once more where the server takes the request in another form."""
        while True:
            body: dict[str, Any] = {"model": self.name, "messages": turns.messages, self._limit: room}
            if tools:
                body["tools"] = list(tools)
            if self._temperature is not None:
                body["temperature"] = self._temperature
            if self._seeded:
                body["seed"] = seed & 0x7FFF_FFFF  # some servers have 32 bits for it
            try:
                completion = await self._post(sendable(body), turns.most_tokens, room)
            except Refused as refused:
                if refused.is_for_room:
                    raise NoRoom from refused
                if self._adapted(refused, body, turns):
                    continue
                raise refused.error(answered=self._answered) from refused
            self._answered = True
            return completion

    def _adapted(self, refused: Refused, body: Json, turns: Turns) -> bool:
        """Take note of what the server does not take, and return whether it was in the request."""
        if refused.is_for_form and "max_tokens" in body and "max_completion_tokens" in refused.line:
            self._limit = "max_completion_tokens"
            return True
        if refused.is_for_form and "seed" in body and re.search(r"\bseed\b", refused.line):
            self._seeded = False
            return True
        if refused.status in (400, 422, 500):
            # vLLM reads the arguments of calls, for chat templates that take them apart, and fails where they
            # are no JSON: they are written as a JSON text then, which most templates print as it is.
            parsable = [_with_parsable_arguments(message) for message in turns.messages]
            if parsable != turns.messages:
                turns.messages = parsable
                return True
        return False

    async def _post(self, body: Json, most_input_tokens: int, room: int) -> _Completion:
        import openai

        most_usd = self._reserve(most_input_tokens, room)
        cost_usd = most_usd
        try:
            async with self._connected() as client:
                # The raw response, as the SDK's own reading lets a body of any shape through.
                create: Any = client.chat.completions.with_raw_response.create
                response = await create(**body)
            completion = _read(response.http_response.text, self.name)
            cost_usd = self._cost_usd(completion.prompt_tokens, completion.completion_tokens)
            return completion
        except openai.APITimeoutError as error:
            cost_usd = None if most_usd is None else most_usd * (1 + MAX_RETRIES)
            raise Refused(f"{self.name} gave no answer within {self._timeout_s:g} s", None) from error
        except openai.OpenAIError as error:
            cost_usd = 0.0
            status = error.status_code if isinstance(error, openai.APIStatusError) else None
            raise Refused(f"{self.name} gave no answer: {self._reason(error)}", status) from error
        finally:
            self._spent_usd += (cost_usd or 0.0) - (most_usd or 0.0)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[openai.AsyncOpenAI]:
        """Lend the client, whose connections last while any request is under way.

        They belong to an event loop, which `close` may be called outside of, and the next request may come in
        another.
        """
        import openai

        if self._client is None:
            hooks: Any = {"response": [_wait_briefly]}
            self._client = openai.AsyncOpenAI(
                api_key=self._key,
                base_url=self._url,
                timeout=self._timeout_s,
                max_retries=MAX_RETRIES,
                http_client=openai.DefaultAsyncHttpxClient(timeout=self._timeout_s, event_hooks=hooks),
            )
        client = self._client
        self._requests += 1
        try:
            yield client
        finally:
            self._requests -= 1
            if self._requests == 0:
                self._client = None
                with move_on_after(1, shield=True):
                    await client.close()

    def _reserve(self, most_input_tokens: int, room: int) -> float | None:
        """Count the most that a request can cost as spent; `None` when no price is known."""
        most_usd = self._cost_usd(most_input_tokens, room)
        if most_usd is None:
            return None
        if self._max_usd is not None and self._spent_usd + most_usd > self._max_usd:
            raise OutOfBudget(
                f"the budget of ${self._max_usd:.4g} for {self.name} is used up:"
                f" ${self._spent_usd:.4f} are spent, and one more message may cost ${most_usd:.4f}"
            )
        self._spent_usd += most_usd
        return most_usd

    def _cost_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        return None if self._price is None else self._price.cost_usd(input_tokens, output_tokens)

    def _reason(self, error: openai.OpenAIError) -> str:
        """Say in few words what went wrong, without the headers that a cause may quote."""
        import openai

        if isinstance(error, openai.APIStatusError):
            words = without_key(_words(error.body), self._key)
            return f"HTTP {error.status_code} {one_line(words)}".strip()
        if isinstance(error, openai.APIConnectionError):
            return f"{error.request.url.host} cannot be reached ({type(error.__cause__).__name__})"
        return one_line(without_key(str(error), self._key))


def read_price(text: str) -> Price:
    """Read `IN,OUT`, US dollars for a million tokens of input and of output, such as `0.15,0.6`.

    Raises:
        FireflyError: it is none.
    """
    try:
        input_usd, output_usd = map(float, text.split(","))
    except ValueError:
        input_usd = output_usd = math.nan
    if not (0 <= input_usd < math.inf and 0 <= output_usd < math.inf):
        raise FireflyError(f"a price is IN,OUT, dollars for a million tokens, such as 0.15,0.6; got {text!r}")
    return Price(input_usd, output_usd)


@dataclass(frozen=True, slots=True)
class _Completion:
    message: dict[str, Json]
    """As received."""
    finish_reason: str | None
    prompt_tokens: int
    """All of them, cached ones too."""
    cached_tokens: int
    completion_tokens: int
    """Thinking included."""


def _read(text: str, model: str) -> _Completion:
    """Read the body of an answer.

    Raises:
        PolicyFailed: it is no completion, or has no counts of its tokens, which are what limits a rollout.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyFailed(f"{model} gave an answer that cannot be read: {error}") from error
    match body:
        case {
            "choices": [{"message": dict(message), **choice}, *_],
            "usage": {"prompt_tokens": int(prompt), "completion_tokens": int(written), **usage},
        }:
            match usage.get("prompt_tokens_details"):
                case {"cached_tokens": int(cached)}:
                    pass
                case _:
                    cached = 0
            reason = choice.get("finish_reason")
            return _Completion(
                message=message,
                finish_reason=reason if isinstance(reason, str) else None,
                prompt_tokens=prompt,
                cached_tokens=cached,
                completion_tokens=written,
            )
    said = body.get("error") if isinstance(body, dict) else None
    why = one_line(_words(said)) if said else "it is no chat completion with its usage"
    raise PolicyFailed(f"{model} gave an answer that cannot be read: {why}")


def _words(body: object) -> str:
    """Return what the body of an error says, in the forms that servers give it."""
    match body:
        case {"message": str(words), **rest}:
            kind = rest.get("code") or rest.get("type")
            return f"{kind} {words}" if isinstance(kind, str) else words
        case {"detail": detail}:
            return detail if isinstance(detail, str) else readable_json(detail)
        case str():
            return body
    return "" if body is None else readable_json(body)


async def _wait_briefly(response: Any) -> None:
    """Stand between the SDK and each attempt, and call off a retry that would be late."""
    if asks_for_long_wait(response.headers):
        response.headers["x-should-retry"] = "false"


def _sent(message: Message) -> Json:
    """Return a message of the prompt, or a result, as the API takes it."""
    sent = {"role": message["role"], "content": message["content"]}
    if message["role"] == "tool":
        sent["tool_call_id"] = message["tool_call_id"]
    return sent


def _message(completion: _Completion, turns: Turns) -> Message:
    """Return what the model wrote as a message, and keep it as one that can be sent back.

    That has all that came, also what only some servers know: the model's reasoning, signatures of calls.
    """
    written = completion.message
    calls: list[Json] = []
    sent: list[Json] = []
    listed = written.get("tool_calls")
    for each in listed if isinstance(listed, list) else []:
        call = each if isinstance(each, dict) else {}
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        name, given = function.get("name"), function.get("arguments")
        identifier = turns.new_id(call.get("id"))
        calls.append(call_of(identifier, name, arguments_in(given)))
        text = given if isinstance(given, str) else "{}" if given is None else readable_json(given)
        sent.append(
            {
                **call,
                "id": identifier,
                "type": "function",
                "function": {**function, "name": legal_name(name), "arguments": text},
            }
        )
    kept = {name: value for name, value in written.items() if value is not None and name != "tool_calls"}
    kept = {"content": None, **kept, "role": "assistant"}
    turns.messages.append({**kept, "tool_calls": sent} if sent else kept)
    refusal = written.get("refusal")
    text = _text(written.get("content"))
    return from_model(text or (refusal if isinstance(refusal, str) else ""), calls)


def _text(content: Json) -> str:
    match content:
        case str():
            return content
        case list():
            texts = (part.get("text") for part in content if isinstance(part, dict))
            return "".join(text for text in texts if isinstance(text, str))
    return ""


def _with_parsable_arguments(message: Json) -> Json:
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _parsable(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _parsable(arguments: str) -> str:
    try:
        json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return json.dumps(arguments)
    return arguments
