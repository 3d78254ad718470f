"""What replaying a large recording costs: learning from it, opening it, an answer, a miss, memory, threads.

    python tests/bench/replay.py [--exchanges 1000000] [--tools 1000] [--folder DIR] [--quick] [--json FILE]

Makes a recording (the same one for the same parameters; one that is already in the folder is taken again) and
measures each step in a process of its own. Beside them stand two limits, in the same run and for the same
calls: a dict in memory and one indexed SELECT, both from a call to the text of its reply, nothing parsed.
Figures are medians over rounds; files are in the page cache unless it says cold. Memory is resident memory,
pages of mapped files included. Prints a table, then one JSON line.
"""

import argparse
import json
import os
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.proxy_overhead import commit, machine

# What is measured is imported where it is measured: memory and the time of imports are figures here.

RECIPE = 3
"""Of the recording: another one is made anew."""

QUICK_EXCHANGES = 20_000
TOOLS_OF_A_SERVER = 25
GROUPS_AT_ONCE = 50
"""Groups whose runs are recorded in turn."""
MOST_RUNS = 8
BUSY_SHARE, POPULAR_SHARE, UNKNOWN_ID_SHARE, VIOLATION_SHARE = 0.03, 0.15, 0.035, 0.015
"""Of all calls: three that everybody makes, some hundred that a server is known for, two kinds of errors."""
DROPPED_SHARE, VARIED_SHARE = 0.06, 0.1
"""Of a group's calls, in each further run."""

TIMED_SESSIONS, TIMED_SESSIONS_QUICK = 400, 80
MANY_SESSIONS = 5_000
ROUNDS = 3
OPENINGS, OPENINGS_QUICK = 5, 3
THREADS = 16
FRACTIONS, FRACTIONS_QUICK = (0.25, 0.5, 1.0), (0.25, 1.0)

READ_VERBS = ("get", "list", "search", "describe", "check", "fetch", "find", "count")
CHANGE_VERBS = ("create", "update", "cancel", "assign")
NOUNS = """
    order ticket invoice customer payment shipment product review device contract employee meeting booking
    flight campaign lead account project sprint branch release incident alert document folder
""".split()  # noqa: SIM905 - forty quotes hide the words
FIELDS = ("limit", "since", "until", "status", "query", "page", "region", "sort")
WORDS = """
    amber brisk cedar delta ember fjord grove harbor indigo jasper kestrel lumen meadow nickel onyx prairie
    quartz river slate timber umber vertex willow yonder zephyr open closed pending urgent north south
""".split()  # noqa: SIM905

# ---------------------------------------------------------------------------------------------- the recording


@dataclass(frozen=True, slots=True)
class Tool:
    server: str
    name: str
    noun: str
    changes: bool
    fields: tuple[str, ...]
    """Its arguments; an id among them is the first."""
    stamp: str | None
    """The member of its answers that is never the same twice."""

    @property
    def needs_id(self) -> bool:
        return self.fields[:1] == ("id",)

    def entry(self) -> dict[str, Any]:
        kinds = {"limit": {"type": "integer", "default": 20}, "page": {"type": "integer"}}
        properties = {name: kinds.get(name, {"type": "string"}) for name in self.fields}
        schema = {"type": "object", "properties": properties, "required": ["id"] if self.needs_id else []}
        hints = {"annotations": {"readOnlyHint": not self.changes}} if self.server[-1] in "02468" else {}
        text = f"{self.name.replace('_', ' ').capitalize()} of {self.server}"
        return {"server": self.server, "name": self.name, "description": text, "inputSchema": schema, **hints}


@dataclass(frozen=True, slots=True)
class Step:
    tool: Tool
    arguments: dict[str, Any]
    shared: bool = False
    """Whether every group is answered the same."""
    error: str | None = None


NEW = "the id made last"
"""Stands in a script for an id that the server made up in the run at hand."""


