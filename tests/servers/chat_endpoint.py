"""A local server that speaks the chat completions API of OpenAI over HTTP, without streaming, from a script.

It refuses what the real one refuses, in the same form, so a client that asks wrongly shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator, SchemaError

from tests.servers.messages_endpoint import MessagesEndpoint, Refused, Reply

MODEL = "gpt-test"


def completion(
    text: str | None,
    *,
    finish_reason: str = "stop",
    usage: Mapping[str, Any] | None = None,
    delay_s: float = 0.0,
    **more: Any,
) -> Reply:
    """A message of the assistant; the usage is 100 tokens in and 20 out unless given.

    Args:
        more: Fields of the message, such as `refusal`.
    """
    body = {
        "id": "chatcmpl-01",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": f"{MODEL}-2026-01-01",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None, **more},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20} if usage is None else usage,
        "service_tier": "default",
    }
    return Reply(200, json.dumps(body).encode(), delay_s=delay_s)


def tool_calls(
    *calls: tuple[str, str, str],
    text: str | None = None,
    usage: Mapping[str, Any] | None = None,
    **more: Any,
) -> Reply:
    """A message that asks for calls: the id, the function's name and the arguments of each, as JSON."""
    listed = [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id_, name, arguments in calls
    ]
    return completion(text, finish_reason="tool_calls", usage=usage, tool_calls=listed, **more)


def error(status: int, code: str | None, words: str, **headers: str) -> Reply:
    """An error of the API, such as `error(429, "rate_limit_exceeded", "…", retry_after="1")`."""
    body = {"error": {"message": words, "type": "invalid_request_error", "param": None, "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), {"content-type": "application/json", **named})


class ChatEndpoint(MessagesEndpoint):
    """The server, running while the `with` block does."""

    @property
    def url(self) -> str:
        """The base URL that clients are given."""
        return f"{super().url}/v1"

    def refusal(self, path: str, headers: Mapping[str, str], raw: bytes) -> Reply | None:
        if path != "/v1/chat/completions":
            return error(404, None, f"Invalid URL (POST {path})")
        if not headers.get("authorization", "").startswith("Bearer "):
            return error(401, None, "You didn't provide an API key.")
        try:
            _check_body(json.loads(raw))
        except ValueError:
            return error(400, None, "We could not parse the JSON body of your request.")
        except Refused as refused:
            return error(400, "invalid_value", str(refused))
        return None


_KNOWN = {
    "model",
    "messages",
    "tools",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "seed",
    "stream",
}


def _check_body(body: Any) -> None:
    if not (isinstance(body.get("model"), str) and body.get("messages")):
        raise Refused("you must provide a model and messages")
    if unknown := set(body) - _KNOWN:
        raise Refused(f"Unrecognized request arguments supplied: {sorted(unknown)}")
    if body.get("stream"):
        raise Refused("this endpoint does not stream")
    limits = [body[name] for name in ("max_tokens", "max_completion_tokens") if name in body]
    if len(limits) > 1:
        raise Refused("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    if any(not isinstance(limit, int) or limit < 1 for limit in limits):
        raise Refused("Invalid 'max_tokens': integer below minimum value.")
    if not 0 <= body.get("temperature", 1) <= 2:
        raise Refused("Invalid 'temperature': must be between 0 and 2.")
    if not isinstance(body.get("seed", 0), int):
        raise Refused("Invalid type for 'seed': expected an integer.")
    if "tools" in body:
        _check_tools(body["tools"])
    _check_messages(body["messages"])


def _check_tools(tools: list[Any]) -> None:
    if not tools:
        raise Refused("Invalid 'tools': empty array.")
    names = set()
    for number, tool in enumerate(tools):
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, dict):
            raise Refused(f"tools[{number}]: only functions are supported")
        _check_name(f"tools[{number}].function.name", function.get("name"))
        names.add(function["name"])
        schema = function.get("parameters", {"type": "object"})
        if schema.get("type") != "object":
            raise Refused(f"Invalid schema for function '{function['name']}': it must have type 'object'.")
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as wrong:
            raise Refused(f"Invalid schema for function '{function['name']}': {wrong.message}") from wrong
    if len(names) < len(tools):
        raise Refused("Function names must be unique.")


def _check_messages(messages: list[Any]) -> None:
    """Check each message, and that calls are answered at once, each and once, before all else."""
    asked: list[str] = []
    ids: set[str] = set()
    for number, message in enumerate(messages):
        at = f"messages[{number}]"
        match message:
            case {"role": "tool", "content": str(), "tool_call_id": str(identifier), **rest} if not rest:
                if identifier not in asked:
                    words = "must be a response to a preceding message with 'tool_calls'"
                    raise Refused(f"{at}: messages with role 'tool' {words}")
                asked.remove(identifier)
                continue
            case {"role": "system" | "user", "content": str(), **rest} if not rest:
                calls: list[Any] = []
            case {"role": "assistant"}:
                if not isinstance(message.get("content"), str) and not message.get("tool_calls"):
                    raise Refused(f"Invalid value for 'content' of {at}: expected a string, got null.")
                calls = message.get("tool_calls", [])
                if "tool_calls" in message and not calls:
                    raise Refused(f"Invalid '{at}.tool_calls': empty array.")
            case _:
                raise Refused(f"Invalid value for {at}: {message}")
        if asked:
            words = "An assistant message with 'tool_calls' must be followed by tool messages"
            raise Refused(f"{words} for each id. These did not have response messages: {asked}")
        for place, call in enumerate(calls):
            asked.append(_check_call(f"{at}.tool_calls[{place}]", call))
        if len(ids | set(asked)) < len(ids) + len(asked):
            raise Refused(f"{at}: ids of tool_calls must be unique")
        ids |= set(asked)
    if asked:
        raise Refused(f"the last message asks for calls that have no response messages: {asked}")


def _check_call(at: str, call: Any) -> str:
    match call:
        case {"id": str(identifier), "type": "function", "function": {"name": name, "arguments": str()}}:
            _check_name(f"{at}.function.name", name)
            return identifier
    raise Refused(f"Invalid value for {at}: {call}")


def _check_name(at: str, name: Any) -> None:
    if not (isinstance(name, str) and re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name)):
        raise Refused(f"Invalid '{at}': string does not match pattern '^[a-zA-Z0-9_-]+$'.")
