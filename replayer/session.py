"""One conversation with a recording: what it has asked so far, and so what it is answered next."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from recorder.canonical import readable_json
from recorder.errors import FireflyError
from recorder.exchange import OtherResult, RpcError, ToolResult
from recorder.redact import map_text
from replayer.evidence import Candidate
from replayer.exact import SAME
from replayer.judge import Verdict
from replayer.keys import Chains, call_key, canonical_text
from replayer.mask import output_text
from replayer.minted import Lineage
from replayer.nearest import Near, nearest
from replayer.request import Identity, identify
from replayer.schema_tier import SCHEMA, told
from replayer.simulated import simulate
from replayer.state import Shared, World, names_in
from replayer.tier import Asked

if TYPE_CHECKING:
    from replayer.replayer import Replayer

LIVE, SIMULATED = "live", "simulated"
"""Tiers of answers that were not recorded."""

_TELLING = frozenset({SAME, SCHEMA, LIVE, SIMULATED})
"""Tiers whose errors mean that the call changed nothing."""

Outcome = ToolResult | OtherResult | RpcError

logger = logging.getLogger(__name__)


class Source(NamedTuple):
    """The recorded exchange that an answer comes from."""

    id: int
    session_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered, and how far that can be trusted."""

    outcome: Outcome
    tier: str
    trust: float | None
    """Probability of being right; `None` where it could not be measured."""
    exchange: Source | None
    """`None` for an answer that was not recorded."""
    score: float | None = None
    """How alike the recorded call is, in [0, 1]; 1 is equal."""


@dataclass(frozen=True, slots=True)
class Miss:
    """No tier had an answer that can be trusted."""

    tiers: tuple[str, ...]
    nearest: tuple[Near, ...] = ()
    rejected: Rejected | None = None
    """The answer of the strongest tier that had one: it was not given."""


@dataclass(frozen=True, slots=True)
class Rejected:
    tier: str
    trust: float | None
    exchange_id: int


@dataclass(slots=True)
class _Server:
    """A conversation's part with one server."""

    world: World
    lineage: Lineage = field(default_factory=Lineage)
    before: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    """World-changing calls so far."""
    minted: dict[int, list[tuple[str, str, int]]] = field(default_factory=dict)
    """Recorded conversation that answered → the ids that its server made up."""
    told: list[tuple[str, Mapping[str, Any], str]] = field(default_factory=list)
    """Tool, arguments and answer of every call so far; kept only where a model may be shown it."""


