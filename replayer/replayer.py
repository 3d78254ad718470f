"""A recording opened for replay: what many conversations share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from recorder.completer import Completer
from recorder.embedder import Embedder
from recorder.exchange import ToolCall, ToolRef
from recorder.store import Store
from recorder.verbs import declared, kind_of
from replayer.exact import ExactTier
from replayer.journal import Journal, MissedRequest
from replayer.judge import Judge
from replayer.learn import Progress, learn
from replayer.learned import Learned, NotLearned, first_known, learned_path
from replayer.near import NearTier
from replayer.nearest import NearestTier
from replayer.schema_tier import SchemaTier
from replayer.session import Outcome, ReplaySession
from replayer.state import UNKNOWN, group_id
from replayer.tier import Tier


class Live(Protocol):
    """The real servers, or what stands for them."""

    def ask(self, server: str, method: str, params: Mapping[str, Any]) -> Outcome | None:
        """Return a real answer; `None` where that server is not to be had."""


class Replayer:
    """Answers from a recording and what was learned from it. Synchronous; threads and forks may share one.

    Opening loads, it does not learn: see `ensure_learned`.

    Args:
        min_trust: Serve what is trusted this much, instead of by the learned threshold; in [0, 1], and at 0
            everything is answered, from the nearest call at last.
        session_id: Answer from this recorded session alone.
        journal: Where misses are counted, if they are.
        tiers: Further ones, asked after the near tier.
        live: Asked what was missed.
        completer: Makes up answers to what was missed, and is not otherwise answered. They are kept in the
            journal, apart from everything recorded, and are never right by anybody's word.
        explain: Look for the nearest call of every miss, too, and say how far it could be trusted.

    Raises:
        RecordingError: there is no recording.
        NotLearned: nothing is learned from it.
    """

    def __init__(
        self,
        store: Store,
        learned: Learned,
        *,
        min_trust: float | None = None,
        session_id: str | None = None,
        journal: Journal | None = None,
        tiers: Sequence[Tier] = (),
        live: Live | None = None,
        completer: Completer | None = None,
        explain: bool = False,
    ) -> None:
        if min_trust is not None and not 0 <= min_trust <= 1:
            raise ValueError(f"min_trust must be in [0, 1], got {min_trust}")
        self.store, self.learned, self.journal = store, learned, journal
        self.judge = Judge(learned.known_group, learned.unknown_group, min_trust, learned.changes)
        self.live, self.completer = live, completer
        self.schema_tier = SchemaTier(learned)
        self.tiers: tuple[Tier, ...] = (
            ExactTier(learned),
            NearTier(learned),
            *tiers,
            *([NearestTier(learned)] if explain or min_trust == 0 else []),
        )
        self.only = learned.conversations_of(session_id) if session_id else None
        self.redactor = store.redactor()
        self.secrets = store.known_secrets()
        self._entries: dict[tuple[str, str], dict[str, Any] | None] = {}

    @staticmethod
    def open(path: Path, **options: Any) -> Replayer:
        """Open a recording that was learned from; options as for `Replayer`.

        Raises:
            NotLearned: nothing was learned from it yet, or only from an earlier state of it.
        """
        store = Store(path)
        learned = Learned(learned_path(path))
        if not learned.is_current(store):
            raise NotLearned(
                f"{path} has changed since it was learned from: run firefly-proxy learn --db {path}"
            )
        return Replayer(store, learned, **options)

    def session(self, group: str | None = None) -> ReplaySession:
        """Begin a conversation.

        Args:
            group: The task and start state, as it was recorded; `None` where it is not known.
        """
        number = group_id(group)
        known = number != UNKNOWN and self.learned.has_group(number)
        return ReplaySession(self, number, group, known=known)

    def entry(self, server: str, tool: str) -> dict[str, Any] | None:
        """Return a tool as it was listed last."""
        if (server, tool) not in self._entries:
            self._entries[server, tool] = self.store.tool_entry(server, tool)
        return self._entries[server, tool]

    def call_changes(self, call: ToolCall) -> bool:
        """Return whether a call may change the world."""
        entry = self.entry(*call.tool) or {}
        kind = kind_of(call.tool.name, call.arguments)
        return self.learned.changes(call.tool.server, kind, entry.get("annotations"))

    def request_changes(self, missed: MissedRequest) -> bool:
        """Return whether a request that was missed may change the world."""
        if missed.name is None:
            return missed.method == "tools/call"
        arguments = missed.params.get("arguments") or {}
        return self.call_changes(ToolCall(tool=ToolRef(missed.server, missed.name), arguments=arguments))

    def is_declared_read(self, call: ToolCall) -> bool:
        """Return whether the server or the policy says that a call changes nothing."""
        entry = self.entry(*call.tool) or {}
        kind = kind_of(call.tool.name, call.arguments)
        told = (self.learned.policy.changes(call.tool.server, kind), declared(entry.get("annotations")))
        return not first_known(*told)

    def schema(self, server: str, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the input schema of the tool that a call names."""
        name = params.get("name")
        entry = self.entry(server, name) if isinstance(name, str) else None
        schema = entry.get("inputSchema") if entry else None
        return schema if isinstance(schema, dict) else None


def ensure_learned(
    store: Store, progress: Progress | None = None, embedder: Embedder | None = None
) -> Learned:
    """Return what is learned from a recording, learning it first where it is missing or out of date.

    With an embedder, it is learned anew also where the vectors are of another one.

    Where the folder cannot be written, what is learned lives as long as this process.
    """
    path = learned_path(store.path)
    try:
        learned = Learned(path)
        if learned.is_current(store) and (embedder is None or embedder.name == learned.embedder):
            return learned
    except NotLearned:
        pass
    if os.access(path.parent, os.W_OK):
        return learn(store, embedder=embedder, progress=progress)
    return learn(store, temporary_file(path.name), embedder=embedder, progress=progress)


def temporary_file(name: str) -> Path:
    """Return a path in a folder of its own that is removed when this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="firefly-")
    _FOLDERS.append(folder)
    return Path(folder.name) / name


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def journalled(store: Store) -> list[MissedRequest]:
    """Return what replays of a recording missed."""
    path = learned_path(store.path)
    return Journal(path).misses() if path.is_file() else []


def journal_beside(store: Store) -> Journal | None:
    """Return the journal beside a recording; `None` where none can be kept."""
    path = learned_path(store.path)
    return Journal(path) if os.access(path.parent, os.W_OK) else None
