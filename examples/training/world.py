"""A world to train a tiny model in: a shop, recorded from its real server, and tasks made of the recording.

    python examples/training/world.py FOLDER

FOLDER gets `shop.db`, the shop itself; `recording.db`, what was asked of its server; and `tasks/`. From then
on only the recording is needed: policies are answered by a replay of it.

Names, ids and people are each two of a dozen symbols, with a sign or a word before either ("fox with apple",
"ka-27", "dr anna of oslo"). So a tiny model learns to copy them all, also in combinations that it never saw:
no article of the test split occurs in a task for training.
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
"""Calls that a second session repeats: tasks rest on a tool only once two sessions got the same from it."""
TASKS = 600

ANIMALS = "ant bear crow deer eel fox goat hare ibis jay koala lynx"
THINGS = "apple boat cup drum egg fan gate harp iron jar kite leaf"
LETTERS = "ba co du fe gi ho ju ka li mo nu pe"
NUMBERS = range(21, 33)
PEOPLE = "anna bruno carla david elena felix gina henry irene jacob karen louis"
TOWNS = "accra berlin cairo delhi essen fukui genoa hanoi izmir juba kyoto lima"


def make_shop(path: Path, seed: int) -> None:
    """Write the shop's file: as many articles as there are names, with ids and people by chance."""
    rng = random.Random(seed)

    def shuffled(form: str, first: str, second: Iterable[object]) -> list[str]:
        made = [form.format(*pair) for pair in product(first.split(), second)]
        rng.shuffle(made)
        return made

    ids = shuffled("{}-{}", LETTERS, NUMBERS)
    names = shuffled("{} with {}", ANIMALS, THINGS.split())
    kinds = [KINDS[number % len(KINDS)] for number in range(len(ids))]
    people = [shuffled("dr {} of {}", PEOPLE, TOWNS.split()) for _ in FIELDS]
    columns = ("id", "kind", "name", *FIELDS)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE article ({', '.join(columns)})")
        rows = zip(ids, kinds, names, *people, strict=True)
        connection.executemany(f"INSERT INTO article VALUES ({', '.join('?' * len(columns))})", rows)


def every_call(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield all calls about what is in the shop, also those that only an erring policy makes.

    A policy is to learn from the answer to a wrong call; what was not recorded would be a miss instead.
    """
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
    for old in (*folder.glob("shop.db*"), *folder.glob("recording.db*")):
        old.unlink()
    shutil.rmtree(tasks, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    make_shop(shop, seed)
    calls = list(every_call(shop))
    anyio.run(record, shop, recording, calls)
    anyio.run(record, shop, recording, calls[:AGAIN])
    limits = ["--count", str(TASKS), "--seed", str(seed)]
    subprocess.run([*SYNTH, "--db", recording, "--out", tasks, *limits], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="made, if need be; an earlier world in it is replaced")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make_world(options.folder, options.seed)


if __name__ == "__main__":
    main()
