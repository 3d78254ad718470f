"""Servers that keep state, recorded over 200 random sessions each: a replay answers from the right state.

A rollout walks the replay and the real server side by side with the same calls. What the replay answers must
be what the real server answers in the state that the rollout's own calls led to; a miss is honest.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from recorder.canonical import canonical_json
from recorder.exchange import RpcError, ToolCall, ToolRef
from recorder.store import Store
from recorder.writer import RecordingWriter
from replayer.learn import learn
from replayer.mask import masked
from replayer.replayer import Replayer
from replayer.session import Answer, ReplaySession
from tests.promise.conversation import ROOT

SESSIONS = 200
KNOWN_ROLLOUTS, UNKNOWN_ROLLOUTS = 80, 20
CALLS = (6, 10)

Result = dict[str, Any]
Start = Any
"""What a world is reset to."""


@dataclass(frozen=True, slots=True)
class Made:
    """In arguments: the id that the server made for the n-th creation of the session at hand."""

    number: int


@dataclass(frozen=True, slots=True)
class Call:
    tool: str
    arguments: Mapping[str, Any]
    creates: bool = False
    """Whether it is answered with an id of the server's making."""


def call(tool: str, /, **arguments: Any) -> Call:
    return Call(tool, arguments)


class RealServer:
    """A server's process; its requests and replies are kept as the lines they were."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**env}
        )
        self._ids = count(1)
        hello = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        self.hello = self.request("initialize", hello)

    def request(self, method: str, params: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Return the line that asked, and the line that answered."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        number = next(self._ids)
        asked = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()
        self._process.stdin.write(asked + b"\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            if json.loads(line).get("id") == number:
                return asked, line.strip()
        raise AssertionError(f"the server ended at {method} {params}")

    def close(self) -> None:
        self._process.communicate()


@dataclass(slots=True)
class World:
    """A server, what its sessions start from, and what is asked of it."""

    name: str
    starts: Mapping[str, Start]
    """By group."""
    unseen: Start
    """Of a group that is never recorded."""
    command: Callable[[Start], tuple[list[str], dict[str, str]]]
    reset: Callable[[Start], None]
    draw: Callable[[random.Random, int], Call]
    """Draw a call, told how many creations came before it."""
    read: Call
    write: Call
    """What is read, and a write that changes it; neither is ever drawn."""
    other_write: Call
    """One that changes it otherwise, and is never recorded."""
    keeps_files: bool = True
    """Whether resetting its files resets the server, so that one process serves every session."""
    pieces: Sequence[Sequence[Call]] = ()
    """Sessions that are recorded as well, in the first group."""
    _server: RealServer | None = None

    @property
    def apart(self) -> list[Sequence[Call]]:
        """Sessions of their own for what a rollout does in one: a read, and a write with a read after it."""
        return [[self.read], [self.write, self.read], *self.pieces]

    def begin(self, start: Start) -> RealServer:
        """Return the server in its start state."""
        self.reset(start)
        if self._server is None or not self.keeps_files:
            self.close()
            self._server = RealServer(*self.command(start))
        return self._server

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


def walk(world: World, rng: random.Random) -> list[Call]:
    calls: list[Call] = []
    for _ in range(rng.randint(*CALLS)):
        calls.append(world.draw(rng, sum(each.creates for each in calls)))
    return calls


class Ids:
    """The ids that a server made in one session, a creation each; `None` for one that failed."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def resolve(self, value: Any) -> Any:
        """Return a call's arguments with the ids.

        Raises:
            LookupError: there is no such id.
        """
        match value:
            case Made(number=number):
                if number >= len(self.made) or self.made[number] is None:
                    raise LookupError(number)
                return self.made[number]
            case dict():
                return {name: self.resolve(item) for name, item in value.items()}
            case str() if "{made" in value:
                ordinal = int(value.split("{made")[1].split("}")[0])
                return value.replace(f"{{made{ordinal}}}", str(self.resolve(Made(ordinal))))
            case _:
                return value

    def note(self, each: Call, result: Result | None) -> None:
        if each.creates:
            self.made.append(None if result is None else _id_of(result))

    def named(self, result: Result) -> str:
        """Return a result as it is compared: random ids by their creation, the rest as the mask leaves it."""
        text = canonical_json({name: value for name, value in result.items() if name != "_meta"})
        for number, made in enumerate(self.made):
            if isinstance(made, str):
                text = text.replace(made, f"<creation {number}>")
        return masked(text)


