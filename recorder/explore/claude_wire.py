"""Tools and what came of calling them, in the form that the Messages API takes.

MCP servers list what the API refuses, and one refused tool or block fails the whole request: names that
servers share, schemas without an object at the top, property names with brackets, images that are none.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from recorder.canonical import readable_json
from recorder.claude_api import sendable
from recorder.exchange import Json, NoReply, RpcError, ToolRef, ToolResult
from recorder.tool import ToolSpec

LONGEST_NAME = 64
MOST_DESCRIPTION_CHARACTERS = 4000
MOST_SCHEMA_CHARACTERS = 20_000
"""Of one tool's schema; a larger one is told as text, its end left out."""

MOST_SCHEMA_DEPTH = 40

MOST_RESULT_CHARACTERS = 12_000
"""Of one result, some 3,000 tokens: real outputs are up to 17 MB, and each turn sends all again."""

TAIL_CHARACTERS = 2000
"""Of which this much is its end, where totals and cursors stand."""

MOST_IMAGE_CHARACTERS = 300_000
"""Of an image in base64; the API takes 5 MB, which the recording then holds twice."""

MOST_IMAGES = 4
"""In one result."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_TYPES = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
_SCHEMAS_BY_NAME = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
_SCHEMA_LISTS = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_SCHEMAS = frozenset(
    """
    items additionalProperties not if then else contains propertyNames unevaluatedItems unevaluatedProperties
    contentSchema
    """.split()  # noqa: SIM905 - forty quotes hide the words
)
_TEXTS = frozenset(
    "title description format pattern $schema $comment contentEncoding contentMediaType".split()  # noqa: SIM905
)
_NUMBERS = frozenset("minimum maximum exclusiveMinimum exclusiveMaximum multipleOf".split())  # noqa: SIM905
_COUNTS = frozenset(
    "minLength maxLength minItems maxItems minProperties maxProperties minContains maxContains".split()  # noqa: SIM905
)
_FLAGS = frozenset("uniqueItems deprecated readOnly writeOnly".split())  # noqa: SIM905
_REFUSED_AT_THE_TOP = ("anyOf", "oneOf", "allOf")


def api_names(tools: Iterable[ToolRef]) -> dict[ToolRef, str]:
    """Return a name for each tool that the API takes, `server__tool` where that is one of its own.

    Where it is too long, or another tool would have the same, it ends with a hash of both names.
    """
    refs = list(dict.fromkeys(tools))
    plain = {ref: re.sub(r"[^a-zA-Z0-9_-]", "_", f"{ref.server}__{ref.name}") for ref in refs}
    bearers = Counter(plain.values())
    names: dict[ToolRef, str] = {}
    for ref, name in plain.items():
        if len(name) > LONGEST_NAME or bearers[name] > 1:
            digest = blake2b(
                f"{ref.server}\0{ref.name}".encode("utf-8", "replace"), digest_size=5
            ).hexdigest()
            name = f"{name[: LONGEST_NAME - len(digest) - 1]}_{digest}"
        names[ref] = name
    if len(set(names.values())) < len(names):
        raise ValueError(f"two tools hash to one name among {sorted(names.values())}")
    return names


def api_tool(name: str, spec: ToolSpec) -> dict[str, Json]:
    """Return a tool as the API takes it; what its schema cannot say there, its description does."""
    entry = spec.entry
    described = next(
        (
            text
            for text in (entry.get("description"), entry.get("title"))
            if isinstance(text, str) and text.strip()
        ),
        f"The tool {spec.name} of the server {spec.server}.",
    )
    description = _cut(described, MOST_DESCRIPTION_CHARACTERS)
    schema, whole = api_schema(entry.get("inputSchema"))
    if not whole:
        text = _cut(json_text(entry.get("inputSchema")), MOST_SCHEMA_CHARACTERS)
        description = f"{description}\n\nThe arguments must follow this JSON Schema: {text}"
    return {"name": name, "description": description, "input_schema": schema}


def api_schema(schema: Json) -> tuple[dict[str, Json], bool]:
    """Return a schema that the API takes, and whether it says all that `schema` does.

    The arguments stay what they are: what the API refuses is left out, at worst all of it, and not wrapped.
    """
    if schema is None:
        return {"type": "object"}, True
    if not isinstance(schema, dict) or not _depth_at_most(schema, 2 * MOST_SCHEMA_DEPTH):
        return {"type": "object"}, False
    if len(json_text(schema)) > MOST_SCHEMA_CHARACTERS:
        return {"type": "object"}, False
    kept = sendable(_with_target(schema))
    kept.pop("$id", None)  # references within it lead where they did
    whole = "$ref" not in schema and schema.get("type") in ("object", None)
    kept["type"] = "object"
    for keyword in _REFUSED_AT_THE_TOP:
        whole = kept.pop(keyword, None) is None and whole
    properties = kept.get("properties")
    if isinstance(properties, dict) and not all(map(_PROPERTY.fullmatch, properties)):
        whole = False
        kept["properties"] = {name: inner for name, inner in properties.items() if _PROPERTY.fullmatch(name)}
        kept.pop("additionalProperties", None)
        if isinstance(kept.get("required"), list):
            kept["required"] = [name for name in kept["required"] if name in kept["properties"]]
    if not _is_schema(kept, kept):
        return {"type": "object"}, False
    return kept, whole


def result_block(tool_use_id: str, outcome: ToolResult | RpcError | NoReply) -> dict[str, Json]:
    """Return the block that tells the model what came of its call."""
    match outcome:
        case NoReply(reason="cancelled"):
            return error_block(tool_use_id, "No answer came in time, so the call was given up.")
        case NoReply():
            return error_block(
                tool_use_id, "The server ended before it answered. A later call may find it started again."
            )
        case RpcError(error=error):
            told = error if isinstance(error, dict) else {}
            code, data = told.get("code"), told.get("data")
            words = outcome.message + ("" if data is None else f"\ndata: {json_text(data)}")
            said = f"The server refused the call (JSON-RPC error {json_text(code)}): {words}"
            return error_block(tool_use_id, _cut(said, MOST_RESULT_CHARACTERS))
    text, images = _content(outcome.result, with_images=not outcome.is_error)
    text = _cut(text, MOST_RESULT_CHARACTERS)
    if outcome.is_error:
        return error_block(tool_use_id, f"The tool reported an error:\n{text or '(without a word)'}")
    if not text and not images:
        text = "(The tool answered, with nothing.)"
    return {
        "type": "tool_result",
        "tool_use_id": tool_use_id,
        "content": [*([{"type": "text", "text": text}] if text else []), *images],
    }


def error_block(tool_use_id: str, words: str) -> dict[str, Json]:
    return {
        "type": "tool_result",
        "tool_use_id": tool_use_id,
        "content": [{"type": "text", "text": words}],
        "is_error": True,
    }


def has_images(message: Mapping[str, Json]) -> bool:
    return any(block["type"] == "image" for result in message["content"] for block in _parts(result))


def without_images(message: Mapping[str, Json]) -> dict[str, Json]:
    """Return a message of results whose images are named only."""
    told = {"type": "text", "text": "(An image that cannot be shown.)"}
    content = [
        {**result, "content": [told if block["type"] == "image" else block for block in _parts(result)]}
        if _parts(result)
        else result
        for result in message["content"]
    ]
    return {**message, "content": content}


def replayed(content: Sequence[Json]) -> list[Json]:
    """Return a reply's blocks as the API takes them back.

    Without empty texts and fields of its own, with a name for a tool even where the model made one up, and
    not ending with thoughts.
    """
    blocks: list[Json] = []
    for block in content:
        match block:
            case {"type": "text", "text": str(text)}:
                if text.strip():
                    blocks.append({"type": "text", "text": text})
            case {"type": "tool_use", "id": str(identifier), "name": str(name), "input": arguments}:
                taken = arguments if isinstance(arguments, dict) else {}
                name = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:LONGEST_NAME] or "_"
                blocks.append({"type": "tool_use", "id": identifier, "name": name, "input": taken})
            case {"type": str(kind)} if kind != "text" and kind != "tool_use":
                blocks.append(block)
    while blocks and blocks[-1]["type"] in ("thinking", "redacted_thinking"):
        blocks.pop()
    return blocks


def json_text(value: Json) -> str:
    """Render a value that a server sent, however it is nested."""
    try:
        return readable_json(value)
    except RecursionError:
        return "(nested too deeply to be shown)"


def _parts(block: Mapping[str, Json]) -> list[Any]:
    content = block.get("content")
    return content if isinstance(content, list) else []


def _content(result: Json, *, with_images: bool) -> tuple[str, list[Json]]:
    """Return the text of a result, with what is no text described, and its images."""
    blocks = result.get("content") if isinstance(result, dict) else None
    if not isinstance(blocks, list):
        return json_text(result), []
    texts: list[str] = []
    images: list[Json] = []
    for block in blocks:
        match block:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "image", "data": str(data)}:
                image = _image(data) if with_images and len(images) < MOST_IMAGES else None
                if image is not None:
                    images.append(image)
                else:
                    texts.append(_described("An image", block.get("mimeType"), data))
            case {"type": "audio", "data": str(data)}:
                texts.append(_described("Audio", block.get("mimeType"), data))
            case {"type": "resource", "resource": {"text": str(text), **about}}:
                texts.append(f"Resource {json_text(about.get('uri'))}:\n{text}")
            case {"type": "resource", "resource": {"blob": str(data), **about}}:
                texts.append(
                    _described(f"Resource {json_text(about.get('uri'))}", about.get("mimeType"), data)
                )
            case _:
                texts.append(json_text(block))
    structured = result.get("structuredContent")
    if structured is not None and not any(text.strip() for text in texts):
        texts.append(json_text(structured))
    return "\n".join(texts).strip(), images


def _image(data: str) -> dict[str, Json] | None:
    """Return an image block, its type read from the image: servers name another, and the API looks."""
    if not 0 < len(data) <= MOST_IMAGE_CHARACTERS:
        return None
    try:
        head = base64.b64decode(data, validate=True)[:16]
    except (binascii.Error, ValueError):
        return None
    for magic, media_type in _MAGIC:
        if head.startswith(magic) and (media_type != "image/webp" or head[8:12] == b"WEBP"):
            return {
                "type": "image",
                "source": {"type": "base64", "media_type": media_type, "data": data},
            }
    return None


def _described(what: str, kind: object, data: str) -> str:
    named = kind if isinstance(kind, str) else "of no type"
    return f"({what}, {named}, some {len(data) * 3 // 4} bytes, not shown.)"


def _cut(text: str, most: int) -> str:
    """Return `text`, its middle left out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    tail = min(TAIL_CHARACTERS, most // 4)
    left_out = len(text) - most
    note = f"\n[… {left_out:,} of {len(text):,} characters left out here …]\n"
    return text[: most - tail] + note + text[-tail:]


def _with_target(schema: dict[str, Json]) -> dict[str, Json]:
    """Return a schema that is a reference to a part of itself as that part, with its neighbours."""
    for _ in range(5):
        target = _resolved(schema, schema.get("$ref"))
        if not isinstance(target, dict):
            break
        rest = {name: value for name, value in schema.items() if name != "$ref"}
        schema = {**rest, **target}
    return schema


def _resolved(root: dict[str, Json], reference: Json) -> Json:
    """Return what a reference within a schema leads to; `None` if that is nothing."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    at: Json = root
    for step in reference[1:].split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(at, dict):
            at = at.get(step)
        elif isinstance(at, list) and step.isdecimal() and int(step) < len(at):
            at = at[int(step)]
        else:
            return None
    return at


def _is_schema(schema: Json, root: dict[str, Json], depth: int = 0) -> bool:
    """Whether it is a schema of draft 2020-12 with references that lead somewhere in it.

    The API refuses others, and real servers list some: `"type": "float"`, `"required": true`, an older
    draft's `"exclusiveMinimum": true` or `"items": [...]`.
    """
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict) or depth > MOST_SCHEMA_DEPTH:
        return False
    return all(_is_keyword(name, value, root, depth + 1) for name, value in schema.items())


def _is_keyword(name: str, value: Json, root: dict[str, Json], depth: int) -> bool:
    if name in _SCHEMAS_BY_NAME:
        return isinstance(value, dict) and all(_is_schema(inner, root, depth) for inner in value.values())
    if name in _SCHEMA_LISTS:
        return (
            isinstance(value, list) and value != [] and all(_is_schema(item, root, depth) for item in value)
        )
    if name in _SCHEMAS:
        return _is_schema(value, root, depth)
    if name in _TEXTS:
        return isinstance(value, str)
    if name in _NUMBERS:
        return _is_number(value) and (name != "multipleOf" or value > 0)
    if name in _COUNTS:
        return _is_number(value) and value >= 0 and value == int(value)
    if name in _FLAGS:
        return isinstance(value, bool)
    match name:
        case "type":
            kinds = value if isinstance(value, list) else [value]
            texts = [kind for kind in kinds if isinstance(kind, str) and kind in _TYPES]
            return 0 < len(set(texts)) == len(kinds)
        case "required":
            return isinstance(value, list) and _distinct_texts(value)
        case "dependentRequired":
            return isinstance(value, dict) and all(
                isinstance(names, list) and _distinct_texts(names) for names in value.values()
            )
        case "enum" | "examples":
            return isinstance(value, list) and _depth_at_most(value, MOST_SCHEMA_DEPTH)
        case "const" | "default":
            return _depth_at_most(value, MOST_SCHEMA_DEPTH)
        case "$ref":
            return isinstance(_resolved(root, value), dict | bool)
        case "$id" | "$anchor" | "$dynamicRef" | "$dynamicAnchor" | "$recursiveRef" | "$vocabulary":
            return False  # they change what references mean
    return _depth_at_most(value, MOST_SCHEMA_DEPTH)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _distinct_texts(values: list[Json]) -> bool:
    return all(isinstance(value, str) for value in values) and len(set(values)) == len(values)


def _depth_at_most(value: Json, most: int) -> bool:
    if most < 0:
        return False
    if isinstance(value, dict):
        return all(_depth_at_most(item, most - 1) for item in value.values())
    if isinstance(value, list):
        return all(_depth_at_most(item, most - 1) for item in value)
    return True
