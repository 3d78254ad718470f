"""A sandboxed server works as it would outside, and changes nothing there."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from firefly_proxy import sandbox
from firefly_proxy.live import LiveServer
from firefly_proxy.sandbox import SandboxError, sandboxed, unavailable, work_paths
from firefly_proxy.server_config import StdioServer
from tests.promise.conversation import ROOT

REASON = unavailable()
needs_sandbox = pytest.mark.skipif(REASON is not None, reason=str(REASON))
LEDGER = ROOT / "tests" / "servers" / "ledger.py"


def stdio(
    *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, name: str = "server"
) -> StdioServer:
    return StdioServer(name, tuple(map(str, command)), env or {}, None if cwd is None else str(cwd), {})


def run(server: StdioServer, stdin: str = "") -> str:
    """Run a server's command to its end; return its output, or fail with what it said."""
    ended = subprocess.run(
        server.command,
        env={**os.environ, **server.env},
        cwd=server.cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that is not below /tmp, and so is seen as any folder of this machine."""
    with tempfile.TemporaryDirectory(prefix=".firefly-test-", dir=ROOT) as folder:
        yield Path(folder)


@pytest.fixture
def scratch(elsewhere: Path) -> Path:
    return new_scratch(elsewhere, "scratch")


def new_scratch(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


@pytest.fixture
def work(elsewhere: Path) -> Path:
    folder = elsewhere / "work"
    folder.mkdir()
    (folder / "a.txt").write_text("as it was")
    return folder


@pytest.fixture
def home(elsewhere: Path) -> Path:
    folder = elsewhere / "home"
    (folder / "sub").mkdir(parents=True)
    (folder / ".settings").write_text("as they were")
    (folder / "sub" / "file").write_text("as it was")
    return folder


@pytest.fixture(params=["with an overlay", "without overlays"])
def overlays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the home folder can be overlaid, which depends on kernel and file system."""
    if request.param == "without overlays":
        monkeypatch.setattr(sandbox._Overlay, "of", lambda lower, private: None)
        return False
    return True


# What a server works on


def test_a_folder_stands_for_itself_and_a_file_for_its_folder(work: Path) -> None:
    for value in (work, work / "a.txt", work / "to-be-made.db"):
        assert work_paths(stdio("server", value)) == [work]
    assert work_paths(stdio("server", env={"MEMORY_FILE_PATH": str(work / "memory.json")})) == [work]
    assert work_paths(stdio("server", cwd=work)) == [work]


@pytest.mark.parametrize(
    "value",
    [
        "--root={}",
        "{}:{}/a.txt",
        "sqlite:///{}/a.db",
        "file://{}/a.txt?mode=rw",
        '{{"folders": ["{}"]}}',
        "cd '{}' && exec server",
    ],
)
def test_a_path_is_found_in_what_it_stands_in(value: str, work: Path) -> None:
    assert work_paths(stdio("server", value.format(work, work))) == [work]


def test_a_relative_path_starts_where_the_server_does(work: Path) -> None:
    (work / "sub").mkdir()
    assert work_paths(stdio("server", "sub", cwd=work)) == [work]
    assert work_paths(stdio("server", "./a.txt", cwd=work / "sub")) == [work / "sub"]


def test_folders_collapse_into_the_outermost(elsewhere: Path, work: Path) -> None:
    (work / "sub").mkdir()
    (elsewhere / "work-too").mkdir()
    server = stdio("server", work / "sub", work / "a.txt", elsewhere / "work-too")
    assert work_paths(server) == [work, elsewhere / "work-too"]


def test_programs_and_the_system_are_no_work(elsewhere: Path, home: Path) -> None:
    script = elsewhere / "server"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    (elsewhere / "index.js").touch()
    env = {"PATH": "/usr/bin:/usr/local/bin", "HOME": str(home), "PYTHONPATH": str(elsewhere)}
    for command in (
        ("node", script),
        ("node", elsewhere / "index.js", "--config", "/etc/hosts"),
        ("uvx", "mcp-server-time", "--url", f"https://example.com{elsewhere}"),
        (sys.executable, "-m", "mcp_server_time", "/usr/share", "/", "/usr"),
    ):
        assert work_paths(stdio(*command, env=env)) == []


def test_a_file_in_a_folder_that_many_share_stands_for_itself(home: Path) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        server = stdio("server", home / ".settings", file.name, env={"HOME": str(home)})
        assert work_paths(server) == sorted([home / ".settings", Path(file.name)])
    assert work_paths(stdio("server", home / "new.db", env={"HOME": str(home)})) == []


def test_a_folder_that_many_share_is_work_only_as_an_argument_of_its_own(home: Path) -> None:
    env = {"HOME": str(home), "LOG_DIR": "/tmp"}
    assert work_paths(stdio("/bin/sh", "-c", "cd ~ && exec server --log-dir /tmp", env=env, cwd=home)) == []
    shared = Path("/tmp").resolve()
    both = [home] if home.is_relative_to(shared) else sorted([home, shared])
    assert work_paths(stdio("server", home, "/tmp", env=env)) == both


# The copies


@needs_sandbox
def test_a_work_folder_is_a_copy_at_the_same_path(work: Path, scratch: Path) -> None:
    script = "pwd; echo changed > a.txt; echo new > b.txt; cat $0/a.txt; mkdir d; mv d e; ls"
    server = sandboxed(stdio("/bin/sh", "-c", script, work, cwd=work), scratch)
    assert run(server) == f"{work}\nchanged\na.txt\nb.txt\ne\n"
    assert contents(work) == {"a.txt": "as it was"}
    assert run(sandboxed(stdio("/bin/cat", work / "b.txt", cwd=work), scratch)) == "new\n", "the same session"


@needs_sandbox
def test_each_session_starts_from_the_same_state(work: Path, elsewhere: Path) -> None:
    add = stdio(
        "/bin/sh",
        "-c",
        "echo $0 >> a.txt; cat a.txt; cd /tmp; ls -d mark-* 2>/dev/null; touch mark-$0; ls -d mark-*",
        "x",
        cwd=work,
    )
    first, second = (sandboxed(add, new_scratch(elsewhere, name)) for name in ("first", "second"))
    assert run(first) == "as it wasx\nmark-x\n"
    assert run(second) == "as it wasx\nmark-x\n"
    assert run(first) == "as it wasx\nx\nmark-x\nmark-x\n"


@needs_sandbox
def test_links_and_permissions_are_kept_and_sockets_left_out(work: Path, scratch: Path) -> None:
    (work / "link").symlink_to("a.txt")
    (work / "dangling").symlink_to("/nowhere")
    (work / "a.txt").chmod(0o640)
    os.mkfifo(work / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(work / "socket"))
        server = sandboxed(stdio("/bin/ls", "-l", cwd=work), scratch)
        lines = [line.split() for line in run(server).splitlines()[1:]]
    assert [(line[0], " ".join(line[8:])) for line in lines] == [
        ("-rw-r-----", "a.txt"),
        ("lrwxrwxrwx", "dangling -> /nowhere"),
        ("lrwxrwxrwx", "link -> a.txt"),
    ]


@needs_sandbox
def test_a_work_folder_behind_a_link_is_copied(work: Path, elsewhere: Path, scratch: Path) -> None:
    link = elsewhere / "link"
    link.symlink_to(work)
    run(sandboxed(stdio("/bin/sh", "-c", "echo changed > $0/a.txt", link), scratch))
    assert contents(work) == {"a.txt": "as it was"}


@needs_sandbox
def test_a_lone_file_and_its_journal_are_copied(scratch: Path) -> None:
    with tempfile.NamedTemporaryFile("w", dir="/tmp", suffix=".db") as file:
        Path(f"{file.name}-wal").write_text("journal")
        try:
            script = "cat $0-wal; echo x > $0.new; mv $0.new $0; cat $0"
            assert run(sandboxed(stdio("/bin/sh", "-c", script, file.name), scratch)) == "journalx\n"
            assert Path(file.name).read_text() == ""
        finally:
            Path(f"{file.name}-wal").unlink()


def test_what_cannot_be_copied_is_refused(
    work: Path, elsewhere: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    monkeypatch.setattr(sandbox._Overlay, "of", lambda lower, private: None)
    with pytest.raises(SandboxError, match=re.escape(f"{work} holds 9 bytes")):
        sandboxed(stdio("/bin/true", cwd=work), scratch, max_bytes=8)
    with pytest.raises(SandboxError, match="must lie outside its work folder"):
        sandboxed(stdio("/bin/true", elsewhere), scratch)
    with pytest.raises(SandboxError, match="does not exist"):
        sandboxed(stdio("/bin/true"), scratch, [elsewhere / "nothing"])


# Everything else


@needs_sandbox
def test_nothing_outside_changes(
    work: Path, home: Path, elsewhere: Path, scratch: Path, overlays: bool
) -> None:
    canary = elsewhere / "canary"
    canary.mkdir()
    (canary / "bird").write_text("alive")
    script = f"""
        touch /firefly-test /usr/firefly-test /var/firefly-test {canary}/new
        echo dead > {canary}/bird
        rm {canary}/bird
        rm {home}/sub/file
        echo x > {home}/.settings
        echo y > {home}/new
        touch /var/tmp/firefly-test /tmp/firefly-test /run/firefly-test /dev/shm/firefly-test
        mount -o remount,rw,bind / && touch /firefly-test
        unshare -Urm sh -c 'mount -o remount,rw,bind / && touch /firefly-test'
        cat {home}/.settings {home}/new {canary}/bird
    """
    before = contents(home)
    server = stdio("/bin/sh", "-c", script, env={"HOME": str(home)})
    assert run(sandboxed(server, scratch, [work])) == "x\ny\nalive"
    assert contents(canary) == {"bird": "alive"}
    assert contents(home) == before
    for folder in ("/", "/usr", "/var", "/var/tmp", "/tmp", "/run", "/dev/shm"):
        assert not Path(folder, "firefly-test").exists()


@needs_sandbox
def test_temporary_folders_are_private(scratch: Path) -> None:
    with tempfile.NamedTemporaryFile(prefix="firefly-mark-", dir="/tmp"):
        script = "cd /tmp; echo hi > a; cat a; ls -A | grep -c firefly-mark-"
        assert run(sandboxed(stdio("/bin/sh", "-c", f"{script}; true"), scratch)) == "hi\n0\n"
    assert not Path("/tmp/a").exists()


@needs_sandbox
def test_there_is_only_a_loopback_network(scratch: Path) -> None:
    script = """
import errno, socket
listener = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listener.getsockname(), 5).close()
for address in ("192.0.2.1", "1.1.1.1"):
    try:
        socket.create_connection((address, 80), 5)
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
    with socket.create_server(("127.0.0.1", 0)) as outside:
        reach = f"print(socket.socket().connect_ex(('127.0.0.1', {outside.getsockname()[1]})))"
        output = run(sandboxed(stdio(sys.executable, "-c", script + reach), scratch))
    assert output.split() == ["ENETUNREACH", "ENETUNREACH", "111"]


@needs_sandbox
def test_no_socket_of_this_machine_can_be_reached(
    home: Path, elsewhere: Path, scratch: Path, overlays: bool
) -> None:
    paths = [home / "a", home / "sub" / "b", elsewhere / "c", Path(tempfile.mkdtemp(dir="/tmp")) / "d"]
    listeners = []
    here = Path.cwd()
    for path in paths:
        listener = socket.socket(socket.AF_UNIX)
        os.chdir(path.parent)  # since a socket's path must be short, and the kernel lists it as it was given
        try:
            listener.bind(str(path))
        finally:
            os.chdir(here)
        listener.listen()
        listeners.append(listener)
    script = """
import socket, sys
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print(path)
    except OSError:
        pass
"""
    command = (sys.executable, "-c", script, *map(str, paths))
    assert len(subprocess.run(command, capture_output=True, check=True).stdout.split()) == len(paths)
    server = stdio(*command, env={"HOME": str(home)})
    try:
        assert run(sandboxed(server, scratch, [])) == ""
    finally:
        shutil.rmtree(paths[-1].parent)
        for listener in listeners:
            listener.close()


@needs_sandbox
def test_a_program_below_tmp_starts(scratch: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        bin_folder = Path(folder, "node_modules", ".bin")
        bin_folder.mkdir(parents=True)
        program = Path(folder, "node_modules", "program.sh")
        program.write_text("#!/bin/sh\necho started $0\n: > $0\n")
        program.chmod(0o755)
        (bin_folder / "server").symlink_to("../program.sh")
        server = stdio(bin_folder / "server")
        by_path = stdio("server", env={"PATH": f"{bin_folder}:{os.environ['PATH']}"})
        for one in (server, by_path, stdio("/bin/sh", program)):
            ended = subprocess.run(
                sandboxed(one, scratch).command,
                env={**os.environ, **one.env},
                capture_output=True,
                text=True,
                check=False,
            )
            assert ended.stdout.startswith("started "), ended.stderr
            assert "Read-only file system" in ended.stderr
        assert program.read_text().startswith("#!/bin/sh")


@needs_sandbox
def test_environment_and_exit_code_pass(work: Path, scratch: Path) -> None:
    server = sandboxed(
        stdio("/bin/sh", "-c", "cat; echo $KEY; exit 3", cwd=work, env={"KEY": "a b"}), scratch
    )
    ended = subprocess.run(
        server.command, env={**os.environ, **server.env}, input=b"in ", capture_output=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (3, b"in a b\n")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the reason is the system")
def test_why_there_is_no_sandbox_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not installed" in str(unavailable())
    (tmp_path / "bwrap").write_text(
        "#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n"
    )
    (tmp_path / "bwrap").chmod(0o755)
    assert unavailable() == "bwrap does not work here: bwrap: setting up uid map: Permission denied"


# Real servers, through our own recorder


def text_of(reply: Mapping[str, Any]) -> str:
    return str(reply["result"]["content"][0]["text"])


@needs_sandbox
def test_a_filesystem_server_changes_only_its_copy(
    filesystem_server: list[str], work: Path, scratch: Path
) -> None:
    server = sandboxed(stdio(*filesystem_server, work), scratch)
    path = str(work / "a.txt")
    with LiveServer("files", server.command) as live:
        write = {"name": "write_file", "arguments": {"path": path, "content": "changed"}}
        assert text_of(live.ask("tools/call", write)) == f"Successfully wrote to {path}"
        read = {"name": "read_text_file", "arguments": {"path": path}}
        assert text_of(live.ask("tools/call", read)) == "changed"
    assert contents(work) == {"a.txt": "as it was"}


@needs_sandbox
def test_a_sandboxed_server_ends_with_its_client(scratch: Path) -> None:
    """Those that ignore their client's end and SIGTERM included, and what they started."""
    script = (
        "import signal, subprocess, runpy, sys;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "subprocess.Popen(['sleep', '4711.25']);"  # returns once it runs
        f"runpy.run_path({str(LEDGER)!r}, run_name='__main__');"
        "import time; time.sleep(4711)"
    )
    server = sandboxed(stdio(sys.executable, "-c", script), scratch)
    with LiveServer("ledger", server.command) as live:
        assert "result" in live.ask("tools/list")
        assert running("4711.25")
    assert not running("4711.25")


@needs_sandbox
def test_a_sandboxed_server_dies_with_whoever_started_it(scratch: Path) -> None:
    script = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    mark = f"{scratch}/mark"
    server = sandboxed(stdio("/bin/sh", "-c", "echo ready; sleep 4712; true", mark), scratch, [])
    command = [sys.executable, "-c", script, *server.command]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        ready = parent.stdout.readline()
        seen = running(mark)
        parent.kill()
        parent.stdout.read()  # until nobody is left who could write
    assert (ready, seen) == (b"ready\n", True)
    deadline = time.monotonic() + 5
    while running(mark) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not running(mark)


def running(argument: str) -> bool:
    """Whether a process has such an argument of its own."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if argument.encode() in arguments:
            return True
    return False