class World:
    """The servers, their tools, and what the groups ask of them."""

    def __init__(self, tools: int, seed: int) -> None:
        self._seed = seed
        rng = random.Random(f"world {seed}")
        count = max(2, round(tools / TOOLS_OF_A_SERVER))
        self.servers: dict[str, list[Tool]] = {}
        for number in range(count):
            size = tools // count + (number < tools % count)
            pairs = [(verb, noun) for verb in (*READ_VERBS, *CHANGE_VERBS) for noun in NOUNS]
            server = f"server-{number:02}"
            self.servers[server] = [self._tool(rng, server, *pair) for pair in rng.sample(pairs, size)]
        self._weights = {
            server: list(accumulate((rank + 1) ** -0.7 for rank in range(len(made))))
            for server, made in self.servers.items()
        }
        self._popular = {
            server: [
                Step(tool, self._arguments(rng, tool, [rng.randrange(10_000, 20_000)]), shared=True)
                for tool in rng.choices([tool for tool in made if not tool.changes], k=150)
            ]
            for server, made in self.servers.items()
        }
        self._popular_weights = list(accumulate((rank + 1) ** -0.9 for rank in range(150)))
        busy = [("get_profile", "profile"), ("list_settings", "setting"), ("get_limits", "limit")]
        self._busy = [
            Step(Tool("workspace", name, noun, False, ("region",), None), {}, shared=True)
            for name, noun in busy
        ]
        self._items = [
            json.dumps(
                {
                    "ref": f"{rng.choice(NOUNS)[:3]}{rng.randrange(1000, 9999)}",
                    "title": " ".join(rng.choices(WORDS, k=rng.randint(2, 6))),
                    "status": rng.choice(("open", "closed", "pending")),
                    "total": round(rng.uniform(1, 999), 2),
                }
            )
            for _ in range(4096)
        ]

    def entries(self) -> Iterator[dict[str, Any]]:
        for tools in self.servers.values():
            yield from (tool.entry() for tool in tools)
        yield from (step.tool.entry() for step in self._busy)

    def sessions(self, exchanges: int) -> Iterator[dict[str, Any]]:
        """Yield sessions until they have this many calls."""
        first = 0
        while exchanges > 0:
            groups = range(first, first + GROUPS_AT_ONCE)
            scripts = {group: self._script(group) for group in groups}
            for run in range(MOST_RUNS):
                for group, (runs, script) in scripts.items():
                    if run < runs and exchanges > 0:
                        calls = self._run(group, run, script)[:exchanges]
                        exchanges -= len(calls)
                        name = f"task-{group:06}"
                        yield {"session_id": f"{name}-{run}", "group": name, "run": str(run), "calls": calls}
            first += GROUPS_AT_ONCE

    def _tool(self, rng: random.Random, server: str, verb: str, noun: str) -> Tool:
        changes = verb in CHANGE_VERBS
        has_id = verb not in ("list", "search", "find", "count", "create")
        fields = (*(["id"] if has_id else []), *rng.sample(FIELDS, rng.randint(1, 3)))
        stamp = rng.choices(["generated_at", "ts", None], [10, 5, 85])[0]
        return Tool(server, f"{verb}_{noun}", noun, changes, fields, stamp)

    def _script(self, group: int) -> tuple[int, list[Step]]:
        """Return how often a group is run, and what its runs have in common."""
        rng = random.Random(f"group {self._seed} {group}")
        servers = rng.sample(list(self.servers), rng.choices([1, 2, 3], [5, 3, 1])[0])
        ids = [rng.randrange(10_000, 100_000) for _ in range(4)]
        steps: list[Step] = []
        made = False
        for _ in range(rng.randint(14, 26)):
            steps.append(self._step(rng, rng.choice(servers), ids, made))
            made = made or steps[-1].tool.name.startswith("create")
        return min(MOST_RUNS, 1 + int(rng.expovariate(1 / 3.4))), steps

    def _step(self, rng: random.Random, server: str, ids: list[int], made: bool) -> Step:
        draw = rng.random()
        if draw < BUSY_SHARE:
            return rng.choices(self._busy, [6, 3, 1])[0]
        draw -= BUSY_SHARE
        if draw < POPULAR_SHARE:
            return rng.choices(self._popular[server], cum_weights=self._popular_weights)[0]
        draw -= POPULAR_SHARE
        tool = rng.choices(self.servers[server], cum_weights=self._weights[server])[0]
        arguments = self._arguments(rng, tool, ids)
        if draw < UNKNOWN_ID_SHARE + VIOLATION_SHARE and tool.needs_id:
            if draw < UNKNOWN_ID_SHARE:
                arguments["id"] = f"{tool.noun[:3].upper()}-0{rng.randrange(1000, 10_000)}"
                return Step(tool, arguments, error=f"Error: no {tool.noun} {arguments['id']}")
            del arguments["id"]
            return Step(tool, arguments, error="Input validation error: 'id' is a required property")
        if made and tool.needs_id and rng.random() < 0.3:
            arguments["id"] = NEW
        return Step(tool, arguments)

    def _arguments(self, rng: random.Random, tool: Tool, ids: Sequence[int]) -> dict[str, Any]:
        values: dict[str, Callable[[], Any]] = {
            "id": lambda: f"{tool.noun[:3].upper()}-{rng.choice(ids)}",
            "limit": lambda: rng.choice((5, 10, 20, 50, 100)),
            "page": lambda: rng.randint(1, 3),
            "since": lambda: f"2025-{rng.randint(1, 6):02}-{rng.randint(1, 28):02}",
            "until": lambda: f"2025-{rng.randint(7, 12):02}-{rng.randint(1, 28):02}",
            "status": lambda: rng.choice(("open", "closed", "pending", "any")),
            "query": lambda: " ".join(rng.choices(WORDS, k=rng.randint(1, 4))),
            "region": lambda: rng.choice(("eu-west", "eu-north", "us-east", "us-west")),
            "sort": lambda: rng.choice(("newest", "oldest", "total")),
        }
        return {name: values[name]() for name in tool.fields}

    def _run(self, group: int, run: int, script: Sequence[Step]) -> list[dict[str, Any]]:
        rng = random.Random(f"run {self._seed} {group} {run}")
        versions: Counter[tuple[str, str]] = Counter()
        made: dict[str, str] = {}
        calls = []
        for step in script:
            draw = rng.random() if run else 1.0
            if draw < DROPPED_SHARE:
                continue
            tool, arguments = step.tool, step.arguments
            if draw < DROPPED_SHARE + VARIED_SHARE and not step.shared and not step.error:
                arguments = self._arguments(rng, tool, [rng.randrange(10_000, 100_000)])
            if arguments.get("id") == NEW:
                arguments = {**arguments, "id": made.get(tool.server, f"{tool.noun[:3].upper()}-10000")}
            about = (tool.server, str(arguments.get("id", tool.noun)))
            output = step.error
            if output is None and tool.changes:
                versions.update((about, (tool.server, tool.noun)))
            if output is None and tool.name.startswith("create"):
                made[tool.server] = self._made_up(tool, rng, group, versions.total())
                output = json.dumps({"id": made[tool.server], "created": True, **arguments})
                items = self._answer(f"{group} {tool.name} {sorted(arguments.items())}")
                output = f'{output[:-1]}, "items": {items}}}'
            elif output is None:
                start = "" if step.shared else f"{group} {versions[about]} "
                about_text = f"{start}{tool.server} {tool.name} {sorted(arguments.items())}"
                output = f'{{"{tool.noun}s": {self._answer(about_text)}{self._stamp(tool, rng)}}}'
            call = {"server": tool.server, "tool": tool.name, "arguments": arguments, "output": output}
            calls.append(call | {"is_error": step.error is not None})
        return calls

    @staticmethod
    def _made_up(tool: Tool, rng: random.Random, group: int, changes: int) -> str:
        """Return a new id: random with one server, counted from the start state with the next one."""
        if tool.server[-1] in "13579":
            return f"{tool.noun[:3]}_{rng.randrange(16**10):010x}"
        return f"{tool.noun[:3].upper()}-{100_000 + zlib.crc32(str(group).encode()) % 800_000 + changes}"

    def _answer(self, about: str) -> str:
        """Return 200 to 1,000 characters of JSON, the same for the same text."""
        number = zlib.crc32(about.encode())
        picked = []
        for _ in range(2 + number % 7):
            number = (number * 1_103_515_245 + 12_345) % 2**32
            picked.append(self._items[number >> 20])
        return f"[{', '.join(picked)}]"

    @staticmethod
    def _stamp(tool: Tool, rng: random.Random) -> str:
        if tool.stamp == "ts":
            return f', "ts": {rng.randrange(1_740_000_000, 1_760_000_000)}'
        if tool.stamp is None:
            return ""
        return (
            f', "generated_at": "2025-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}T0{rng.randint(0, 9)}:00:00Z"'
        )