def _id_of(result: Result) -> Any:
    if result.get("isError"):
        return None
    value = json.loads(result["content"][0]["text"])
    return value.get("id", value.get("last_insert_id"))


def asked_of(server: RealServer, each: Call, ids: Ids) -> tuple[bytes, bytes, Result]:
    params = {"name": each.tool, "arguments": ids.resolve(dict(each.arguments))}
    asked, replied = server.request("tools/call", params)
    reply = json.loads(replied)
    result = reply["result"] if "result" in reply else {"error": reply["error"]}
    ids.note(each, result)
    return asked, replied, result


def record(
    world: World, db: Path, group: str, calls: Sequence[Call], start: Start
) -> list[tuple[Call, Result | None]]:
    """Record one session of the real server; return the calls that were made, with their results."""
    server = world.begin(start)
    writer = RecordingWriter(db, group=group)
    server_id = writer.add_server(world.name, {})

    def keep(asked: bytes, replied: bytes) -> None:
        writer.record(server_id, "to_server", [asked])
        writer.record(server_id, "to_client", [replied])

    keep(*server.hello)
    keep(*server.request("tools/list", {}))
    ids, made = Ids(), []
    for each in calls:
        try:
            asked, replied, result = asked_of(server, each, ids)
        except LookupError:
            ids.note(each, None)
            made.append((each, None))
            continue
        keep(asked, replied)
        made.append((each, result))
    writer.end_server(server_id, "done")
    writer.end("done")
    return made


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a rollout, of the replay and of the real server."""

    tool: str
    arguments: Mapping[str, Any]
    replayed: str | None
    """`None` for a miss."""
    real: str
    source: str = ""
    """Tier, trust and recorded exchange of the replay's answer."""

    @property
    def wrong(self) -> bool:
        return self.replayed is not None and self.replayed != self.real

    def __str__(self) -> str:
        asked = f"{self.tool}({json.dumps(self.arguments)})"
        if self.replayed is None:
            return f"{asked} is missed"
        if not self.wrong:
            return f"{asked} is answered"
        return f"{asked} is answered ({self.source}) {self.replayed}, the real server says {self.real}"


def replayed(session: ReplaySession, world: World, each: Call, ids: Ids) -> tuple[Result | None, str]:
    """Return what a replay answers, `None` for a miss, and where that is from."""
    params = {"name": each.tool, "arguments": ids.resolve(dict(each.arguments))}
    answer = session.ask(world.name, "tools/call", params)
    if not isinstance(answer, Answer):
        return None, ""
    outcome, exchange = answer.outcome, answer.exchange
    source = f"{answer.tier}, trust {answer.trust or 0:.3f}, exchange {exchange.id if exchange else None}"
    return ({"error": outcome.error} if isinstance(outcome, RpcError) else outcome.result), source


def rollout(world: World, session: ReplaySession, calls: Sequence[Call], start: Start) -> list[Step]:
    """Walk the replay and the real server side by side, each with the ids that it gave.

    A call that needs the id of a creation that was missed, or refused, is left out on both sides.
    """
    server, ids, real_ids, steps = world.begin(start), Ids(), Ids(), []
    for each in calls:
        try:
            arguments = ids.resolve(dict(each.arguments))
            real_ids.resolve(dict(each.arguments))
        except LookupError:
            assert not each.creates  # none of our creations needs an id
            continue
        _, _, real = asked_of(server, each, real_ids)
        result, source = replayed(session, world, each, ids)
        ids.note(each, result)
        told = None if result is None else ids.named(result)
        steps.append(Step(each.tool, arguments, told, real_ids.named(real), source))
    return steps


def failures(rollouts: Sequence[tuple[str, Sequence[Step]]]) -> list[str]:
    """Tell each wrong answer, with its group and all calls that led to it."""
    return [
        f"{group}: " + "; ".join(map(str, steps[: number + 1]))
        for group, steps in rollouts
        for number, step in enumerate(steps)
        if step.wrong
    ]


