"""One conversation with a recording: what it has asked so far, and so what it is answered next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recorder.canonical import readable_json
from recorder.exchange import Exchange, OtherResult, ToolResult
from recorder.redact import map_text
from recorder.store import Store
from replayer.history import History
from replayer.index import RequestIndex
from replayer.keys import ChainKeys
from replayer.nearest import Near, nearest
from replayer.tier import Hit, Request, Tier


@dataclass(frozen=True, slots=True)
class Answer:
    """A recorded exchange that answers a request, and how it was found."""

    exchange: Exchange
    hit: Hit


@dataclass(frozen=True, slots=True)
class Miss:
    """No tier had an answer."""

    tiers: tuple[str, ...]
    nearest: tuple[Near, ...]


class ReplaySession:
    """Answers one conversation's requests from a recording, in the order they are asked.

    Plain synchronous code; the store and the index may be shared by many sessions.

    Args:
        tiers: Asked in this order; the first hit wins.
    """

    def __init__(self, store: Store, index: RequestIndex, tiers: Sequence[Tier]) -> None:
        self._store, self._index, self._tiers = store, index, tuple(tiers)
        self._redactor = store.redactor()
        self._secrets = store.known_secrets()
        self._history = History(index)
        self._chains = ChainKeys()

    def ask(self, method: str, params: Mapping[str, Any]) -> Answer | Miss:
        """Answer a request as the recorded server did.

        Secrets in it are replaced as they were when it was recorded, whether or not we know them.
        """
        plain = self._redacted(params)
        if (answer := self._find(method, plain)) or not self._secrets:
            return answer or self._miss(method, plain)
        hidden = self._redacted(
            map_text(params, lambda text: self._redactor.redact_unknown(text, self._secrets))
        )
        return self._find(method, hidden) or self._miss(method, hidden)

    def _redacted(self, params: object) -> dict[str, Any]:
        redacted = json.loads(self._redactor.redact(readable_json(params)))
        assert isinstance(redacted, dict)
        return redacted

    def _find(self, method: str, params: Mapping[str, Any]) -> Answer | None:
        request = Request(method, params, self._chains.key(method, params))
        for tier in self._tiers:
            if hit := tier.find(request, self._history):
                self._history.add(request)
                exchange = self._store.exchange(hit.exchange_id)
                self._note_question(request, exchange)
                return Answer(exchange, hit)
        return None

    def _note_question(self, request: Request, exchange: Exchange) -> None:
        if isinstance(exchange.outcome, ToolResult | OtherResult) and request.key is not None:
            result = exchange.outcome.result
            if isinstance(result, dict) and result.get("resultType") == "input_required":
                self._chains.ask_input(request.key, request.method, request.params, result)

    def _miss(self, method: str, params: Mapping[str, Any]) -> Miss:
        found = nearest(self._store, self._index, method, params)
        return Miss(tuple(tier.name for tier in self._tiers), tuple(found))
