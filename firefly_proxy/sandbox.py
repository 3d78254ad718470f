"""A stdio server in a sandbox: it sees this machine as it is, and whatever it changes is its own.

bubblewrap (`bwrap`, Linux only) puts the server's view of the file system together:

| what | in the sandbox |
|---|---|
| work folders: where it runs, and what its arguments and environment name | copies, at the same paths |
| the home folder | readable; what is written goes elsewhere |
| /tmp, /var/tmp, /run and their like | empty, but for programs that lie there |
| everything else | read-only |

Processes, network and IPC are its own, too; of the network there is only a loopback interface, so it reaches
no service of this machine either. Sockets are left out wherever they lie, since a read-only mount does not
keep anyone from connecting to one: through them a server would reach a Docker daemon or an SSH agent.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from firefly_proxy.server_config import StdioServer
from recorder.canonical import content_hash
from recorder.errors import FireflyError

MAX_BYTES = 2_000_000_000
"""Size of a work folder that may be copied, for each session of a campaign anew."""

SMALL_FILE_BYTES = 1_000_000
"""Size of a file that is copied where its folder cannot be overlaid: settings, history, lock files."""

PROBE_TIMEOUT_S = 10.0


class SandboxError(FireflyError):
    """A server cannot be sandboxed: it would have to be given a folder that cannot be copied."""


def unavailable() -> str | None:
    """Say in one line why no server can be sandboxed here; `None` if one can. Starts one, to be sure."""
    if sys.platform != "linux":
        return f"bubblewrap needs Linux, and this is {sys.platform}"
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return "bwrap is not installed (the package is called bubblewrap)"
    problem = _problem_of([bwrap, *_isolation(), "--", shutil.which("true") or "/bin/true"])
    return f"bwrap does not work here: {problem}" if problem is not None else None


def work_paths(server: StdioServer) -> list[Path]:
    """Return the existing folders and files that a server may be meant to change, by its configuration.

    These are the folder that it is started in, if one is configured, and what its arguments and environment
    name, alone or in a list, an option or a URL. A file, there or not, stands for its folder, since a
    database keeps its journal beside it; in a folder that many share (`/opt`, `$HOME`, `/tmp`), for itself.
    Such a folder counts only where it is an argument of its own.
    Programs are left out, and what belongs to the system. None lies within another. Naming too much costs
    time, naming too little makes the server's writes fail; so words that happen to name a path count.
    """
    places = _Places.of(server)
    found = []
    if server.cwd is not None and not places.is_shared(cwd := _start_folder(server).resolve()):
        found.append(cwd)
    values = list(server.command[1:])
    values += [value for name, value in server.env.items() if name.upper() not in _PROGRAM_VARIABLES]
    for path in (path.resolve() for value in values for path in _named(value, server, places.home)):
        if path.is_dir():
            found += [] if places.is_shared(path) and str(path) not in server.command else [path]
        elif not _is_program(path) and not places.is_shared(path.parent):
            found.append(path.parent)
        elif path.is_file() and not _is_program(path):
            found.append(path)
    found = [path for path in found if not places.is_whole_system(path) and not _in_any(path, _SYSTEM)]
    return _outermost(found)


def sandboxed(
    server: StdioServer, scratch: Path, work: Sequence[Path] | None = None, *, max_bytes: int = MAX_BYTES
) -> StdioServer:
    """Copy a server's work folders, and return the server whose command runs it on them in a sandbox.

    Its name, environment, folder and configuration stay as they are.

    Args:
        scratch: Where everything goes that is written. It must exist and belong to one session: servers that
            share it share their work folders and `/tmp`, and one that is started again finds its changes.
            It must lie outside all work folders. Only one server of a name may run on it at a time.
        work: Files and folders to copy instead of `work_paths(server)`.
        max_bytes: Size from which on a work folder is refused.

    Raises:
        SandboxError: a work folder is too large, does not exist, or has `scratch` in it.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxError("bwrap is not installed (the package is called bubblewrap)")
    scratch = scratch.resolve()
    places = _Places.of(server)
    originals = work_paths(server) if work is None else _outermost(path.resolve() for path in work)
    for path in originals:
        if scratch.is_relative_to(path):
            raise SandboxError(
                f"the sandbox of {server.name!r} must lie outside its work folder {path}: {scratch}"
            )
    copied = [path for path in originals if path.is_dir()]
    mounts: list[tuple[Path, list[str]]] = []
    closed = [folder for folder in places.closed if not _in_any(folder, copied)]
    mounts += [(folder, _bind(_closed(folder, scratch), folder)) for folder in closed]
    shown = [path for path in _shown_again(server, closed, places.home) if not _in_any(path, copied)]
    mounts += [(path, _bind_read_only(path)) for path in shown]

    private = scratch / "servers" / _name(server.name)
    overlay = None
    opened = set() if places.home is None or _in_any(places.home, copied) else {places.home}
    if places.home in opened and (overlay := _Overlay.of(places.home, private / "home")):
        opened = set()
        mounts.append((overlay.lower, _bind(overlay.merged, overlay.lower)))
        mounts += [(mount, _bind_read_only(mount)) for mount in _mounts_below(overlay.lower)]
    for folder in _socket_folders():
        unseen = _in_any(folder, [*closed, *copied, Path("/dev"), Path("/proc")]) and not _in_any(
            folder, shown
        )
        if not unseen and not (overlay and overlay.covers(folder)):
            opened.add(folder)
    mounts += [(folder, _opened(folder, private / "opened" / _name(folder))) for folder in sorted(opened)]
    mounts += [(path, _copied(path, scratch, closed, overlay, max_bytes)) for path in originals]

    # What lies deeper is mounted over what it lies in.
    mounts.sort(key=lambda mount: len(mount[0].parts))
    options = [*_isolation(), *(option for _, part in mounts for option in part)]
    for name in _OFFLINE:
        if name not in server.env:
            options += ["--setenv", name, "true"]
    command = (bwrap, *options, "--", *server.command)
    return replace(server, command=command if overlay is None else (*overlay.command(), *command))


