import pytest

from recorder.canonical import canonical_json
from recorder.frame import read_line


def kinds(line: bytes) -> list[str]:
    return [frame.kind for frame in read_line(line)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', "request"),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', "request"),
        (b'{"jsonrpc":"2.0","method":"notifications/x"}', "notification"),
        (b'{"jsonrpc":"2.0","id":1,"result":[1]}', "response"),
        (b'{"id":1,"error":{"code":1,"message":"no version member"}}', "response"),
        (b'{"level":"info","message":"a log line"}', "noise"),
        (b"Server ready", "noise"),
        (b"", "noise"),
        (b"[]", "noise"),
        (b"\xff\xfe", "noise"),
        (b'{"jsonrpc":"2.0","id":1,"result":"not UTF-8: \xff"}', "response"),
        (b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 5000 + b"]" * 5000 + b"}", "unread"),
        (b'{"jsonrpc":"2.0","id":1,"result":' + b"9" * 5000 + b"}", "unread"),
        (b"[" * 5000, "noise"),
    ],
)
def test_a_line_is_told_apart(line: bytes, kind: str) -> None:
    assert kinds(line + b"\n") == [kind]


def test_a_batch_is_one_frame_a_message() -> None:
    line = b'[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","method":"b"}]'
    assert [(frame.kind, frame.text) for frame in read_line(line)] == [
        ("request", '{"jsonrpc": "2.0", "id": 1, "method": "a"}'),
        ("notification", '{"jsonrpc": "2.0", "method": "b"}'),
    ]


def test_the_text_is_what_was_sent() -> None:
    line = '{ "id":1.0 , "jsonrpc":"2.0","result":"\\u00e9 é \\/"}'
    assert read_line(line.encode() + b"\r\n")[0].text == line


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 2}, {"a": 2.0}, True),
        ({"a": -0.0}, {"a": 0}, True),
        ({"a": 2**60}, {"a": float(2**60)}, True),
        ({"a": 2**60 + 1}, {"a": float(2**60)}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": None}, {}, False),
        ({"a": "\ud800"}, {"a": "\ud800"}, True),
        ({"a": float("inf")}, {"a": float("inf")}, True),
        ([1, 2], [2, 1], False),
    ],
)
def test_canonical_text_is_equal_for_equal_values(left: object, right: object, equal: bool) -> None:
    assert (canonical_json(left) == canonical_json(right)) is equal
