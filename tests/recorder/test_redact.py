import base64
import json

import pytest

from recorder.errors import FireflyError
from recorder.redact import Redactor, map_text, named_in_arguments, named_in_url, secret_values

KEY = b"k" * 32
ODD = 'pa"ss\\w/ö\n€𝄞rd'


def escaped_fully(text: str) -> str:
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02X}{units[at + 1]:02x}" for at in range(0, len(units), 2))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"a": ODD}),
        json.dumps({"a": ODD}, ensure_ascii=False),
        json.dumps({"a": json.dumps({"b": ODD})}),
        json.dumps({"a": json.dumps({"b": json.dumps([ODD], ensure_ascii=False)})}),
        json.dumps({"a": ODD}).replace("/", "\\/"),
        f'{{"a":"x{escaped_fully(ODD)}y"}}',
        json.dumps({ODD: 1}),
    ],
    ids=["escaped", "raw", "nested", "twice nested", "slashes", "all escaped", "key"],
)
def test_a_secret_is_found_in_every_spelling(text: str) -> None:
    redactor = Redactor(KEY, [ODD])
    redacted = redactor.redact(text)
    assert redactor.placeholder(ODD) in redacted
    assert "ss" not in redacted.replace("redacted", "")
    json.loads(redacted)


def test_a_secret_of_digits_leaves_json_behind() -> None:
    redactor = Redactor(KEY, ["12345678"])
    assert json.loads(redactor.redact('{"pin": 12345678, "text": "is 12345678."}')) == {
        "pin": redactor.placeholder("12345678"),
        "text": f"is {redactor.placeholder('12345678')}.",
    }


def test_text_without_secrets_is_the_same_object() -> None:
    text = '{"a": "task-12 sk-learn eyJ http://localhost:8080/@scope \\u00e9"}'
    assert Redactor(KEY, ["hunter2hunter2"]).redact(text) is text


JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().strip("=")
    for part in (b'{"alg":"HS256"}', b'{"sub":"12"}', b"x" * 32)
)


@pytest.mark.parametrize(
    "token",
    [
        "ghp_" + "a1B2" * 9,
        "github_pat_11ABCDEFG0" + "x" * 30,
        "sk-proj-abc123DEF456ghi789",
        "sk-ant-api03-" + "Ab1_" * 8,
        "sk-abcdefghijklmnopqrstuvwx",
        "AKIAIOSFODNN7EXAMPLE",
        "xoxb-123456789012-abcdefABCDEF",
        "hf_" + "aB" * 17,
        JWT,
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "it is {}, yes", "line\\n{}\\tend", "\\u000a{}", '\\"{}\\"', "a={}&b"]
)
def test_token_shapes_are_redacted_wherever_they_stand(token: str, around: str) -> None:
    redactor = Redactor(KEY)
    text = f'{{"a":"{around.replace("{}", token)}"}}'
    redacted = redactor.redact(text)
    assert token not in redacted
    assert redacted == text.replace(token, redactor.placeholder(token))
    assert redactor.redact(redacted) is redacted


def test_only_the_credential_of_a_header_or_url_is_replaced() -> None:
    redactor = Redactor(KEY)
    assert redactor.redact("Authorization: Bearer abcdef.123456/x") == (
        f"Authorization: Bearer {redactor.placeholder('abcdef.123456/x')}"
    )
    assert redactor.redact("postgres://me:s3cretpw@db:5432/x") == (
        f"postgres://me:{redactor.placeholder('s3cretpw')}@db:5432/x"
    )


def test_a_secret_can_be_found_by_its_digest_alone() -> None:
    told = Redactor(KEY, ["hunter2hunter2", "longer-secret-value"])
    value = {"a": ["x hunter2hunter2 y", "longer-secret-valuehunter2hunter2"], "hunter2hunter2": 1}
    known = list(told.known())
    untold = Redactor(KEY)
    assert map_text(value, lambda text: untold.redact_unknown(text, known)) == json.loads(
        told.redact(json.dumps(value))
    )


