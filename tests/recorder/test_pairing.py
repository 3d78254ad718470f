from recorder.pairing import Pairer, Pending


def pending(request_id: object, frame_id: int, direction: str = "to_server") -> Pending:
    return Pending(request_id, frame_id, direction, "tools/call", None, 0.0)  # type: ignore[arg-type]


def test_ids_are_equal_only_as_json() -> None:
    pairer = Pairer()
    ids = [7, "7", 7.5, True, "true", 1, [1], "[1]"]
    for frame_id, request_id in enumerate(ids):
        pairer.open(pending(request_id, frame_id))
    for frame_id, request_id in reversed(list(enumerate(ids))):
        answered = pairer.close("to_client", request_id)
        assert answered is not None
        assert answered.frame_id == frame_id
    assert list(pairer) == []
    pairer.open(pending(7, 1))
    assert pairer.close("to_client", 7.0) is not None, "the same number in JSON"


def test_a_reply_is_not_given_to_a_request_of_that_id_that_was_cancelled() -> None:
    pairer = Pairer()
    pairer.open(pending(1, 10))
    pairer.cancel("to_server", 1)
    pairer.open(pending(1, 20))
    second = pairer.close("to_client", 1)
    assert second is not None
    assert second.frame_id == 20
    assert [left.frame_id for left in pairer] == [10]


def test_each_direction_has_ids_of_its_own() -> None:
    pairer = Pairer()
    pairer.open(pending(1, 10))
    pairer.open(pending(1, 20, "to_client"))
    server_reply = pairer.close("to_client", 1)
    client_reply = pairer.close("to_server", 1)
    assert server_reply is not None
    assert client_reply is not None
    assert (server_reply.frame_id, client_reply.frame_id) == (10, 20)


def test_an_id_in_use_twice_is_answered_in_order() -> None:
    pairer = Pairer()
    pairer.open(pending("a", 1))
    pairer.open(pending("a", 2))
    assert [
        reply.frame_id for reply in (pairer.close("to_client", "a"), pairer.close("to_client", "a")) if reply
    ] == [
        1,
        2,
    ]


def test_null_and_unknown_ids_pair_with_nothing() -> None:
    pairer = Pairer()
    pairer.open(pending(None, 1))
    assert pairer.close("to_client", None) is None
    assert [left.frame_id for left in pairer] == [1], "it stays open, and is no one's to wait for"
    assert not any(left.answerable for left in pairer)
    assert pairer.close("to_client", 9) is None


def test_a_cancelled_request_can_still_be_answered_but_is_not_owed() -> None:
    pairer = Pairer()
    pairer.open(pending(1, 1))
    pairer.cancel("to_server", 1)
    assert [open_request.answerable for open_request in pairer] == [False]
    assert pairer.close("to_client", 1) is not None
