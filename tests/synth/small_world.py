"""A small recording of seven invented servers, made by the importer: the same bytes wherever it is made.

Each read is recorded in every session, so that replay trusts the tools; the clock answers otherwise each
time, and one session ends with a write. The values come from a seeded random source.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from recorder.exchange import Json
from recorder.importer import import_files, import_sessions
from recorder.store import Store
from replayer.learn import learn
from replayer.replayer import Replayer
from synth.world import World

GROUP = "bay"
BEGIN = 1_600_000_000.0
"""When the first session was recorded: no value of the world is near to it."""

Call = tuple[str, str, dict[str, Json]]

_SCALAR = {"type": "string"}
TOOLS: dict[str, list[tuple[str, str, dict[str, Json]]]] = {
    "harbour": [
        ("list_ships", "List the ships that are in port.", {}),
        ("get_ship", "Get what the register says of a ship.", {"imo": _SCALAR}),
    ],
    "bakery": [
        ("list_recipes", "List all recipes.", {}),
        ("read_recipe", "Read one recipe.", {"recipe": _SCALAR}),
    ],
    "museum": [
        ("list_exhibits", "List the exhibits of the house.", {}),
        ("exhibit_record", "Show the record of an exhibit.", {"exhibit": _SCALAR}),
    ],
    "shelves": [
        ("list_folder", "List what a folder holds.", {"path": _SCALAR}),
        ("file_facts", "Get the facts of a file.", {"path": _SCALAR}),
    ],
    "observatory": [
        ("list_stars", "List catalogued stars.", {}),
        ("star_facts", "Get the facts of a star.", {"star": _SCALAR}),
    ],
    "league": [
        (
            "season_table",
            "Get the table of a season.",
            {"season": {"type": "string", "enum": ["spring", "autumn"]}},
        ),
        ("get_club", "Get a club's facts.", {"club": _SCALAR}),
        ("set_score", "Set the score of a club.", {"club": _SCALAR, "score": {"type": "integer"}}),
    ],
    "clock": [("now", "Get the time.", {})],
}

_SYLLABLES = "bra cor del fen gal hul jor kel lum mor nev oru pel quo rin sal tor ulm ver wix".split()  # noqa: SIM905
FOLDERS = ("/maps/north", "/maps/south", "/letters")


def record(path: Path, sessions: Sequence[int] = (0, 1), *, tools: bool = True) -> None:
    """Record whole sessions, in the order given; a session of a number is the same in each recording."""
    documents = [session(number) for number in sessions]
    report = import_sessions(path, documents)
    assert report.problems == []
    if tools:
        listed = path.with_name(f"{path.stem}-tools.jsonl")
        listed.write_text("".join(json.dumps(entry) + "\n" for entry in tool_entries()))
        assert import_files(path, [], tools=[listed]).problems == []


def told(
    path: Path,
    calls: Sequence[tuple[str, str, dict[str, Json], Json]],
    entries: Sequence[dict[str, Json]] = (),
    *,
    sessions: int = 2,
) -> World:
    """Record calls with what each answers, the same in each session, and open the recording."""
    documents = [
        {
            "session_id": f"told-{number}",
            "group": GROUP,
            "calls": [
                {
                    "server": server,
                    "tool": tool,
                    "arguments": arguments,
                    "output": output,
                    "started_at": BEGIN + 86_400 * number + place,
                }
                for place, (server, tool, arguments, output) in enumerate(calls)
            ],
        }
        for number in range(sessions)
    ]
    assert import_sessions(path, documents).problems == []
    if entries:
        listed = path.with_name(f"{path.stem}-tools.jsonl")
        listed.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        assert import_files(path, [], tools=[listed]).problems == []
    return opened(path)


def opened(path: Path) -> World:
    store = Store(path)
    return World(store, Replayer(store, learn(store)))


def made(path: Path, sessions: Sequence[int] = (0, 1)) -> World:
    record(path, sessions)
    return opened(path)


def tool_entries() -> Iterator[dict[str, Json]]:
    for server, tools in TOOLS.items():
        for name, text, properties in tools:
            yield {
                "server": server,
                "name": name,
                "description": text,
                "inputSchema": {
                    "type": "object",
                    "properties": properties,
                    "required": list(properties),
                    "additionalProperties": False,
                },
                "annotations": {"readOnlyHint": name != "set_score"},
            }


def session(number: int) -> dict[str, Json]:
    """Return a session as the importer takes it; those with an odd number end with a write."""
    calls: list[Call] = [*reads(), ("clock", "now", {})]
    if number % 2:
        calls.append(("league", "set_score", {"club": clubs()[0]["club"], "score": 99}))
    return {
        "session_id": f"bay-{number}",
        "group": GROUP,
        "calls": [
            {
                "server": server,
                "tool": tool,
                "arguments": arguments,
                "output": answer(server, tool, arguments, number),
                "started_at": BEGIN + 86_400 * number + place,
            }
            for place, (server, tool, arguments) in enumerate(calls)
        ],
    }


def reads() -> Iterator[Call]:
    yield "harbour", "list_ships", {}
    yield from (("harbour", "get_ship", {"imo": each["imo"]}) for each in ships())
    yield "bakery", "list_recipes", {}
    yield from (("bakery", "read_recipe", {"recipe": each["recipe"]}) for each in recipes())
    yield "museum", "list_exhibits", {}
    yield from (("museum", "exhibit_record", {"exhibit": each["exhibit"]}) for each in exhibits())
    for folder in FOLDERS:
        yield "shelves", "list_folder", {"path": folder}
        yield from (("shelves", "file_facts", {"path": f"{folder}/{name}"}) for name, _ in files(folder))
    yield "observatory", "list_stars", {}
    yield from (("observatory", "star_facts", {"star": each["star"]}) for each in stars())
    yield from (("league", "season_table", {"season": name}) for name in ("spring", "autumn"))
    yield from (("league", "get_club", {"club": each["club"]}) for each in clubs())


def answer(server: str, tool: str, arguments: dict[str, Any], session: int = 0) -> str:
    """Return what a server says; the forms are those of real servers."""
    match tool:
        case "list_ships":
            return json.dumps({"port": "Quorin", "ships": ships()}, indent=1)
        case "get_ship":
            ship = next(each for each in ships() if each["imo"] == arguments["imo"])
            rng = Random(f"ship {ship['imo']}")
            return json.dumps(
                {
                    **ship,
                    "owner": _name(rng) + " Lines",
                    "built": f"19{rng.randrange(60, 99)}-0{rng.randrange(1, 9)}-1{rng.randrange(0, 9)}",
                    "crew": rng.randrange(11, 240),
                    "holds": [
                        {"hold": f"H{n}", "cargo": _name(rng), "tons": rng.randrange(10, 999)}
                        for n in range(1, rng.randrange(4, 7))
                    ],
                }
            )
        case "list_recipes":
            rows = [",".join(str(value) for value in each.values()) for each in recipes()]
            return "\n".join(["recipe,flour_grams,minutes,author", *rows])
        case "read_recipe":
            recipe = next(each for each in recipes() if each["recipe"] == arguments["recipe"])
            rng = Random(f"recipe {recipe['recipe']}")
            steps = [{"step": n, "seconds": rng.randrange(31, 999), "tool": _name(rng)} for n in range(1, 6)]
            told = {
                "oven_celsius": rng.randrange(140, 260),
                "steps": steps,
                "yeast": rng.choice((True, False)),
            }
            return f"Here is what the book has:\n{json.dumps(told)}\nEnjoy."
        case "list_exhibits":
            rows = [" | ".join(["", *(str(v) for v in each.values()), ""]).strip() for each in exhibits()]
            return "\n".join(["| exhibit | title | donor | acquired |", "|---|---|---|---|", *rows])
        case "exhibit_record":
            exhibit = next(each for each in exhibits() if each["exhibit"] == arguments["exhibit"])
            rng = Random(f"exhibit {exhibit['exhibit']}")
            return "\n".join(
                [
                    f"Material: {_name(rng)}",
                    f"Height cm: {rng.randrange(11, 400)}",
                    f"Restored: {rng.randrange(1900, 1999)}-06-{rng.randrange(10, 28)}",
                    f"Insured value: {rng.randrange(1000, 90_000)}",
                    f"Room: {_name(rng)}",
                    f"On display: {rng.choice(('yes', 'no'))}",
                ]
            )
        case "list_folder":
            return "\n".join(f"[FILE] {name}    {size} B" for name, size in files(arguments["path"]))
        case "file_facts":
            rng = Random(f"facts {arguments['path']}")
            return repr(
                {
                    "words": rng.randrange(100, 9000),
                    "language": _name(rng),
                    "scribe": _name(rng),
                    "dated": f"18{rng.randrange(10, 99)}-1{rng.randrange(0, 3)}-0{rng.randrange(1, 9)}",
                    "sealed": rng.choice((True, False)),
                }
            )
        case "list_stars":
            return repr(stars())
        case "star_facts":
            rng = Random(f"star {arguments['star']}")
            planets = [
                {"planet": _name(rng), "moons": rng.randrange(90), "mass": rng.randrange(10, 9999) / 10}
                for _ in range(rng.randrange(3, 6))
            ]
            return json.dumps(
                {"discoverer": _name(rng), "parallax": rng.randrange(100, 9999) / 100, "planets": planets}
            )
        case "season_table":
            return json.dumps(season(arguments["season"]))
        case "get_club":
            rng = Random(f"club {arguments['club']}")
            return json.dumps(
                {
                    "coach": _name(rng),
                    "ground": _name(rng),
                    "capacity": rng.randrange(900, 90_000),
                    "founded": f"18{rng.randrange(50, 99)}-05-{rng.randrange(10, 28)}",
                    "players": [
                        {"player": _name(rng), "goals": rng.randrange(60), "caps": rng.randrange(200)}
                        for _ in range(5)
                    ],
                }
            )
        case "now":
            return json.dumps({"tick": 1000 + 17 * session, "phase": ("ebb", "flood")[session % 2]})
        case "set_score":
            return "The score is set now."
    raise ValueError(f"{server} has no {tool}")


# --- what the servers know ---


def _name(rng: Random) -> str:
    return "".join(rng.choice(_SYLLABLES) for _ in range(3)).capitalize()


@cache
def ships() -> list[dict[str, Any]]:
    rng = Random("ships")
    return [
        {
            "imo": f"IMO{9_100_000 + 6113 * n}",
            "name": _name(rng),
            "flag": rng.choice(("Narvia", "Ostmark", "Sundra")),
            "length_m": rng.randrange(400, 3990) / 10,
            "arrived": f"2011-{rng.randrange(10, 13)}-{rng.randrange(10, 28)}",
        }
        for n in range(13)
    ]


@cache
def recipes() -> list[dict[str, Any]]:
    rng = Random("recipes")
    return [
        {
            "recipe": f"{_name(rng).lower()}-loaf",
            "flour": rng.randrange(200, 1900),
            "minutes": rng.randrange(21, 190),
            "author": _name(rng),
        }
        for _ in range(12)
    ]


@cache
def exhibits() -> list[dict[str, Any]]:
    rng = Random("exhibits")
    donors = [_name(rng) for _ in range(4)]
    return [
        {
            "exhibit": f"EX-{5000 + 29 * n}",
            "title": f"{_name(rng)} {_name(rng)}",
            "donor": rng.choice(donors),
            "acquired": f"19{rng.randrange(20, 99)}-0{rng.randrange(1, 9)}-{rng.randrange(10, 28)}",
        }
        for n in range(12)
    ]


@cache
def files(folder: str) -> list[tuple[str, int]]:
    rng = Random(f"files {folder}")
    return [
        (f"{_name(rng).lower()}.{ending}", rng.randrange(120, 990))
        for ending in ("md", "csv", "txt", "pdf", "log")
    ]


@cache
def stars() -> list[dict[str, Any]]:
    rng = Random("stars")
    return [
        {
            "star": f"HX-{7000 + 37 * n}",
            "constellation": rng.choice(("Anvil", "Heron", "Lantern", "Weaver")),
            "distance_ly": rng.randrange(400, 99_999) / 10,
            "magnitude": rng.randrange(100, 1500) / 100,
        }
        for n in range(12)
    ]


@cache
def clubs() -> list[dict[str, Any]]:
    rng = Random("clubs")
    return [{"club": f"{_name(rng)} United", "town": _name(rng)} for _ in range(10)]


def season(name: str) -> list[dict[str, Any]]:
    rng = Random(f"season {name}")
    return [
        {"club": each["club"], "played": rng.randrange(20, 40), "points": 11 + 7 * n + rng.randrange(6)}
        for n, each in enumerate(rng.sample(clubs(), 8))
    ]
