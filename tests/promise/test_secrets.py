"""Secrets planted everywhere are in no written byte, and replay still answers the calls that carry them."""

import json
import os
import random
import string
import subprocess
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.promise.conversation import (
    FICKLE,
    FIREFLY,
    INITIALIZE,
    ROOT,
    WAIT_S,
    Conversation,
    record,
    replay,
    result_of,
)
from tests.promise.leaks import leaked, modes
from tests.promise.recording import all_values, files_of, query
from tests.servers.fickle import spellings

LETTERS = string.ascii_letters + string.digits
PLAIN = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
"""An environment without anything secret."""


def made_up(length: int, seed: object, letters: str = LETTERS) -> str:
    return "".join(random.Random(str(seed)).choices(letters, k=length))


NAMED = {
    "MY_API_KEY": f'{made_up(9, 1)}"\\/{made_up(9, 2)}',
    "GITHUB_TOKEN": f"tök☃n/{made_up(12, 3)}𝄞{made_up(9, 4)}",
    "DB_PASSWORD": f'"{made_up(12, 5)}\t{made_up(12, 6)}\\',
    "X_AUTH": made_up(24, 7),
    "CLIENT_SECRET": f"\\{made_up(12, 8)}\\n'{made_up(12, 9)} = <1 + 1>",
    "SHORT_KEY": made_up(8, 10),
}
"""Values that are secret by the name of their variable; full of what JSON escapes."""

HARMLESS = {
    "PORT": "3000",
    "DEBUG": "1",
    "DATA_FOLDER": "/srv/data/some things",
    "GIT_AUTHOR_NAME": "Ada Lovelace-Byron",
    "FAVOURITE_COLOUR": "a rather dark green",
}

BASE64URL = LETTERS + "-_"
TOKENS = {
    # Put together here, so that no scanner takes this file for a leak.
    "classic GitHub": "ghp_" + made_up(36, 11),
    "OAuth GitHub": "gho_" + made_up(36, 12),
    "fine-grained GitHub": "github_pat_" + made_up(22, 13) + "_" + made_up(59, 14),
    "OpenAI": "sk-" + made_up(48, 15),
    "OpenAI project": "sk-proj-" + made_up(20, 16) + "-" + made_up(40, 17) + "_" + made_up(20, 18),
    "Anthropic": "sk-ant-" + "api03-" + made_up(60, 19, BASE64URL) + "AA",
    "AWS": "AKIA" + made_up(16, 20, string.ascii_uppercase + string.digits),
    "JWT": f"eyJ{made_up(30, 21)}.eyJ{made_up(60, 22)}.{made_up(43, 23, BASE64URL)}",
    "Slack": "xoxb-" + made_up(11, 24, string.digits) + "-" + made_up(24, 25),
}
CARRIED_TOKENS = {
    "Bearer": ("Bearer {}", made_up(20, 26) + "+/" + made_up(20, 29) + "=="),
    "URL credentials": ("postgres://reader:{}@db.example:5432/prod", made_up(18, 27)),
    "lower-case bearer": ("authorization: bearer {}", made_up(40, 28)),
}
"""Secrets by what is around them."""

RARE = {name for name in spellings("") if name.lower().endswith("codes")}
USUAL = spellings("").keys() - RARE
"""Spellings that JSON encoders really choose, and those that only a person with time would."""


@pytest.fixture(params=["ends", "killed"])
def ending(request: pytest.FixtureRequest) -> str:
    return request.param


