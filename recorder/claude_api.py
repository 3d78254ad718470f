"""A Claude model behind the Messages API: the client, what a reply cost, a budget, and errors in one line."""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from recorder.canonical import encodable
from recorder.errors import FireflyError

if TYPE_CHECKING:
    import anthropic
    from anthropic.types import MessageParam, TextBlockParam, ToolParam

Json = Any

KEY_VARIABLE = "ANTHROPIC_API_KEY"

MAX_RETRIES = 2
"""Further attempts after a rate limit, an overload or a broken connection; the SDK waits in between."""

LONGEST_WAIT_S = 30.0
"""A server that asks for a longer wait than this is not asked again: the caller blocks meanwhile, and the
SDK would do as it is told for weeks."""

FRAME_TOKENS = 500
"""A generous guess at what a request costs beyond its text: roles, and what the API itself adds."""

TOOLS_TOKENS = 1000
"""The same for what the API adds where tools are offered."""

IMAGE_TOKENS = 5000
"""More than an image costs, however large: it is scaled down."""

CACHE_WRITE, CACHE_READ = 1.25, 0.1
"""What an input token costs that is written to the cache for five minutes, or read from it, in the price of
one that is neither."""

REASON_CHARACTERS = 200
"""Characters of an API's own words that an error message repeats; they may quote the prompt."""


class CompletionError(FireflyError):
    """The model gave no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status of the API's refusal; `None` where it gave none."""


class BudgetError(FireflyError):
    """The call might cost more than is left, so it was not made."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input_usd: float
    output_usd: float
    long_from: int | None = None
    """Input tokens above which `long` holds instead, for the output, too."""
    long: Price | None = None

    def cost_usd(
        self,
        input_tokens: int,
        output_tokens: int,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
    ) -> float:
        """Return the cost of a call.

        Args:
            input_tokens: All of them, those read from the cache and written to it too.
            output_tokens: Thinking included.
            cache_read_tokens: Of the input tokens.
            cache_write_tokens: Of the input tokens, for five minutes.
        """
        if self.long is not None and self.long_from is not None and input_tokens > self.long_from:
            return self.long.cost_usd(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens)
        plain_tokens = input_tokens - cache_read_tokens - cache_write_tokens
        weighted = plain_tokens + CACHE_READ * cache_read_tokens + CACHE_WRITE * cache_write_tokens
        return (weighted * self.input_usd + output_tokens * self.output_usd) / 1_000_000


PRICES: Mapping[str, Price] = {
    "claude-fable-5-1": Price(10, 50),
    "claude-opus-5-5": Price(4, 20),
    "claude-opus-5": Price(5, 25),
    "claude-opus-4-8": Price(5, 25),
    "claude-sonnet-5-5": Price(2, 10),
    "claude-sonnet-5": Price(2, 10),
    "claude-sonnet-4-6": Price(3, 15),
    "claude-haiku-5-5": Price(0.1, 0.5, long_from=100_000, long=Price(0.5, 2.5)),
    "claude-haiku-4-5": Price(1, 5),
}
"""List prices of the Claude API, by model, as Anthropic's pages gave them in November 2026.

Other discounts than cached input (batches) and surcharges (fast mode, regions, an hour in the cache) are left
out: we ask for none.
"""


def known_price(model: str) -> Price | None:
    """Return the list price of a model, named with the date of its version or without."""
    return PRICES.get(re.sub(r"-20\d{6}$", "", model))


@dataclass(frozen=True, slots=True)
class Message:
    """A model's reply."""

    body: dict[str, Json]
    """All of it, as received."""
    content: list[Json]
    """Its blocks."""
    model: str
    """As the API named it, which can be a dated version of what was asked for."""
    stop_reason: str
    input_tokens: int
    """All of them, cached ones too."""
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    """Thinking included."""
    cost_usd: float | None
    """`None` when the price of the model is not known."""