@dataclass(frozen=True, slots=True)
class _Places:
    """What stands where on this machine, for one server."""

    home: Path | None
    closed: tuple[Path, ...]
    """Folders of passing things, outermost first; a process expects to find one and needs nothing in it."""

    @classmethod
    def of(cls, server: StdioServer) -> _Places:
        environ = {**os.environ, **server.env}
        home = _folder_in(environ, "HOME")
        closed = {Path(path).resolve() for path in ("/tmp", "/var/tmp", "/run") if Path(path).is_dir()}
        closed |= {folder for name in ("TMPDIR", "XDG_RUNTIME_DIR") if (folder := _folder_in(environ, name))}
        return cls(home, tuple(sorted(folder for folder in closed if folder != home)))

    def is_whole_system(self, folder: Path) -> bool:
        """Whether a folder is too much to be anybody's work, even if it is named: it stays read-only."""
        return str(folder) in ("/", "/home", "/run", "/usr", "/var") or (
            self.home is not None and self.home != folder and self.home.is_relative_to(folder)
        )

    def is_shared(self, folder: Path) -> bool:
        """Whether a folder is no one's in particular, so that a file in it does not stand for it."""
        common = ("/mnt", "/media", "/opt", "/root", "/srv", "/usr/local", "/var/lib")
        return (
            self.is_whole_system(folder)
            or folder == self.home
            or folder in self.closed
            or str(folder) in common
        )


def _folder_in(environ: Mapping[str, str], variable: str) -> Path | None:
    """Return the folder that a variable names, unless it is none or the root."""
    path = Path(environ.get(variable) or "/")
    return path.resolve() if path.is_absolute() and path.is_dir() and path.resolve() != Path("/") else None


_SYSTEM = [
    Path(path)
    for path in (
        *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/nix", "/proc", "/sbin", "/snap"),
        *(
            "/sys",
            "/usr/bin",
            "/usr/include",
            "/usr/lib",
            "/usr/lib64",
            "/usr/libexec",
            "/usr/sbin",
            "/usr/share",
        ),
    )
]
"""Folders that belong to the system with all that is below them."""

