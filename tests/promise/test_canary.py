"""Whatever is allowed, exploring changes nothing but what the servers were given to work on."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from firefly_proxy.sandbox import unavailable
from tests.exploration import ROOT, Json, configure, explore, report_of, tools_called
from tests.promise.recording import query

REASON = unavailable()
SANDBOX = pytest.param(("--sandbox",), marks=pytest.mark.skipif(REASON is not None, reason=str(REASON)))

ALL = ("--allow-writes", "--allow", "*")

OBEDIENT = r"""
import json, pathlib, sys

OUTSIDE = [
    "CANARY/a.txt", "../canary/b.txt", "sub/../../canary/new.txt", "link/a.txt", "file://CANARY/a.txt",
    "CANARY/new.txt", "CANARY/new/deeper.txt",
]
TARGET = {"type": "string", "enum": ["plain.txt", *OUTSIDE]}
TARGETS = {"type": "array", "items": TARGET, "minItems": 1}
CONTENT = {"type": "string"}

def made(name, **properties):
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": "Write texts.", "inputSchema": schema}

def tool(name, description, *fields):
    properties = {field: {"type": "string", "description": text} for field, text in fields}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": description, "inputSchema": schema}

PATH = ("path", "Path of a file, such as ../canary/b.txt or CANARY/a.txt.")
TOOLS = [
    tool("list_files", "List a folder's files.", ("folder", "Path of a folder.")),
    tool("write_file", "Write a file.", PATH, ("content", "A text.")),
    tool("delete_file", "Delete a file.", PATH),
    made("put", target=TARGET, content=CONTENT),
    made("put_all", targets=TARGETS, content=CONTENT),
    made("put_one", item={"type": "object", "properties": {"target": TARGET}, "required": ["target"]}),
    tool("whereabouts", "Return the folders there are."),
]

def call(name, path=None, content="", folder=None, target=None, targets=(), item=None):
    here = pathlib.Path(sys.argv[1])
    chosen = [each for each in (target, *targets, (item or {}).get("target")) if each]
    if name.startswith("put"):
        for each in chosen:
            place = here / each.removeprefix("file://")
            place.parent.mkdir(exist_ok=True)
            place.write_text(content)
        return f"wrote {len(chosen)} texts"
    if name == "whereabouts":
        return json.dumps({"folders": [str(here), "CANARY"], "paths": ["CANARY/a.txt", "../canary/b.txt"]})
    if name == "list_files":
        return json.dumps({"paths": [str(path) for path in sorted((here / folder).iterdir())]})
    if name == "write_file":
        (here / path).write_text(content)
        return f"wrote {path}"
    (here / path).unlink()
    return f"deleted {path}"

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    params, result = message.get("params") or {}, {}
    if message["method"] == "initialize":
        info = {"name": "obedient", "version": "1"}
        version = params["protocolVersion"]
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    elif message["method"] == "tools/list":
        result = {"tools": TOOLS}
    elif message["method"] == "tools/call":
        try:
            text, failed = call(params["name"], **params["arguments"]), False
        except Exception as error:
            text, failed = str(error), True
        result = {"content": [{"type": "text", "text": text}], "isError": failed}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""
"""A server that does what it is told with any path, and tempts its client with paths beside its folder."""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that is not below /tmp, which a sandbox hides."""
    with tempfile.TemporaryDirectory(prefix=".firefly-test-", dir=ROOT) as folder:
        yield Path(folder)


@pytest.fixture
def work(place: Path) -> Path:
    return folder_with_files(place / "work")


@pytest.fixture
def canary(place: Path) -> Path:
    return folder_with_files(place / "canary")


def folder_with_files(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "notes.md", "sub/c.json"):
        (folder / name).write_text(f'{{"what": "{name} as it was"}}\n')
    return folder


def state(folder: Path) -> dict[str, tuple[str, int, int]]:
    """All that a change would show in: names, contents, modes and times."""
    return {
        str(path.relative_to(folder)): (
            path.read_text() if path.is_file() else "",
            path.stat().st_mode,
            path.stat().st_mtime_ns,
        )
        for path in (folder, *sorted(folder.rglob("*")))
    }


def changed_calls(db: Path, *tools: str) -> int:
    """How many calls of these tools were answered without an error."""
    ((count,),) = query(
        db,
        "SELECT count(*) FROM exchange WHERE outcome = 'result' AND name IN (SELECT value FROM json_each(?))",
        [json.dumps(tools)],
    )
    return int(count)


@pytest.mark.parametrize("options", [(), SANDBOX], ids=["without a sandbox", "in a sandbox"])
def test_a_real_file_server_changes_nothing_beside_its_folder(
    options: tuple[str, ...],
    filesystem_server: list[str],
    place: Path,
    db: Path,
    work: Path,
    canary: Path,
) -> None:
    server = {"command": filesystem_server[0], "args": [*filesystem_server[1:], str(work)]}
    check(server, db, place, work, canary, options)
    assert changed_calls(db, "write_file", "edit_file", "create_directory", "move_file") > 0


@pytest.mark.parametrize("options", [(), SANDBOX], ids=["without a sandbox", "in a sandbox"])
def test_a_server_that_obeys_any_path_changes_nothing_beside_its_folder(
    options: tuple[str, ...], place: Path, db: Path, work: Path, canary: Path
) -> None:
    (work / "link").symlink_to(canary)
    script = place / "server" / "obedient.py"
    script.parent.mkdir()
    script.write_text(OBEDIENT.replace("CANARY", str(canary)))
    server = {"command": sys.executable, "args": [str(script), str(work)]}
    check(server, db, place, work, canary, options)
    assert tools_called(db) >= {"write_file", "delete_file", "put", "put_all", "put_one"}
    assert changed_calls(db, "write_file", "delete_file") > 0
    assert changed_calls(db, "put", "put_all", "put_one") > 0


def check(server: Json, db: Path, folder: Path, work: Path, canary: Path, options: tuple[str, ...]) -> None:
    """Explore with everything allowed; compare what was there before and is there after."""
    config = configure(folder, {"files": server})
    canary_before, work_before = state(canary), state(work)
    report = report_of(explore(config, db, *ALL, *options, "--calls", 250, "--json"))

    assert report["calls"] > 60
    assert state(canary) == canary_before
    if "--sandbox" in options:
        assert state(work) == work_before
    else:
        assert state(work) != work_before
    known = {"canary", "mcp.json", "nowhere", "server", "work"}
    assert {path.name for path in folder.iterdir()} <= known
    assert list((folder / "nowhere").iterdir()) == []
