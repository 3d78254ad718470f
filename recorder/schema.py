"""The recording's tables, as ordered migrations.

A session is one client's conversation; a server is one upstream of it; a frame is any message in either
direction, as text; an exchange is any request with its outcome; a listing is one version of a tool, resource
or prompt as a server listed it. `PRAGMA user_version` counts the migrations that a file has had.

Each commit on the hot path costs about 4 µs a page it touches, so the tables are laid out for few: a request
is one row in one table, its reply two, and no index but the keys has to follow. A request that is still open,
or whose recorder was killed, is a frame of kind `request` without an exchange.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from pathlib import Path

from recorder.database import LOCK_TIMEOUT_S, create_private, open_for_reading, retry_locked
from recorder.errors import RecordingError

MIGRATIONS = (
    """
    CREATE TABLE recording (
        created_at REAL NOT NULL,              -- Unix seconds, as every time here
        redaction_key BLOB NOT NULL            -- keys the HMAC behind every [redacted:…] placeholder
    );
    CREATE TABLE secret (                      -- what lookup needs to find a secret it was never told
        digest TEXT PRIMARY KEY,               -- keyed HMAC of one spelling of the secret
        length INTEGER NOT NULL,               -- of that spelling, in characters
        placeholder TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE session (
        id TEXT PRIMARY KEY,
        group_id TEXT NOT NULL,                -- task or start state that repeated sessions share
        run_id TEXT,                           -- which repetition
        started_at REAL NOT NULL,
        ended_at REAL,
        ending TEXT,                           -- how it ended; NULL while it runs or if it was killed
        process TEXT NOT NULL,                 -- the recorder's host, pid and start: tells the two apart; or
                                               -- import: and a hash of the content, of an imported session
        client TEXT,                           -- JSON: the client's name and version, as it gave them
        client_capabilities TEXT,              -- JSON
        era TEXT,                              -- 'legacy' (initialize) or 'modern' (2026-07-28 and later)
        protocol_version TEXT
    );
    CREATE TABLE server (
        id INTEGER PRIMARY KEY,
        session_id TEXT NOT NULL REFERENCES session,
        name TEXT NOT NULL,
        config TEXT NOT NULL,                  -- JSON: as configured, variables unexpanded
        info TEXT,                             -- JSON: serverInfo
        capabilities TEXT,                     -- JSON
        instructions TEXT,
        era TEXT,
        protocol_version TEXT,
        listed TEXT NOT NULL DEFAULT '{}',     -- JSON: kind -> ids of the listings last listed, in order
        ending TEXT                            -- how its process or connection ended
    );
    CREATE INDEX server_by_session ON server (session_id);
    CREATE TABLE listing (
        id INTEGER PRIMARY KEY,
        server TEXT NOT NULL,                  -- the server's name: versions are shared by its sessions
        kind TEXT NOT NULL,                    -- tool, resource, resource_template or prompt
        name TEXT NOT NULL,                    -- name, or URI
        hash TEXT NOT NULL,                    -- content hash of the entry
        entry TEXT NOT NULL,                   -- JSON, as listed
        first_seen REAL NOT NULL,
        UNIQUE (server, kind, name, hash)
    );
    CREATE TABLE frame (
        id INTEGER PRIMARY KEY,                -- in the order seen
        server_id INTEGER NOT NULL REFERENCES server,
        at REAL NOT NULL,
        direction TEXT NOT NULL,               -- to_server or to_client
        kind TEXT NOT NULL,                    -- request, response, notification, noise, unread or proxy
        method TEXT,
        text TEXT NOT NULL                     -- the message as sent, secrets replaced
    );
    CREATE TABLE exchange (                    -- written with its reply, or when its session ends
        server_id INTEGER NOT NULL REFERENCES server,
        id INTEGER NOT NULL REFERENCES frame,  -- the request's frame
        reply INTEGER REFERENCES frame,        -- the reply's; NULL if none came
        direction TEXT NOT NULL,               -- of the request
        method TEXT NOT NULL,
        name TEXT,                             -- the tool, prompt or URI asked for
        outcome TEXT NOT NULL,                 -- result, tool_error, input_required, rpc_error,
                                               -- cancelled or disconnected
        duration_s REAL,                       -- from reading the request to reading the reply
        PRIMARY KEY (server_id, id)
    ) WITHOUT ROWID;
    CREATE VIEW call AS                        -- tool calls, for reading with plain SQL
        SELECT exchange.id, server.session_id, server.name AS server, exchange.name AS tool,
               json_extract(request.text, '$.params.arguments') AS arguments, exchange.outcome,
               coalesce(json_extract(reply.text, '$.result'), json_extract(reply.text, '$.error')) AS reply,
               request.at AS started_at, exchange.duration_s
        FROM exchange
        JOIN server ON server.id = exchange.server_id
        JOIN frame AS request ON request.id = exchange.id
        LEFT JOIN frame AS reply ON reply.id = exchange.reply
        WHERE exchange.method = 'tools/call' AND exchange.direction = 'to_server';
    """,
    """
    CREATE TABLE campaign (                    -- one exploration; its sessions' run_id begins with its id
        id TEXT PRIMARY KEY,
        started_at REAL NOT NULL,
        settings TEXT NOT NULL,                -- JSON: what has to be the same for it to be resumed
        ended_at REAL,
        ending TEXT                            -- why it ended; NULL while it runs or if it was killed
    );
    CREATE TABLE walk (                        -- one sub-DAG of a campaign, walked to its end
        campaign TEXT NOT NULL REFERENCES campaign,
        number INTEGER NOT NULL,
        run_id TEXT NOT NULL,                  -- that of its sessions
        plan TEXT NOT NULL,                    -- JSON: kind, tools, edges
        ended_at REAL NOT NULL,
        ending TEXT NOT NULL,
        PRIMARY KEY (campaign, number)
    ) WITHOUT ROWID;
    CREATE TABLE completion (                  -- a prompt of an explorer and what a model made of it
        id INTEGER PRIMARY KEY,
        campaign TEXT NOT NULL REFERENCES campaign,
        run_id TEXT NOT NULL,
        at REAL NOT NULL,
        model TEXT NOT NULL,
        request TEXT NOT NULL,                 -- JSON: the messages that are new, and where they begin
        response TEXT NOT NULL,                -- JSON
        input_tokens INTEGER NOT NULL,         -- all of them
        cache_read_tokens INTEGER NOT NULL,    -- of these
        cache_write_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cost_usd REAL                          -- NULL where no price is known
    );
    """,
)

CHECKPOINT_PAGES = 4000
"""Pages of write-ahead log between checkpoints (16 MB): a checkpoint syncs to disk and stalls one reply."""


def connect_for_writing(path: Path, *, durable: bool = False) -> sqlite3.Connection:
    """Open the recording at `path`, making or migrating it first where needed.

    Args:
        durable: Sync to disk at each commit, so that a commit survives the loss of power and not only
            the death of any process.

    Raises:
        RecordingError: the file cannot be opened or written, is no recording, or is of a newer version.
    """
    try:
        create_private(path)
        connection = sqlite3.connect(
            path.absolute(), timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            check_version(connection, path)
            if _is_foreign(connection):
                raise sqlite3.DatabaseError("it is an SQLite file, but not a recording")
            retry_locked(lambda: connection.execute("PRAGMA journal_mode = WAL"))
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            _migrate(connection)
            connection.execute("PRAGMA busy_timeout = 0")  # `begin` waits in its own way
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise RecordingError(f"cannot record to {path}: {_reason(error)}") from error
    return connection


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """Open the recording at `path` read-only; works in a folder that cannot be written, too.

    Raises:
        RecordingError: there is no such file, it is no recording, or it is of a newer version.
    """
    if not path.is_file():
        raise RecordingError(f"no recording at {path}")
    try:
        connection = open_for_reading(path)
        version = check_version(connection, path)
    except sqlite3.Error as error:
        raise RecordingError(f"cannot read {path}: {_reason(error)}") from error
    if version == 0:
        raise RecordingError(f"{path} is not a recording")
    return connection


def begin(connection: sqlite3.Connection) -> None:
    """Start a write transaction, waiting for other writers.

    SQLite's own wait grows to 100 ms a step; commits here take microseconds, so short random steps
    let several recorders share a file without starving one of them.
    """
    retry_locked(lambda: connection.execute("BEGIN IMMEDIATE"))


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return how many migrations the file has had.

    Raises:
        RecordingError: a newer Firefly wrote it.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise RecordingError(
            f"{path} is a recording of version {version}, and this Firefly reads up to {len(MIGRATIONS)}"
        )
    return version


def _is_foreign(connection: sqlite3.Connection) -> bool:
    """Whether the file holds tables of somebody else's; nothing of it may be changed then."""
    # In one statement, so that no other recorder's migration comes between the two questions.
    question = "SELECT user_version = 0 AND EXISTS (SELECT 1 FROM sqlite_master) FROM pragma_user_version"
    return bool(connection.execute(question).fetchone()[0])


def _migrate(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS):
        return
    begin(connection)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for migration in MIGRATIONS[version:]:
            for statement in _statements(migration):
                connection.execute(statement)
        if version == 0:
            connection.execute("INSERT INTO recording VALUES (?, ?)", (time.time(), secrets.token_bytes(32)))
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> list[str]:
    """Split a script at its semicolons; no statement of ours holds one inside."""
    return [statement for statement in script.split(";\n") if statement.strip()]


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
