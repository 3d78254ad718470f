import json
from typing import Any

import pytest

from replayer.lessons import MOST_EXAMPLES, ErrorLessons, Lesson
from replayer.violations import Checker, violations

SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "readArguments",
    "properties": {
        "path": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1},
        "mode": {"enum": ["a", "b"]},
        "files": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["path"],
    "additionalProperties": False,
}


def schema(*names: str, type: str = "string", title: str = "") -> dict[str, Any]:
    return {"properties": {name: {"type": type} for name in names}, "required": list(names), "title": title}


class Server:
    """A server whose errors a function words; each recorded call gets the next exchange id."""

    def __init__(self, words: Any) -> None:
        self.words, self.lessons, self.calls = words, ErrorLessons(), 0

    def record(self, tool: str, wanted: dict[str, Any], *calls: dict[str, Any]) -> "Server":
        for arguments in calls:
            self.calls += 1
            found = violations(wanted, arguments)
            self.lessons.note(tool, found, self.words(tool, found, arguments), self.calls)
        return self

    def answer(self, tool: str, wanted: dict[str, Any], arguments: dict[str, Any]) -> Lesson | None:
        lesson = self.lessons.answer(tool, found := violations(wanted, arguments))
        assert lesson is None or lesson.text == self.words(tool, found, arguments)
        return lesson

    def level(self, tool: str, wanted: dict[str, Any], arguments: dict[str, Any]) -> str | None:
        lesson = self.answer(tool, wanted, arguments)
        return lesson and lesson.level


def low_level(tool: str, found: Any, arguments: Any) -> str:
    (only,) = found
    if only.rule == "required":
        return f"Input validation error: {only.name!r} is a required property"
    return f"Input validation error: {only.value!r} is not of type {json.loads(only.expected)!r}"


def pydantic(tool: str, found: Any, arguments: Any) -> str:
    shown = repr(arguments)
    shown = shown if len(shown) <= 50 else f"{shown[:25]}...{shown[-24:]}"
    many = f"{len(found)} validation error{'s' * (len(found) > 1)} for {tool}Arguments"
    return many + "".join(
        f"\n{each.name}\n  Field required [type=missing, input_value={shown}, input_type=dict]"
        for each in found
    )


def zod(tool: str, found: Any, arguments: Any) -> str:
    (only,) = found
    said = {"expected": json.loads(only.wanted)["type"], "code": "invalid_type"}
    path = [int(part) if part.isdecimal() else part for part in only.pointer.split("/")[1:]]
    issue = {**said, "path": path, "message": f"expected {said['expected']}, received undefined"}
    return f"MCP error -32602: Invalid arguments for tool {tool}: {json.dumps([issue], indent=2)}"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"path": "x", "limit": 2, "mode": "b", "files": ["y"]}, []),
        ({"path": "x", "limit": 2.0}, []),
        ({}, [("required", "/path", "path", '["path"]', None)]),
        ({"path": 5}, [("type", "/path", "path", '"string"', 5)]),
        ({"path": "x", "limit": True}, [("type", "/limit", "limit", '"integer"', True)]),
        ({"path": "x", "limit": 0}, [("minimum", "/limit", "limit", "1", 0)]),
        ({"path": "x", "mode": "c"}, [("enum", "/mode", "mode", '["a","b"]', "c")]),
        ({"path": "x", "files": ["y", 4]}, [("type", "/files/1", "1", '"string"', 4)]),
        (
            {"path": "x", "a/b": 1, "c": 2},
            [
                ("additionalProperties", "/a~1b", "a/b", "false", 1),
                ("additionalProperties", "/c", "c", "false", 2),
            ],
        ),
    ],
)
def test_each_violation_names_its_rule_and_place(arguments: dict[str, Any], found: list[Any]) -> None:
    seen = violations(SCHEMA, arguments)
    assert [(each.rule, each.pointer, each.name, each.expected, each.value) for each in seen] == found


@pytest.mark.parametrize(
    "broken",
    [
        {"type": 5},
        {"required": "path"},
        {"properties": {"path": {"$ref": "http://127.0.0.1:9/never-fetched"}}},
        {"properties": {"path": {"$ref": "#/nowhere"}}},
        {"$ref": "#"},
        {"$schema": 7, "type": "string"},
        {"properties": {"path": {"pattern": "("}}},
        {"properties": {"path": {"pattern": "^(a+)+$"}}},
        {"properties": {"path": {"pattern": "^.*.*.*.*x$"}}},
    ],
)
def test_a_schema_that_cannot_be_used_finds_nothing(broken: dict[str, Any]) -> None:
    assert violations(broken, {"path": "a" * 3000 + "!"}) == ()


def test_a_pattern_is_checked_on_texts_that_it_cannot_be_slow_on() -> None:
    checker = Checker({"properties": {"path": {"pattern": "^(a+)+$"}}})
    assert [each.rule for each in checker.violations({"path": "aab"})] == ["pattern"]
    assert checker.violations({"path": "aaa"}) == ()