NAMES = ("Ada", "Bob", "Cleo", "Dan")
HABITS = ("sings", "runs", "reads")


def memory_world(command: list[str], folder: Path) -> World:
    file = folder / "memory.jsonl"

    def entity(name: str, *observations: str) -> Result:
        return {"name": name, "entityType": "person", "observations": [*observations]}

    def reset(start: Sequence[Result]) -> None:
        file.write_text("\n".join(json.dumps(item) for item in start))

    def draw(rng: random.Random, _: int) -> Call:
        one, other = rng.choices(NAMES, (4, 3, 2, 1), k=2)
        habit = rng.choices(HABITS, (3, 2, 1))[0]
        relation = {"from": one, "to": other, "relationType": "knows"}
        kinds: list[tuple[int, Call]] = [
            (3, call("create_entities", entities=[entity(one, habit)])),
            (2, call("create_relations", relations=[relation])),
            (2, call("add_observations", observations=[{"entityName": one, "contents": [habit]}])),
            (1, call("delete_entities", entityNames=[one])),
            (1, call("delete_relations", relations=[relation])),
            (1, call("delete_observations", deletions=[{"entityName": one, "observations": [habit]}])),
            (3, call("read_graph")),
            (2, call("search_nodes", query=rng.choice([habit, one.lower()]))),
            (3, call("open_nodes", names=[one])),
            (1, call("open_nodes", names=[one, other])),
        ]
        return drawn(rng, kinds)

    def stored(*entities: Result) -> list[Result]:
        return [{"type": "entity", **each} for each in entities]

    spare = entity("Spare", "waits")
    return World(
        "memory",
        {
            "nobody": [],
            "Ada": stored(entity("Ada", "sings")),
            "Bob": stored(entity("Bob")),
            "two": [
                *stored(entity("Ada"), entity("Cleo", "runs")),
                {"type": "relation", "from": "Ada", "to": "Cleo", "relationType": "knows"},
            ],
            "three": stored(entity("Bob", "runs"), entity("Cleo"), entity("Dan", "reads")),
        },
        stored(entity("Dan", "sings"), entity("Ada", "reads")),
        lambda start: (command, {"MEMORY_FILE_PATH": str(file), "PATH": _path()}),
        reset,
        draw,
        read=call("open_nodes", names=["Spare"]),
        write=call("create_entities", entities=[spare]),
        other_write=call("create_entities", entities=[{**spare, "observations": ["left"]}]),
    )


def filesystem_world(command: list[str], folder: Path) -> World:
    root = folder / "files"
    root.mkdir()

    def at(name: str) -> str:
        return str(root / name)

    def reset(start: Mapping[str, str]) -> None:
        for path in root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, text in start.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text)

    files = ("a.txt", "b.txt", "old/a.txt", "c.txt")

    def draw(rng: random.Random, _: int) -> Call:
        one, other = rng.choices(files, (4, 3, 2, 1), k=2)
        text = rng.choice(["red\nink\n", "blue\nink\n"])
        edit = {"oldText": text, "newText": "green\nink\n"}
        kinds = [
            (4, call("write_file", path=at(one), content=text)),
            (2, call("edit_file", path=at(one), edits=[edit])),
            (2, call("move_file", source=at(one), destination=at(other))),
            (1, call("create_directory", path=at("old"))),
            (5, call("read_text_file", path=at(one))),
            (1, call("read_text_file", path=at(one), head=1)),
            (2, call("read_multiple_files", paths=[at(one), at(other)])),
            (2, call("list_directory", path=str(root))),
            (1, call("list_directory", path=at("old"))),
            (1, call("directory_tree", path=str(root))),
            (1, call("search_files", path=str(root), pattern=f"**/{Path(one).name}")),
            (1, call("list_allowed_directories")),
        ]
        return drawn(rng, kinds)

    spare = at("spare.txt")
    return World(
        "filesystem",
        {
            "empty": {},
            "red": {"a.txt": "red\nink\n"},
            "blue": {"a.txt": "blue\nink\n", "b.txt": "blue\nink\n"},
            "old": {"old/a.txt": "red\nink\n"},
            "full": {
                "a.txt": "blue\nink\n",
                "b.txt": "red\nink\n",
                "c.txt": "red\nink\n",
                "old/a.txt": "blue\nink\n",
            },
        },
        {"b.txt": "green\nink\n", "old/a.txt": "green\nink\n"},
        lambda start: ([*command, str(root)], {"PATH": _path()}),
        reset,
        draw,
        read=call("read_text_file", path=spare),
        write=call("write_file", path=spare, content="one\n"),
        other_write=call("write_file", path=spare, content="two\n"),
    )


