"""One call of a language model, and what it cost."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from recorder.canonical import encodable
from recorder.errors import FireflyError

if TYPE_CHECKING:
    import anthropic

KEY_VARIABLE = "ANTHROPIC_API_KEY"

MAX_RETRIES = 2
"""Further attempts after a rate limit, an overload or a broken connection; the SDK waits in between."""

LONGEST_WAIT_S = 30.0
"""A server that asks for a longer wait than this is not asked again: the caller blocks meanwhile, and the
SDK would do as it is told for weeks."""

FRAME_TOKENS = 500
"""A generous guess at what a request costs beyond its text: roles, and what the API itself adds."""

REASON_CHARACTERS = 200
"""Characters of an API's own words that an error message repeats; they may quote the prompt."""


class CompletionError(FireflyError):
    """The model gave no answer."""


class BudgetError(FireflyError):
    """The call might cost more than is left, so it was not made."""


@dataclass(frozen=True, slots=True)
class Completion:
    text: str
    """Without what the model thought; empty if thinking used up `max_tokens`, or it refused."""
    model: str
    """As the API named it, which can be a dated version of what was asked for."""
    input_tokens: int
    """All of them, cached ones too."""
    output_tokens: int
    """Thinking included."""
    cost_usd: float | None
    """`None` when the price of the model is not known."""
    stop_reason: str
    """`end_turn` when the model was done, or `max_tokens`, `refusal` and others."""


class Completer(Protocol):
    """Answers one prompt. Blocks until the answer is whole.

    Raises:
        FireflyError: there is no answer.
    """

    def complete(self, system: str, prompt: str, max_tokens: int) -> Completion: ...


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input_usd: float
    output_usd: float
    long_from: int | None = None
    """Input tokens above which `long` holds instead, for the output, too."""
    long: Price | None = None

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        if self.long is not None and self.long_from is not None and input_tokens > self.long_from:
            return self.long.cost_usd(input_tokens, output_tokens)
        return (input_tokens * self.input_usd + output_tokens * self.output_usd) / 1_000_000


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

