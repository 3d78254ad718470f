"""A small invented world of eight servers, and a recording of it: everything is made by a seeded random
source.

Their outputs have the forms that real servers give: JSON, Python's repr, CSV, a Markdown table, `Key:
value` lines, tagged lines, JSON within prose. Each read is recorded in two sessions; the clock answers
otherwise each time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from recorder.exchange import Json
from recorder.store import Store
from recorder.writer import RecordingWriter
from replayer.learn import learn
from replayer.replayer import Replayer
from synth.world import World

GROUP = "garden"
FIRST = (
    "Ada",
    "Ben",
    "Cleo",
    "Dov",
    "Elif",
    "Finn",
    "Gita",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Levi",
    "Mina",
    "Noor",
)
CITIES = (
    "Lisbon",
    "Oslo",
    "Turin",
    "Ghent",
    "Riga",
    "Cork",
    "Malmo",
    "Porto",
    "Bern",
    "Graz",
    "Split",
    "Tartu",
)
THINGS = (
    "lamp",
    "chair",
    "rug",
    "vase",
    "shelf",
    "clock",
    "stool",
    "mirror",
    "basket",
    "kettle",
    "tray",
    "bench",
)


@dataclass(frozen=True)
class Garden:
    """What the servers know."""

    seed: int = 7
    products: list[dict[str, Json]] = field(default_factory=list)
    people: list[dict[str, Json]] = field(default_factory=list)
    stations: list[dict[str, Json]] = field(default_factory=list)
    folders: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    tickets: list[dict[str, Json]] = field(default_factory=list)
    flights: dict[str, list[dict[str, Json]]] = field(default_factory=dict)
    books: list[dict[str, Json]] = field(default_factory=list)

    @staticmethod
    def grown(seed: int = 7) -> Garden:
        rng = Random(seed)
        it = Garden(seed)
        for number, thing in enumerate(THINGS):
            it.products.append(
                {
                    "sku": f"SKU-{4100 + 37 * number}",
                    "name": f"{rng.choice(('oak', 'steel', 'linen', 'glass'))} {thing}",
                    "category": rng.choice(("home", "garden", "office")),
                    "price": round(rng.uniform(9, 400), 2),
                    "stock": rng.randrange(3, 480),
                    "added": f"2024-{rng.randrange(1, 13):02}-{rng.randrange(1, 28):02}",
                }
            )
        for number, name in enumerate(FIRST):
            it.people.append(
                {
                    "name": f"{name} {rng.choice(('Moser', 'Lind', 'Okoro', 'Petit', 'Novak'))}{number}",
                    "email": f"{name.lower()}@garden.example",
                    "team": rng.choice(("north", "south", "desk")),
                    "city": rng.choice(CITIES),
                    "salary": 30_000 + 137 * rng.randrange(10, 300),
                    "started": f"20{rng.randrange(10, 24)}-{rng.randrange(1, 13):02}-11",
                }
            )
        for number, city in enumerate(CITIES):
            it.stations.append(
                {
                    "station": f"ST{310 + 11 * number}",
                    "city": city,
                    "altitude": rng.randrange(4, 1900),
                    "rain": round(rng.uniform(0, 80), 1),
                }
            )
        for folder in ("plans", "letters", "photos", "invoices", "maps"):
            files = sorted(
                {f"{rng.choice(THINGS)}-{rng.randrange(10, 99)}.{e}" for e in ("md", "csv", "txt", "pdf")}
            )
            it.folders[f"/archive/{folder}"] = [(name, rng.randrange(120, 999)) for name in files]
        for number in range(16):
            it.tickets.append(
                {
                    "ticket": f"T-{9000 + 13 * number}",
                    "status": rng.choice(("open", "closed", "waiting")),
                    "assignee": rng.choice(it.people)["email"],
                    "hours": round(rng.uniform(0.5, 40), 1),
                    "opened": f"2025-0{rng.randrange(1, 9)}-{rng.randrange(1, 28):02}",
                }
            )
        for code in ("LIS", "OSL", "TRN", "RIX", "ORK"):
            it.flights[code] = [
                {
                    "flight": f"{code[0]}X{rng.randrange(100, 999)}",
                    "to": rng.choice(CITIES),
                    "seats": rng.randrange(50, 300),
                    "price": rng.randrange(40, 600),
                }
                for _ in range(6)
            ]
        for number in range(14):
            it.books.append(
                {
                    "isbn": f"978{1000000 + 7919 * number}",
                    "title": f"The {rng.choice(THINGS)} of {rng.choice(CITIES)} {number}",
                    "pages": rng.randrange(80, 900),
                    "author": rng.choice(FIRST),
                    "published": 1950 + rng.randrange(70),
                }
            )
        return it

    def reads(self) -> Iterator[tuple[str, str, dict[str, Json]]]:
        """Yield every read that is recorded."""
        yield "shop", "list_products", {}
        yield from (("shop", "list_products", {"category": name}) for name in ("home", "garden", "office"))
        yield from (("shop", "get_product", {"sku": each["sku"]}) for each in self.products)
        yield "staff", "list_people", {}
        yield from (("staff", "get_person", {"email": each["email"]}) for each in self.people)
        yield "weather", "list_stations", {}
        yield from (("weather", "station_report", {"station": each["station"]}) for each in self.stations)
        for folder, files in self.folders.items():
            yield "files", "list_folder", {"path": folder}
            yield from (("files", "file_info", {"path": f"{folder}/{name}"}) for name, _ in files)
        yield from (("tickets", "search_tickets", {"status": name}) for name in ("open", "closed", "waiting"))
        yield from (("tickets", "get_ticket", {"ticket": each["ticket"]}) for each in self.tickets)
        yield from (("flights", "list_departures", {"airport": code}) for code in self.flights)
        yield "library", "list_books", {}
        yield from (("library", "get_book", {"isbn": each["isbn"]}) for each in self.books)

    def answer(self, server: str, tool: str, arguments: dict[str, Json], session: int = 0) -> str:
        """Return what a server says."""
        match tool, arguments:
            case "list_products", {"category": category}:
                return json.dumps([each for each in self.products if each["category"] == category])
            case "list_products", _:
                return json.dumps({"products": self.products, "currency": "EUR"}, indent=1)
            case "get_product", {"sku": sku}:
                found = next(each for each in self.products if each["sku"] == sku)
                return json.dumps(
                    {**found, "weight_kg": len(found["name"]) + 0.25, "fragile": found["stock"] % 2 == 0}
                )
            case "list_people", _:
                rows = [f"| {p['name']} | {p['email']} | {p['team']} | {p['started']} |" for p in self.people]
                return "\n".join(["| name | email | team | started |", "|---|---|---|---|", *rows])
            case "get_person", {"email": email}:
                found = next(each for each in self.people if each["email"] == email)
                return "\n".join(f"{name.title()}: {value}" for name, value in found.items())
            case "list_stations", _:
                rows = [f"{s['station']},{s['city']},{s['altitude']},{s['rain']}" for s in self.stations]
                return "\n".join(["station,city,altitude,rain_mm", *rows])
            case "station_report", {"station": station}:
                found = next(each for each in self.stations if each["station"] == station)
                rng = Random(f"{self.seed} {station}")
                months = [{"month": m, "rain": rng.randrange(5, 200), "sun_hours": rng.randrange(20, 300)}
                          for m in ("January", "April", "July", "October")]  # fmt: skip
                told = {"city": found["city"], "keeper": rng.choice(FIRST), "months": months}
                return f"Report of the station:\n{json.dumps(told)}"
            case "list_folder", {"path": path}:
                return "\n".join(f"[FILE] {name}    {size} B" for name, size in self.folders[path])
            case "file_info", {"path": path}:
                folder, _, name = path.rpartition("/")
                size = dict(self.folders[folder])[name]
                return (
                    f"size: {size}\nlines: {size // 7}\nowner:"
                    f" {Random(path).choice(FIRST)}\nreadOnly: {str(size % 3 == 0).lower()}"
                )
            case "search_tickets", {"status": status}:
                return repr([each for each in self.tickets if each["status"] == status])
            case "get_ticket", {"ticket": ticket}:
                found = next(each for each in self.tickets if each["ticket"] == ticket)
                comments = [
                    {"by": name, "length": Random(ticket + name).randrange(5, 900)} for name in FIRST[:4]
                ]
                return json.dumps({**found, "comments": comments})
            case "list_departures", {"airport": code}:
                return json.dumps({"airport": code, "departures": self.flights[code]})
            case "list_books", _:
                return json.dumps(
                    {each["isbn"]: {k: v for k, v in each.items() if k != "isbn"} for each in self.books}
                )
            case "get_book", {"isbn": isbn}:
                found = next(each for each in self.books if each["isbn"] == isbn)
                return json.dumps({**found, "shelf": f"{Random(isbn).choice('ABCDEF')}{found['pages'] % 40}"})
            case "now", _:
                return json.dumps(
                    {"weekday": ("Friday", "Saturday")[session % 2], "tick": 1000 + 17 * session}
                )
            case "set_stock", {"stock": stock}:
                return f"stock is {stock} now"
        raise ValueError(f"{server} has no {tool}")


TOOLS: dict[str, list[tuple[str, str, dict[str, Json]]]] = {
    "shop": [
        ("list_products", "List products, of one category or all.", {"category": {"type": "string"}}),
        ("get_product", "Get all that is known of a product.", {"sku": {"type": "string"}}),
        (
            "set_stock",
            "Set how many are in stock.",
            {"sku": {"type": "string"}, "stock": {"type": "integer"}},
        ),
    ],
    "staff": [
        ("list_people", "List the people who work here.", {}),
        ("get_person", "Get a person's record.", {"email": {"type": "string"}}),
    ],
    "weather": [
        ("list_stations", "List weather stations.", {}),
        ("station_report", "Read the report of a station.", {"station": {"type": "string"}}),
    ],
    "files": [
        ("list_folder", "List the files in a folder.", {"path": {"type": "string"}}),
        ("file_info", "Get what is known of a file.", {"path": {"type": "string"}}),
    ],
    "tickets": [
        ("search_tickets", "Find tickets by their state.", {"status": {"type": "string"}}),
        ("get_ticket", "Get a ticket with its comments.", {"ticket": {"type": "string"}}),
    ],
    "flights": [("list_departures", "List what leaves an airport.", {"airport": {"type": "string"}})],
    "library": [
        ("list_books", "List all books.", {}),
        ("get_book", "Get a book's record.", {"isbn": {"type": "string"}}),
    ],
    "clock": [("now", "Get the time.", {})],
}


def record(path: Path, garden: Garden, *, sessions: Sequence[int] = (0, 1), backwards: bool = False) -> None:
    """Record every read in each session, and in the last one a write at its end."""
    for session in sessions:
        _record_one(path, garden, session, writes=session == sessions[-1], backwards=backwards)


def _record_one(path: Path, garden: Garden, session: int, *, writes: bool, backwards: bool) -> None:
    writer = RecordingWriter(path, group=GROUP)
    ids = {name: writer.add_server(name, {}) for name in TOOLS}
    numbers = count(1)

    def say(server: str, method: str, params: dict[str, Any], result: Json) -> None:
        asked = {"jsonrpc": "2.0", "id": next(numbers), "method": method, "params": params}
        writer.record(ids[server], "to_server", [json.dumps(asked).encode()])
        told = {"jsonrpc": "2.0", "id": asked["id"], "result": result}
        writer.record(ids[server], "to_client", [json.dumps(told).encode()])

    for server, tools in TOOLS.items():
        entries = [
            {
                "name": name,
                "description": text,
                "inputSchema": {"type": "object", "properties": properties},
                "annotations": {"readOnlyHint": name != "set_stock"},
            }
            for name, text, properties in tools
        ]
        say(server, "tools/list", {}, {"tools": entries})
    calls = [*garden.reads(), ("clock", "now", {})]
    calls = calls[::-1] if backwards else calls
    if writes:
        calls.append(("shop", "set_stock", {"sku": garden.products[0]["sku"], "stock": 1}))
    for server, tool, arguments in calls:
        text = garden.answer(server, tool, arguments, session)
        params = {"name": tool, "arguments": arguments}
        say(server, "tools/call", params, {"content": [{"type": "text", "text": text}]})
    for server_id in ids.values():
        writer.end_server(server_id, "done")
    writer.end("done")


def opened(path: Path) -> World:
    store = Store(path)
    return World(store, Replayer(store, learn(store)))