def sql_world(folder: Path, *, plain: bool) -> World:
    file = folder / "shop.db"

    def reset(start: Sequence[tuple[str, int]]) -> None:
        file.unlink(missing_ok=True)
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(
                "CREATE TABLE items (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, amount INTEGER)"
            )
            connection.execute("CREATE TABLE tags (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE)")
            connection.executemany("INSERT INTO items (name, amount) VALUES (?, ?)", start)

    def draw(rng: random.Random, made: int) -> Call:
        name = rng.choices(("pen", "cup", "book"), (3, 2, 1))[0]
        amount = rng.choice((100, 250))
        row = Made(rng.randrange(made)) if made and rng.random() < 0.7 else rng.randint(1, 4)
        written = f"{{made{row.number}}}" if isinstance(row, Made) else str(row)
        insert = f"INSERT INTO items (name, amount) VALUES ('{name}', {amount})"
        tag = f"INSERT INTO tags (name) VALUES ('{name}')"
        kinds = [
            (3, Call("insert_row", {"table": "items", "values": {"name": name, "amount": amount}}, True)),
            (2, Call("execute", {"sql": insert}, True)),
            (1, Call("execute", {"sql": tag}, True)),
            (1, call("execute", sql=f"UPDATE items SET amount = amount + 1 WHERE name = '{name}'")),
            (1, call("execute", sql=f"DELETE FROM items WHERE name = '{name}'")),
            (1, call("delete_row", table="items", id=row)),
            (4, call("get_row", table="items", id=row)),
            (2, call("query", sql=f"SELECT name, amount FROM items WHERE id = {written}")),
            (3, call("query", sql=f"SELECT id, amount FROM items WHERE name = '{name}' ORDER BY id")),
            (2, call("query", sql="SELECT * FROM items ORDER BY id")),
            (2, call("query", sql="SELECT count(*) AS n FROM items")),
            (1, call("query", sql="SELECT name FROM tags ORDER BY name")),
            (1, call("list_tables")),
            (1, call("describe_table", table=rng.choice(("items", "tags", "users")))),
        ]
        if plain:
            returning = f"INSERT INTO items (name, amount) VALUES ('{name}', 7) RETURNING amount"
            kinds += [
                (1, call("query", sql=returning)),
                (
                    1,
                    call(
                        "query",
                        sql=f"WITH n(x) AS (VALUES ('{name}')) INSERT INTO tags (name) SELECT x FROM n",
                    ),
                ),
            ]
        return drawn(rng, kinds)

    spare = "SELECT amount FROM items WHERE name = 'spare'"
    return World(
        "plain sql" if plain else "sql",
        {
            "empty": [],
            "pen": [("pen", 100)],
            "cups": [("cup", 100), ("cup", 250)],
            "both": [("pen", 250), ("cup", 100)],
            "three": [("book", 100), ("pen", 100), ("pen", 250)],
        },
        [("book", 250), ("cup", 250), ("book", 100), ("pen", 1)],
        lambda start: (
            [sys.executable, str(ROOT / "tests/servers/sql.py"), str(file), *(["--plain"] if plain else [])],
            {},
        ),
        reset,
        draw,
        read=call("query", sql=spare),
        write=call("execute", sql="INSERT INTO items (name, amount) VALUES ('spare', 1)"),
        other_write=call("execute", sql="INSERT INTO items (name, amount) VALUES ('spare', 2)"),
    )


ZOE = Call("create", {"name": "Zoe"}, creates=True)
"""A creation that is never drawn."""


