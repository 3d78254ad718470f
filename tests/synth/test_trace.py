"""Which argument of a recorded call stands in the output of another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recorder.exchange import Json
from synth.trace import LONGEST_OUTPUT, MOST_OF_A_TOOL, Link, Observation, argument_leaves, observations
from synth.values import at, text
from synth.world import World
from tests.synth import small_world
from tests.synth.small_world import told

Call = tuple[str, str, dict[str, Json], Json]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world.made(tmp_path_factory.mktemp("trace") / "world.db")


@pytest.fixture(scope="module")
def seen(world: World) -> list[Observation]:
    return observations(world)


def links_of(
    path: Path, calls: list[Call], tool: str, entries: list[dict[str, Json]] | None = None
) -> list[tuple[str, tuple[str | int, ...], tuple[str | int, ...], str]]:
    """Return for each link of the tool's calls: the producer, the argument, where it stands, the folder."""
    found = observations(told(path, calls, entries or []))
    return [
        (link.producer.ref.name, link.path, link.address, link.folder)
        for each in found
        if each.ref.name == tool
        for link in each.links
    ]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "told.db"


SHIPS = [{"ship": "Argo-77", "flag": "Narvia"}, {"ship": "Beagle-12", "flag": "Sundra"}]


def test_a_whole_value_is_linked_to_the_row_and_column_that_it_stands_in(db: Path) -> None:
    world = told(db, [("a", "list_ships", {}, SHIPS), ("b", "get_ship", {"ship": "Beagle-12"}, {"crew": 40})])
    (consumer,) = [each for each in observations(world) if each.ref.name == "get_ship"]
    (link,) = consumer.links
    assert (link.producer.ref.name, link.path, link.address) == ("list_ships", ("ship",), (1, "ship"))
    assert (link.row, link.column and link.column.path, link.folder) == (1, ("ship",), "")


def test_a_value_that_stands_alone_is_linked_without_a_row(db: Path) -> None:
    calls: list[Call] = [
        ("a", "get_flagship", {}, {"best": {"ship": "Argo-77"}, "of": 12}),
        ("a", "get_ship", {"ship": "Argo-77"}, {"crew": 40}),
    ]
    world = told(db, calls)
    (consumer,) = [each for each in observations(world) if each.ref.name == "get_ship"]
    (link,) = consumer.links
    assert (link.address, link.table, link.column) == (("best", "ship"), None, None)


def test_the_name_of_a_keyed_row_is_linked_by_its_value_only(db: Path) -> None:
    keyed = {name: {"captain": f"Captain {name}"} for name in ("Argo-77", "Beagle-12", "Cutty-9")}
    calls: list[Call] = [
        ("a", "list_ships", {}, keyed),
        ("a", "find", {"captain": "Captain Beagle-12"}, {"age": 61}),
        ("a", "get_ship", {"ship": "Beagle-12"}, {"crew": 40}),
    ]
    world = told(db, calls)
    by_name = {each.ref.name: each for each in observations(world)}
    (link,) = by_name["find"].links
    assert (link.row, link.column and link.column.path) == (1, ("value", "captain"))
    assert by_name["get_ship"].links == []  # the name of a member stands at no address


def test_a_file_is_linked_to_the_listing_of_its_folder_and_to_no_other(db: Path) -> None:
    calls: list[Call] = [
        ("a", "list_folder", {"path": "/maps/north"}, "[FILE] alpha.md   10 B\n[FILE] beta.md   11 B"),
        ("a", "list_folder", {"path": "/maps/south"}, "[FILE] beta.md   12 B\n[FILE] gamma.md   13 B"),
        ("a", "read_file", {"path": "/maps/north/beta.md"}, "lines: 4\nowner: Ada Lind"),
    ]
    assert links_of(db, calls, "read_file") == [
        ("list_folder", ("path",), (1, "name"), "/maps/north"),
    ]


def test_a_trailing_slash_of_the_folder_does_not_matter(db: Path) -> None:
    calls: list[Call] = [
        ("a", "list_folder", {"path": "/maps/north/"}, "[FILE] alpha.md   10 B\n[FILE] beta.md   11 B"),
        ("a", "read_file", {"path": "/maps/north/beta.md"}, "lines: 4\nowner: Ada Lind"),
    ]
    assert links_of(db, calls, "read_file") == [("list_folder", ("path",), (1, "name"), "/maps/north")]


