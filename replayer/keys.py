"""What makes two requests the same request: canonical arguments, and 64-bit keys of them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from hashlib import blake2b
from struct import pack
from typing import Any

from recorder.canonical import canonical_json

CHAIN_FIELDS = frozenset({"inputResponses", "requestState"})
"""Params of a later leg of a chain of the 2026-07-28 era."""


def hash64(text: str) -> int:
    """Return a signed 64-bit content hash, as SQLite stores integers.

    Among ten million distinct texts the chance that any two collide is some 3 in a million.
    """
    return int.from_bytes(
        blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True
    )


def chain64(before: int, *more: int) -> int:
    """Hash a sequence of 64-bit integers, order included; stable across processes and Python versions."""
    data = pack(f">{1 + len(more)}q", before, *more)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big", signed=True)


def plain(value: Any) -> Any:
    """Return a JSON value in the form that is compared.

    Text in Unicode NFC, a float without a fraction as the integer it equals, members that are null left
    out. `true` and `1` stay different, and the order of a list counts.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() else unicodedata.normalize("NFC", value)
    if kind is dict:
        return {plain(name): plain(item) for name, item in value.items() if item is not None}
    if kind is list or kind is tuple:
        return [plain(item) for item in value]
    if kind is float:
        return int(value) if value.is_integer() else value
    return value


def canonical_arguments(
    arguments: Mapping[str, Any], schema: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a call's arguments in the form that is compared: `plain`, and without the schema's defaults.

    Args:
        schema: The tool's input schema; an argument that equals the default it declares is left out, in
            nested objects too.
    """
    compared: dict[str, Any] = plain(arguments)
    return _without_defaults(compared, schema) if schema else compared


def canonical_text(compared: object) -> str:
    """Render a value that is `plain` already, so that equal values have equal text (ASCII)."""
    return _ENCODER.encode(compared)


# `json.dumps` would make one for each call.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def call_key(server: str, tool: str, arguments_text: str) -> int:
    """Return the key of a tool call from the canonical text of its arguments."""
    return hash64(f"{server}\0{tool}\0{arguments_text}")


def request_key(server: str, method: str, params: Mapping[str, Any]) -> int:
    """Return the key of a request that is no tool call, or of a call whose arguments are no object.

    `_meta` does not count.
    """
    compared = plain({name: value for name, value in params.items() if name != "_meta"})
    return hash64(f"{server}\0{method}\0\0{canonical_text(compared)}")


class Chains:
    """Keys of one conversation's requests, where a later leg of a chain is keyed on all before it.

    A 2026-07-28 server that needs input answers `input_required`, and the client asks again with
    `inputResponses` and the `requestState` it was given. Such a leg means something only after the legs
    that led to it, so its key holds theirs.
    """

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}

    def key(self, server: str, method: str, params: Mapping[str, Any]) -> int | None:
        """Return a leg's key, or `None` for one that nothing in this conversation led to."""
        before = self._asked.get(_link(server, method, params))
        return None if before is None else chain64(before, request_key(server, method, params))

    def ask_input(
        self, key: int, server: str, method: str, params: Mapping[str, Any], result: Mapping[str, Any]
    ) -> None:
        """Note that the request of this key was answered with `input_required`."""
        self._asked[_link(server, method, {**params, "requestState": result.get("requestState")})] = key


def _link(server: str, method: str, params: Mapping[str, Any]) -> str:
    """Return what a question and the request that answers it have in common."""
    common = {name: value for name, value in params.items() if name not in ("inputResponses", "_meta")}
    if method == "tools/call" and common.get("arguments") is None:
        common["arguments"] = {}
    return canonical_json([server, method, plain(common)])


def _without_defaults(arguments: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return arguments
    kept = {}
    for name, value in arguments.items():
        declared = properties.get(name)
        if isinstance(declared, dict):
            if "default" in declared and _equal(value, declared["default"]):
                continue
            if isinstance(value, dict):
                value = _without_defaults(value, declared)
        kept[name] = value
    return kept


def _equal(value: object, default: object) -> bool:
    return canonical_text(value) == canonical_text(plain(default))
