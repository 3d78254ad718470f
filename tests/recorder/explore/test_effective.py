"""Whether an outcome told anything, whatever it says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.exchange import NoReply, RpcError, ToolResult
from recorder.explore.effective import Verdict, says_error, verdict

LONG = "The handler logs an error when a file is not found, and raises an exception if it must be retried. "


def text(said: str, **also: Any) -> ToolResult:
    return ToolResult(result={"content": [{"type": "text", "text": said}], **also})


def test_a_refused_request_an_error_result_and_no_reply_are_told_apart() -> None:
    outcomes = {
        "refused": RpcError(error={"code": -32602, "message": "Invalid params"}),
        "tool error": text("Berlin: 21 degrees", isError=True),
        "no reply": NoReply(reason="disconnected"),
    }
    assert {name: verdict({}, outcome) for name, outcome in outcomes.items()} == {
        name: name for name in outcomes
    }


@pytest.mark.parametrize(
    "said",
    [
        "Error: city must be a name",
        "ERROR - unable to open database file",
        "❌ Failed to read file",
        "**Error**: nothing there",
        "sqlite3.OperationalError: no such table: pets",
        "Traceback (most recent call last):\n  File 'a.py', line 1\nKeyError: 'id'",
        "MCP error -32603: timeout",
        "Database error: syntax error at or near SELECT",
        "Cannot find module 'x'",
        "File does not exist: /tmp/a",
        "No such file or directory",
        "User 17 not found",
        "Invalid date format",
        "Unknown unit: furlong",
        "Access denied - path outside allowed directories",
        "No active session.",
        "Error: none of the files could be opened",
        "Error: 0 is no year",
        "Login unsuccessful: invalid password",
        "0 errors in a.py, but b.py is not supported",
        '{"errors": ["city is unknown"]}',
        "Repository not initialized",
        "The file doesn’t exist",
        '{"error": "City is unknown"}',
        '{"error": {"code": 404, "message": "gone"}, "data": null}',
        '{"success": false, "data": {"a": 17}}',
        '{"ok": false, "id": 3}',
        '{"status": "error", "detail": "Ada is away"}',
        '{"isError": true, "text": "Ada"}',
        "{'success': False, 'rows': 3}",
        '{"rows": [], "error_message": "boom"}',
    ],
)
def test_an_error_told_as_a_success_is_an_error(said: str) -> None:
    assert verdict({}, text(said)) == "error text"


@pytest.mark.parametrize(
    "said",
    [
        "Berlin: 21 degrees",
        "42",
        '{"error": null, "count": 3}',
        '{"error": "", "count": 3}',
        '{"success": true, "id": "o-17"}',
        '{"status": "ok", "city": "Lima"}',
        "Successfully created note 12; no errors",
        '{"errors": 0, "passed": 12}',
        "{'rows': 3, 'exception': None, 'errors': []}",
        "All 12 checks passed with 0 errors",
        LONG * 6,
        "# Log\n" + "12:00 cannot connect\n" * 40,
        "日本",
        "东京 21°",
        "a.txt",
    ],
)
def test_a_text_with_a_value_is_effective(said: str) -> None:
    assert verdict({"city": "Oslo"}, text(said)) == "effective"


@pytest.mark.parametrize(
    "said",
    [
        "", "  \n", "[]", "{}", "null", "None", "true", "ok", "OK.", '{"result": null}', '{"results": []}',
        "Success", '{"success": true}', '{"status": "ok", "message": "success"}', "-", "…",
    ],
)  # fmt: skip
def test_a_text_without_a_value_is_empty(said: str) -> None:
    assert verdict({}, text(said)) == "empty"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"message": "hello world"}, "hello world"),
        ({"message": "hello world"}, '{"message": "hello world", "status": "ok"}'),
        ({"text": 'line "one"\nand two'}, '{"result": "line \\"one\\"\\nand two"}'),
        ({"number": 12345}, "12345"),
        ({"city": "Oslo", "country": "Oslo, Norway"}, "Oslo, Norway Oslo"),
    ],
)
def test_an_argument_said_back_is_empty(arguments: dict[str, Any], said: str) -> None:
    assert verdict(arguments, text(said)) == "empty"
    assert verdict(arguments, text(f"{said}: 21 degrees")) == "effective"


def test_images_and_links_are_values_and_other_shapes_are_not() -> None:
    image = {"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png"}
    link = {"type": "resource_link", "uri": "file:///a", "name": "a"}
    assert verdict({}, ToolResult(result={"content": [image]})) == "effective"
    assert verdict({}, ToolResult(result={"content": [{"type": "text", "text": ""}, link]})) == "effective"
    assert verdict({}, text("Error: no display", also=1)) == "error text"
    for result in (None, [], "done", 3, {}, {"content": None}, {"content": []}, {"content": [None, 7]}):
        assert verdict({}, ToolResult(result=result)) == "empty", result


def test_structured_content_counts_where_there_is_no_text() -> None:
    assert verdict({}, ToolResult(result={"content": [], "structuredContent": {"n": 3}})) == "effective"
    assert verdict({}, ToolResult(result={"content": [], "structuredContent": {"result": []}})) == "empty"
    refused = {"content": [], "structuredContent": {"error": "no such pet"}}
    assert verdict({}, ToolResult(result=refused)) == "error text"


def test_words_of_errors_are_content_in_a_long_text_but_its_beginning_counts() -> None:
    assert not says_error(LONG * 6)
    assert says_error("Error: " + LONG * 6)
    verdicts: set[Verdict] = {verdict({}, text(f"{start} {LONG * 6}")) for start in ("Failed:", "Notes:")}
    assert verdicts == {"error text", "effective"}