class ClaudeApi:
    """One model and what is spent on it. May be used from several threads at once.

    Args:
        model: The model's name in the API, such as `claude-sonnet-5-5`.
        base_url: Another server that speaks the API; by default `ANTHROPIC_BASE_URL`, or Anthropic's own.
        api_key: By default the credentials that the SDK finds, in `ANTHROPIC_API_KEY` first of all.
        timeout_s: How long one attempt may take; there are up to `1 + MAX_RETRIES`.
        max_usd: A request is made only if it cannot take `spent_usd` above this, however long its answer.
        price: By default the list price.

    Raises:
        FireflyError: there are no usable credentials, `base_url` is no URL, or there is a budget without
            a price.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout_s: float,
        max_usd: float | None = None,
        price: Price | None = None,
    ) -> None:
        import anthropic

        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be positive, got {timeout_s}")
        if max_usd is not None and max_usd < 0:
            raise ValueError(f"max_usd must not be negative, got {max_usd}")
        self.model = model
        self._price = price or known_price(model)
        if max_usd is not None and self._price is None:
            known = ", ".join(PRICES)
            raise FireflyError(f"a budget needs a price, and none is known for {model} (known: {known})")
        self._timeout_s = timeout_s
        self._max_usd = max_usd
        self._spent_usd = 0.0
        self._lock = threading.Lock()
        check_url(base_url or os.environ.get("ANTHROPIC_BASE_URL") or None)
        try:
            self._client = anthropic.Anthropic(
                api_key=api_key or None,
                base_url=base_url or None,
                timeout=timeout_s,
                max_retries=MAX_RETRIES,
                middleware=[_wait_briefly],
            )
        except anthropic.AnthropicError as error:
            raise FireflyError(f"no credentials for {model}: {one_line(str(error))}") from error
        key = self._client.api_key or self._client.auth_token
        if key is None and self._client.credentials is None:
            raise FireflyError(f"{KEY_VARIABLE} is not set, and {model} needs an API key")
        if key is not None:
            check_key(key, model, KEY_VARIABLE)
        self._key = key

    @property
    def spent_usd(self) -> float:
        """What the requests so far cost; 0 when the price is not known.

        Counted in full, as if each had used all its tokens: requests under way, and those that timed out or
        whose reply could not be read, since their price is not known and they may be billed.
        """
        return self._spent_usd

    def ask(
        self,
        messages: Sequence[Json],
        max_tokens: int,
        *,
        system: str | Sequence[Json] = "",
        tools: Sequence[Json] = (),
        most_input_tokens: int | None = None,
        caching: bool = False,
        temperature: float | None = None,
    ) -> Message:
        """Ask once, after a rate limit or a broken connection again.

        Args:
            messages, max_tokens, system, tools: As in the API. What JSON or UTF-8 has no form for, lone
                surrogates and infinities, is replaced.
            most_input_tokens: The most that the input can be, where the caller knows better than
                `most_tokens` of it all.
            caching: Whether there are cache breakpoints, so that all input may be written to the cache.
            temperature: For the models that take one; those since 2026 refuse it.

        Raises:
            BudgetError: the request might cost more than is left of `max_usd`.
            CompletionError: the API refused, could not be reached, or did not answer in time.
        """
        import anthropic

        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
        if most_input_tokens is None:
            most_input_tokens = most_tokens(messages, system, tools)
        most_usd = self._reserve(most_input_tokens, max_tokens, caching)
        cost_usd: float | None = most_usd
        try:
            # The raw response, as the SDK's own reading lets a body of any shape through.
            response = self._client.messages.with_raw_response.create(
                model=self.model,
                max_tokens=max_tokens,
                messages=cast("Iterable[MessageParam]", sendable(messages)),
                # Empty ones are refused.
                system=cast("str | list[TextBlockParam]", sendable(system)) or anthropic.omit,
                tools=cast("list[ToolParam]", sendable(tools)) or anthropic.omit,
                # The SDK has no name for it any more.
                extra_body=None if temperature is None else {"temperature": temperature},
            )
            message = self._read(response.http_response.text)
            cost_usd = message.cost_usd
            return message
        except anthropic.APITimeoutError as error:
            cost_usd = None if most_usd is None else most_usd * (1 + MAX_RETRIES)
            raise CompletionError(f"{self.model} gave no answer within {self._timeout_s:g} s") from error
        except anthropic.AnthropicError as error:
            cost_usd = 0.0
            status = error.status_code if isinstance(error, anthropic.APIStatusError) else None
            raise CompletionError(f"{self.model} gave no answer: {self._reason(error)}", status) from error
        except (ValueError, RecursionError) as error:
            raise CompletionError(f"{self.model} gave an answer that cannot be read: {error}") from error
        finally:
            with self._lock:
                self._spent_usd += (cost_usd or 0.0) - (most_usd or 0.0)

    def close(self) -> None:
        self._client.close()

    def _reserve(self, most_input_tokens: int, max_tokens: int, caching: bool) -> float | None:
        """Count the most that the request can cost as spent; `None` when no price is known."""
        if self._price is None:
            return None
        written_tokens = most_input_tokens if caching else 0
        most_usd = self._price.cost_usd(most_input_tokens, max_tokens, cache_write_tokens=written_tokens)
        with self._lock:
            if self._max_usd is not None and self._spent_usd + most_usd > self._max_usd:
                raise BudgetError(
                    f"the budget of ${self._max_usd:.4g} for {self.model} is used up:"
                    f" ${self._spent_usd:.4f} are spent, and one more call may cost ${most_usd:.4f}"
                )
            self._spent_usd += most_usd
        return most_usd

    def _read(self, text: str) -> Message:
        match json.loads(text):
            case {
                "content": [*blocks],
                "model": str(model),
                "stop_reason": str(stop_reason),
                "usage": {"input_tokens": int(uncached), "output_tokens": int(output_tokens), **usage},
            } as body:
                read = _count(usage.get("cache_read_input_tokens"))
                written = _count(usage.get("cache_creation_input_tokens"))
                tokens = (uncached + read + written, output_tokens, read, written)
                return Message(
                    body=body,
                    content=blocks,
                    model=model,
                    stop_reason=stop_reason,
                    input_tokens=uncached + read + written,
                    cache_read_tokens=read,
                    cache_write_tokens=written,
                    output_tokens=output_tokens,
                    cost_usd=self._price.cost_usd(*tokens) if self._price else None,
                )
        raise ValueError("it is no message of the Messages API")

    def _reason(self, error: anthropic.AnthropicError) -> str:
        """Say in few words what went wrong, without the headers that a cause may quote."""
        import anthropic

        if isinstance(error, anthropic.APIStatusError):
            words = " ".join(str(word) for word in (error.type, error.api_message) if word)
            return f"HTTP {error.status_code} {one_line(without_key(words, self._key))}".strip()
        if isinstance(error, anthropic.APIConnectionError):
            return f"{self._client.base_url.host} cannot be reached ({type(error.__cause__).__name__})"
        return one_line(str(error))


def most_tokens(
    messages: Sequence[Json], system: str | Sequence[Json] = "", tools: Sequence[Json] = ()
) -> int:
    """Return more input tokens than such a request can have: a token stands for at least a byte of text."""
    frame_tokens = FRAME_TOKENS + (TOOLS_TOKENS if tools else 0)
    return frame_tokens + size_tokens(messages) + size_tokens(system) + size_tokens(tools)


def size_tokens(value: Json) -> int:
    """Return more tokens than a part of a request can have, without what frames it."""
    match value:
        case str():
            return len(value.encode("utf-8", "replace")) + 2
        case {"type": "image"}:
            return IMAGE_TOKENS
        case dict():
            return 2 + sum(size_tokens(str(name)) + size_tokens(item) + 2 for name, item in value.items())
        case list() | tuple():
            return 2 + sum(size_tokens(item) + 1 for item in value)
    return len(str(value)) + 2


def sendable(value: Json) -> Json:
    """Return `value` with `?` for lone surrogates, and with words for infinities and NaN."""
    match value:
        case str():
            return encodable(value)
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {encodable(str(name)): sendable(item) for name, item in value.items()}
        case list() | tuple():
            return [sendable(item) for item in value]
    return value


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _wait_briefly(request: anthropic.APIRequest, call_next: anthropic.CallNext) -> anthropic.APIResponse[Any]:
    """Stand between the SDK and each attempt, and call off a retry that would be late."""
    response = call_next(request)
    if asks_for_long_wait(response.headers):
        response.headers["x-should-retry"] = "false"
    return response


def asks_for_long_wait(headers: Mapping[str, str]) -> bool:
    """Whether a response asks for a longer wait than `LONGEST_WAIT_S`, or for one that is not in seconds."""
    asked = ((headers.get("retry-after"), 1.0), (headers.get("retry-after-ms"), 0.001))
    return any(
        wait is not None and not (wait.isdecimal() and int(wait) * unit_s <= LONGEST_WAIT_S)
        for wait, unit_s in asked
    )


def check_url(url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return
    except ValueError:  # such as a port that is no number
        pass
    raise FireflyError(f"the address of the API must be like https://example.com, got {url!r}")


def check_key(key: str, model: str, variable: str) -> None:
    if not (key.isascii() and key.isprintable() and key.strip() == key):
        raise FireflyError(f"the API key for {model} ({variable}) has characters that no key has")


def without_key(text: str, key: str | None) -> str:
    """Return an API's words without the key, which some servers repeat."""
    return text.replace(key, "…") if key else text


def one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= REASON_CHARACTERS else f"{line[:REASON_CHARACTERS]}…"
