"""What makes two requests the same request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.canonical import content_hash


def request_key(method: str, params: Mapping[str, Any] | None) -> str:
    """Return 32 hex digits that are equal for equal requests.

    The order of keys, `2` for `2.0`, `_meta` and the difference between no arguments and empty ones do
    not count; everything else does.
    """
    plain = {name: value for name, value in (params or {}).items() if name != "_meta"}
    if method == "tools/call" and plain.get("arguments") is None:
        plain["arguments"] = {}
    return content_hash([method, {name: value for name, value in plain.items() if value is not None}])


class ChainKeys:
    """Keys of one conversation's requests, where a later leg of a chain is keyed on all before it.

    A 2026-07-28 server that needs input answers `input_required`, and the client asks again with
    `inputResponses` and the `requestState` it was given. Such a leg means something only after the legs
    that led to it, so its key holds theirs.
    """

    def __init__(self) -> None:
        self._asked: dict[str, str] = {}

    def key(self, method: str, params: Mapping[str, Any]) -> str | None:
        """Return the request's key, or `None` for a leg that nothing in this conversation led to."""
        key = request_key(method, params)
        if "inputResponses" not in params and "requestState" not in params:
            return key
        before = self._asked.get(_link(method, params))
        return None if before is None else content_hash([before, key])

    def ask_input(self, key: str, method: str, params: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Note that the request of this key was answered with `input_required`."""
        self._asked[_link(method, {**params, "requestState": result.get("requestState")})] = key


def _link(method: str, params: Mapping[str, Any]) -> str:
    """Return what a question and the request that answers it have in common."""
    return request_key(method, {name: value for name, value in params.items() if name != "inputResponses"})