SEASONS = [{"season": "spring", "games": 12}, {"season": "autumn", "games": 14}]


@pytest.mark.parametrize(
    ("schema", "linked"),
    [
        ({"type": "string"}, True),
        ({"type": "string", "enum": ["spring", "autumn"]}, False),
        ({"anyOf": [{"enum": ["spring", "autumn"]}, {"type": "null"}]}, False),
        ({"const": "autumn"}, False),
        ({"type": "string", "description": "an enum of the league"}, True),
    ],
)
def test_what_a_schema_lists_is_known_already(db: Path, schema: dict[str, Json], linked: bool) -> None:
    calls: list[Call] = [
        ("a", "list_seasons", {}, SEASONS),
        ("a", "get_table", {"season": "autumn"}, {"winner": "Ulm Town"}),
    ]
    schemas = {"type": "object", "properties": {"season": schema}}
    entry: dict[str, Json] = {"server": "a", "name": "get_table", "inputSchema": schemas}
    assert bool(links_of(db, calls, "get_table", [entry])) is linked


@pytest.mark.parametrize("parameter", ["query", "search_text", "content", "sql", "pattern", "keyword"])
def test_a_parameter_that_takes_any_text_is_linked_only_to_a_field_of_its_name(
    db: Path, parameter: str
) -> None:
    calls: list[Call] = [
        ("a", "list_ships", {}, SHIPS),
        ("a", "find", {parameter: "Argo-77"}, {"hits": 3, "pages": 9}),
    ]
    assert links_of(db, calls, "find") == []
    named = [{"q": 1, parameter: "Argo-77"}, {"q": 2, parameter: "Beagle-12"}]
    calls[0] = ("a", "list_searches", {}, named)
    assert links_of(db.with_name("named.db"), calls, "find") == [
        ("list_searches", (parameter,), (0, parameter), "")
    ]


def test_what_was_asked_is_no_news(db: Path) -> None:
    calls: list[Call] = [
        ("a", "find_ship", {"ship": "Argo-77"}, {"ship": "Argo-77", "flag": "Narvia"}),
        ("a", "get_ship", {"ship": "Argo-77"}, {"crew": 40}),
    ]
    assert links_of(db, calls, "get_ship") == []


def test_no_call_is_linked_to_itself(db: Path) -> None:
    tree = [{"parent": "Argo-77", "n": 1}, {"parent": "Beagle-12", "n": 2}]
    calls: list[Call] = [("a", "get_tree", {"root": "Cutty-99"}, tree)]
    assert links_of(db, calls, "get_tree") == []


@pytest.mark.parametrize(
    ("told_as", "asked_as", "server", "linked"),
    [
        ("berth", "berth", "b", True),
        ("berth", "crew", "b", False),
        ("id", "id", "b", False),
        ("id", "id", "a", True),
        ("id", "ship_id", "b", True),
        ("id", "crane_id", "b", False),
    ],
)
def test_a_small_number_is_linked_only_where_it_is_called_alike(
    db: Path, told_as: str, asked_as: str, server: str, linked: bool
) -> None:
    calls: list[Call] = [
        ("a", "list_ships", {}, [{told_as: 4, "name": "Argo"}, {told_as: 7, "name": "Beagle"}]),
        (server, "get_it", {asked_as: 7}, {"tons": 400, "at": "north"}),
    ]
    assert bool(links_of(db, calls, "get_it")) is linked


def test_truth_values_and_short_words_are_linked_to_nothing(db: Path) -> None:
    calls: list[Call] = [
        ("a", "list_ships", {}, [{"open": True, "code": "NV"}, {"open": False, "code": "SU"}]),
        ("a", "find", {"open": True, "code": "NV"}, {"total": 12, "first": "Argo"}),
    ]
    assert links_of(db, calls, "find") == []


def test_a_value_within_a_list_of_arguments_is_linked_there(db: Path) -> None:
    calls: list[Call] = [
        ("a", "list_ships", {}, SHIPS),
        ("a", "compare", {"ships": ["Beagle-12", "Cutty-99"]}, {"faster": "Cutty-99", "by": 3}),
    ]
    assert links_of(db, calls, "compare") == [("list_ships", ("ships", 0), (1, "ship"), "")]


