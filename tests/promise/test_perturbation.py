"""A recorded call with one id, date or number swapped for another: never another entity's data.

The tools are functions of their arguments over a few hundred entities, so the truth is known for every call.
Each recorded call is asked again with one value swapped at a time, at whatever depth it stands. A miss is
right, and so is an answer that equals the tool's own; anything else is another entity's data.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256
from typing import Any

import pytest

from recorder.exchange import ToolResult
from recorder.importer import import_sessions
from recorder.store import Store
from replayer.learn import learn
from replayer.replayer import Replayer
from replayer.session import Answer, ReplaySession

ENTITIES, GROUPS, RUNS, CALLS = 200, 80, 4, 9
CATALOGUES = ("category", "brand", "store", "author")
RARE = 0.03
SWAPS = 2
"""Other values that are tried in each place: one that others were recorded with, and one that none was."""

Arguments = dict[str, Any]
Tool = Callable[[Arguments], str]


def facts_of(*what: object) -> random.Random:
    """Chance that is the same each time: what a server knows of something."""
    return random.Random(sha256(json.dumps(what).encode()).hexdigest())


def order(arguments: Arguments) -> str:
    """An argument that does not matter: `format`."""
    number = int(arguments["order_id"].removeprefix("#W"))
    known = facts_of("order", number)
    status = known.choice(("pending", "delivered", "cancelled"))
    return json.dumps({"order_id": arguments["order_id"], "status": status, "total": known.randint(5, 900)})


def order_status(arguments: Arguments) -> str:
    """Nearly every order has the same: agreement shows nothing."""
    return "lost" if facts_of("lost", arguments["order_id"]).random() < 0.04 else "on its way"


def cancel_order(arguments: Arguments) -> str:
    """A constant, so that its argument seems not to matter; and does not."""
    return "Your request was received."


def stock(arguments: Arguments) -> str:
    """Ids in a list; no recorded `limit` is below what is found, but one that is asked for may be."""
    rows = [{"sku": sku, "left": facts_of("stock", sku).randint(0, 5)} for sku in arguments["skus"]]
    return json.dumps(rows[: arguments["limit"]])


def price(arguments: Arguments) -> str:
    """Numbers at some depth, and a currency."""
    item = arguments["item"]
    rate = {"EUR": 1, "USD": 1.1}[arguments["currency"]]
    return f"{item['count'] * facts_of('price', item['sku']).randint(1, 50) * rate:.2f}"


def flights(arguments: Arguments) -> str:
    """A date; most days there is nothing."""
    known = facts_of("flights", arguments["from"], arguments["to"], arguments["on"])
    found = [f"FL{known.randint(100, 999)}" for _ in range(known.choice((0, 0, 0, 1, 2)))]
    return json.dumps(found) if found else "No flights found."


def seat(arguments: Arguments) -> str:
    known = facts_of("seat", arguments["flight"], arguments["date"], arguments["passenger"]["id"])
    return f"{known.randint(1, 40)}{known.choice('ABCDEF')}"


def patient(arguments: Arguments) -> str:
    """A number as text inside of a query string."""
    number = re.fullmatch(r"Patient\?identifier=(\d+)&_format=(?:json|xml)", arguments["url"])
    assert number is not None
    known = facts_of("patient", int(number[1]))
    return json.dumps({"born": f"19{known.randint(10, 99)}", "ward": known.randint(1, 9)})


def vitals(arguments: Arguments) -> str:
    """`_count` does not matter: there is one reading a day."""
    known = facts_of("vitals", arguments["patient"], arguments["date"])
    return json.dumps({"pulse": known.randint(50, 120)})


def search(arguments: Arguments) -> str:
    """Prose that names an entity or a year; case and closing punctuation do not matter."""
    named = sorted(re.findall(r"\d+", arguments["query"]))
    return f"{facts_of('search', named).randint(0, 10_000)} results about {', '.join(named)}"


def bmi(arguments: Arguments) -> str:
    return f"{arguments['weight'] / arguments['height'] ** 2:.2f}"


def rating(arguments: Arguments) -> str:
    """The same for whole ranges of ids, so that recordings of neighbours agree."""
    return f"{'ABCDE'[int(arguments['user_id']) // 50 % 5]}"


def catalogue(name: str) -> Tool:
    """Return a tool whose page number does not matter where there is but one page, as there mostly is."""

    def listed(arguments: Arguments) -> str:
        number, pages = arguments[name], 2 if facts_of(name, arguments[name]).random() < RARE else 1
        known = facts_of(name, number, min(max(arguments["page"], 1), pages))
        return json.dumps({name: number, "found": known.randint(1, 999)})

    return listed


def config(arguments: Arguments) -> str:
    """Two clusters are set up alike, and those are the recorded ones; no other is."""
    cluster = int(arguments["cluster"].removeprefix("eu-"))
    known = facts_of("config", arguments["service"], cluster if cluster > 2 else 1)
    return json.dumps({"replicas": known.randint(1, 99), "memory": known.randint(1, 64)})


def user(arguments: Arguments) -> str:
    """A number of the same size as those of tickets, which has nothing to do with them."""
    known = facts_of("user", arguments["user_id"])
    return json.dumps({"name": f"user {known.randint(100, 999)}", "credit": known.randint(0, 500)})


TOOLS: Mapping[str, Tool] = {
    "get_order": order,
    "order_status": order_status,
    "cancel_order": cancel_order,
    "get_stock": stock,
    "get_price": price,
    "search_flights": flights,
    "get_seat": seat,
    "fhir_get": patient,
    "get_vitals": vitals,
    "search_docs": search,
    "calculate_bmi": bmi,
    "get_rating": rating,
    "get_config": config,
    "get_user": user,
    **{f"list_{name}": catalogue(name) for name in CATALOGUES},
}


def a_day(rng: random.Random) -> str:
    return (date(2026, 1, 1) + timedelta(days=rng.randrange(40))).isoformat()


def draw(rng: random.Random) -> tuple[str, Arguments]:
    """Draw a call as an agent might make it: some entities are asked for far more often than others."""

    def entity() -> int:
        return int(ENTITIES * rng.random() ** 2)

    def sku() -> str:
        return f"SKU-{1000 + entity()}"

    tool = rng.choice([*TOOLS])
    match tool:
        case "get_order":
            arguments = {"order_id": f"#W{4000 + entity()}", "format": rng.choice(("json", "text", "full"))}
        case "order_status" | "cancel_order":
            arguments = {"order_id": f"#W{4000 + entity()}", "reason": rng.choice(("late", "no reason"))}
        case "get_stock":
            arguments = {
                "skus": [sku() for _ in range(rng.choice((1, 1, 3)))],
                "limit": rng.choice((5, 8, 50)),
            }
        case "get_price":
            arguments = {
                "item": {"sku": sku(), "count": rng.randint(1, 3)},
                "currency": rng.choice(("EUR", "USD")),
            }
        case "search_flights":
            arguments = {
                "from": rng.choice(("OSL", "CDG")),
                "to": rng.choice(("JFK", "HND")),
                "on": a_day(rng),
                "max_results": rng.choice((5, 10, 20)),
            }
        case "get_seat":
            arguments = {
                "flight": f"FL{rng.randint(100, 110)}",
                "date": a_day(rng),
                "passenger": {"id": entity() % 20, "class": rng.choice(("economy", "business"))},
            }
        case "fhir_get":
            kind = rng.choice(("json", "xml"))
            arguments = {"url": f"Patient?identifier={20_000 + entity()}&_format={kind}"}
        case "get_vitals":
            arguments = {
                "patient": f"P{entity():04}",
                "date": f"2026-02-0{rng.randint(1, 3)}",
                "_count": rng.choice((1, 10, 100)),
            }
        case "search_docs":
            query = rng.choice(("annual report of {} in Norway", "what did customer {} order last year"))
            query = query.format(2000 + entity())
            arguments = {"query": rng.choice((query, query.capitalize(), f"{query}.", query.upper()))}
        case "calculate_bmi":
            arguments = {"weight": rng.randint(50, 90), "height": rng.randint(150, 190) / 100}
        case "get_rating":
            arguments = {"user_id": f"{entity()}"}
        case "get_config":
            arguments = {"service": f"svc-{entity() % 60}", "cluster": rng.choice(("eu-1", "eu-2"))}
        case "get_user":
            arguments = {"user_id": rng.randint(1, 9)}
        case _:
            arguments = {tool.removeprefix("list_"): entity(), "page": rng.randint(1, 3)}
    return tool, arguments


Call = tuple[str, Arguments]
TICKET = "open_ticket"
"""It answers with an id of the server's making, as small as other numbers are; nothing in it is swapped."""