def test_values_of_secret_variables_are_in_no_written_byte(ending: str, db: Path) -> None:
    argv = [*FICKLE, NAMED["X_AUTH"], f"--password={NAMED['DB_PASSWORD']}"]
    client_info = {"clientInfo": {"name": NAMED["GITHUB_TOKEN"], "version": NAMED["MY_API_KEY"]}}
    recorder = [*FIREFLY, "record", "--db", str(db), "--", *argv]
    careless = ["sh", "-c", 'umask 0; exec "$@"', "sh"]
    with Conversation([*careless, *recorder], environment=PLAIN | NAMED) as client:
        client.initialize(INITIALIZE | client_info)
        for name, value in NAMED.items():
            assert "unset" not in str(client.call("reveal", variable=name))
            assert "error" in client.call("fail", variable=name)
            assert "result" in client.ask(
                "resources/read", {"uri": f"demo://{value}/{quote(value, safe='')}"}
            )
            client.send({"jsonrpc": "2.0", "method": "notifications/x", "params": {value: [value]}})
            carry(client, value)
        assert len(files_of(db)) == 3, "beside the recording there is what SQLite keeps while it is open"
        assert_kept_secret(db, NAMED)
        if ending == "killed":
            client.process.kill()
    assert_kept_secret(db, NAMED)
    assert_stored_json_is_valid(db)
    assert query(db, "SELECT count(*) FROM frame WHERE kind = 'noise'")[0][0] > 15 * len(NAMED)


def test_a_crash_that_tells_its_secrets_leaves_none_behind(db: Path) -> None:
    with record(db, [*FICKLE, *NAMED.values()], environment=PLAIN | NAMED) as client:
        client.initialize()
        client.start_call("crash", code=4, stderr=[f"bad key {value}" for value in NAMED.values()])
        assert client.wait() == 4
    assert_kept_secret(db, NAMED)


def test_a_refused_start_that_names_its_secrets_leaves_none_behind(db: Path) -> None:
    command = ["sh", "-c", 'printf "%s " "$@" >&2; exit 3', "sh", *NAMED.values()]
    with record(db, command, environment=PLAIN | NAMED) as client:
        assert "error" in client.ask("initialize", INITIALIZE)
    assert_kept_secret(db, NAMED)


@pytest.fixture(params=["usual spelling", "rare spelling"])
def chosen(request: pytest.FixtureRequest) -> Set[str]:
    """Names of spellings."""
    return USUAL if request.param.startswith("usual") else RARE


@pytest.mark.parametrize("name", TOKENS)
def test_well_known_tokens_are_in_no_written_byte(name: str, chosen: Set[str], db: Path) -> None:
    token = TOKENS[name]
    with record(db, FICKLE, environment=PLAIN) as client:
        client.initialize(INITIALIZE | {"clientInfo": {"name": f"using {token}", "version": "1"}})
        carry(client, token, chosen)
        carry(client, f"first line\n{token}\nlast line", chosen)
        client.call("noise", lines=[text for name, text in spellings(token).items() if name in chosen])
        if chosen is USUAL:
            client.call(
                "noise", lines=[f"using {token}", token, f'{{"token":"{token}"}}', f"--token={token}"]
            )
            client.ask("resources/read", {"uri": f"https://api.example/things?with={token}&page=2"})
    assert_kept_secret(db, {name: token})
    assert_stored_json_is_valid(db)


@pytest.mark.parametrize("name", CARRIED_TOKENS)
def test_secrets_that_stand_out_by_what_is_around_them_are_in_no_written_byte(
    name: str, chosen: Set[str], db: Path
) -> None:
    pattern, secret = CARRIED_TOKENS[name]
    carrier = pattern.format(secret)
    with record(db, FICKLE, environment=PLAIN) as client:
        client.initialize()
        carry(client, f"try {carrier} now", chosen)
        client.call("noise", lines=[text for name, text in spellings(carrier).items() if name in chosen])
        if chosen is USUAL:
            client.call("noise", lines=[f"connecting: {carrier}"])
            client.ask("resources/read", {"uri": carrier})
    assert_kept_secret(db, {name: secret})
    assert_stored_json_is_valid(db)


def test_a_secret_of_several_lines_is_kept_out_of_noise_too(db: Path) -> None:
    lines = [made_up(40, f"line {number}") for number in range(5)]
    with record(db, FICKLE, environment=PLAIN | {"SIGNING_KEY": "\n".join(lines)}) as client:
        client.initialize()
        client.call("reveal", variable="SIGNING_KEY")
    assert_kept_secret(db, {line: line for line in lines})


