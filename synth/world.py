"""What a recording holds of the calls that tasks cite, for as long as tasks are made, checked or exported."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from recorder.canonical import canonical_json
from recorder.errors import FireflyError, RecordingError
from recorder.exchange import Exchange, Json, Outcome, ToolCall, ToolRef
from recorder.store import Store
from recorder.tool import ToolSpec
from replayer.replayer import Replayer
from replayer.session import Answer
from synth.program import tree_of
from synth.task import ReferenceCall, Task


class WorldError(FireflyError):
    """The recording does not hold what a task cites."""


class World:
    """A recording, with what was learned from it. Synchronous; opened once and read many times.

    Everything that it returns is the same for the same recording.
    """

    def __init__(self, store: Store, replayer: Replayer) -> None:
        self.store, self.replayer = store, replayer
        self._exchanges: dict[int, Exchange] = {}
        self._trees: dict[int, Json] = {}
        self._hashes: dict[str, str] = {}
        self._by_hash: dict[str, str] | None = None
        self._groups: dict[str, str] | None = None
        self.tools: dict[ToolRef, ToolSpec] = {spec.ref: spec for spec in store.tools()}
        """Each tool as it was listed last."""

    def entry(self, tool: ToolRef) -> dict[str, Any]:
        """Return a tool as its server listed it; empty if it never did."""
        spec = self.tools.get(tool)
        return dict(spec.entry) if spec is not None else {}

    def input_schema(self, tool: ToolRef) -> dict[str, Any]:
        schema = self.entry(tool).get("inputSchema")
        return schema if isinstance(schema, dict) else {}

    def exchange(self, number: int) -> Exchange:
        """Return a recorded exchange.

        Raises:
            WorldError: there is none of that id.
        """
        found = self._exchanges.get(number)
        if found is None:
            try:
                found = self.store.exchange(number)
            except RecordingError as error:
                raise WorldError(str(error)) from error
            if len(self._exchanges) > 5000:
                self._exchanges.clear()
            self._exchanges[number] = found
        return found

    def tree(self, number: int) -> Json:
        """Return the output of an exchange as programs read it."""
        if number not in self._trees:
            if len(self._trees) > 5000:
                self._trees.clear()
            self._trees[number] = tree_of(self.exchange(number).outcome)
        return self._trees[number]

    def trees(self, calls: Iterable[ReferenceCall]) -> list[Json]:
        return [self.tree(call.exchange) for call in calls]

    def ask(self, calls: Iterable[ReferenceCall], group: str) -> list[Answer | None]:
        """Ask a replay the calls in order, in a conversation of their own; `None` where it has no answer."""
        session = self.replayer.session(group)
        answers: list[Answer | None] = []
        for call in calls:
            params = {"name": call.tool, "arguments": call.arguments}
            found = session.ask(call.server, "tools/call", params, quiet=True)
            answers.append(found if isinstance(found, Answer) else None)
        return answers

    def changes(self, call: ReferenceCall) -> bool:
        """Return whether a call may change the world."""
        return self.replayer.call_changes(ToolCall(tool=call.ref, arguments=call.arguments))

    def group(self, session_id: str) -> str:
        """Return the group of a session."""
        if self._groups is None:
            self._groups = {session.id: session.group for session in self.store.sessions()}
        return self._groups[session_id]

    def session_hash(self, session_id: str) -> str:
        """Return the content hash of a recorded session: of its group, its servers, and all requests and
        replies."""
        found = self._hashes.get(session_id)
        if found is None:
            found = self._hashes[session_id] = session_hash(self.store, session_id)
        return found

    def hashes(self, calls: Iterable[ReferenceCall]) -> list[str]:
        """Return the content hashes of the sessions that calls are from, sorted."""
        return sorted({self.session_hash(self.exchange(call.exchange).session_id) for call in calls})

    def located(self, task: Task) -> Task:
        """Return a task with its calls cited as this recording numbers them.

        Its sessions are known by their content, so any recording that contains them will do.

        Raises:
            WorldError: one of its sessions, or a call in it, is not there.
        """
        try:
            if self.hashes(task.calls) == task.world and all(map(self._is_cited, task.calls)):
                return task
        except WorldError:
            pass
        sessions = [self._session_of(content, task.task_id) for content in task.world]
        calls = [self._found(call, sessions, task) for call in task.calls]
        return task.model_copy(update={"calls": calls})

    def _is_cited(self, call: ReferenceCall) -> bool:
        return _is_call(self.exchange(call.exchange), call)

    def _session_of(self, content: str, task: str) -> str:
        if self._by_hash is None:
            self._by_hash = {self.session_hash(session.id): session.id for session in self.store.sessions()}
        if content not in self._by_hash:
            raise WorldError(f"task {task} cites session {content}, which {self.store.path} does not hold")
        return self._by_hash[content]

    def _found(self, call: ReferenceCall, sessions: list[str], task: Task) -> ReferenceCall:
        for session in sessions:
            for exchange in self.store.exchanges(session_id=session, method="tools/call"):
                if _is_call(exchange, call):
                    return call.model_copy(update={"exchange": exchange.id})
        shown = canonical_json(call.arguments)
        raise WorldError(
            f"task {task.task_id} cites {call.server}/{call.tool}({shown:.80}), which is not there"
        )


def outcomes(world: World, task: Task) -> list[Outcome]:
    """Return what came of a task's calls."""
    return [world.exchange(call.exchange).outcome for call in task.calls]


def session_hash(store: Store, session_id: str) -> str:
    """Return the content hash of a session; 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for conversation in store.conversations_of(session_id):
        digest.update(canonical_json([conversation.group, conversation.server]).encode("ascii"))
        for answered in store.answered(conversation.number):
            digest.update(canonical_json([answered.method, answered.request, answered.reply]).encode("ascii"))
    return digest.hexdigest()


def _is_call(exchange: Exchange, call: ReferenceCall) -> bool:
    made = exchange.call
    return (
        made is not None
        and made.tool == call.ref
        and canonical_json(made.arguments) == canonical_json(call.arguments)
    )
