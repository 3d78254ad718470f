"""What the two sides say of themselves: who they are, what they can do, which protocol they speak.

Legacy servers (up to 2025-11-25) say it once, in `initialize`. Modern ones (2026-07-28) answer
`server/discover`, and each request of a modern client carries its side in `_meta`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recorder.canonical import encodable
from recorder.frame import Frame, Message, as_object

Era = Literal["legacy", "modern"]

PROTOCOL_VERSION_META = "io.modelcontextprotocol/protocolVersion"
CLIENT_INFO_META = "io.modelcontextprotocol/clientInfo"
CLIENT_CAPABILITIES_META = "io.modelcontextprotocol/clientCapabilities"
SERVER_INFO_META = "io.modelcontextprotocol/serverInfo"

INTRODUCTIONS = ("initialize", "server/discover")
"""Methods whose results say who the server is."""

LIST_METHODS = {
    "tools/list": ("tools", "tool", "name"),
    "resources/list": ("resources", "resource", "uri"),
    "resources/templates/list": ("resourceTemplates", "resource_template", "uriTemplate"),
    "prompts/list": ("prompts", "prompt", "name"),
}
"""Method → the result's field, the kind of its entries, and the field that names an entry."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    info: object
    capabilities: object
    era: Era
    protocol_version: str | None


@dataclass(frozen=True, slots=True)
class ServerHello:
    info: object
    capabilities: object
    instructions: str | None
    era: Era
    protocol_version: str | None


def client_hello(request: Frame) -> ClientHello | None:
    """Return what a request says of the client, if it says anything."""
    params = request.params
    if request.method != "initialize" and "_meta" not in params:
        return None
    if request.method == "initialize":
        return ClientHello(
            params.get("clientInfo"),
            params.get("capabilities"),
            "legacy",
            _text(params.get("protocolVersion")),
        )
    meta = as_object(params.get("_meta"))
    if PROTOCOL_VERSION_META in meta:
        return ClientHello(
            meta.get(CLIENT_INFO_META),
            meta.get(CLIENT_CAPABILITIES_META),
            "modern",
            _text(meta[PROTOCOL_VERSION_META]),
        )
    return None


def server_hello(method: str, result: Message) -> ServerHello:
    """Return what the result of a method among `INTRODUCTIONS` says of the server."""
    if method == "initialize":
        return ServerHello(
            result.get("serverInfo"),
            result.get("capabilities"),
            _text(result.get("instructions")),
            "legacy",
            _text(result.get("protocolVersion")),
        )
    versions = result.get("supportedVersions")
    return ServerHello(
        as_object(result.get("_meta")).get(SERVER_INFO_META, result.get("serverInfo")),
        result.get("capabilities"),
        _text(result.get("instructions")),
        "modern",
        _text(versions[0]) if isinstance(versions, list) and versions else None,
    )


def subject(frame: Frame) -> str | None:
    """Return the tool, prompt or URI that a request is about."""
    params = frame.params
    return _text(params.get("name")) or _text(params.get("uri"))


def _text(value: object) -> str | None:
    return encodable(value) if isinstance(value, str) else None