def test_a_secret_number_is_replaced_and_leaves_valid_json(db: Path) -> None:
    secret = made_up(14, "number", "123456789")
    with record(db, FICKLE, environment=PLAIN | {"PIN_SECRET": secret}) as client:
        client.initialize()
        client.call("reveal", value=f'{{"pin": {secret}}}')
        client.call(
            "echo", message="x", pin=int(secret), pins=[int(secret), float(secret)], half=int(secret + "0")
        )
    assert_kept_secret(db, {"PIN_SECRET": secret})
    assert_stored_json_is_valid(db)


@pytest.mark.parametrize("name", NAMED | TOKENS)
def test_replay_without_the_secret_answers_calls_that_carry_it(name: str, chosen: Set[str], db: Path) -> None:
    value = (NAMED | TOKENS)[name]
    with record(db, FICKLE, environment=PLAIN | NAMED) as client:
        client.initialize()
        recorded = carry(client, value, chosen)
    with replay(db, environment=PLAIN) as again:
        again.initialize()
        replayed = carry(again, value, chosen)
        assert [call for call, reply in replayed.items() if result_of(reply).get("isError")] == []
    assert replayed.keys() == recorded.keys()
    assert value not in b"".join(again.lines).decode()


def test_replay_without_the_secrets_keeps_their_calls_apart(db: Path) -> None:
    secrets = NAMED | TOKENS
    with record(db, FICKLE, environment=PLAIN | NAMED) as client:
        client.initialize()
        for value in secrets.values():
            client.call("echo", message=f"with {value}")
    with replay(db, environment=PLAIN) as again:
        again.initialize()
        answers = {
            name: result_of(again.call("echo", message=f"with {value}")) for name, value in secrets.items()
        }
        assert [name for name, answer in answers.items() if answer.get("isError")] == []
        assert len({str(answer) for answer in answers.values()}) == len(secrets), (
            "secrets were taken for each other"
        )
        assert result_of(again.call("echo", message=f"with {made_up(24, 'another')}"))["isError"] is True
    assert_kept_secret(db, secrets)


def test_what_is_not_secret_is_left_alone(db: Path) -> None:
    with record(db, FICKLE, environment=PLAIN | HARMLESS) as client:
        client.initialize()
        for value in HARMLESS.values():
            client.call("echo", message=f"It is {value}.")
        client.call("echo", message="A basket, a risk-free task-list for desk-10 and the disk-usage-of-2025.")
    stored = "\n".join(all_values(db))
    assert [name for name, value in HARMLESS.items() if stored.count(f"It is {value}.") < 2] == []
    assert "redacted" not in stored


def test_redact_names_one_more_variable(db: Path) -> None:
    secrets = {"CODEWORD": made_up(20, "codeword")}
    with record(db, FICKLE, "--redact", "CODEWORD", environment=PLAIN | HARMLESS | secrets) as client:
        client.initialize()
        client.call("reveal", variable="CODEWORD")
        client.call("echo", message=HARMLESS["FAVOURITE_COLOUR"])
    assert_kept_secret(db, secrets)
    assert HARMLESS["FAVOURITE_COLOUR"] in "\n".join(all_values(db))


def test_a_config_file_is_stored_unexpanded_and_without_its_secrets(db: Path, tmp_path: Path) -> None:
    secrets = {"literal": made_up(20, 31), "expanded": made_up(20, 32), "default": made_up(20, 33)}
    environment = {
        "MY_API_KEY": secrets["literal"],
        "OTHER_TOKEN": "${HOST_VALUE}",
        "THIRD_SECRET": "${UNSET_VALUE:-" + secrets["default"] + "}",
        "PORT": "3000",
    }
    config = tmp_path / "mcp.json"
    servers = {"fickle": {"command": FICKLE[0], "args": [FICKLE[1], "${HOST_VALUE}"], "env": environment}}
    config.write_text(json.dumps({"mcpServers": servers}))
    recorder = [*FIREFLY, "record", "--db", str(db), "--config", str(config), "--server", "fickle"]
    with Conversation(recorder, environment=PLAIN | {"HOST_VALUE": secrets["expanded"]}) as client:
        client.initialize()
        for name in environment:
            client.call("reveal", variable=name)
        client.call("reveal", position=1)
        revealed = b"".join(client.lines).decode()
        assert [name for name, value in secrets.items() if value not in revealed] == []
    assert_kept_secret(db, secrets)
    ((stored,),) = query(db, "SELECT config FROM server")
    assert "${HOST_VALUE}" in stored
    assert "${UNSET_VALUE:-" in stored
    assert "3000" in stored
    assert_stored_json_is_valid(db)


