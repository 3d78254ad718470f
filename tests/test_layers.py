"""The house plan as a test: packages import downwards, and each heavy dependency has one home."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["recorder", "replayer", "firefly_proxy", "synth", "train"]
"""A package imports from itself and from those before it."""
HOMES = {
    "recorder": {"sqlite3", "aiosqlite", "anthropic", "sentence_transformers", "yaml"},
    "replayer": {"rapidfuzz", "jsonschema", "referencing"},
    "firefly_proxy": {"mcp", "mcp_types", "httpx2", "starlette", "uvicorn"},
    "synth": {"pyarrow"},
    "train": {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "tensorboard"}
    | {"matplotlib", "openai", "verl", "inspect_ai"},
}
"""Which package alone imports what."""
MODULES = [path.relative_to(ROOT) for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def imported(module: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every import, lazy ones included; a relative one begins with a dot."""
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name.split(".")[0]) for alias in names)
            case ast.ImportFrom(module=name, level=level):
                yield node.lineno, "." * level + (name or "").split(".")[0]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_downwards_and_heavy_dependencies_have_one_home(module: Path) -> None:
    package = module.parts[0]
    above = set(LAYERS[LAYERS.index(package) + 1 :])
    foreign = set().union(*(homed for home, homed in HOMES.items() if home != package))
    wrong = [
        f"{module}:{line} imports {name}"
        for line, name in imported(module)
        if name in above | foreign or name.startswith(".")
    ]
    assert wrong == []


def test_every_package_is_a_layer() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "examples"}
    assert packages == set(LAYERS)


def test_record_starts_without_what_it_does_not_need(tmp_path: Path) -> None:
    """Each of these costs tens of milliseconds or more before an agent's first reply."""
    heavy = {
        "mcp",
        "mcp_types",
        "pydantic",
        "anyio",
        "asyncio",
        "httpx2",
        "aiosqlite",
        "anthropic",
        "rapidfuzz",
    }
    heavy |= {"rich", "torch", "transformers", "importlib.metadata"}
    upstream = [sys.executable, str(ROOT / "tests" / "servers" / "echo.py")]
    command = ["-m", "firefly_proxy.cli", "record", "--db", str(tmp_path / "session.db"), "--", *upstream]
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=ROOT,
    )
    timed = (line for line in ended.stderr.splitlines() if line.startswith("import time:"))
    loaded = {line.rpartition("|")[2].strip() for line in timed}
    assert {"firefly_proxy.record", "firefly_proxy.stdio_tunnel", "recorder.writer"} <= loaded
    assert loaded & heavy == set()
