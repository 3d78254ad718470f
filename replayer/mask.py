"""What two outputs are compared by: their text, with what changes from one moment to the next left out.

The mask is fixed, so that a published score means the same for every recording: timestamps, UUIDs, hashes,
durations and white space. What else a recording shows to be volatile is learned (`volatile`), helps
matching, and never counts here.
"""

from __future__ import annotations

import re
from typing import Any

from recorder.canonical import canonical_json
from recorder.exchange import NoReply, OtherResult, RpcError, ToolResult

_MASKED = re.compile(
    r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"  # UUID
    r"|\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?(?:Z\b|[+-]\d\d:?\d\d\b))?"  # ISO 8601
    r"|\b[0-9a-f]{32,128}\b"  # MD5 and longer, in hexadecimal
    r"|\b\d+(?:\.\d+)? ?(?:[mµun]?s|secs?|(?:milli)?seconds?)\b",  # a duration
    re.IGNORECASE,
)
_MAY_MASK = re.compile(r"\d[0-9a-fA-F:-]{4}|\d ?[mµunsMUNS]")
"""What every masked text holds; most outputs do not, and are done with after one quick search."""

_SPACE = re.compile(r"\s+")


def masked(text: str) -> str:
    """Return `text` as the fixed mask leaves it: volatile parts as `#`, runs of white space as one space."""
    if _MAY_MASK.search(text) or _UUID_OF_LETTERS.search(text):
        text = _MASKED.sub("#", text)
    return _SPACE.sub(" ", text).strip()


_UUID_OF_LETTERS = re.compile(r"[a-f]{8}", re.IGNORECASE)


def output_text(outcome: ToolResult | OtherResult | RpcError | NoReply) -> str:
    """Return what is compared of an outcome, before masking."""
    match outcome:
        case ToolResult(result=result):
            return result_text(result)
        case OtherResult(result=result):
            return canonical_json(_without_meta(result))
        case RpcError(error=error):
            return error_text(error)
        case NoReply(reason=reason):
            return f"no reply: {reason}"


def result_text(result: object) -> str:
    """Return a tool result's text: its text blocks, one a line; else the whole result as canonical JSON.

    `structuredContent` says the same as the text (specification 2025-06-18, tools), so it counts only
    where there is no text.
    """
    blocks = result.get("content") if isinstance(result, dict) else None
    if isinstance(blocks, list) and blocks and all(_is_text(block) for block in blocks):
        return "\n".join(block["text"] for block in blocks)
    return canonical_json(_without_meta(result))


def error_text(error: object) -> str:
    """Return a JSON-RPC error's message."""
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else canonical_json(error)


def _is_text(block: object) -> bool:
    return isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)


def _without_meta(result: Any) -> Any:
    if not isinstance(result, dict):
        return result
    return {name: value for name, value in result.items() if name not in ("_meta", "isError", "resultType")}