def ledger_world() -> World:
    fixed = [f"{number:08x}-0000-4000-8000-00000000beef" for number in (1, 2, 3)]

    def draw(rng: random.Random, made: int) -> Call:
        key = rng.choices(("apples", "pears", "plums"), (3, 2, 1))[0]
        record_id = Made(rng.randrange(made)) if made and rng.random() < 0.8 else rng.choice(fixed)
        kinds = [
            (3, call("put", key=key, value=rng.choice(("3", "5")))),
            (4, Call("create", {"name": rng.choices(NAMES, (4, 3, 2, 1))[0]}, True)),
            (1, call("put", key=key, value=record_id)),
            (4, call("get", key=key)),
            (2, call("list")),
            (5, call("fetch", id=record_id)),
            (1, call("now")),
            (1, call("divide", a=rng.choice((1, 7)), b=rng.choice((0, 2)))),
        ]
        return drawn(rng, kinds)

    return World(
        "ledger",
        {
            "empty": {},
            "apples": {"entries": {"apples": "3"}},
            "pears": {"entries": {"pears": "5"}, "records": {fixed[0]: "Eve"}},
            "both": {"entries": {"apples": "5", "pears": "3"}, "records": {fixed[0]: "Fay"}},
            "records": {"records": {fixed[0]: "Eve", fixed[1]: "Ada"}},
        },
        {"entries": {"plums": "1", "apples": "9"}, "records": {fixed[0]: "Gus", fixed[2]: "Hal"}},
        lambda start: (
            [sys.executable, "-S", str(ROOT / "tests/servers/ledger.py")],
            {"LEDGER_START": json.dumps(start)},
        ),
        lambda start: None,
        draw,
        keeps_files=False,
        read=call("get", key="spare"),
        write=call("put", key="spare", value="1"),
        other_write=call("put", key="spare", value="2"),
        pieces=[
            [ZOE, call("put", key="zoe", value=Made(0)), call("get", key="zoe")],
            [ZOE, call("fetch", id=Made(0))],
        ],
    )


def drawn(rng: random.Random, kinds: Sequence[tuple[int, Call]]) -> Call:
    return rng.choices([each for _, each in kinds], [weight for weight, _ in kinds])[0]


def _path() -> str:
    node = shutil.which("node")
    assert node is not None
    return str(Path(node).parent)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A world's recording, learned from, and what was recorded in it."""

    world: World
    replayer: Replayer
    sessions: Sequence[tuple[str, Sequence[tuple[Call, Result | None]]]]
    """Group, and each call with its result; `None` for one that was not made."""


KINDS = ("memory", "filesystem", "sql", "plain sql", "ledger")


@pytest.fixture(scope="module", params=KINDS)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("world")
    match request.param:
        case "memory":
            world = memory_world(request.getfixturevalue("memory_server"), folder)
        case "filesystem":
            world = filesystem_world(request.getfixturevalue("filesystem_server"), folder)
        case "ledger":
            world = ledger_world()
        case kind:
            world = sql_world(folder, plain=kind == "plain sql")
    db, rng, sessions = folder / "recording.db", random.Random(f"recorded {world.name}"), []
    groups = list(world.starts)
    plans = [(groups[number % len(groups)], walk(world, rng)) for number in range(SESSIONS)]
    for number, calls in enumerate(world.apart):
        plans[number] = (groups[0], calls)
    try:
        for group, calls in plans:
            sessions.append((group, record(world, db, group, calls, world.starts[group])))
        store = Store(db)
        yield Recorded(world, Replayer(store, learn(store)), sessions)
    finally:
        world.close()


def test_every_recorded_session_is_replayed_as_it_was(recorded: Recorded) -> None:
    missed: Counter[str] = Counter()
    rollouts = []
    for group, calls in recorded.sessions:
        session, ids, real_ids, steps = recorded.replayer.session(group), Ids(), Ids(), []
        for each, real in calls:
            if real is None:
                ids.note(each, None)
                real_ids.note(each, None)
                continue
            arguments = ids.resolve(dict(each.arguments))
            result, source = replayed(session, recorded.world, each, ids)
            missed[each.tool] += result is None
            ids.note(each, real if result is None else result)
            real_ids.note(each, real)
            told = None if result is None else ids.named(result)
            steps.append(Step(each.tool, arguments, told, real_ids.named(real), source))
        rollouts.append((group, steps))
    assert failures(rollouts) == []
    assert +missed == {}