@pytest.mark.parametrize(
    ("wanted", "arguments"),
    [
        ({"type": "array", "items": {"pattern": "^a"}}, ["b"]),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer"}, 2.0),
        ({"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 1}]}, "ab"),
        ({"enum": [0]}, False),
        ({"type": "object", "properties": {"x": {"not": {}}}}, {"x": 1}),
        ({"required": ["x"]}, {}),
        ({"additionalProperties": {"type": "string"}}, {"x": 1}),
    ],
)
def test_the_quick_proof_lets_no_violation_through(wanted: dict[str, Any], arguments: Any) -> None:
    draft = {"$schema": wanted["$schema"]} if "$schema" in wanted else {}
    assert len(violations({**draft, "properties": {"it": wanted}}, {"it": arguments})) == 1


def test_the_same_violation_is_answered_as_it_was() -> None:
    server = Server(low_level).record("read", schema("path"), {}, {"pth": "x"})
    text = "Input validation error: 'path' is a required property"
    assert server.answer("read", schema("path"), {"file": "y"}) == Lesson(text, 1, 2, "same")


def test_one_error_says_nothing_about_another_property() -> None:
    server = Server(low_level).record("read", schema("path"), {})
    assert server.answer("move", schema("source"), {}) is None


def test_two_properties_of_a_tool_teach_a_third() -> None:
    wanted = schema("a", "b", "c")
    server = Server(low_level).record("t", wanted, {"b": "", "c": ""}, {"a": "", "c": ""})
    assert server.level("t", wanted, {"a": "", "b": ""}) == "tool"
    assert server.level("other", schema("d"), {}) is None


@pytest.mark.parametrize("words", [low_level, zod])
def test_two_tools_teach_a_third(words: Any) -> None:
    server = Server(words).record("read", schema("path"), {}).record("find", schema("query"), {})
    assert server.level("move", schema("source"), {}) == "server"
    # A type that was never seen missing may be worded in another way.
    assert server.level("move", schema("source", type="integer"), {}) is None


def test_errors_that_repeat_the_arguments_wait_until_that_is_known() -> None:
    server = Server(pydantic).record("read", schema("path", title="readArguments"), {"pth": 1})
    assert server.answer("read", schema("path", title="readArguments"), {"pth": 1}) is not None
    assert server.answer("read", schema("path", title="readArguments"), {"pth": 2}) is None
    server.record("read", schema("path", title="readArguments"), {"file": "x"})
    assert server.level("read", schema("path", title="readArguments"), {"pth": 2}) == "same"
    # Nothing yet tells whether long arguments are clipped.
    long = {"pth": "x" * 60}
    assert server.answer("read", schema("path", title="readArguments"), long) is None
    server.record("read", schema("path", title="readArguments"), {"file": "y" * 70})
    assert server.level("read", schema("path", title="readArguments"), long) == "same"
    server.record("find", schema("query", title="findArguments"), {})
    assert server.level("move", schema("to", title="moveArguments"), {"from": "x"}) == "server"


def test_a_value_that_the_error_repeats_is_replaced_by_the_asked_one() -> None:
    server = Server(low_level).record("read", schema("path"), {"path": 55})
    assert server.answer("read", schema("path"), {"path": 66}) is None
    server.record("read", schema("path"), {"path": 77})
    assert server.level("read", schema("path"), {"path": 66}) == "same"
    assert server.answer("read", schema("path"), {"path": None}) is None


def test_a_text_that_a_lenient_server_may_convert_is_another_kind() -> None:
    wanted = schema("limit", type="integer")
    server = Server(low_level).record("read", wanted, {"limit": "many"}, {"limit": "few"})
    assert server.level("read", wanted, {"limit": "all of them"}) == "same"
    for converted in ("5", " 5 ", "true", "[5]", ""):
        assert server.answer("read", wanted, {"limit": converted}) is None


def test_what_the_server_took_once_has_no_answer() -> None:
    found = violations(SCHEMA, {"path": "x", "extra": 1})
    both = violations(SCHEMA, {"path": "x", "extra": 1, "limit": 0})
    for taken in (found, both):
        lessons = ErrorLessons()
        lessons.note("read", found, "extra is unknown", 1)
        assert lessons.answer("read", found) is not None
        lessons.note("read", taken, None, 2)
        assert lessons.answer("read", found) is None


def test_conflicting_texts_have_no_answer_however_many_follow() -> None:
    found = violations(SCHEMA, {})
    lessons = ErrorLessons()
    for position in range(3 * MOST_EXAMPLES):
        text = "path is missing" if position else "path is missing (request 17)"
        lessons.note("read", violations(SCHEMA, {"limit": position + 1}), text, position)
    assert lessons.answer("read", found) is None


def test_an_error_that_does_not_speak_of_the_violation_is_not_learned_from_one_call() -> None:
    lessons = ErrorLessons()
    lessons.note("read", violations(SCHEMA, {"path": 5}), "disk is full", 1)
    assert lessons.answer("read", violations(SCHEMA, {"path": 5, "limit": 1})) is None


def test_several_violations_are_answered_only_when_all_are_the_same() -> None:
    wanted = schema("a", "b", title="tArguments")
    server = Server(pydantic).record("t", wanted, {})
    assert server.level("t", wanted, {}) == "same"
    assert server.answer("t", wanted, {"c": 1}) is None
    assert server.answer("t", wanted, {"a": ""}) is None
    assert server.answer("u", wanted, {}) is None


def test_lessons_are_the_same_after_they_were_written_and_stay_small() -> None:
    server = Server(low_level)
    for position in range(500):
        server.record("read", schema("path"), {"path": position + 2}, {"extra": position})
    written = json.dumps(server.lessons.to_json())
    again = ErrorLessons.from_json(json.loads(written))
    for asked in ({"path": 7000}, {}):
        found = violations(schema("path"), asked)
        assert again.answer("read", found) == server.lessons.answer("read", found) is not None
    assert len(written) < 10_000
    assert again.to_json() == json.loads(written)
