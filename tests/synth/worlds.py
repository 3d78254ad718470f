"""The servers of an invented town, and three sessions with them: the same bytes wherever they are made.

Trading company, staff, post, weather, airport and their like, each with outputs in forms of its own. What one
server says names things of another. Each read is in two sessions; some tools answer otherwise each time, some
fail, and the third session ends with writes. A test that needs another world changes the documents.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from recorder.exchange import Json
from recorder.importer import import_files, import_sessions
from recorder.store import Store
from replayer.learn import learn
from replayer.replayer import Replayer
from synth.world import World

GROUP = "town"
BEGIN = datetime(2022, 9, 5, 8, tzinfo=UTC).timestamp()
"""When the first session began; what the servers know is years older."""

Row = dict[str, Any]
Call = tuple[str, str, Row]
Document = dict[str, Any]

STATUSES = ("paid", "packed", "shipped", "returned")
REGIONS = ("north", "coast", "hills")
DEPARTMENTS = ("sales", "stores", "accounts", "fleet", "legal")
MONTHS = (1, 4, 7, 10)
AIRPORTS = ("QVA", "NDR", "HLM", "TZO", "BEK")

_TEXT, _WHOLE = {"type": "string"}, {"type": "integer"}

TOOLS: dict[str, dict[str, tuple[str, Row, bool]]] = {
    "orders": {
        "list_orders": ("List the orders that have a given status.", {"status": _TEXT}, True),
        "get_order": ("Get one order with its items and its shipping.", {"order_id": _TEXT}, True),
        "cancel_order": ("Cancel an order.", {"order_id": _TEXT}, False),
    },
    "crm": {
        "customers_of_region": ("Lists the customers of a sales region as CSV.", {"region": _TEXT}, True),
        "customer_card": ("Show the card of a customer.", {"customer_id": _TEXT}, True),
    },
    "directory": {
        "list_department": ("List the people of a department.", {"department": _TEXT}, True),
        "employee": ("Returns the record of an employee.", {"employee_id": _TEXT}, True),
    },
    "files": {
        "list_directory": ("List what is in a directory.", {"path": _TEXT}, True),
        "get_file_info": ("Get the facts of a file.", {"path": _TEXT}, True),
        "read_sheet": ("Read a sheet that is kept as CSV.", {"path": _TEXT}, True),
    },
    "weather": {
        "list_stations": ("List all weather stations.", {}, True),
        "get_readings": (
            "Get the readings of a station in a month, 1 to 12.",
            {"station": _TEXT, "month": _WHOLE},
            True,
        ),
    },
    "helpdesk": {
        "search_tickets": ("Search for tickets by their priority.", {"priority": _TEXT}, True),
        "get_ticket": ("Get a ticket, with what was said about it.", {"ticket": _TEXT}, True),
        "close_ticket": ("Close a ticket.", {"ticket": _TEXT}, False),
    },
    "airport": {
        "departures": ("List the flights that leave an airport.", {"airport": _TEXT}, True),
        "flight_status": ("Get the status of a flight.", {"flight_no": _TEXT}, True),
    },
    "ops": {
        "current_time": ("Get the current time.", {}, True),
        "uptime": ("Tell how long the service has been running.", {}, True),
        "new_reference": ("Make up a reference for a form.", {}, True),
        "health": ("Get the health of the service.", {}, True),
        "queue": ("List the jobs that wait, longest first.", {}, True),
        "draw": ("Draw a number from 1 to 10000.", {"pot": _TEXT}, True),
    },
}

VOLATILE = ("current_time", "uptime", "new_reference", "health", "queue", "draw")

_SYLLABLES = ("an", "bel", "cor", "dra", "esk", "fir", "gol", "har", "ith", "jul", "kem", "lor", "mav", "nis",
              "ost", "pru", "qui", "ral", "sev", "tam", "umb", "vor", "wel", "yst", "zed")  # fmt: skip


@dataclass
class Town:
    """What the servers know."""

    orders: list[Row] = field(default_factory=list)
    customers: list[Row] = field(default_factory=list)
    people: list[Row] = field(default_factory=list)
    folders: dict[str, list[Row]] = field(default_factory=dict)
    stations: list[Row] = field(default_factory=list)
    tickets: list[Row] = field(default_factory=list)
    flights: list[Row] = field(default_factory=list)

    @staticmethod
    def built(seed: int = 11) -> Town:
        rng = Random(f"town {seed}")
        town = Town()
        people = [_name(rng) for _ in range(22)]
        for number, name in enumerate(people):
            town.people.append({
                "employee_id": f"E-{204 + 17 * number}", "name": name, "department": DEPARTMENTS[number % 5],
                "office": f"{rng.choice('ABCD')}{rng.randrange(100, 480)}", "hired": _day(rng, 2003, 2018),
                "days_off": rng.randrange(3, 31), "manager_id": f"E-{204 + 17 * rng.randrange(22)}",
            })  # fmt: skip
        for number in range(18):
            town.customers.append({
                "customer_id": f"C{5021 + 313 * number}",
                "company": f"{_name(rng)} {rng.choice(('Ltd', 'Mills', 'Trading', 'and Sons'))}",
                "region": REGIONS[number % 3], "tier": rng.choice(("gold", "silver", "bronze")),
                "since": _day(rng, 1998, 2016), "credit_limit": 500 * rng.randrange(4, 90),
                "manager": rng.choice(town.people)["employee_id"],
            })  # fmt: skip
        for number in range(60):
            airport = AIRPORTS[number % 5]
            if number < 30:
                town.flights.append({
                    "flight_no": f"{rng.choice('KLTV')}{rng.choice('BDX')} {rng.randrange(120, 980)}{number}",
                    "airport": airport, "to": rng.choice([code for code in AIRPORTS if code != airport]),
                    "leaves": f"{rng.randrange(5, 23):02}:{rng.choice((0, 10, 25, 40, 55)):02}",
                    "seats": rng.choice((48, 72, 120, 156, 180)), "booked": rng.randrange(11, 48),
                    "gate": f"{rng.choice('AB')}{rng.randrange(1, 19)}",
                    "freight_kg": rng.randrange(90, 4900),
                })  # fmt: skip
        for number in range(34):
            items = [
                {"sku": f"{rng.choice(('LMP', 'TBL', 'RUG', 'POT'))}-{rng.randrange(100, 999)}",
                 "quantity": rng.randrange(1, 9), "unit_price": round(rng.uniform(2, 240), 2)}
                for _ in range(rng.randrange(3, 6))
            ]  # fmt: skip
            total = round(sum(item["quantity"] * item["unit_price"] for item in items), 2)
            town.orders.append({
                "order_id": f"ORD-{10433 + 71 * number}", "status": STATUSES[number * 7 % 4],
                "customer_id": rng.choice(town.customers)["customer_id"], "placed": _day(rng, 2017, 2020),
                "total": total, "items": items, "gift": rng.random() < 0.3,
                "shipping": {"flight_no": rng.choice(town.flights)["flight_no"],
                             "parcels": rng.randrange(1, 7), "weight_kg": round(rng.uniform(0.4, 60), 1)},
            })  # fmt: skip
        for folder in ("/srv/reports", "/srv/minutes", "/srv/contracts", "/srv/maps", "/srv/sheets"):
            town.folders[folder] = [
                {"name": f"{_name(rng).lower()}{ending}", "size": rng.randrange(300, 90_000),
                 "owner": rng.choice(people), "modified": _day(rng, 2012, 2020),
                 "mode": rng.choice(("600", "640", "644"))}
                for ending in (".csv", ".md", ".pdf", ".csv", ".txt", "-old.md", ".log")
            ]  # fmt: skip
        for number in range(11):
            town.stations.append({
                "station": f"WX{31 + 7 * number:03}", "place": _name(rng),
                "altitude_m": rng.randrange(2, 2100), "opened": rng.randrange(1904, 1999),
                "airport": rng.choice(AIRPORTS),
            })  # fmt: skip
        for number in range(26):
            town.tickets.append({
                "ticket": f"HD-{770 + 29 * number}", "priority": ("low", "normal", "urgent")[number % 3],
                "subject": f"{rng.choice(('Broken', 'Late', 'Wrong', 'Missing'))} "
                           f"{rng.choice(('invoice', 'parcel', 'label', 'badge', 'printer'))}",
                "order_id": rng.choice(town.orders)["order_id"],
                "assignee": rng.choice(town.people)["employee_id"],
                "opened": _day(rng, 2019, 2020), "hours_spent": round(rng.uniform(0.2, 30), 1),
            })  # fmt: skip
        return town

    def reads(self) -> Iterator[Call]:
        """Yield each read whose answer lasts."""
        yield from (("orders", "list_orders", {"status": status}) for status in STATUSES)
        yield from (("orders", "get_order", {"order_id": each["order_id"]}) for each in self.orders)
        yield from (("crm", "customers_of_region", {"region": region}) for region in REGIONS)
        yield from (("crm", "customer_card", {"customer_id": e["customer_id"]}) for e in self.customers)
        yield from (("directory", "list_department", {"department": name}) for name in DEPARTMENTS)
        yield from (("directory", "employee", {"employee_id": e["employee_id"]}) for e in self.people)
        for folder, files in self.folders.items():
            yield "files", "list_directory", {"path": folder}
            for file in files:
                path = f"{folder}/{file['name']}"
                yield "files", "get_file_info", {"path": path}
                if path.endswith(".csv"):
                    yield "files", "read_sheet", {"path": path}
        yield "weather", "list_stations", {}
        for each in self.stations:
            for month in MONTHS:
                yield "weather", "get_readings", {"station": each["station"], "month": month}
        yield from (("helpdesk", "search_tickets", {"priority": p}) for p in ("low", "normal", "urgent"))
        yield from (("helpdesk", "get_ticket", {"ticket": each["ticket"]}) for each in self.tickets)
        yield from (("airport", "departures", {"airport": code}) for code in AIRPORTS)
        yield from (("airport", "flight_status", {"flight_no": e["flight_no"]}) for e in self.flights)

    def answer(self, tool: str, arguments: Row) -> str:
        """Return what a server says to a read."""
        match tool:
            case "list_orders":
                found = [each for each in self.orders if each["status"] == arguments["status"]]
                rows = [_only(each, "order_id", "customer_id", "placed", "total", "gift") for each in found]
                return json.dumps({"status": arguments["status"], "orders": rows, "currency": "crowns"})
            case "get_order":
                return json.dumps(_of(self.orders, arguments), indent=2)
            case "customers_of_region":
                names = ("customer_id", "company", "tier", "credit_limit")
                rows = [each for each in self.customers if each["region"] == arguments["region"]]
                return "\n".join(
                    [",".join(names), *(",".join(str(each[name]) for name in names) for each in rows)]
                )
            case "customer_card":
                found = _of(self.customers, arguments)
                rng = Random(f"card {found['customer_id']}")
                told = {
                    "Company": found["company"], "Tier": found["tier"], "Customer since": found["since"],
                    "Credit limit": f"{found['credit_limit']:,}", "Open invoices": rng.randrange(0, 9),
                    "Account manager": found["manager"], "Contact": f"{_name(rng)} {_name(rng)}",
                    "Newsletter": rng.choice(("yes", "no")),
                }  # fmt: skip
                return "\n".join(f"{name}: {value}" for name, value in told.items())
            case "list_department":
                names = ("employee_id", "name", "office", "hired", "days_off")
                rows = [each for each in self.people if each["department"] == arguments["department"]]
                lines = [" | ".join(["", *(str(each[name]) for name in names), ""]).strip() for each in rows]
                return "\n".join([f"| {' | '.join(names)} |", "|---" * len(names) + "|", *lines])
            case "employee":
                found = _of(self.people, arguments)
                rng = Random(f"employee {found['employee_id']}")
                folder = rng.choice(sorted(self.folders))
                file = rng.choice(self.folders[folder])
                courses = [
                    {"course": _name(rng), "score": rng.randrange(40, 100), "passed": rng.random() < 0.7}
                    for _ in range(rng.randrange(3, 6))
                ]
                more = {"report_path": f"{folder}/{file['name']}", "courses": courses, "remote": None}
                return repr({**found, **more})
            case "list_directory":
                found = self.folders[arguments["path"]]
                lines = [f"[FILE] {each['name']}    {each['size'] / 1024:.1f} KB" for each in found]
                return "\n".join([*lines, "[DIR] archive"])
            case "get_file_info":
                file = self._file(arguments["path"])
                told = {
                    "size": file["size"], "modified": file["modified"], "owner": file["owner"],
                    "permissions": file["mode"], "isFile": "true",
                    "checksum": f"{Random(arguments['path']).getrandbits(32):08x}",
                }  # fmt: skip
                return "\n".join(f"{name}: {value}" for name, value in told.items())
            case "read_sheet":
                rng = Random(f"sheet {arguments['path']}")
                lines = [
                    f"{_name(rng)},{rng.randrange(2, 400)},{rng.randrange(100, 9000) / 100},"
                    f"{_day(rng, 2010, 2015)}"
                    for _ in range(rng.randrange(4, 8))
                ]
                return "\n".join(["item,pieces,cost,bought", *lines])
            case "list_stations":
                lines = [
                    f"{e['station']};{e['place']};{e['altitude_m']};{e['opened']};{e['airport']}"
                    for e in self.stations
                ]
                return "\n".join(["station;place;altitude_m;opened;nearest_airport", *lines])
            case "get_readings":
                rng = Random(f"readings {arguments['station']} {arguments['month']}")
                days = [
                    {"day": day, "rain_mm": rng.randrange(0, 400) / 10, "wind_kmh": rng.randrange(2, 95),
                     "high_c": rng.randrange(-40, 330) / 10}
                    for day in (3, 9, 15, 21, 27)
                ]  # fmt: skip
                told = {
                    "observer": _name(rng),
                    "instrument": f"gauge-{rng.randrange(100, 999)}",
                    "days": days,
                }
                return f"Readings as archived:\n{json.dumps(told)}\nUnchecked."
            case "search_tickets":
                found = [each for each in self.tickets if each["priority"] == arguments["priority"]]
                return repr(
                    [_only(e, "ticket", "subject", "assignee", "opened", "hours_spent") for e in found]
                )
            case "get_ticket":
                found = _of(self.tickets, arguments)
                rng = Random(f"ticket {found['ticket']}")
                remarks = [
                    {"by": rng.choice(self.people)["name"], "minutes": rng.randrange(2, 240),
                     "on": _day(rng, 2020, 2021)}
                    for _ in range(rng.randrange(3, 6))
                ]  # fmt: skip
                return json.dumps({**found, "reopened": rng.randrange(4), "remarks": remarks})
            case "departures":
                rows = [
                    _only(each, "flight_no", "to", "leaves", "seats", "gate")
                    for each in self.flights
                    if each["airport"] == arguments["airport"]
                ]
                return json.dumps({"airport": arguments["airport"], "departures": rows})
            case "flight_status":
                found = _of(self.flights, arguments)
                rng = Random(f"flight {found['flight_no']}")
                told = {
                    "From": found["airport"], "Destination": found["to"], "Leaves": found["leaves"],
                    "Booked seats": found["booked"], "Freight kg": found["freight_kg"],
                    "Captain": f"{_name(rng)} {_name(rng)}",
                    "Aircraft": f"{_name(rng)} {rng.randrange(100, 900)}",
                    "On time": rng.choice(("yes", "no")),
                }  # fmt: skip
                return "\n".join(f"{name}: {value}" for name, value in told.items())
        raise ValueError(f"no server has {tool}")

    def _file(self, path: str) -> Row:
        folder, _, name = path.rpartition("/")
        return next(each for each in self.folders[folder] if each["name"] == name)


def volatile_answer(tool: str, session: int, at: float) -> str:
    """Return what is answered otherwise each time."""
    rng = Random(f"{tool} {session} {at}")
    now = datetime.fromtimestamp(at, UTC)
    match tool:
        case "current_time":
            return json.dumps({
                "time": now.isoformat(timespec="seconds"), "weekday": now.strftime("%A"),
                "unix": int(at), "zone": "UTC", "day": now.date().isoformat(),
            })  # fmt: skip
        case "uptime":
            since = now - timedelta(days=3, hours=session)
            return f"Running since: {since}\nSeconds: {rng.randrange(10**5, 10**6)}"
        case "new_reference":
            return json.dumps(
                {"reference": str(uuid.UUID(int=rng.getrandbits(128), version=4)), "form": "B-2"}
            )
        case "health":
            return repr({
                "version": "7.4.1", "region": "harbour-2", "requests_served": rng.randrange(10**4, 10**6),
                "memory_mb": rng.randrange(200, 900), "load": rng.randrange(1, 400) / 100, "workers": 12,
            })  # fmt: skip
        case "queue":
            waits = sorted(rng.sample(range(3, 900), 4), reverse=True)
            jobs = [{"job": f"job-{rng.randrange(1000, 9999)}", "waits_s": wait} for wait in waits]
            return json.dumps({"jobs": jobs, "oldest": jobs[0]["job"]})
        case "draw":
            return json.dumps({"number": rng.randrange(1, 10_001), "pot": "as asked"})
    raise ValueError(f"no tool {tool} answers otherwise each time")


def documents(town: Town | None = None) -> list[Document]:
    """Return the sessions as the importer takes them: all reads in two, and writes in the last."""
    town = town or Town.built()
    reads = list(town.reads())
    volatile: list[Call] = [("ops", tool, {}) for tool in VOLATILE[:-1]]
    volatile += [("ops", "draw", {"pot": pot}) for pot in ("red", "blue", "green")]
    errors: list[Call] = [
        ("orders", "get_order", {"order_id": "ORD-1"}),
        ("crm", "customer_card", {"customer_id": "C1"}),
        ("files", "get_file_info", {"path": "/srv/reports/nothing.md"}),
    ]
    evening = Random("evening").sample(reads, len(reads))
    writes: list[Call] = [
        ("orders", "cancel_order", {"order_id": town.orders[0]["order_id"]}),
        ("helpdesk", "close_ticket", {"ticket": town.tickets[0]["ticket"]}),
    ]
    made = []
    for number, calls in enumerate(
        ([*reads, *volatile], [*volatile, *evening, *errors], [*volatile, *reads[:5], *writes])
    ):
        told = []
        for place, (server, tool, arguments) in enumerate(calls):
            at = BEGIN + 97_000 * number + 2 * place
            is_error = (server, tool, arguments) in errors
            if is_error:
                text = f"Error: not found: {next(iter(arguments.values()))}"
            elif server == "ops":
                text = volatile_answer(tool, number, at)
            else:
                text = "Done." if (server, tool, arguments) in writes else town.answer(tool, arguments)
            told.append({"server": server, "tool": tool, "arguments": arguments, "output": text,
                         "is_error": is_error, "started_at": at})  # fmt: skip
        made.append({"session_id": f"town-{number}", "group": GROUP, "calls": told})
    return made


def record(path: Path, sessions: Sequence[Document]) -> None:
    report = import_sessions(path, sessions)
    assert report.problems == []
    listed = path.with_name(f"{path.stem}-tools.jsonl")
    listed.write_text("".join(json.dumps(entry) + "\n" for entry in _tool_entries()), encoding="utf-8")
    assert import_files(path, [], tools=[listed]).problems == []


def opened(path: Path) -> World:
    store = Store(path)
    return World(store, Replayer(store, learn(store)))


def made(path: Path, sessions: Sequence[Document] | None = None) -> World:
    """Record a world, as it is or as changed documents have it, and open it."""
    record(path, documents() if sessions is None else sessions)
    return opened(path)


def _tool_entries() -> Iterator[Row]:
    for server, tools in TOOLS.items():
        for name, (description, properties, is_read) in tools.items():
            yield {
                "server": server,
                "name": name,
                "description": description,
                "inputSchema": {
                    "type": "object",
                    "properties": properties,
                    "required": list(properties),
                    "additionalProperties": False,
                },
                "annotations": {"readOnlyHint": is_read},
            }


def _of(rows: list[Row], arguments: Row) -> Row:
    ((name, value),) = arguments.items()
    return next(row for row in rows if row[name] == value)


def _only(row: Row, *names: str) -> dict[str, Json]:
    return {name: row[name] for name in names}


def _name(rng: Random) -> str:
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.choice((2, 2, 3)))).capitalize()


def _day(rng: Random, first: int, last: int) -> str:
    days = (date(last, 12, 28) - date(first, 1, 2)).days
    return (date(first, 1, 2) + timedelta(days=rng.randrange(days))).isoformat()
