import json
from pathlib import Path

import pytest

from firefly_proxy.server_config import (
    ConfigError,
    HttpServer,
    StdioServer,
    default_group,
    from_command,
    from_file,
    from_url,
    secrets_of,
)

FILE = {
    "mcpServers": {
        "git": {
            "command": "${HOME}/bin/git-server",
            "args": ["--repo", "${REPO:-/tmp/repo}", "$PLAIN", "${lower_case}"],
            "env": {"API_TOKEN": "${TOKEN}", "EMPTY": "${NOTHING:-}"},
            "cwd": "/tmp",
        },
        "web": {"type": "http", "url": "https://h/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
    }
}
ENVIRON = {"HOME": "/home/ada", "TOKEN": "tok-12345678", "lower_case": "x", "REPO": ""}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps(FILE))
    return path


def test_variables_are_expanded_and_the_unexpanded_text_is_kept(path: Path) -> None:
    server = from_file(path, "git", ENVIRON)
    assert server == StdioServer(
        name="git",
        command=("/home/ada/bin/git-server", "--repo", "/tmp/repo", "$PLAIN", "x"),
        env={"API_TOKEN": "tok-12345678", "EMPTY": ""},
        cwd="/tmp",
        config=FILE["mcpServers"]["git"],
    )
    assert from_file(path, "web", ENVIRON, name="w") == HttpServer(
        name="w",
        url="https://h/mcp",
        headers={"Authorization": "Bearer tok-12345678"},
        config=FILE["mcpServers"]["web"],
    )


@pytest.mark.parametrize(
    ("text", "server", "message"),
    [
        (
            '{"mcpServers": {"a": {"command": "${X} ${Y} ${X}"}}}',
            None,
            "server 'a' uses X, Y, which are not set",
        ),
        ('{"mcpServers": {"a": {"command": "${X}"}}}', "a", "server 'a' uses X, which is not set"),
        ('{"mcpServers": {"a": {}, "b": {}}}', None, r"has 2 servers: choose one with --server \(a, b\)"),
        ('{"mcpServers": {"a": {}}}', "b", "has no server 'b'; it has: a"),
        ('{"mcpServers": {"a": {}}}', "a", 'server \'a\' needs a "command" .* or a "url"'),
        ('{"mcpServers": {"a": 3}}', "a", "server 'a' must be an object, got 3"),
        (
            '{"mcpServers": {"a": {"command": "x", "args": "y"}}}',
            "a",
            'args must be a list of strings, got "y"',
        ),
        (
            '{"mcpServers": {"a": {"command": "x", "env": ["P"]}}}',
            "a",
            "must be an object of strings, got list",
        ),
        ('{"mcpServers": {"a": {"command": "x", "env": {"P": ["s"]}}}}', "a", "P must be a string, got list"),
        ('{"mcpServers": {"a": {"url": "http://[::1"}}}', "a", "not a URL: "),
        (
            '{"mcpServers": {"a": {"url": "http://h/", "headers": {"X": "é"}}}}',
            "a",
            "'X' must be ASCII",
        ),
        ('{"mcpServers": {}}', None, "has 0 servers: add one"),
        ('{"mcpServers": {"a": {"url": "ftp://x"}}}', "a", "must start with http:// or https://"),
        ('{"servers": {}}', None, 'has no "mcpServers" object'),
        ('{"mcpServers": {"a": {"command": "x",}}}', "a", r"mcp.json:1:\d+: not JSON: "),
    ],
)
def test_a_bad_file_gets_one_line_that_says_what_is_wrong(
    tmp_path: Path, text: str, server: str | None, message: str
) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        from_file(path, server, {})
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none.json: No such file"):
        from_file(tmp_path / "none.json", None, {})


def test_a_server_is_named_after_its_command_or_host() -> None:
    assert from_command(["/usr/bin/npx", "-y", "pkg"]).name == "npx"
    assert from_url("http://localhost:3000/mcp").name == "localhost"
    assert from_url("http://h/", ["A: b:c", "D:"], "n").headers == {"A": "b:c", "D": ""}
    with pytest.raises(ConfigError, match="--header must look like 'Name: value', got 'nonsense'"):
        from_url("http://h/", ["nonsense"])


def test_secrets_come_from_environment_headers_arguments_and_url(path: Path) -> None:
    assert secrets_of(from_file(path, "web", ENVIRON), {}) == {"Bearer tok-12345678", "tok-12345678"}
    assert secrets_of(from_command(["x", "--api-key", "abcdefgh1"]), {"MY_SECRET": "inherited"}) == {
        "abcdefgh1",
        "inherited",
    }
    assert secrets_of(from_url("https://u:longpassword@h/?token=12345678"), {}) == {
        "longpassword",
        "12345678",
    }


def test_the_default_group_outlives_a_change_of_token() -> None:
    def group(token: str, repo: str = "r") -> str:
        server = from_command(["x", "--token", token, "--repo", repo])
        return default_group(server, secrets_of(server, {}))

    assert group("abcdefgh1") == group("abcdefgh2")
    assert group("abcdefgh1") != group("abcdefgh1", repo="other")