def test_a_value_that_stands_twice_in_a_list_does_not_say_which_row_is_meant(db: Path) -> None:
    twice = [{"ship": "Argo-77", "twin": "x1"}, {"ship": "Argo-77", "twin": "x2"}]
    calls: list[Call] = [
        ("a", "list_ships", {}, twice),
        ("a", "get_ship", {"ship": "Argo-77"}, {"crew": 40}),
    ]
    found = links_of(db, calls, "get_ship")
    assert found in ([], [("list_ships", ("ship",), (0, "ship"), "")])


# --- what is observed ---


def names(world: World) -> set[tuple[str, str]]:
    return {(each.ref.name, str(sorted(each.call.arguments.items()))) for each in observations(world)}


def test_only_reads_that_tell_something_and_can_be_repeated_are_observed(db: Path) -> None:
    good: Call = ("a", "get_ship", {"ship": "Argo-77"}, {"crew": 40})
    calls: list[Call] = [
        good,
        ("a", "get_ship", {"ship": "Cutty-99"}, "Error: ship not found"),
        ("a", "get_ship", {"ship": "Beagle-12"}, ""),
        ("a", "get_log", {"ship": "Argo-77"}, "word " * (LONGEST_OUTPUT // 4)),
        ("a", "get_key", {"ship": "Argo-77"}, "the key is [redacted:3af] and 17 more"),
        ("a", "delete_ship", {"ship": "Argo-77"}, {"deleted": 7, "left": 5}),
    ]
    (only,) = observations(told(db, calls))
    assert (only.ref.name, only.call.arguments, only.tree) == ("get_ship", good[2], good[3])


def test_a_tool_that_was_called_in_one_session_only_is_not_observed(db: Path) -> None:
    assert observations(told(db, [("a", "list_ships", {}, SHIPS)], sessions=1)) == []


def test_an_empty_recording_has_nothing_to_observe(db: Path) -> None:
    assert observations(told(db, [], sessions=1)) == []


def test_of_a_tool_that_was_called_very_often_some_calls_are_taken(db: Path) -> None:
    calls: list[Call] = [
        ("a", "get_ship", {"ship": f"Argo-{n}"}, {"crew": 1000 + n}) for n in range(MOST_OF_A_TOOL + 40)
    ]
    world = told(db, calls)
    found = observations(world)
    assert len(found) == MOST_OF_A_TOOL
    assert [each.call for each in observations(small_world.opened(db))] == [each.call for each in found]


def test_what_is_observed_of_the_small_world_is_each_read(seen: list[Observation]) -> None:
    wanted = {(server, tool, str(arguments)) for server, tool, arguments in small_world.reads()}
    assert {(each.ref.server, each.ref.name, str(each.call.arguments)) for each in seen} == wanted
    assert len(seen) == len(wanted)


def _links(seen: list[Observation]) -> Iterator[tuple[Observation, Link]]:
    for each in seen:
        for link in each.links:
            yield each, link


def test_every_link_leads_from_the_value_of_the_argument_to_the_same_value(seen: list[Observation]) -> None:
    found = list(_links(seen))
    assert len(found) > 50
    for consumer, link in found:
        value = dict(argument_leaves(consumer.call.arguments))[link.path]
        stands = at(link.producer.tree, link.address)
        whole = f"{link.folder}/{text(stands)}" if link.folder else text(stands)
        assert whole == text(value)
        if link.table is not None:
            assert link.column is not None
            assert text(link.column.values[link.row]) == text(stands)


def test_each_list_of_the_small_world_is_linked_to_what_it_lists(seen: list[Observation]) -> None:
    found = {(link.producer.ref.name, consumer.ref.name) for consumer, link in _links(seen)}
    assert found >= {
        ("list_ships", "get_ship"), ("list_recipes", "read_recipe"), ("list_exhibits", "exhibit_record"),
        ("list_folder", "file_facts"), ("list_stars", "star_facts"), ("season_table", "get_club"),
    }  # fmt: skip
    assert not any(consumer == "season_table" for _, consumer in found)
