"""One call of a language model, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from recorder.claude_api import (
    KEY_VARIABLE,
    PRICES,
    BudgetError,
    ClaudeApi,
    CompletionError,
    Price,
    known_price,
)

__all__ = [
    "KEY_VARIABLE",
    "PRICES",
    "BudgetError",
    "ClaudeCompleter",
    "Completer",
    "Completion",
    "CompletionError",
    "Price",
    "known_price",
]


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
        self._api = ClaudeApi(
            model, base_url=base_url, api_key=api_key, timeout_s=timeout_s, max_usd=max_usd, price=price
        )

    @property
    def spent_usd(self) -> float:
        """What the calls so far cost, as `ClaudeApi.spent_usd` counts it."""
        return self._api.spent_usd

    def complete(self, system: str, prompt: str, max_tokens: int) -> Completion:
        """Ask once, after a rate limit or a broken connection again.

        Raises:
            BudgetError: the call might cost more than is left of `max_usd`.
            CompletionError: the API refused, could not be reached, or did not answer in time.
        """
        message = self._api.ask([{"role": "user", "content": prompt}], max_tokens, system=system)
        return Completion(
            text="".join(map(_text, message.content)),
            model=message.model,
            input_tokens=message.input_tokens,
            output_tokens=message.output_tokens,
            cost_usd=message.cost_usd,
            stop_reason=message.stop_reason,
        )


def _text(block: object) -> str:
    match block:
        case {"type": "text", "text": str(text)}:
            return text
    return ""
