"""Text forms of JSON values: the canonical one, for hashing and matching, and the one to read."""

from __future__ import annotations

import hashlib
import json


def canonical_json(value: object) -> str:
    """Render `value` so that equal values have equal text.

    Keys are sorted, there is no white space, and a float without a fraction is written as the integer
    it equals, so `2.0` is `2`; `true` and `1` stay different. Text is ASCII, so that a lone surrogate,
    which JSON allows and UTF-8 does not, has a form too. Infinities and NaN, which `json.loads` lets in
    (`1e999`, `NaN`), keep Python's names for them.

    Raises:
        TypeError: `value` holds something JSON has no form for.
    """
    return json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def content_hash(value: object) -> str:
    """Return 32 hex digits that identify `value` by content."""
    return hashlib.blake2b(canonical_json(value).encode("ascii"), digest_size=16).hexdigest()


def readable_json(value: object) -> str:
    """Render `value` for storing and sending: as it was, non-ASCII characters unescaped.

    A lone surrogate, which UTF-8 has no form for, stays escaped.
    """
    text = _READABLE.encode(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


_READABLE = json.JSONEncoder(ensure_ascii=False)


def encodable(text: str) -> str:
    """Return `text` with `?` for each lone surrogate, which SQLite cannot store."""
    return text.encode("utf-8", "replace").decode()


def _plain_numbers(value: object) -> object:
    match value:
        case float():
            return int(value) if value.is_integer() else value
        case list() | tuple():
            return [_plain_numbers(item) for item in value]
        case dict():
            return {key: _plain_numbers(item) for key, item in value.items()}
        case _:
            return value
