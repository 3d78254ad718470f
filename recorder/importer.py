"""Sessions that others recorded, read from files into a recording.

A file is JSON, a document a line or one for the whole file, plain or gzip; its contents tell which. A session
is one of:

- `{"session_id", "group", "run", "calls": [{"server", "tool", "arguments", "output", "is_error"}]}`. An
  `output` that is no string is stored as its JSON text. A call may have `started_at` and `duration_s`.
- a conversation with a model: `{"messages": […]}` or the bare list, its tool uses as the chat APIs of
  Anthropic or OpenAI write them; or items of OpenAI's Responses API, in `items` or `input` and `output`.
  Beside it may stand `session_id` or `id`, `group`, `run` and `server`. A tool use that nothing answers is
  recorded as such.

A session without an id is named by a hash of its document; one without a group is a group of its own. The
hash of what was imported stands in `session.process`, so importing a file again changes nothing.

A file is one transaction, and shuts out other writers meanwhile. What cannot be used of it is reported by the
line, and the rest imported.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import sqlite3
import time
import zlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from recorder.canonical import content_hash, encodable, readable_json
from recorder.errors import FireflyError, RecordingError
from recorder.frame import Message, as_object
from recorder.redact import Redactor, secret_values
from recorder.schema import begin, connect_for_writing

T = TypeVar("T")
Progress = Callable[[int], None]

CACHE_KIB = 64 * 1024
"""What SQLite may hold in memory of a transaction before it writes it to the log."""

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a line, or where that is `None` a whole file, was not imported."""

    file: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f':{self.line}'}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import added to the recording, and what it could not."""

    sessions: int
    already_there: int
    """Sessions that the recording held with the same content."""
    calls: int
    tools: int
    """Versions of tools that the recording did not hold."""
    problems: list[Problem]


def import_files(
    db: Path, files: Sequence[Path], *, tools: Sequence[Path] = (), progress: Progress | None = None
) -> ImportReport:
    """Import files of sessions, and of tools: `{"server", "name", "description", "inputSchema", …}` a line.

    Args:
        db: The recording; made where there is none.
        progress: Told after each session how many calls were imported so far.

    Raises:
        FireflyError: a file is missing; then nothing was imported.
        RecordingError: the recording cannot be written; the file at hand left nothing in it, those before it
            are imported.
    """
    for path in [*files, *tools]:
        if not path.exists():
            raise FireflyError(f"no file to import at {path}")
    with closing(_Importer(db, progress)) as importer:
        for path in files:
            importer.take(str(path), path.name, _documents(path), importer.add_session)
        for path in tools:
            importer.take(str(path), path.name, _documents(path), importer.add_tool)
        return importer.report()


def import_sessions(
    db: Path, sessions: Iterable[object], *, source: str = "a program", progress: Progress | None = None
) -> ImportReport:
    """Import sessions that a program holds, in the forms a file has them, in one transaction.

    Args:
        source: What the servers' configuration names as their origin. In a problem it stands for the file,
            and the session's position, from 1, for the line.

    Raises:
        RecordingError: the recording cannot be written; nothing was imported.
    """
    with closing(_Importer(db, progress)) as importer:
        importer.take(source, source, enumerate(sessions, 1), importer.add_session)
        return importer.report()


class _Unusable(Exception):
    """Why a document, or a part of one, cannot be imported."""


class _Unreadable(Exception):
    """Why a file cannot be read to its end."""


@dataclass(frozen=True, slots=True)
class _Call:
    server: str
    tool: str
    arguments: dict[str, Any]
    result: dict[str, Any] | None = None
    """Of MCP; `None` where no answer came."""
    started_at: float | None = None
    duration_s: float | None = None


class _Importer:
    """One import into one recording."""

    def __init__(self, db: Path, progress: Progress | None) -> None:
        self._db, self._progress = db, progress
        self._connection = connect_for_writing(db)
        self._execute, self._insert = self._connection.execute, self._connection.executemany
        self._execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        key = self._execute("SELECT redaction_key FROM recording").fetchone()[0]
        self._redactor = Redactor(key, secret_values(os.environ.items()))
        self._counts: Counter[str] = Counter()
        self._problems: list[Problem] = []
        self._now, self._config = 0.0, ""
        self._frame_id = self._server_id = 0
        """The last ones given; nobody else gives any during a transaction."""

    def close(self) -> None:
        self._connection.close()

    def report(self) -> ImportReport:
        names = ("sessions", "already_there", "calls", "tools")
        return ImportReport(**{name: self._counts[name] for name in names}, problems=self._problems)

    def take(
        self, file: str, name: str, documents: Iterable[tuple[int, object]], add: Callable[[object], None]
    ) -> None:
        """Add each document, all in one transaction; one that is `_Unusable` says why there is none."""
        before, line = self._counts.copy(), None
        try:
            with self._transaction(name):
                for line, document in documents:
                    try:
                        if isinstance(document, _Unusable):
                            raise document
                        add(document)
                    except _Unusable as unusable:
                        self._problems.append(Problem(file, line, str(unusable)))
                    except RecursionError:
                        self._problems.append(Problem(file, line, "nested too deep"))
                    if self._progress:
                        self._progress(self._counts["calls"])
        except _Unreadable as unreadable:
            self._counts = before
            self._problems.append(Problem(file, None, f"cannot be read, nothing imported: {unreadable}"))
        else:
            if line is None:
                self._problems.append(Problem(file, None, "empty"))

    def add_session(self, document: object) -> None:
        value = {"messages": document} if isinstance(document, list) else _object(document)
        calls = list(_each(value, "calls", _recorded_call)) if "calls" in value else _conversation(value)
        session_id = _name(value, "session_id") or _name(value, "id") or content_hash(document)[:16]
        group, run = _name(value, "group"), _name(value, "run")
        texts = [_texts(number, call) for number, call in enumerate(calls, 1)]
        parts = (
            f"{readable_json([call.server, call.started_at, call.duration_s])} {request} {reply}"
            for call, (request, reply) in zip(calls, texts, strict=True)
        )
        process = f"import:{content_hash([group, run, *parts])}"
        session_id = self._safe(session_id)
        found = self._execute("SELECT process FROM session WHERE id = ?", (session_id,)).fetchone()
        if found is not None:
            if found[0] != process:
                raise _Unusable(f"a session {session_id!r} of other content is recorded already")
            self._counts["already_there"] += 1
            return
        # Sessions that start at one time are in the order they were written in, so a file's order is kept.
        start = min((call.started_at for call in calls if call.started_at is not None), default=self._now)
        end = self._write_calls(session_id, calls, texts, start)
        self._execute(
            "INSERT INTO session (id, group_id, run_id, started_at, ended_at, ending, process)"
            " VALUES (?, ?, ?, ?, ?, 'imported', ?)",
            (session_id, self._safe(group or session_id), run and self._safe(run), start, end, process),
        )
        self._counts.update(sessions=1, calls=len(calls))

    def add_tool(self, document: object) -> None:
        entry = dict(_object(document))
        server, name = _take(entry, "server", str), _take(entry, "name", str)
        del entry["server"]
        text = self._redactor.redact(readable_json(entry))
        self._counts["tools"] += self._execute(
            "INSERT OR IGNORE INTO listing (server, kind, name, hash, entry, first_seen)"
            " VALUES (?, 'tool', ?, ?, ?, ?)",
            (self._safe(server), self._safe(name), content_hash(json.loads(text)), text, self._now),
        ).rowcount

    def _write_calls(
        self, session_id: str, calls: Sequence[_Call], texts: Sequence[tuple[str, str | None]], at: float
    ) -> float:
        """Write calls that came one after the other, the first not before `at`; return when they ended."""
        servers: dict[str, int] = {}
        frames: list[tuple[object, ...]] = []
        exchanges: list[tuple[object, ...]] = []
        end = at
        for call, (request, reply) in zip(calls, texts, strict=True):
            server = servers.setdefault(call.server, self._server_id + len(servers) + 1)
            at = at if call.started_at is None else call.started_at
            asked, answered, duration_s, outcome = self._frame_id + 1, None, None, "disconnected"
            frames.append((asked, server, at, "to_server", "request", "tools/call", self._asked(request)))
            if call.result is not None and reply is not None:
                answered, duration_s = asked + 1, call.duration_s
                outcome = "tool_error" if call.result["isError"] else "result"
                text, replied_at = self._redactor.redact(reply), at + (duration_s or 0)
                frames.append((answered, server, replied_at, "to_client", "response", None, text))
                end = max(end, replied_at)
            self._frame_id = answered or asked
            tool = self._safe(call.tool)
            exchanges.append((server, asked, answered, "to_server", "tools/call", tool, outcome, duration_s))
        self._insert(
            "INSERT INTO server (id, session_id, name, config) VALUES (?, ?, ?, ?)",
            [(key, session_id, self._safe(name), self._config) for name, key in servers.items()],
        )
        self._insert("INSERT INTO frame VALUES (?, ?, ?, ?, ?, ?, ?)", frames)
        self._insert("INSERT INTO exchange VALUES (?, ?, ?, ?, ?, ?, ?, ?)", exchanges)
        self._server_id += len(servers)
        return max(end, at)

    def _asked(self, request: str) -> str:
        """Return a request as it may be written; what lookup needs to find its secrets is written, too."""
        stored = self._redactor.redact(request)
        if stored is not request:
            found = [secret for secret in self._redactor.known() if secret.placeholder in stored]
            self._insert(
                "INSERT OR IGNORE INTO secret VALUES (?, ?, ?)",
                [(secret.digest, secret.length, secret.placeholder) for secret in found],
            )
        return stored

    def _safe(self, text: str) -> str:
        return self._redactor.redact(encodable(text))

    @contextmanager
    def _transaction(self, name: str) -> Iterator[None]:
        try:
            begin(self._connection)
            try:
                self._now = time.time()
                self._config = self._redactor.redact(readable_json({"imported": name}))
                (self._frame_id,) = self._execute("SELECT coalesce(max(id), 0) FROM frame").fetchone()
                (self._server_id,) = self._execute("SELECT coalesce(max(id), 0) FROM server").fetchone()
                yield
                self._execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise RecordingError(f"importing into {self._db} failed: {error}") from error


def _documents(path: Path) -> Iterator[tuple[int, object]]:
    """Yield each document of a file with the line it stands on, or as `_Unusable`, why there is none.

    A list of sessions is as many documents.

    Raises:
        _Unreadable: the file cannot be read to its end.
    """
    try:
        with path.open("rb") as file:
            zipped = file.peek(2)[:2] == GZIP_MAGIC
            for line, value in _values(io.BufferedReader(gzip.GzipFile(fileobj=file)) if zipped else file):
                if isinstance(value, list) and all(map(_is_session, value)):
                    yield from ((line, item) for item in value)
                else:
                    yield line, value
    except (OSError, EOFError, zlib.error) as error:
        raise _Unreadable(str(error)) from error


def _values(file: BinaryIO) -> Iterator[tuple[int, object]]:
    head = file.readline().removeprefix(BOM_UTF8)
    rest: BinaryIO = file
    if head.rstrip().endswith((b"{", b"[", b",")):
        # An indented document begins like this, but so may a line that was cut off.
        text = head + file.read()
        document = _parsed(text)
        rest = io.BytesIO(text[len(head) :])
        if not isinstance(document, _Unusable) or not any(isinstance(_parsed(line), dict) for line in rest):
            yield 1, document
            return
        rest.seek(0)
    for number, line in enumerate(chain([head], rest), 1):
        if line := line.strip():
            yield number, _parsed(line)


def _is_session(value: object) -> bool:
    return isinstance(value, dict) and ("calls" in value or "messages" in value)


def _parsed(text: bytes) -> object:
    """Return the JSON value, or as `_Unusable`, why there is none."""
    try:
        return json.loads(text.decode("utf-8"))
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        return _Unusable(f"not JSON: {error.msg} at {line}column {error.colno}")
    except ValueError as error:  # bytes that are not UTF-8, an integer of more digits than Python reads
        return _Unusable(f"not readable: {error}")
    except RecursionError:
        return _Unusable("nested too deep")


def _recorded_call(value: Message) -> _Call:
    return _Call(
        server=encodable(_take(value, "server", str)),
        tool=encodable(_take(value, "tool", str)),
        arguments=_take(value, "arguments", dict),
        result=_result([_text(_take(value, "output", object))], value),
        started_at=_seconds(value, "started_at"),
        duration_s=_seconds(value, "duration_s"),
    )


def _conversation(value: Message) -> list[_Call]:
    """Return the tool uses of a conversation, in order, each with its answer where one came."""
    parts = [name for name in ("messages", "items", "input", "output") if isinstance(value.get(name), list)]
    if not parts:
        raise _Unusable(f"neither 'calls' nor 'messages' is among its fields {list(value)[:8]}")
    server = _name(value, "server")
    calls: list[_Call] = []
    waiting: dict[str, list[int]] = {}
    for part in parts if parts[0] == "input" else parts[:1]:
        for use_id, step in chain.from_iterable(
            _each(value, part, lambda message: [*_steps(message, server)])
        ):
            if isinstance(step, _Call):
                waiting.setdefault(use_id, []).append(len(calls))
                calls.append(step)
            elif asked := waiting.get(use_id):
                at = asked.pop(0)
                calls[at] = replace(calls[at], result=step)
            else:
                raise _Unusable(f"a result is for {use_id!r}, but no open tool use has that id")
    return calls


def _steps(message: Message, server: str | None) -> Iterator[tuple[str, _Call | dict[str, Any]]]:
    """Yield each tool use and each result in a message, or an item of the Responses API, with its id."""
    if not isinstance(message.get("role", message.get("type")), str):
        raise _Unusable("missing field 'role'")
    content = message.get("content")
    if message.get("role") == "tool":
        yield _take(message, "tool_call_id", str), _result(_blocks(content), {})
        return
    for item in map(as_object, [message, *(content if isinstance(content, list) else [])]):
        match item.get("type"):
            case "tool_use" | "mcp_tool_use":
                call = _call(item, _take(item, "input", dict), _name(item, "server_name") or server)
                yield _take(item, "id", str), call
            case "tool_result" | "mcp_tool_result":
                yield _take(item, "tool_use_id", str), _result(_blocks(item.get("content")), item)
            case "function_call":
                yield _take(item, "call_id", str), _call(item, _arguments(item), server)
            case "function_call_output":
                yield _take(item, "call_id", str), _result(_blocks(item.get("output")), {})
    if message.get("tool_calls"):
        yield from _each(message, "tool_calls", lambda use: _function_call(use, server))


def _function_call(use: Message, server: str | None) -> tuple[str, _Call]:
    function = _take(use, "function", dict)
    return _take(use, "id", str), _call(function, _arguments(function), server)


def _arguments(function: Message) -> dict[str, Any]:
    """Return what OpenAI sends as JSON text; an empty text stands for no arguments."""
    arguments = _take(function, "arguments", object)
    if isinstance(arguments, str):
        arguments = _parsed(arguments.encode("utf-8", "replace") or b"{}")
    if isinstance(arguments, _Unusable):
        raise _Unusable(f"'arguments' {arguments}")
    return dict(_object(arguments, "'arguments'"))


def _call(use: Message, arguments: dict[str, Any], server: str | None) -> _Call:
    """Read a tool use; its name may be `mcp__server__tool` or `server__tool`."""
    name = _take(use, "name", str)
    prefix, _, tool = name.removeprefix("mcp__").partition("__")
    if prefix and tool and server in (None, prefix):
        server, name = prefix, tool
    return _Call(encodable(server or "imported"), encodable(name), arguments)


def _result(content: list[dict[str, Any]], value: Message) -> dict[str, Any]:
    return {"content": content, "isError": _take(value, "is_error", bool, False)}


def _blocks(content: object) -> list[dict[str, Any]]:
    """Return a model API's tool result as the content blocks of MCP; other kinds become their JSON text."""
    if isinstance(content, list):
        return list(map(_block, content))
    return [] if content is None else [_text(content)]