def test_an_unset_variable_in_a_config_file_is_named(db: Path, tmp_path: Path) -> None:
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"fickle": {"command": "${NOWHERE_SET}"}}}))
    recorder = [*FIREFLY, "record", "--db", str(db), "--config", str(config), "--server", "fickle"]
    refused = subprocess.run(
        recorder, check=False, input="", capture_output=True, text=True, cwd=ROOT, env=PLAIN
    )
    assert refused.returncode != 0
    assert refused.stdout == ""
    assert "NOWHERE_SET" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_headers_and_url_credentials_reach_the_server_and_no_written_byte(db: Path, http_server: str) -> None:
    bearer, key, query_key = made_up(30, 41), f'{made_up(12, 42)}"\\/é', made_up(20, 43)
    secrets = {"bearer": bearer, "key": key.replace("é", "e"), "query": query_key}
    headers = ["--header", f"Authorization: Bearer {bearer}", "--header", f"X-Api-Key: {secrets['key']}"]
    recorder = [*FIREFLY, "record", "--db", str(db), "--url", f"{http_server}?api_key={query_key}", *headers]
    with Conversation(recorder, environment=PLAIN) as client:
        client.initialize()
        for name in ("Authorization", "X-Api-Key"):
            assert "absent" not in str(client.call("reveal", header=name))
            assert "error" in client.call("fail", header=name)
        for value in secrets.values():
            carry(client, value)
        revealed = b"".join(client.lines).decode()
        assert f"Bearer {bearer}" in revealed
        assert_kept_secret(db, secrets)
    assert client.wait() == 0
    assert_kept_secret(db, secrets)
    assert_stored_json_is_valid(db)
    with replay(db, environment=PLAIN) as again:
        again.initialize()
        assert not result_of(again.call("reveal", header="Authorization")).get("isError")
        for value in secrets.values():
            (replayed,) = carry(again, value, {"plain"}).values()
            assert not result_of(replayed).get("isError")


@pytest.fixture
def http_server() -> Iterator[str]:
    """The URL of a fickle server over HTTP."""
    with subprocess.Popen([*FICKLE, "--http"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/mcp"
        server.kill()


def carry(client: Conversation, secret: str, chosen: Set[str] = USUAL | RARE) -> dict[str, dict[str, object]]:
    """Call with the secret in the arguments, in each of the chosen spellings, and return their replies."""
    calls = {
        f"{name} {client.received()}": text for name, text in spellings(secret).items() if name in chosen
    }
    for call, text in calls.items():
        params = f'{{"name":"echo","arguments":{{"message":{text}}}}}'
        client.send(f'{{"jsonrpc":"2.0","id":"{call}","method":"tools/call","params":{params}}}'.encode())
    return {call: client.reply(call, WAIT_S) for call in calls}


def assert_kept_secret(db: Path, secrets: Mapping[str, str]) -> None:
    assert leaked(db, secrets) == []
    assert set(modes(files_of(db)).values()) == {"0o600"}


def assert_stored_json_is_valid(db: Path) -> None:
    for (text,) in query(db, "SELECT text FROM frame WHERE kind NOT IN ('noise', 'unread')"):
        json.loads(text)
    for text in query(db, "SELECT config, info, capabilities, client FROM server JOIN session")[0]:
        json.loads(text)