def sessions(rng: random.Random) -> Iterator[tuple[str, list[Call]]]:
    """Yield group and calls: the runs of a group share most of their calls, with other trifles."""
    for number in range(GROUPS):
        plan = [draw(rng) for _ in range(CALLS)]
        for _ in range(RUNS):
            calls: list[Call] = [(TICKET, {"title": "it is late"})] if number % 2 else []
            for tool, arguments in plan:
                like = dict(arguments)
                if rng.random() < 0.5:  # another format, limit, page, reason or spelling
                    _, other = next(call for call in iter(lambda: draw(rng), None) if call[0] == tool)
                    for name in ("format", "limit", "max_results", "_count", "reason", "page", "cluster"):
                        if name in like:
                            like[name] = other[name]
                    if "query" in like:
                        like["query"] = rng.choice((like["query"].upper(), like["query"].rstrip(".")))
                calls.append((tool, like))
            calls += [draw(rng) for _ in range(2)]
            yield f"task {number}", calls


def answered(calls: list[Call], rng: random.Random) -> Iterator[tuple[str, Arguments, str]]:
    """Yield the calls with their answers. Tickets are counted on from wherever the session began."""
    for tool, arguments in calls:
        yield (
            tool,
            arguments,
            json.dumps({"id": rng.randint(1, 9)}) if tool == TICKET else TOOLS[tool](arguments),
        )