def _block(part: object) -> dict[str, Any]:
    match part:
        case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            return _text(text)
        case {"type": "image", "source": {"type": "base64", "media_type": str(kind), "data": str(data)}}:
            return {"type": "image", "data": data, "mimeType": kind}
        case _:
            return _text(part)


def _text(value: object) -> dict[str, Any]:
    return {"type": "text", "text": value if isinstance(value, str) else readable_json(value)}


def _texts(number: int, call: _Call) -> tuple[str, str | None]:
    """Return a call's request and reply as MCP would have had them."""
    params = {"name": call.tool, "arguments": call.arguments}
    request = readable_json({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
    if "NaN" in request or "Infinity" in request:
        try:
            json.dumps(call.arguments, allow_nan=False)
        except ValueError:
            raise _Unusable(f"call {number}: a number in its arguments has no form in JSON") from None
    if call.result is None:
        return request, None
    return request, readable_json({"jsonrpc": "2.0", "id": number, "result": call.result})


_JSON_TYPES = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}


def _wrong(what: str, wanted: type, value: object) -> _Unusable:
    return _Unusable(f"{what} must be {_JSON_TYPES[wanted]}, got {_JSON_TYPES.get(type(value), 'a number')}")


def _object(value: object, what: str = "it") -> Message:
    if not isinstance(value, dict):
        raise _wrong(what, dict, value)
    return value


def _take(value: Message, name: str, kind: type[T], default: T | None = None) -> T:
    """Return a field; one with a default may be missing or null."""
    found = value.get(name)
    if found is None and default is not None:
        return default
    if found is None and name not in value:
        raise _Unusable(f"missing field {name!r}")
    if not isinstance(found, kind):
        raise _wrong(repr(name), kind, found)
    return found


def _name(value: Message, name: str) -> str | None:
    """Return a field that may be missing; a number, as data sets have them, counts as its text."""
    found = value.get(name)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str | None):
        raise _wrong(repr(name), str, found)
    return found or None


def _seconds(value: Message, name: str) -> float | None:
    found = value.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 1e12:
        raise _Unusable(f"{name!r} must be a number of seconds, got {str(found)[:40]!r}")
    return float(found)


def _each(value: Message, name: str, read: Callable[[Message], T]) -> Iterator[T]:
    """Read each object of a list; what is wrong in one is said with its place."""
    for at, item in enumerate(_take(value, name, list)):
        try:
            yield read(_object(item))
        except _Unusable as unusable:
            raise _Unusable(f"{name}[{at}]: {unusable}") from None