def make(db: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make the recording, and the file of sessions that are asked again."""
    from recorder.importer import import_files, import_sessions

    world = World(options.tools, options.seed)
    listed = db.with_suffix(".tools.jsonl")
    listed.write_text("".join(f"{json.dumps(entry)}\n" for entry in world.entries()), encoding="utf-8")
    began = time.perf_counter()
    report = import_sessions(db, world.sessions(options.exchanges), source="tests/bench/replay.py")
    seconds = time.perf_counter() - began
    problems = [*report.problems, *import_files(db, [], tools=[listed]).problems]
    assert not problems, problems[:3]
    return {"import_s": seconds, "sessions": report.sessions, "exchanges": report.calls}


def described(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "recipe": RECIPE,
        "exchanges": options.exchanges,
        "tools": options.tools,
        "seed": options.seed,
    }


# ------------------------------------------------------------------------------------------------- the steps

Request = tuple[str, dict[str, Any]]
"""Server, and the params of `tools/call`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A recorded session, to be asked again."""

    group: str
    requests: list[Request]


def pick(db: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Pick sessions spread over the recording, and say what the recording is like."""
    from recorder.store import Store

    store = Store(db)
    sessions: dict[str, list[Any]] = {}
    for conversation in store.conversations():
        sessions.setdefault(conversation.session_id, []).append(conversation)
    ids = random.Random(options.seed).sample(list(sessions), min(MANY_SESSIONS, len(sessions)))
    with asked_path(db).open("w", encoding="utf-8") as file:
        for session_id in ids:
            found = []
            for conversation in sessions[session_id]:
                found += [
                    (answered.exchange_id, conversation.server, json.loads(answered.request)["params"])
                    for answered in store.answered(conversation.number)
                ]
            requests = [(server, params) for _, server, params in sorted(found, key=lambda each: each[0])]
            file.write(json.dumps([sessions[session_id][0].group, requests]) + "\n")
    return {}


def asked_path(db: Path) -> Path:
    return db.with_suffix(".asked.jsonl")


def asked_again(db: Path, most: int) -> list[Asked]:
    sessions = []
    with asked_path(db).open(encoding="utf-8") as file:
        for line in file:
            if len(sessions) == most:
                break
            group, requests = json.loads(line)
            sessions.append(Asked(group, [(server, params) for server, params in requests]))
    return sessions


def never_recorded(request: Request, salt: int) -> Request | None:
    """Return a call like this one that no session made; `None` for one that has nothing to differ in."""
    server, params = request
    arguments = dict(params["arguments"])
    if "id" in arguments:
        arguments["id"] = f"{arguments['id']}{salt}"
    elif "query" in arguments:
        arguments["query"] = f"{arguments['query']} {salt}"
    elif "since" in arguments:
        arguments["since"] = f"{2100 + salt}{arguments['since'][4:]}"
    elif "limit" in arguments:
        arguments["limit"] += 1000 + salt
    else:
        return None
    return server, {**params, "arguments": arguments}


def peak_mb() -> float:
    """Return this process's peak resident memory; the parent is kept small, since a child begins with its."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def cuts(nanoseconds: Sequence[int]) -> dict[str, float]:
    """Return p50, p95 and the mean in microseconds: busy calls are few, and show in the mean alone."""
    quantiles, mean = statistics.quantiles(nanoseconds, n=20), statistics.fmean(nanoseconds)
    return {"p50_us": quantiles[9] / 1e3, "p95_us": quantiles[18] / 1e3, "mean_us": mean / 1e3}


def middle(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def learning(db: Path, options: argparse.Namespace) -> dict[str, Any]:
    from recorder.store import Store
    from replayer.learn import learn
    from replayer.learned import learned_path

    store = Store(db)
    whole = options.fraction == 1
    path = learned_path(db) if whole else db.with_suffix(".part.replay.db")
    remove(path)
    groups = sorted({conversation.group for conversation in store.conversations()})
    left_out = set(groups[round(len(groups) * options.fraction) :])
    without = {each.session_id for each in store.conversations() if each.group in left_out}
    del groups, left_out
    before = peak_mb()
    began = time.perf_counter()
    learned = learn(store, path, without=without)
    seconds = time.perf_counter() - began
    figures = {
        "seconds": seconds,
        "exchanges": learned.summary["exchanges"],
        "us_per_exchange": seconds / learned.summary["exchanges"] * 1e6,
        "peak_mb": peak_mb(),
        "peak_before_mb": before,
        "learned_file_mb": path.stat().st_size / 1e6,
        "steps_s": learned.summary["seconds"],
    }
    if whole:
        figures |= shape(learned.path, learned)
    else:
        remove(path)
    return figures


def remove(path: Path) -> None:
    """Remove an SQLite file and what lies beside it."""
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def shape(path: Path, learned: Any) -> dict[str, Any]:
    """Say what the recording is like: a recording of nothing but equal calls would be replayed in no time."""
    connection = sqlite3.connect(path)

    def count(statement: str) -> int:
        return int(connection.execute(statement).fetchone()[0])

    distinct, near = count("SELECT count(*) FROM distinct_call"), count("SELECT count(*) FROM near")
    busiest = count("SELECT max(n) FROM (SELECT count(*) AS n FROM call GROUP BY key)")
    most = count("SELECT max(n) FROM (SELECT count(*) AS n FROM distinct_call GROUP BY tool)")
    connection.close()
    return {
        "recording": {
            "distinct_calls": distinct,
            "most_distinct_calls_of_a_tool": most,
            "busiest_call": busiest,
            "near_calls": near,
            "minted_ids": learned.summary["minted"],
            "tools_called": learned.summary["distinct_tools"],
            "thresholds": [learned.known_group.threshold, learned.unknown_group.threshold],
        }
    }


def opening(db: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Open the recording in this fresh process and ask until there is an answer."""
    (session,) = asked_again(db, 1)
    if options.cold:
        for path in (db, db.with_name(db.name + ".replay.db")):
            forget(path)
    began = time.perf_counter()
    from replayer.replayer import Replayer
    from replayer.session import Answer

    imported = time.perf_counter()
    replayer = Replayer.open(db)
    opened = time.perf_counter()
    rollout = replayer.session(session.group)
    asked = 0
    for server, params in session.requests:
        asked += 1
        if isinstance(rollout.ask(server, "tools/call", params), Answer):
            break
    ended = time.perf_counter()
    return {
        "first_answer_s": ended - imported,
        "open_s": opened - imported,
        "with_imports_s": ended - began,
        "peak_mb": peak_mb(),
        "asked": asked,
    }


def forget(path: Path) -> None:
    """Ask the system to drop a file from its page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ask_all(replayer: Any, sessions: Sequence[Asked], salt: int | None = None) -> Iterator[tuple[int, Any]]:
    """Ask each session's calls in a session of its own; yield nanoseconds and answer of each."""
    clock = time.perf_counter_ns
    for asked in sessions:
        rollout = replayer.session(asked.group)
        for request in asked.requests:
            if salt is not None and (request := never_recorded(request, salt)) is None:
                continue
            server, params = request
            began = clock()
            answer = rollout.ask(server, "tools/call", params)
            yield clock() - began, answer


MISS = "miss"


def tier_of(answer: Any) -> str:
    """Return what answered; also where that was nothing."""
    return getattr(answer, "tier", MISS)


def asking(db: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Time recorded calls and calls that never were, journal on and off, in turn."""
    from replayer.replayer import Replayer, journal_beside

    sessions = asked_again(db, options.timed)
    without = Replayer.open(db)
    with_journal = Replayer.open(db, journal=journal_beside(without.store))
    rounds: dict[str, list[dict[str, float]]] = {}
    counts: dict[str, Counter[str]] = {}
    for number in range(ROUNDS):
        for name, replayer, salt in (
            ("exact hit", without, None),
            ("exact hit, journal on", with_journal, None),
            ("miss, journal on", with_journal, 2 * number),
            ("miss, journal off", without, 2 * number + 1),
        ):
            answers = list(ask_all(replayer, sessions, salt))
            tier = MISS if salt is not None else "exact"
            rounds.setdefault(name, []).append(
                cuts([took for took, each in answers if tier_of(each) == tier])
            )
            counts[name] = Counter(tier_of(answer) for _, answer in answers)
    return {name: middle(each) | {"answers": dict(counts[name])} for name, each in rounds.items()}


def limits(db: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Time the least that could answer: a dict in memory, and SQLite alone."""
    from recorder.store import Store
    from replayer.keys import call_key, canonical_arguments, canonical_text

    def key_of(server: str, params: dict[str, Any]) -> int:
        return call_key(server, params["name"], canonical_text(canonical_arguments(params["arguments"])))

    store, table = Store(db), db.with_suffix(".limit.db")
    table.unlink(missing_ok=True)
    plain = sqlite3.connect(table, isolation_level=None)
    plain.execute("PRAGMA journal_mode = OFF")
    plain.execute("PRAGMA synchronous = OFF")
    plain.execute("CREATE TABLE answer (key INTEGER PRIMARY KEY, reply TEXT NOT NULL)")
    memory: dict[int, str] = {}
    for conversation in store.conversations():
        for answered in store.answered(conversation.number):
            key = key_of(conversation.server, json.loads(answered.request)["params"])
            memory.setdefault(key, answered.reply)
    plain.execute("BEGIN")
    plain.executemany("INSERT INTO answer VALUES (?, ?)", sorted(memory.items()))
    plain.execute("COMMIT")
    requests = [request for session in asked_again(db, options.timed) for request in session.requests]
    clock = time.perf_counter_ns

    def timed(look_up: Callable[[str, dict[str, Any]], object]) -> dict[str, float]:
        taken = []
        for server, params in requests:
            began = clock()
            look_up(server, params)
            taken.append(clock() - began)
        return cuts(taken)

    ways: dict[str, Callable[[str, dict[str, Any]], object]] = {
        "dict": lambda server, params: memory[key_of(server, params)],
        "SQLite alone": lambda server, params: plain.execute(
            "SELECT reply FROM answer WHERE key = ?", (key_of(server, params),)
        ).fetchone(),
    }
    rounds = [{name: timed(look_up) for name, look_up in ways.items()} for _ in range(ROUNDS)]
    plain.close()
    table.unlink()
    found = {name: middle([each[name] for each in rounds]) for name in ways}
    found["dict"]["peak_mb"] = peak_mb()
    return found


def many(db: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Replay thousands of sessions in one process, for its memory."""
    from replayer.replayer import Replayer, journal_beside

    replayer = Replayer.open(db)
    replayer.journal = journal_beside(replayer.store)
    opened = peak_mb()
    calls = sessions = 0
    began = time.perf_counter()
    with asked_path(db).open(encoding="utf-8") as file:
        for line in file:
            group, requests = json.loads(line)
            sessions += 1
            for _ in ask_all(replayer, [Asked(group, requests)]):
                calls += 1
    seconds = time.perf_counter() - began
    return {
        "sessions": sessions,
        "calls": calls,
        "seconds": seconds,
        "opened_mb": opened,
        "peak_mb": peak_mb(),
    }


def threads(db: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Replay sessions in one thread and in many, and compare the answers."""
    from replayer.replayer import Replayer, journal_beside

    def replayer() -> Any:
        opened = Replayer.open(db)
        opened.journal = journal_beside(opened.store)
        return opened

    sessions = asked_again(db, 2 * options.timed)
    figures: dict[str, Any] = {"threads": THREADS, "errors": 0, "different": 0}
    for name, salted in (("recorded", False), ("one session in ten never recorded", True)):
        jobs = [(each, 0 if salted and number % 10 == 0 else None) for number, each in enumerate(sessions)]
        alone, alone_s = run_threads(replayer(), jobs, 1)
        together, together_s = run_threads(replayer(), jobs, THREADS)
        calls = sum(map(len, alone))
        figures[name] = {
            "calls": calls,
            "calls_per_s_alone": calls / alone_s,
            "calls_per_s": calls / together_s,
        }
        # A thread that fails leaves its sessions empty.
        figures["errors"] += sum(bool(a and not b) for a, b in zip(alone, together, strict=True))
        figures["different"] += sum(a != b for a, b in zip(alone, together, strict=True))
    figures["peak_mb"] = peak_mb()
    return figures


def run_threads(
    replayer: Any, jobs: Sequence[tuple[Asked, int | None]], count: int
) -> tuple[list[list[object]], float]:
    """Return what each session was answered, and the seconds that it took all of them."""
    answers: list[list[object]] = [[] for _ in jobs]

    def work(first: int) -> None:
        for number in range(first, len(jobs), count):
            asked, salt = jobs[number]
            answers[number] = [essence(answer) for _, answer in ask_all(replayer, [asked], salt)]

    workers = [threading.Thread(target=work, args=(first,)) for first in range(count)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return answers, time.perf_counter() - began


def essence(answer: Any) -> object:
    """Return what two answers are compared by."""
    if tier_of(answer) == MISS:
        return MISS, [near.exchange.id for near in answer.nearest]
    return answer.tier, answer.exchange and answer.exchange.id, answer.trust, answer.outcome


STEPS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "make": make,
    "pick": pick,
    "learn": learning,
    "open": opening,
    "ask": asking,
    "limits": limits,
    "many": many,
    "threads": threads,
}

# --------------------------------------------------------------------------------------------------- the run


class Bench:
    """Runs each step in a process of its own."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        name = f"replay-{options.exchanges}-{options.tools}-{options.seed}.db"
        self.db = folder / name

    def step(self, name: str, *also: str) -> dict[str, Any]:
        print(f"{name} {' '.join(also)}".ljust(40), end="\r", file=sys.stderr, flush=True)
        options = self._options
        settings = {name: getattr(options, name) for name in ("exchanges", "tools", "seed", "timed")}
        argv = [sys.executable, __file__, "--step", name, "--folder", self.db.parent]
        argv += [part for option, value in settings.items() for part in (f"--{option}", value)]
        ran = subprocess.run([*map(str, argv), *also], check=True, stdout=subprocess.PIPE, text=True)
        return dict(json.loads(ran.stdout.splitlines()[-1]))

    def recording(self) -> dict[str, Any]:
        """Make the recording where it is not there yet."""
        made = self.db.with_suffix(".json")
        if made.is_file() and (known := json.loads(made.read_text()))["parameters"] == described(
            self._options
        ):
            return known | {"reused": True}
        for path in self.db.parent.glob(f"{self.db.stem}.*"):
            path.unlink()
        figures = {"parameters": described(self._options), **self.step("make")}
        self.step("pick")
        figures["file_mb"] = self.db.stat().st_size / 1e6
        made.write_text(json.dumps(figures), encoding="utf-8")
        return figures | {"reused": False}

    def run(self) -> dict[str, Any]:
        quick = self._options.quick
        fractions, openings = (FRACTIONS_QUICK, OPENINGS_QUICK) if quick else (FRACTIONS, OPENINGS)
        figures: dict[str, Any] = {"made": self.recording()}
        figures["learn"] = [self.step("learn", "--fraction", str(fraction)) for fraction in fractions]
        figures["recording"] = figures["learn"][-1].pop("recording")
        figures["open"] = middle_of([self.step("open") for _ in range(openings)])
        if hasattr(os, "posix_fadvise"):
            figures["open, cold"] = middle_of([self.step("open", "--cold") for _ in range(openings)])
        figures |= self.step("ask") | self.step("limits")
        figures["many"] = self.step("many")
        figures["threads"] = self.step("threads")
        return figures


def middle_of(figures: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: statistics.median(each[name] for each in figures) if isinstance(value, float) else value
        for name, value in figures[0].items()
    }


def all_seen(learned: dict[str, Any]) -> float:
    """Return seconds an exchange of the steps that look at each one; the others look at a sample of them."""
    return sum(learned["steps_s"][step] for step in ("read", "place", "write_calls")) / learned["exchanges"]


def goals(figures: dict[str, Any]) -> dict[str, bool]:
    quarter, whole = figures["learn"][0], figures["learn"][-1]
    running = figures["threads"]
    return {
        "learn is linear: at most 1.2 times the time an exchange that a quarter takes": (
            whole["us_per_exchange"] <= 1.2 * quarter["us_per_exchange"]
            and all_seen(whole) <= 1.2 * all_seen(quarter)
        ),
        "first answer at most 1 s after opening": figures["open"]["first_answer_s"] <= 1,
        "exact hit p50 at most 100 µs": figures["exact hit"]["p50_us"] <= 100,
        "exact hit p50 at most 100 µs with the journal on": (
            figures["exact hit, journal on"]["p50_us"] <= 100
        ),
        "miss p50 at most 5 ms": figures["miss, journal on"]["p50_us"] <= 5000,
        "at most 500 MB after thousands of sessions": figures["many"]["peak_mb"] <= 500,
        f"{THREADS} threads answer as one does, without errors": not running["errors"] + running["different"],
    }


def print_table(figures: dict[str, Any]) -> None:
    made, shaped = figures["made"], figures["recording"]
    print(
        f"recording: {made['exchanges']:,} exchanges, {made['sessions']:,} sessions, "
        f"{made['file_mb']:,.0f} MB,",
        end="",
    )
    print(f" {shaped['distinct_calls']:,} distinct calls of {shaped['tools_called']:,} tools", end="")
    print(f" (at most {shaped['most_distinct_calls_of_a_tool']:,} of one),", end="")
    print(f" busiest call {shaped['busiest_call']:,}, ids minted {shaped['minted_ids']:,},", end="")
    print(f" imported in {made['import_s']:.1f} s\n")
    print(f"{'learn':<26}{'seconds':>9}{'µs/exchange':>13}{'peak MB':>9}{'file MB':>9}  steps s")
    for row in figures["learn"]:
        steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in row["steps_s"].items())
        print(f"{row['exchanges']:<26,}{row['seconds']:9.1f}{row['us_per_exchange']:13.1f}", end="")
        print(f"{row['peak_mb']:9.0f}{row['learned_file_mb']:9.0f}  {steps}")
    print(f"\n{'open':<26}{'first answer s':>15}{'with imports s':>15}{'peak MB':>9}")
    for name in (name for name in figures if name.startswith("open")):
        row = figures[name]
        print(f"{name:<26}{row['first_answer_s']:15.4f}{row['with_imports_s']:15.3f}{row['peak_mb']:9.0f}")
    print(f"\n{'one call':<26}{'p50 µs':>9}{'p95':>9}{'mean':>9}{'x dict':>8}  answers of the last round")
    for name in ("dict", "SQLite alone", *(name for name in figures if name.startswith(("exact", "miss")))):
        row = figures[name]
        ratio = row["p50_us"] / figures["dict"]["p50_us"]
        counts = ", ".join(f"{tier} {count:,}" for tier, count in row.get("answers", {}).items())
        print(
            f"{name:<26}{row['p50_us']:9.1f}{row['p95_us']:9.1f}{row['mean_us']:9.1f}{ratio:8.1f}  {counts}"
        )
    row = figures["many"]
    print(
        f"\n{row['sessions']:,} sessions, {row['calls']:,} calls in one process: {row['peak_mb']:.0f} MB",
        end="",
    )
    print(f" ({row['opened_mb']:.0f} MB when opened), {row['calls'] / row['seconds']:,.0f} calls/s;", end="")
    print(f" the dict: {figures['dict']['peak_mb']:,.0f} MB")
    row = figures["threads"]
    for name in ("recorded", "one session in ten never recorded"):
        print(f"{THREADS} threads, {name}: {row[name]['calls_per_s']:,.0f} calls/s", end="")
        print(f" (one thread {row[name]['calls_per_s_alone']:,.0f})")
    print(f"sessions answered otherwise: {row['different']}, errors: {row['errors']}\n")


def rounded(value: Any) -> Any:
    """Round every figure to what it can mean."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what replaying a large recording costs.")
    parser.add_argument("--exchanges", type=int, default=1_000_000)
    parser.add_argument("--tools", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where the recording is made, or is; a temporary one if not given"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_EXCHANGES:,} exchanges, fewer sessions asked"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON object to this file, too")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--fraction", type=float, default=1.0, help=argparse.SUPPRESS)
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--timed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.exchanges = QUICK_EXCHANGES
    if options.timed is None:
        options.timed = TIMED_SESSIONS_QUICK if options.quick else TIMED_SESSIONS
    if options.step:
        print(json.dumps(STEPS[options.step](Bench(options, options.folder).db, options)))
        return
    with tempfile.TemporaryDirectory(prefix="replay-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = rounded(Bench(options, folder).run())
    met = goals(figures)
    print_table(figures)
    for goal, reached in met.items():
        print(f"{goal}: {'yes' if reached else 'NO'}")
    settings = {"timed_sessions": options.timed, "rounds": ROUNDS}
    origin = {"machine": machine(), "commit": commit()}
    line = json.dumps({"bench": "replay", **settings, **figures, "goals": met, **origin})
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