@dataclass(frozen=True, slots=True)
class Recorded:
    replayer: Replayer
    sessions: list[tuple[str, list[Call]]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    db = tmp_path_factory.mktemp("perturbation") / "recording.db"
    rng = random.Random("recorded")
    made = list(sessions(rng))
    report = import_sessions(
        db,
        (
            {
                "session_id": f"{number}",
                "group": group,
                "calls": [
                    {"server": "shop", "tool": tool, "arguments": arguments, "output": output}
                    for tool, arguments, output in answered(calls, rng)
                ],
            }
            for number, (group, calls) in enumerate(made)
        ),
    )
    assert report.problems == []
    store = Store(db)
    return Recorded(Replayer(store, learn(store)), made)


_PLACE = re.compile(r"\d{4}-\d\d-\d\d|\d+(?:\.\d+)?")
"""A date or a number in a text, also as part of an id."""


def swapped(value: Any, rng: random.Random) -> Iterator[Any]:
    """Yield a value with one id, date or number in it swapped, each in turn, for others of the same shape."""
    match value:
        case bool():
            return
        case str():
            for place in _PLACE.finditer(value):
                for other in others(place[0], rng):
                    yield value[: place.start()] + other + value[place.end() :]
        case int() | float():
            for other in others(f"{value}", rng):
                yield type(value)(other)
        case dict():
            for name, item in value.items():
                for other in swapped(item, rng):
                    yield {**value, name: other}
        case list():
            for position, item in enumerate(value):
                for other in swapped(item, rng):
                    yield [*value[:position], other, *value[position + 1 :]]


def others(text: str, rng: random.Random) -> Iterator[str]:
    """Yield other values of a text's shape: near ones, which may be recorded as well, and far ones."""
    made = 0
    while made < SWAPS:
        if "-" in text:
            day = date.fromisoformat(text) + timedelta(days=rng.choice((1, -1, 2, 365)))
            other = day.isoformat()
        elif "." in text:
            whole, _, fraction = text.partition(".")
            other = f"{whole}.{rng.randrange(10 ** len(fraction)):0{len(fraction)}}"
        else:
            step = rng.choice((1, -1, 2, 7, 10 ** (len(text) - 1)))
            other = f"{(int(text) + step) % 10 ** len(text):0{len(text)}}"
            other = other if len(text) == 1 or text[0] == "0" or other[0] != "0" else text
        if other != text:
            made += 1
            yield other


@dataclass(frozen=True, slots=True)
class Asked:
    tool: str
    recorded: Arguments
    arguments: Arguments
    answer: str | None
    truth: str
    source: str

    @property
    def wrong(self) -> bool:
        return self.answer is not None and self.answer != self.truth


def perturbed(recorded: Recorded, *, known: bool, within: bool) -> list[Asked]:
    """Ask every recorded call with each value swapped.

    Args:
        known: Whether the rollout names its group.
        within: After the calls that it was recorded after, and itself; else as the first of a rollout.
    """
    rng, asked = random.Random("perturbed"), []
    for group, calls in recorded.sessions:
        rollout = recorded.replayer.session(group if known else None)
        for tool, arguments in calls:
            rollout.ask("shop", "tools/call", {"name": tool, "arguments": arguments})
            for other in swapped(arguments, rng) if tool != TICKET else ():
                session = rollout if within else recorded.replayer.session(group if known else None)
                asked.append(ask(session, tool, arguments, other))
    return asked


def ask(session: ReplaySession, tool: str, arguments: Arguments, other: Arguments) -> Asked:
    truth = TOOLS[tool](other)
    answer = session.ask("shop", "tools/call", {"name": tool, "arguments": other})
    if not isinstance(answer, Answer):
        return Asked(tool, arguments, other, None, truth, "")
    assert isinstance(answer.outcome, ToolResult)
    (block,) = answer.outcome.result["content"]
    source = f"{answer.tier}, trust {answer.trust or 0:.3f}, recorded as {answer.exchange}"
    return Asked(tool, arguments, other, block["text"], truth, source)


def told(asked: list[Asked]) -> dict[str, list[str]]:
    """Return the wrong answers by tool."""
    by_tool: dict[str, list[str]] = {}
    for each in asked:
        if each.wrong:
            by_tool.setdefault(each.tool, []).append(
                f"{json.dumps(each.arguments)} is answered ({each.source}) {each.answer}, not {each.truth}"
            )
    return by_tool


@pytest.mark.parametrize("within", [True, False], ids=["within a session", "at once"])
@pytest.mark.parametrize("known", [True, False], ids=["known group", "unknown group"])
def test_a_call_with_one_value_swapped_is_never_answered_with_another_entitys_data(
    known: bool, within: bool, recorded: Recorded
) -> None:
    asked = perturbed(recorded, known=known, within=within)
    assert len(asked) > 10_000
    assert told(asked) == {}


@pytest.mark.parametrize("known", [True, False], ids=["known group", "unknown group"])
def test_that_is_not_for_want_of_answers(known: bool, recorded: Recorded) -> None:
    """The recorded calls themselves are answered, and right."""
    asked = []
    for group, calls in recorded.sessions:
        session = recorded.replayer.session(group if known else None)
        for tool, arguments in calls:
            if tool == TICKET:
                session.ask("shop", "tools/call", {"name": tool, "arguments": arguments})
            else:
                asked.append(ask(session, tool, arguments, arguments))
    assert told(asked) == {}
    assert sum(each.answer is not None for each in asked) / len(asked) >= 0.9
