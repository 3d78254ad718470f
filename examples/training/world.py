"""A world to train a tiny model in: a shop, recorded from its real server, and tasks made of the recording.

    python examples/training/world.py FOLDER

FOLDER gets `shop.db`, the shop itself; `recording.db`, all that was asked of its server; and `tasks/`. After
that only the recording is needed: policies are answered by a replay.

Everything in the shop is called by two short words or syllables out of small sets, so that what a model learns to copy for
training tasks it can copy for others. The articles of the test split are never asked about in training.
"""

import argparse
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters
from shop_server import FIELDS, KINDS

HERE = Path(__file__).resolve().parent
RECORD = [sys.executable, "-m", "firefly_proxy.cli", "record"]
SYNTH = [sys.executable, "-m", "firefly_proxy.main", "synth"]
AGAIN = 480
"""Calls of a second session, since a task rests on a tool only if some call of it was answered alike in two."""
TASKS = 1200

WORDS = ["".join(pair) for pair in product(
    "ba co du fe gi ho ju ka li mo nu pe".split(), "bel dan fix gor lum mek nar pit ros sut vin zap".split()
)]  # fmt: skip
NUMBERS = range(200, 200 + len(WORDS))
ARTICLES = 96
"""Of each kind."""


def make_shop(path: Path, seed: int) -> None:
    """Write the shop's file: articles with names, ids and people by chance."""
    rng = random.Random(seed)
    columns = ("id", "kind", "name", *FIELDS)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE article ({', '.join(columns)})")
        for kind in KINDS:
            of_kind = [rng.sample(WORDS, ARTICLES) for _ in FIELDS]
            for number, word, *people in zip(rng.sample(NUMBERS, ARTICLES), rng.sample(WORDS, ARTICLES), *of_kind):
                row = [f"{kind}-{number}", kind, f"{word} {kind}", *(f"@{person}" for person in people)]
                connection.execute(f"INSERT INTO article VALUES ({', '.join('?' * len(row))})", row)


def every_call(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield all calls about what is in the shop: also those that a policy makes only where it errs."""
    with closing(sqlite3.connect(path)) as connection:
        articles = connection.execute("SELECT id, name FROM article ORDER BY id").fetchall()
    for article, name in articles:
        yield from ((f"find_{kind}", {"name": name}) for kind in KINDS)
        yield from ((f"get_{field}", {"id": article}) for field in FIELDS)


async def record(shop: Path, recording: Path, calls: Sequence[tuple[str, dict[str, str]]]) -> None:
    """Ask the shop's server, through the recorder."""
    server = [sys.executable, str(HERE / "shop_server.py"), str(shop)]
    proxy = [*RECORD, "--db", str(recording), "--name", "shop", "--", *server]
    async with Client(StdioServerParameters(command=proxy[0], args=proxy[1:])) as client:
        await client.list_tools()
        for tool, arguments in calls:
            await client.call_tool(tool, arguments)


def make_world(folder: Path, seed: int) -> None:
    """Make the shop, the recording and the tasks in a folder that is new or of an earlier world.

    Raises:
        CalledProcessError: no tasks could be made.
    """
    shop, recording, tasks = folder / "shop.db", folder / "recording.db", folder / "tasks"
    for path in folder.glob("*.db*"):
        path.unlink()
    shutil.rmtree(tasks, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    make_shop(shop, seed)
    calls = list(every_call(shop))
    anyio.run(record, shop, recording, calls)
    anyio.run(record, shop, recording, calls[:AGAIN])
    command = [*SYNTH, "--db", str(recording), "--out", str(tasks), "--count", str(TASKS), "--seed", str(seed)]
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="made, if need be; an earlier world in it is replaced")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make_world(options.folder, options.seed)


if __name__ == "__main__":
    main()