_PROGRAM_VARIABLES = frozenset(
    [
        *("PATH", "HOME", "TMPDIR", "SHELL", "PWD", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "UV_CACHE_DIR"),
        *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "NODE_PATH", "NODE_OPTIONS", "NVM_DIR"),
        *("NPM_CONFIG_CACHE", "NPM_CONFIG_PREFIX", "LD_LIBRARY_PATH", "LD_PRELOAD", "JAVA_HOME", "CLASSPATH"),
        *("GOPATH", "GOROOT", "CARGO_HOME", "RUSTUP_HOME", "GEM_HOME", "GEM_PATH", "PERL5LIB", "RUBYLIB"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    ]
)
"""Variables that say where programs are and what they need, in upper case."""

_PROGRAM_SUFFIXES = frozenset(
    [
        *(".py", ".pyz", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx"),
        *(".rb", ".php", ".pl", ".sh", ".jar", ".wasm", ".exe"),
    ]
)

_OFFLINE = ("npm_config_offline", "UV_OFFLINE")
"""Tell npx and uvx to start what they have: npx asks its registry first, and gives up after 70 s without."""


def _start_folder(server: StdioServer) -> Path:
    return Path.cwd() / (server.cwd or "")


def _named(value: str, server: StdioServer, home: Path | None) -> Iterator[Path]:
    """Yield the paths that a value may name: existing ones, and files that could be made in a folder.

    A value that is a path as a whole names nothing else; else it is a list, an option, a URL without a host,
    JSON, or a line for a shell.
    """
    start = _start_folder(server)

    def paths(words: Iterable[str]) -> Iterator[Path]:
        for word in words:
            if home is not None and (word == "~" or word.startswith("~/")):
                word = f"{home}{word[1:]}"
            # Two slashes at the beginning, as in sqlite:///a.db, would be kept.
            path = Path(os.path.normpath(start / re.sub("^/+", "/", word)))
            with contextlib.suppress(OSError, ValueError):  # too long for a name, or a NUL
                if word and (path.exists() or ("/" in word and path.parent.is_dir())):
                    yield path

    whole = list(paths([value]))
    if whole and whole[0].exists():
        yield from whole
        return
    remote = re.compile(r"[A-Za-z][\w+.-]*://[^/\s]\S*")
    yield from paths(re.split(r"[\s=:,;?\"'()\[\]{}]+", remote.sub(" ", value)))


def _is_program(path: Path) -> bool:
    """Whether a file is what somebody runs: by its name, or because the kernel would."""
    if not path.is_file():
        return False
    if path.suffix.lower() in _PROGRAM_SUFFIXES:
        return True
    if not os.access(path, os.X_OK) or not os.access(path, os.R_OK):
        return False
    with path.open("rb") as file:
        return file.read(4).startswith((b"#!", b"\x7fELF"))


def _in_any(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the paths, sorted, that lie in no other of them."""
    found: list[Path] = []
    for path in sorted(set(paths)):
        if not _in_any(path, found):
            found.append(path)
    return found


def _name(of: object) -> str:
    """Name a folder in the scratch folder for something whose own name may be too long."""
    return content_hash(str(of))[:16]


def _isolation() -> list[str]:
    """Return bwrap's options for a read-only machine with processes, network, IPC and devices of its own."""
    options = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    options += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--cap-drop", "ALL"]
    if os.geteuid() == 0:
        # Root without these could not write a file of its own that belongs to another user. None of them
        # undoes a mount, or opens a file past one as CAP_DAC_READ_SEARCH would.
        for capability in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"):
            options += ["--cap-add", f"CAP_{capability}"]
    return options


def _bind(private: Path, path: Path) -> list[str]:
    return ["--bind", str(private), str(path)]


def _bind_read_only(path: Path) -> list[str]:
    return ["--ro-bind-try", str(path), str(path)]


def _closed(folder: Path, scratch: Path) -> Path:
    """Return what stands for a folder of passing things: an empty one, but for links to elsewhere."""
    private = scratch / "closed" / _name(folder)
    if not private.exists():
        private.mkdir(parents=True)
        with contextlib.suppress(PermissionError):  # of the links some hold programs, as NixOS's in /run
            for entry in os.scandir(folder):
                if entry.is_symlink():
                    _copy(Path(entry.path), private / entry.name)
        private.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IRWXU)
    return private


def _shown_again(server: StdioServer, closed: Sequence[Path], home: Path | None) -> list[Path]:
    """Return the entries of closed folders in which something lies that the server was given or is run by."""
    search = os.get_exec_path({**os.environ, **server.env})
    program = shutil.which(server.command[0], path=os.pathsep.join(search)) or server.command[0]
    start = _start_folder(server)
    values = [*server.command[1:], *server.env.values()]
    paths = [start, start / program, *map(Path, search)]
    paths += [path for value in values for path in _named(value, server, home)]
    shown = set()
    for path in [*paths, *(path.resolve() for path in paths)]:
        within = [folder for folder in closed if folder in path.parents]
        if within and not (home is not None and path.is_relative_to(home)):
            entry = within[-1] / path.relative_to(within[-1]).parts[0]
            # A file is a work path, and there is a copy, or it is made anew.
            if entry.is_dir() or _is_program(entry):
                shown.add(entry)
    return sorted(path for path in shown if not path.is_symlink() and path not in closed)


@dataclass(frozen=True, slots=True)
class _Overlay:
    """A folder with a second one over it, which takes the changes.

    Better than binding the folder's entries read-only, since npx and uvx write in their caches before they
    start anything. Not good enough for work folders: in an overlay a folder cannot be renamed.
    """

    lower: Path
    merged: Path
    options: str

    @classmethod
    def of(cls, lower: Path, private: Path) -> _Overlay | None:
        """Return `None` where the kernel, its policy or the file system of `private` has no such thing."""
        upper, work, merged = (private / name for name in ("upper", "work", "merged"))
        if re.search(r"[\\:,]", f"{lower}{private}") or not all(
            map(shutil.which, ("unshare", "mount", "setpriv"))
        ):
            return None
        for folder in (upper, work, merged):
            folder.mkdir(parents=True, exist_ok=True)
        user = ",userxattr" if os.geteuid() else ""
        overlay = cls(lower, merged, f"lowerdir={lower},upperdir={upper},workdir={work}{user}")
        return overlay if _problem_of([*overlay.command(), "true"]) is None else None

    def command(self) -> list[str]:
        """Return what makes the overlay, seen by nobody else, and runs what follows without privileges."""
        tools = {tool: shutil.which(tool) or tool for tool in ("unshare", "mount", "setpriv")}
        mount = shlex.join([tools["mount"], "-t", "overlay", "-o", self.options, "overlay", str(self.merged)])
        unshare, run = [tools["unshare"], "--mount"], 'exec "$@"'
        if os.geteuid():
            unshare += ["--user", "--map-current-user", "--keep-caps"]
            run = f'exec {shlex.quote(tools["setpriv"])} --ambient-caps=-all --inh-caps=-all "$@"'
        return [*unshare, "/bin/sh", "-c", f"{mount} && {run}", "sh"]

    def covers(self, folder: Path) -> bool:
        """Whether sockets in a folder are seen through the overlay, where they lead nowhere."""
        return folder.is_relative_to(self.lower) and not _in_any(folder, _mounts_below(self.lower))


def _opened(folder: Path, private: Path) -> list[str]:
    """Return bwrap's options for a folder whose entries are read-only, but new ones can be made beside them.

    Small files are copied, so that they can be changed; sockets are left out.
    """
    private.mkdir(parents=True, exist_ok=True)
    options = _bind(private, folder)
    with contextlib.suppress(PermissionError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            source, target = Path(entry.path), private / entry.name
            is_file = entry.is_file(follow_symlinks=False)
            if entry.is_symlink() or (is_file and entry.stat().st_size <= SMALL_FILE_BYTES):
                if not os.path.lexists(target):
                    _copy(source, target)
            elif is_file or entry.is_dir():
                options += _bind_read_only(source)
    private.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IRWXU)
    return options


def _mounts_below(folder: Path) -> list[Path]:
    """Return the other file systems that are mounted below a folder; an overlay does not show them."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        # Blanks in a path stand as \040 and the like.
        path = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split(" ")[4]))
        if folder in path.parents and os.access(path, os.F_OK):
            mounts.append(path)
    return sorted(mounts)


def _socket_folders() -> list[Path]:
    """Return the folders that hold a socket which we may connect to."""
    folders = set()
    for line in Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]:
        fields = line.split(" ", 7)
        path = Path(fields[-1].strip())
        with contextlib.suppress(OSError):
            # Some are in a file system that we do not see, and may be other things in ours.
            if path.is_absolute() and path.is_socket() and os.access(path, os.W_OK):
                folders.add(path.parent.resolve())
    return sorted(folders - {Path("/")})


def _copied(
    path: Path, scratch: Path, closed: Sequence[Path], overlay: _Overlay | None, max_bytes: int
) -> list[str]:
    """Copy a work folder or file, if that was not done before; return bwrap's options that show the copy."""
    if not path.exists():
        raise SandboxError(f"{path} does not exist, so it cannot be copied for a sandbox")
    if path.is_dir():
        target = scratch / "work" / _name(path)
        _copy_once(path, target, max_bytes)
        return _bind(target, path)
    if overlay is not None and path.parent == overlay.lower:
        return []
    options = []
    for journal in ("", "-wal", "-shm", "-journal"):
        file = path.with_name(path.name + journal)
        if file.is_file():
            # A file that is mounted cannot be replaced or removed, so that is for where it has to be.
            in_place = path.parent in closed
            target = _closed(path.parent, scratch) if in_place else scratch / "work" / _name(path)
            _copy_once(file, target / file.name, max_bytes)
            options += [] if in_place else _bind(target / file.name, file)
    return options


def _copy_once(source: Path, target: Path, max_bytes: int) -> None:
    if os.path.lexists(target):
        return
    if (size := _size(source)) > max_bytes:
        raise SandboxError(
            f"work folder {source} holds {_bytes(size)}, and a sandbox copies at most {_bytes(max_bytes)}: "
            "give the server a smaller folder, or go without the sandbox"
        )
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        _copy(source, part)
    except OSError as error:
        raise SandboxError(f"work folder {source} cannot be copied: {error}") from error
    part.rename(target)


def _size(path: Path) -> int:
    """Return the bytes in the files of a folder, or in a file."""
    if not path.is_dir():
        return path.stat().st_size
    size = 0
    for parent, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size


def _bytes(size: int) -> str:
    return (
        f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"
    )


def _copy(source: Path, target: Path) -> None:
    """Copy files, folders and links as they are; leave out sockets, pipes and devices.

    What we may not read, the server could not either; so it stands in the copy, empty and as unreadable.
    """
    try:
        status = source.lstat()
    except FileNotFoundError:  # gone since it was listed
        return
    readable = True
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISDIR(status.st_mode):
        target.mkdir()
        try:
            names = sorted(os.listdir(source))
        except PermissionError:
            names, readable = [], False
        for name in names:
            _copy(source / name, target / name)
    elif stat.S_ISREG(status.st_mode):
        try:
            _copy_content(source, target)
        except FileNotFoundError:
            return
        except PermissionError:
            target.touch()
            readable = False
    else:
        return
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)
    if not readable:
        target.chmod(0)


_FICLONE = 0x40049409
"""The ioctl that lets two files share their blocks, where the file system can; named in Python 3.12."""


def _copy_content(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        try:
            fcntl.ioctl(writing, _FICLONE, reading.fileno())
        except OSError:
            shutil.copyfile(source, target)


def _problem_of(command: Sequence[str]) -> str | None:
    """Run a command; return in one line why it failed, if it did."""
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"no end after {PROBE_TIMEOUT_S:g} s"
    said = ended.stderr.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(said) if line.strip()), f"exit code {ended.returncode}")
    return last if ended.returncode else None
