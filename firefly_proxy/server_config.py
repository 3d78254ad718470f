"""Which server to start or to reach: from a command line, a URL, or a client's configuration."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recorder.canonical import content_hash
from recorder.errors import FireflyError
from recorder.redact import Redactor, named_in_arguments, named_in_url, secret_values


class ConfigError(FireflyError):
    """A configuration that names no server we could use."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class StdioServer:
    """A server to be started: its command, and what its environment holds besides ours."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None
    config: Mapping[str, object]
    """As the user wrote it, variables unexpanded."""

    def named_values(self) -> Iterator[tuple[str, str]]:
        """Yield what it is given under a name, where secrets may be."""
        yield from self.env.items()
        yield from named_in_arguments(self.command[1:])


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A server to be reached over streamable HTTP."""

    name: str
    url: str
    headers: Mapping[str, str]
    config: Mapping[str, object]

    def named_values(self) -> Iterator[tuple[str, str]]:
        yield from self.headers.items()
        yield "url", self.url
        yield from named_in_url(self.url)


Server = StdioServer | HttpServer


def from_command(command: Sequence[str], name: str | None = None) -> StdioServer:
    config = {"command": command[0], "args": list(command[1:])}
    return StdioServer(name or os.path.basename(command[0]), tuple(command), {}, None, config)


def from_url(url: str, headers: Sequence[str] = (), name: str | None = None) -> HttpServer:
    """
    Args:
        headers: Each as `Name: value`.

    Raises:
        ConfigError: a header without a colon, or a URL that is not HTTP.
    """
    parsed = {}
    for header in headers:
        key, colon, value = header.partition(":")
        if not colon or not key.strip():
            raise ConfigError(f"--header must look like 'Name: value', got {header!r}")
        parsed[key.strip()] = value.strip()
    return _http(name, url, parsed, {"url": url, **({"headers": parsed} if parsed else {})}, "--url")


def from_file(path: Path, server: str | None, environ: Mapping[str, str], name: str | None = None) -> Server:
    """Read one server out of a client's `mcpServers` JSON.

    Args:
        server: Its name there; may be left out where there is only one.
        name: What to call it in the recording; its name there if `None`.

    Raises:
        ConfigError: the file cannot be read, has no such server, or uses a variable that is not set.
    """
    servers = _servers(path)
    if server is None:
        if len(servers) != 1:
            choice = f"choose one with --server ({', '.join(servers)})" if servers else "add one"
            raise ConfigError(f"{path} has {len(servers)} servers: {choice}")
        server = next(iter(servers))
    if server not in servers:
        raise ConfigError(f"{path} has no server {server!r}; it has: {', '.join(servers) or 'none'}")
    config = servers[server]
    where = f"{path}: server {server!r}"
    if not isinstance(config, dict):
        raise ConfigError(f"{where} must be an object, got {json.dumps(config)}")
    expanded = _expand(config, environ, where)
    if isinstance(expanded.get("command"), str):
        arguments = _strings(expanded.get("args", []), f"{where}: args")
        env = _string_map(expanded.get("env", {}), f"{where}: env")
        cwd = expanded.get("cwd")
        if cwd is not None and not isinstance(cwd, str):
            raise ConfigError(f"{where}: cwd must be a string, got {json.dumps(cwd)}")
        return StdioServer(name or server, (expanded["command"], *arguments), env, cwd, config)
    if isinstance(expanded.get("url"), str):
        headers = _string_map(expanded.get("headers", {}), f"{where}: headers")
        return _http(name or server, expanded["url"], headers, config, where)
    raise ConfigError(f'{where} needs a "command" (a string) or a "url"')


def server_names(path: Path) -> list[str]:
    """Return the names of the servers in a client's `mcpServers` JSON, in its order.

    Raises:
        ConfigError: it cannot be read, or has no `mcpServers`.
    """
    return list(_servers(path))


def secrets_of(server: Server, environ: Mapping[str, str], also: Collection[str] = ()) -> set[str]:
    """Return the values that must not be written, by the names they stand under.

    Args:
        also: Names of variables or headers that are secret though they do not sound like it.

    Raises:
        FireflyError: a name in `also` is not set.
    """
    return secret_values([*environ.items(), *server.named_values()], also)


def default_group(server: Server, secrets: Collection[str]) -> str:
    """Name the start state of sessions that nobody named: a hash of the unexpanded configuration.

    Secrets are left out of it, so that it outlives a change of token.
    """
    text = Redactor(b"group", secrets).redact(json.dumps(server.config, ensure_ascii=False))
    return content_hash(json.loads(re.sub(r"\[redacted:[0-9a-f]+\]", "[redacted]", text)))[:12]


def _http(
    name: str | None, url: str, headers: Mapping[str, str], config: Mapping[str, object], where: str
) -> HttpServer:
    try:
        parts = urlsplit(url)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ConfigError(f"{where}: not a URL: {error}") from error
    for key, value in headers.items():
        if not (key + value).isascii() or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", key):
            raise ConfigError(f"{where}: header {key!r} must be ASCII, and its name one word")
    if not port_is_right or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"{where}: the URL must start with http:// or https:// and name a host, got {url!r}"
        )
    return HttpServer(name or parts.hostname, url, headers, config)


def _servers(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    servers = value.get("mcpServers") if isinstance(value, dict) else None
    if not isinstance(servers, dict):
        raise ConfigError(f'{path} has no "mcpServers" object')
    return servers


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _expand(config: dict[str, Any], environ: Mapping[str, str], where: str) -> dict[str, Any]:
    """Replace `${VAR}` and `${VAR:-default}` in every string; an empty variable takes its default."""
    missing: dict[str, None] = {}

    def value_of(match: re.Match[str]) -> str:
        variable, default = match.groups()
        value = environ.get(variable)
        if default is not None:
            return value or default
        if value is None:
            missing[variable] = None
        return value or ""

    def walk(value: Any) -> Any:
        match value:
            case str():
                return _VARIABLE.sub(value_of, value)
            case list():
                return [walk(item) for item in value]
            case dict():
                return {key: walk(item) for key, item in value.items()}
            case _:
                return value

    expanded = walk(config)
    if missing:
        names = ", ".join(missing)
        raise ConfigError(f"{where} uses {names}, which {'is' if len(missing) == 1 else 'are'} not set")
    assert isinstance(expanded, dict)
    return expanded


def _strings(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{where} must be a list of strings, got {json.dumps(value)}")
    return value


def _string_map(value: object, where: str) -> dict[str, str]:
    """Return an object of strings; numbers and booleans become what a shell would hand over."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be an object of strings, got {type(value).__name__}")
    strings = {}
    for name, item in value.items():
        if not isinstance(item, str | int | float):
            # What stands there may be a secret, so it is not shown.
            raise ConfigError(f"{where}: {name} must be a string, got {type(item).__name__}")
        strings[name] = item if isinstance(item, str) else json.dumps(item)
    return strings