COVERAGE = {"memory": 0.30, "filesystem": 0.54, "sql": 0.32, "plain sql": 0.31, "ledger": 0.77}
"""Of rollouts that nobody recorded, some points under what was measured."""

MOST_WRONG = 0.01
"""Of all answers; half of what the default threshold allows. Of reads, none may be."""


def test_a_new_rollout_is_answered_from_the_state_that_its_own_calls_led_to(recorded: Recorded) -> None:
    world, rng = recorded.world, random.Random("new rollouts")
    rollouts = []
    for number in range(KNOWN_ROLLOUTS):
        group = list(world.starts)[number % len(world.starts)]
        calls = walk(world, rng)
        session = recorded.replayer.session(group)
        rollouts.append((group, rollout(world, session, calls, world.starts[group])))
    steps = [step for _, steps in rollouts for step in steps]
    answered = [step for step in steps if step.replayed is not None]
    assert [
        str(step) for step in answered if step.wrong and not changes(recorded.replayer, world, step)
    ] == []
    assert len(failures(rollouts)) <= MOST_WRONG * len(answered), failures(rollouts)
    assert len(answered) / len(steps) >= COVERAGE[world.name]


def changes(replayer: Replayer, world: World, step: Step) -> bool:
    """Whether a call may change the world."""
    call = ToolCall(tool=ToolRef(world.name, step.tool), arguments=dict(step.arguments))
    return replayer.call_changes(call)


def test_nor_is_one_from_a_start_state_that_nobody_recorded_answered_wrong(recorded: Recorded) -> None:
    world, rng = recorded.world, random.Random("unseen")
    rollouts = []
    for group in (None, "unseen"):
        for _ in range(UNKNOWN_ROLLOUTS // 2):
            session = recorded.replayer.session(group)
            rollouts.append((f"{group}", rollout(world, session, walk(world, rng), world.unseen)))
    assert failures(rollouts) == []


def test_a_read_after_a_write_is_answered_from_the_one_session_that_wrote(recorded: Recorded) -> None:
    world = recorded.world
    group = next(iter(world.starts))
    steps = rollout(
        world, recorded.replayer.session(group), [world.read, world.write, world.read], world.starts[group]
    )
    assert failures([(group, steps)]) == []
    assert [step.replayed is not None for step in steps] == [True] * 3
    assert steps[0].replayed != steps[2].replayed


def test_a_read_after_writes_that_nobody_recorded_is_not_answered_from_before_them(
    recorded: Recorded,
) -> None:
    world = recorded.world
    read, write, other = world.read, world.write, world.other_write
    plans = [[other, read], [read, other, read], [write, read, other, read], [other, write, read]]
    rollouts = []
    for group, start in world.starts.items():
        for calls in plans:
            rollouts.append((group, rollout(world, recorded.replayer.session(group), calls, start)))
    assert failures(rollouts) == []


@pytest.mark.parametrize("recorded", ["ledger"], indirect=True)
def test_a_call_recorded_only_with_another_runs_id_is_answered_with_the_rollouts_own(
    recorded: Recorded,
) -> None:
    world = recorded.world
    group = next(iter(world.starts))
    made = {
        result["content"][0]["text"]
        for _, calls in recorded.sessions
        for each, result in calls
        if each == ZOE and result
    }
    assert len(made) == 2  # an id for each run
    calls = [ZOE, call("fetch", id=Made(0)), call("put", key="zoe", value=Made(0)), call("get", key="zoe")]
    steps = rollout(world, recorded.replayer.session(group), calls, world.starts[group])
    assert failures([(group, steps)]) == []
    assert [step.replayed is not None for step in steps] == [True] * 4


@pytest.mark.parametrize("recorded", ["ledger"], indirect=True)
def test_two_creations_of_one_rollout_never_get_one_id(recorded: Recorded) -> None:
    world = recorded.world
    rollouts = []
    for group, start in world.starts.items():
        for name in ("Zoe", *NAMES):
            create = Call("create", {"name": name}, creates=True)
            calls = [create, create, create, *(call("fetch", id=Made(number)) for number in range(3))]
            rollouts.append((group, rollout(world, recorded.replayer.session(group), calls, start)))
    assert failures(rollouts) == []
