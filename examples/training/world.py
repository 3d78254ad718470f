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
TASKS = 600

ANIMALS = "ant bear crow deer eel fox goat hare ibis jay koala lynx".split()
THINGS = "apple boat cup drum egg fan gate harp iron jar kite leaf".split()
LETTERS = "ba co du fe gi ho ju ka li mo nu pe".split()
NUMBERS = range(21, 33)
PEOPLE = "anna bruno carla david elena felix gina henry irene jacob karen louis".split()
TOWNS = "accra berlin cairo delhi essen fukui genoa hanoi izmir juba kyoto lima".split()


def make_shop(path: Path, seed: int) -> None:
    """Write the shop's file: as many articles as there are names, with ids and people by chance."""
    rng = random.Random(seed)

    def shuffled(form: str, first: Iterable[str], second: Iterable[object]) -> list[str]:
        made = [form.format(*pair) for pair in product(first, second)]
        rng.shuffle(made)
        return made

    ids = shuffled("{}-{}", LETTERS, NUMBERS)
    names = shuffled("{} with {}", ANIMALS, THINGS)
    kinds = [KINDS[number % len(KINDS)] for number in range(len(ids))]
    people = [shuffled("dr {} of {}", PEOPLE, TOWNS) for _ in FIELDS]
    columns = ("id", "kind", "name", *FIELDS)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE article ({', '.join(columns)})")
        rows = zip(ids, kinds, names, *people, strict=True)
        connection.executemany(f"INSERT INTO article VALUES ({', '.join('?' * len(columns))})", rows)


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
    command = [
        *SYNTH,
        "--db",
        str(recording),
        "--out",
        str(tasks),
        "--count",
        str(TASKS),
        "--seed",
        str(seed),
    ]
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="made, if need be; an earlier world in it is replaced")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make_world(options.folder, options.seed)


if __name__ == "__main__":
    main()