class ReplaySession:
    """Answers one conversation's requests from a recording, in the order they are asked.

    Not to be shared by threads; its replayer may be.
    """

    def __init__(self, replayer: Replayer, group: int, group_name: str | None, *, known: bool) -> None:
        self._replayer, self._group, self._known = replayer, group, known
        self._group_name = group_name
        self._chains = Chains()
        self._servers: dict[str, _Server] = {}
        self._shared = Shared()
        self._mints = bool(replayer.learned.summary.get("minted"))

    def ask(
        self, server: str, method: str, params: Mapping[str, Any], *, quiet: bool = False
    ) -> Answer | Miss:
        """Answer a request as the recorded server did, or say that it cannot be told.

        Secrets in it are replaced as they were when it was recorded, whether or not we know them. A call that
        may change the world counts as made even if it is missed: what comes after it is another state.

        Args:
            quiet: A miss is no news: it is not journalled, and nobody else is asked.
        """
        redactor, secrets = self._replayer.redactor, self._replayer.secrets
        text = readable_json(params)
        redacted = redactor.redact(text)
        plain = params if redacted is text else json.loads(redacted)
        found = self._find(server, method, plain)
        if found.answer is None and secrets:
            hidden = map_text(params, lambda text: redactor.redact_unknown(text, secrets))
            if hidden != params:
                plain = json.loads(redactor.redact(readable_json(hidden)))
                found = self._find(server, method, plain)
        miss = None
        if found.answer is None:
            miss = self._miss(found)
            if not quiet:
                self._journal(found, miss)
                found.answer = self._elsewhere(found, params, miss)
        self._note(found)
        return found.answer or miss or Miss(())

    def _find(self, server: str, method: str, params: Mapping[str, Any]) -> _Found:
        schema = self._replayer.schema(server, params) if method == "tools/call" else None
        identity = identify(server, method, params, self._chains, schema)
        part = self._servers.get(server)
        if part is None:
            part = self._servers[server] = _Server(World(self._group, self._shared))
        everywhere = self._replayer.learned.everywhere.get(server, frozenset())
        asked = self._asked(identity, part, lambda: identity.values(everywhere))
        found = _Found(identity, part, asked, everywhere, params)
        if identity.key is None:
            return found
        only = self._replayer.only
        keep = None if only is None else (lambda row: row.conversation in only)
        for tier in self._replayer.tiers:
            candidate = tier.find(found.asked, keep)
            if candidate is None:
                # A call that was recorded itself is answered as it was, whatever its schema says of it.
                if tier is self._replayer.tiers[0] and (told := self._refused(identity, schema)):
                    found.answer = told
                    return found
                continue
            verdict = (
                self._replayer.judge.judge(candidate, server, identity.kind, known=self._known)
                if identity.tool is not None
                else Verdict(None, True)
            )
            if verdict.served and (answer := self._answer(candidate, verdict, part)):
                found.answer = answer
                return found
            if found.rejected is None:
                found.rejected = Rejected(candidate.tier, verdict.trust, candidate.exchange)
        return found

    def _refused(self, identity: Identity, schema: Mapping[str, Any] | None) -> Answer | None:
        """Return the error that the server gives for arguments that violate the schema, if that is known."""
        if (found := self._replayer.schema_tier.find(identity, schema)) is None:
            return None
        lesson, candidate = found
        verdict = self._replayer.judge.judge(candidate, identity.server, identity.kind, known=self._known)
        if not verdict.served:
            return None
        exchange = self._replayer.store.exchange(lesson.exchange_id)
        source = Source(exchange.id, exchange.session_id)
        return Answer(told(lesson, exchange), SCHEMA, verdict.trust, source)

    def _asked(self, identity: Identity, part: _Server, values: Callable[[], Sequence[int]]) -> Asked:
        bound = key = identity.key if identity.key is not None else 0
        if identity.tool is not None and self._mints:
            arguments = part.lineage.bind(identity.tool, identity.arguments)
            if arguments is not identity.arguments:
                bound = call_key(identity.server, identity.tool, canonical_text(arguments))
        place = part.world.place(bound, values) if identity.is_call else part.world.place_of_other(bound)
        return Asked(
            identity.server,
            identity.method,
            identity.tool,
            identity.kind,
            identity.arguments,
            key,
            None if bound == key else bound,
            place,
            self._known,
        )

    def _answer(self, candidate: Candidate, verdict: Verdict, part: _Server) -> Answer | None:
        """Return a recorded answer told with this conversation's ids; `None` if they cannot be told apart."""
        session_id, recorded_outcome = self._replayer.store.answer(candidate.conversation, candidate.exchange)
        outcome: Outcome = recorded_outcome
        if not part.lineage.is_empty:
            recorded = part.minted.get(candidate.conversation)
            if recorded is None:
                recorded = self._replayer.learned.minted(candidate.conversation)
                part.minted[candidate.conversation] = recorded
            rebound = _rebound(outcome, part.lineage, recorded, candidate)
            if rebound is None:
                return None
            outcome = rebound
        source = Source(candidate.exchange, session_id)
        return Answer(outcome, candidate.tier, verdict.trust, source, candidate.score)

    def _note(self, found: _Found) -> None:
        """Move the conversation on."""
        identity, part, asked = found.identity, found.part, found.asked
        if identity.key is None:
            return
        bound = asked.key if asked.bound is None else asked.bound
        outcome = found.answer.outcome if found.answer else None
        if not identity.is_call:
            if outcome is not None:
                part.world.note_other(bound)
        else:
            # An error from another state says nothing of what the call would have done in this one.
            certain = found.answer is not None and found.answer.tier in _TELLING
            failed = certain and (
                isinstance(outcome, RpcError) or (isinstance(outcome, ToolResult) and outcome.is_error)
            )
            entry = self._replayer.entry(identity.server, identity.kind.partition(" ")[0]) or {}
            changes = not failed and self._replayer.learned.changes(
                identity.server, identity.kind, entry.get("annotations")
            )
            text = output_text(outcome) if outcome is not None else ""
            if changes:
                values = identity.values(found.everywhere)
                named = [value for value in names_in(text) if value not in found.everywhere]
                part.world.note(bound, values, changes=True, told=named)
            else:
                part.world.note(bound, (), changes=False)
            if changes and identity.tool is not None:
                part.before.append((identity.tool, identity.arguments))
            if outcome is not None and self._replayer.completer is not None and identity.tool is not None:
                part.told.append((identity.tool, identity.arguments, text))
            if outcome is not None and self._mints and identity.tool is not None:
                if changes:
                    part.lineage.mint(bound, identity.tool, identity.arguments, text)
                else:
                    part.lineage.hear(identity.arguments, text)
        result = outcome.result if isinstance(outcome, ToolResult | OtherResult) else None
        if isinstance(result, dict) and result.get("resultType") == "input_required":
            self._chains.ask_input(identity.key, identity.server, identity.method, found.params, result)

    def _elsewhere(self, found: _Found, params: Mapping[str, Any], miss: Miss) -> Answer | None:
        """Return the answer to a miss from where the user allows one to come from, if any."""
        replayer, identity = self._replayer, found.identity
        server, method = identity.server, identity.method
        if replayer.live is not None and (outcome := replayer.live.ask(server, method, params)):
            return Answer(outcome, LIVE, None, None)
        if replayer.completer is None or identity.tool is None:
            return None
        nearest_texts = [
            (near.exchange.call.arguments if near.exchange.call else {}, output_text(near.exchange.outcome))
            for near in miss.nearest
        ]
        try:
            made_up = simulate(
                replayer.completer,
                tool_entry=replayer.entry(server, identity.tool),
                call=(server, identity.tool, identity.arguments),
                nearest=nearest_texts,
                history=found.part.told,
            )
        except FireflyError as error:
            logger.warning("no simulated answer: %s", error)
            return None
        if replayer.journal is not None:
            replayer.journal.simulated(server, identity.tool, identity.arguments, made_up)
        result = {"content": [{"type": "text", "text": made_up.text}], "isError": made_up.is_error}
        return Answer(ToolResult(result=result), SIMULATED, None, None)

    def _miss(self, found: _Found) -> Miss:
        close = nearest(self._replayer.store, self._replayer.learned, found.asked)
        return Miss(tuple(tier.name for tier in self._replayer.tiers), tuple(close), found.rejected)

    def _journal(self, found: _Found, miss: Miss) -> None:
        identity, asked, journal = found.identity, found.asked, self._replayer.journal
        if journal is not None:
            journal.miss(
                server=identity.server,
                method=identity.method,
                key=asked.key,
                name=identity.tool,
                params={name: value for name, value in found.params.items() if name != "_meta"},
                group=self._group_name,
                state=asked.place.prefix,
                before=found.part.before,
                nearest=[near.as_json() for near in miss.nearest],
            )


@dataclass(slots=True)
class _Found:
    """What came of looking for an answer."""

    identity: Identity
    part: _Server
    asked: Asked
    everywhere: frozenset[int]
    """What nearly all calls to the server name."""
    params: Mapping[str, Any]
    """As they are compared: secrets replaced."""
    answer: Answer | None = None
    rejected: Rejected | None = None


def _rebound(
    outcome: Outcome, lineage: Lineage, recorded: list[tuple[str, str, int]], candidate: Candidate
) -> Outcome | None:
    """Return a recorded outcome told with this conversation's ids, if it can be."""
    if not recorded:
        return outcome
    exchange, literal = candidate.exchange, candidate.literal
    match outcome:
        case RpcError(error=error):
            told = lineage.rebind(error, recorded, exchange, literal=literal)
            return None if told is None else outcome if told is error else RpcError(error=told)
        case ToolResult(result=result):
            told = lineage.rebind(result, recorded, exchange, literal=literal)
            return None if told is None else outcome if told is result else ToolResult(result=told)
        case OtherResult(result=result):
            told = lineage.rebind(result, recorded, exchange, literal=literal)
            return None if told is None else outcome if told is result else OtherResult(result=told)