Discounts (batches, cached input) and surcharges (fast mode, regions) are left out: we ask for none.
"""


def known_price(model: str) -> Price | None:
    """Return the list price of a model, named with the date of its version or without."""
    return PRICES.get(re.sub(r"-20\d{6}$", "", model))


class ClaudeCompleter:
    """A Claude model behind the Anthropic API. May be used from several threads at once.

    Args:
        model: The model's name in the API, such as `claude-sonnet-5-5`.
        base_url: Another server that speaks the API; by default `ANTHROPIC_BASE_URL`, or Anthropic's own.
        api_key: By default the credentials that the SDK finds, in `ANTHROPIC_API_KEY` first of all.
        timeout_s: How long one attempt may take; there are up to `1 + MAX_RETRIES`.
        max_usd: A call is made only if it cannot take `spent_usd` above this, however long its answer.
        price: By default the list price.

    Raises:
        FireflyError: there are no usable credentials, `base_url` is no URL, or there is a budget without
            a price.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 60,
        max_usd: float | None = None,
        *,
        price: Price | None = None,
    ) -> None:
        import anthropic

        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be positive, got {timeout_s}")
        if max_usd is not None and max_usd < 0:
            raise ValueError(f"max_usd must not be negative, got {max_usd}")
        self._model = model
        self._price = price or known_price(model)
        if max_usd is not None and self._price is None:
            known = ", ".join(PRICES)
            raise FireflyError(f"a budget needs a price, and none is known for {model} (known: {known})")
        self._timeout_s = timeout_s
        self._max_usd = max_usd
        self._spent_usd = 0.0
        self._lock = threading.Lock()
        _check_url(base_url or os.environ.get("ANTHROPIC_BASE_URL") or None)
        try:
            self._client = anthropic.Anthropic(
                api_key=api_key or None,
                base_url=base_url or None,
                timeout=timeout_s,
                max_retries=MAX_RETRIES,
                middleware=[_wait_briefly],
            )
        except anthropic.AnthropicError as error:
            raise FireflyError(f"no credentials for {model}: {_one_line(str(error))}") from error
        key = self._client.api_key or self._client.auth_token
        if key is None and self._client.credentials is None:
            raise FireflyError(f"{KEY_VARIABLE} is not set, and {model} needs an API key")
        if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key):
            raise FireflyError(f"the API key for {model} ({KEY_VARIABLE}) has characters that no key has")

    @property
    def spent_usd(self) -> float:
        """What the calls so far cost; 0 when the price is not known.

        Counted in full, as if each had used all its tokens: calls under way, and calls that timed out or
        whose reply could not be read, since their price is not known and they may be billed.
        """
        return self._spent_usd

    def complete(self, system: str, prompt: str, max_tokens: int) -> Completion:
        """Ask once, after a rate limit or a broken connection again.

        Raises:
            BudgetError: the call might cost more than is left of `max_usd`.
            CompletionError: the API refused, could not be reached, or did not answer in time.
        """
        import anthropic

        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
        system, prompt = encodable(system), encodable(prompt)
        most_usd = self._reserve(system, prompt, max_tokens)
        cost_usd: float | None = most_usd
        try:
            # The raw response, as the SDK's own reading lets a body of any shape through.
            response = self._client.messages.with_raw_response.create(
                model=self._model,
                max_tokens=max_tokens,
                messages=[{"role": "user", "content": prompt}],
                system=system or anthropic.omit,  # an empty one is refused
            )
            completion = self._read(response.http_response.text)
            cost_usd = completion.cost_usd
            return completion
        except anthropic.APITimeoutError as error:
            cost_usd = None if most_usd is None else most_usd * (1 + MAX_RETRIES)
            raise CompletionError(f"{self._model} gave no answer within {self._timeout_s:g} s") from error
        except anthropic.AnthropicError as error:
            cost_usd = 0.0
            raise CompletionError(f"{self._model} gave no answer: {self._reason(error)}") from error
        except (ValueError, RecursionError) as error:
            raise CompletionError(f"{self._model} gave an answer that cannot be read: {error}") from error
        finally:
            with self._lock:
                self._spent_usd += (cost_usd or 0.0) - (most_usd or 0.0)

    def _reserve(self, system: str, prompt: str, max_tokens: int) -> float | None:
        """Count the most that the call can cost as spent; `None` when no price is known."""
        if self._price is None:
            return None
        # A token stands for at least a byte of text.
        most_tokens = len(system.encode()) + len(prompt.encode()) + FRAME_TOKENS
        most_usd = self._price.cost_usd(most_tokens, max_tokens)
        with self._lock:
            if self._max_usd is not None and self._spent_usd + most_usd > self._max_usd:
                raise BudgetError(
                    f"the budget of ${self._max_usd:.4g} for {self._model} is used up:"
                    f" ${self._spent_usd:.4f} are spent, and one more call may cost ${most_usd:.4f}"
                )
            self._spent_usd += most_usd
        return most_usd

    def _read(self, body: str) -> Completion:
        match json.loads(body):
            case {
                "content": [*blocks],
                "model": str(model),
                "stop_reason": str(stop_reason),
                "usage": {"input_tokens": int(uncached), "output_tokens": int(output_tokens), **usage},
            }:
                cached = usage.get("cache_creation_input_tokens"), usage.get("cache_read_input_tokens")
                input_tokens = uncached + sum(count for count in cached if isinstance(count, int))
                text = "".join(map(_text, blocks))
                cost_usd = self._price.cost_usd(input_tokens, output_tokens) if self._price else None
                return Completion(text, model, input_tokens, output_tokens, cost_usd, stop_reason)
        raise ValueError("it is no message of the Messages API")

    def _reason(self, error: anthropic.AnthropicError) -> str:
        """Say in few words what went wrong, without the headers that a cause may quote."""
        import anthropic

        if isinstance(error, anthropic.APIStatusError):
            words = " ".join(str(word) for word in (error.type, error.api_message) if word)
            return f"HTTP {error.status_code} {_one_line(words)}".strip()
        if isinstance(error, anthropic.APIConnectionError):
            return f"{self._client.base_url.host} cannot be reached ({type(error.__cause__).__name__})"
        return _one_line(str(error))


def _text(block: object) -> str:
    match block:
        case {"type": "text", "text": str(text)}:
            return text
    return ""


def _wait_briefly(request: anthropic.APIRequest, call_next: anthropic.CallNext) -> anthropic.APIResponse[Any]:
    """Stand between the SDK and each attempt, and call off a retry that would be late."""
    response = call_next(request)
    for name, unit_s in (("retry-after", 1.0), ("retry-after-ms", 0.001)):
        asked = response.headers.get(name)
        if asked is not None and not (asked.isdecimal() and int(asked) * unit_s <= LONGEST_WAIT_S):
            response.headers["x-should-retry"] = "false"
    return response


def _check_url(url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return
    except ValueError:  # such as a port that is no number
        pass
    raise FireflyError(f"the address of the API must be like https://example.com, got {url!r}")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= REASON_CHARACTERS else f"{line[:REASON_CHARACTERS]}…"