def test_names_give_secrets_away() -> None:
    named = [
        ("GITHUB_TOKEN", "tok-12345678"),
        ("Authorization", "Basic dXNlcjpwYXNzd29yZA=="),
        ("x-api-key", "key-12345678"),
        ("DB_PASSWORD", "short"),
        ("PORT", "30003000"),
        ("GIT_AUTHOR_NAME", "Ada Lovelace"),
        ("HOME", "/home/ada/x"),
        ("PIN", "1234"),
    ]
    assert secret_values(named, ["pin"]) == {
        "tok-12345678",
        "Basic dXNlcjpwYXNzd29yZA==",
        "dXNlcjpwYXNzd29yZA==",
        "key-12345678",
        "1234",
    }


def test_a_redacted_name_must_be_set_and_long_enough() -> None:
    with pytest.raises(
        FireflyError, match="--redact NOPE: no environment variable or header of that name is set"
    ):
        secret_values([("PIN", "1234")], ["NOPE"])
    with pytest.raises(FireflyError, match="--redact PIN: its value has 3 characters, at least 4 are needed"):
        secret_values([("PIN", "123")], ["PIN"])


def test_urls_name_values() -> None:
    assert list(named_in_url("https://tok@h/p?api_key=k&q=1#token=t")) == [
        ("api_key", "k"),
        ("q", "1"),
        ("token", "t"),
        ("token", "tok"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--api-key", "{}"],
        ["-token", "{}"],
        ["--token={}"],
        ["-e", "API_KEY={}"],
        ["--env=API_KEY={}"],
        ["--header", "X-API-Key: {}"],
        ["--header", "X-API-Key:{}"],
        ["-H", "Authorization: Basic {}"],
        ["https://h/mcp?x=1&api_key={}"],
        ["https://h/mcp?api_key={}&x=1"],
        ["--dsn", "postgres://u:{}@h/db"],
        ["--config", '{"apiKey":"{}"}'],
        ["sh", "-c", "API_KEY={} exec server"],
    ],
)
def test_a_secret_on_a_command_line_is_found(arguments: list[str]) -> None:
    secret = "hunter2hunter2xyz"
    assert secret in secret_values(named_in_arguments([text.replace("{}", secret) for text in arguments]))


@pytest.mark.parametrize(
    "text",
    [
        "Bearer authentication is required; bearer certificate; Bearer resource_metadata=",
        "see sk-learn-notes-2024/ and sk-ecosystem-analysis-2024-final, class sk-cube-grid-item-2",
        "ASIAPACIFICREGIONALHQ",
        "http://localhost:8080?email=me@example.com docker://registry:5000,image@sha256:00 https://h:8443#user@x",
        "-----BEGIN RSA PRIVATE KEY----- is how such a file begins",
        "commit 4b825dc642cb6eb9a060e54bf8d69288fbee4904, 123e4567-e89b-12d3-a456-426614174000, a@b.c",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redactor(KEY).redact(json.dumps(text)) == json.dumps(text)


def test_a_name_given_with_redact_protects_as_well_as_one_that_sounds_secret() -> None:
    for also in ([], ["authorization"]):
        assert secret_values([("Authorization", "Basic dXNlcjpwYXNz")], also) == {
            "Basic dXNlcjpwYXNz",
            "dXNlcjpwYXNz",
        }


@pytest.mark.parametrize("spelling", ["a%2Fb%2Bc%2Fd%2Be", "a%2fb%2bc%2fd%2be", "a/b%2Bc/d%2Be"])
def test_a_secret_in_a_url_is_found_however_it_is_quoted(spelling: str) -> None:
    redactor = Redactor(KEY, ["a/b+c/d+e"])
    assert (
        redactor.redact(f'"https://h/?k={spelling}"') == f'"https://h/?k={redactor.placeholder("a/b+c/d+e")}"'
    )


def test_the_password_of_a_url_is_replaced_and_not_its_user() -> None:
    redactor = Redactor(KEY)
    assert redactor.redact("postgres://a:a@alpha") == f"postgres://a:{redactor.placeholder('a')}@alpha"
