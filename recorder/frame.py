"""One line of an MCP conversation, read: the messages on it, or noise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.scanner import make_scanner
from typing import Any, Literal, NamedTuple

from recorder.canonical import encodable, readable_json

Direction = Literal["to_server", "to_client"]
Kind = Literal["request", "response", "notification", "noise", "unread"]

Message = Mapping[str, Any]
"""A parsed JSON-RPC message, exactly as sent: no field is known to be there."""

REVERSE: Mapping[Direction, Direction] = {"to_server": "to_client", "to_client": "to_server"}


class Frame(NamedTuple):
    """A message and the text it was sent as; `message` is empty for a line that is none."""

    kind: Kind
    text: str
    message: Message
    method: str | None = None

    @property
    def params(self) -> Message:
        return as_object(self.message.get("params"))


def as_object(value: object) -> Message:
    """Return `value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def read_line(line: bytes) -> list[Frame]:
    """Read one line of a conversation.

    A line holds one message, or several as a JSON array (a batch of protocol revision 2025-03-26; the
    text of each is then its own). Anything else is one frame of kind `noise`: it is not JSON-RPC. A
    message that cannot be parsed though it looks like one (nested deeper than the parser goes, an
    integer of more than 4,300 digits) is `unread`: kept and passed on, but paired with nothing. Bytes that
    are not UTF-8 stand as U+FFFD in the text, as most clients read them.
    """
    text = line.strip().decode("utf-8", "replace")
    try:
        value, end = _SCAN(text, 0)
    except (json.JSONDecodeError, StopIteration):
        return [Frame("noise", text, {})]
    except (RecursionError, ValueError):
        looks_right = text.startswith("{") and '"jsonrpc"' in text
        return [Frame("unread" if looks_right else "noise", text, {})]
    if end != len(text):
        return [Frame("noise", text, {})]
    if is_message(value):
        return [frame_of(value, text)]
    if isinstance(value, list) and value and all(map(is_message, value)):
        return [frame_of(item, readable_json(item)) for item in value]
    return [Frame("noise", text, {})]


# What `json.loads` calls in the end, without what is around it; its stub takes it for a class.
_SCAN = make_scanner(json.JSONDecoder())  # type: ignore[arg-type]


def is_message(value: object) -> bool:
    """Whether `value` is a JSON-RPC message; a reply that forgot its `jsonrpc` member is one."""
    if not isinstance(value, dict):
        return False
    return "jsonrpc" in value or ("id" in value and ("result" in value or "error" in value))


def frame_of(message: Message, text: str) -> Frame:
    if "method" not in message:
        return Frame("response", text, message)
    method = message["method"]
    method = encodable(method) if isinstance(method, str) else json.dumps(method)
    return Frame("request" if "id" in message else "notification", text, message, method)
