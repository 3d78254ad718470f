"""How often a replay is right: recorded calls held out, replayed, and compared with the truth.

A call agrees when the replayed text equals the recorded one under the fixed mask (`mask`). A replay that
has no answer it can trust misses, and what it answers wrongly counts against it. The baseline is what
published systems do: the equal call, else the normalised one, else the nearest neighbour, always an answer.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rapidfuzz import fuzz, process

from recorder.canonical import content_hash, readable_json
from recorder.errors import FireflyError
from recorder.frame import as_object
from recorder.store import Store
from replayer.keys import canonical_text, plain
from replayer.learned import Facts, Learned, tool_id
from replayer.mask import error_text, masked, output_text, result_text
from replayer.near import spelled
from replayer.replayer import Replayer
from replayer.sensitivity import reply_text, without_volatile
from replayer.session import Answer

Split = Literal["leave-run", "task", "random"]

HELD_SHARE = 0.3
"""Of tasks or sessions, where a split draws them."""

RESAMPLES = 1000
"""Bootstrap samples of sessions behind an interval."""

SEED = 20_260_101


@dataclass(frozen=True, slots=True)
class HeldCall:
    server: str
    tool: str
    arguments: Mapping[str, Any]
    output: str


@dataclass(frozen=True, slots=True)
class HeldSession:
    """A session that the replay was not learned from: one rollout."""

    session_id: str
    group: str
    calls: tuple[HeldCall, ...]


@dataclass(frozen=True, slots=True)
class CallResult:
    """What became of one held-out call."""

    session_id: str
    index: int
    server: str
    tool: str
    tier: str | None
    """Of the best answer that was found, given or not; `None` where there was none."""
    trust: float | None
    answered: bool
    right: bool
    """Whether that answer agrees with the truth under the fixed mask."""
    right_learned: bool
    """The same under the mask that was learned, too."""
    source: Mapping[str, Any] | None
    output: str | None
    baseline_tier: str | None
    baseline_right: bool

    def row(self) -> dict[str, Any]:
        """Return the line that `--rows` writes."""
        return {
            "session_id": self.session_id,
            "index": self.index,
            "tier": self.tier,
            "trust": self.trust,
            "answered": self.answered,
            "source": self.source,
            "output": self.output,
        }


@dataclass(slots=True)
class Tally:
    calls: int = 0
    answered: int = 0
    agreed: int = 0
    agreed_learned: int = 0

    def add(self, *, answered: bool, right: bool, right_learned: bool = False) -> None:
        self.calls += 1
        self.answered += answered
        self.agreed += answered and right
        self.agreed_learned += answered and (right or right_learned)

    @property
    def coverage(self) -> float | None:
        return self.answered / self.calls if self.calls else None

    @property
    def wrong_rate(self) -> float | None:
        return 1 - self.agreed / self.answered if self.answered else None

    def as_json(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "answered": self.answered,
            "agreed": self.agreed,
            "coverage": _rounded(self.coverage),
            "wrong_rate": _rounded(self.wrong_rate),
        }


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The measured truth about one recording and one way of holding sessions out."""

    results: Sequence[CallResult]
    thresholds: tuple[float | None, float | None]
    """Those in force: for a known and for an unknown group."""
    held_sessions: int
    min_trust: float | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)

    def total(self) -> Tally:
        return _tally(self.results)

    def as_json(self) -> dict[str, Any]:
        total = self.total()
        learned = 1 - total.agreed_learned / total.answered if total.answered else None
        baseline = Tally()
        tiers: dict[str, Tally] = {}
        for result in self.results:
            answered = result.baseline_tier is not None
            baseline.add(answered=answered, right=result.baseline_right)
            if result.baseline_tier is not None:
                tiers.setdefault(result.baseline_tier, Tally()).add(
                    answered=True, right=result.baseline_right
                )
        return {
            **self.labels,
            "sessions": self.held_sessions,
            **total.as_json(),
            "interval": interval(self.results),
            "wrong_rate_learned": _rounded(learned),
            "thresholds": {"known_group": self.thresholds[0], "unknown_group": self.thresholds[1]},
            "by_tier": {
                tier: _tally(
                    result for result in self.results if result.answered and result.tier == tier
                ).as_json()
                for tier in sorted({r.tier for r in self.results if r.answered and r.tier is not None})
            },
            "by_server": {
                server: _tally(result for result in self.results if result.server == server).as_json()
                for server in sorted({result.server for result in self.results})
            },
            "curve": curve(self.results),
            "calibration": {
                "expected_calibration_error": _rounded(expected_calibration_error(self.results)),
                "area_under_risk_coverage": _rounded(area_under_risk_coverage(self.results)),
                "candidates": sum(result.trust is not None for result in self.results),
            },
            "baseline": {
                **baseline.as_json(),
                "by_tier": {tier: tally.as_json() for tier, tally in sorted(tiers.items())},
            },
        }


def held_from_file(path: Path) -> list[HeldSession]:
    """Read held-out sessions, one a line as JSON, plain or gzip.

    Raises:
        FireflyError: the file cannot be read, or a line is no session.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise FireflyError(f"cannot read {path}: {error}") from error
    sessions = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            calls = tuple(
                HeldCall(call["server"], call["tool"], call["arguments"], _text(call["output"]))
                for call in value["calls"]
            )
            sessions.append(HeldSession(value["session_id"], value["group"], calls))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FireflyError(f"{path}:{number}: not a session ({type(error).__name__}: {error})") from error
    return sessions


def held_from_recording(store: Store, session_ids: Iterable[str]) -> Iterator[HeldSession]:
    """Yield recorded sessions as held-out ones: their tool calls that were answered, in order."""
    parts: dict[str, list[Any]] = {session_id: [] for session_id in session_ids}
    for conversation in store.conversations():
        if conversation.session_id in parts:
            parts[conversation.session_id].append(conversation)
    for session_id, conversations in parts.items():
        calls: list[tuple[int, HeldCall]] = []
        for conversation in conversations:
            for answered in store.answered(conversation.number):
                params = as_object(json.loads(answered.request).get("params"))
                name, arguments = params.get("name"), params.get("arguments") or {}
                if answered.method == "tools/call" and isinstance(name, str) and isinstance(arguments, dict):
                    calls.append(
                        (
                            answered.exchange_id,
                            HeldCall(conversation.server, name, arguments, _reply(answered.reply)),
                        )
                    )
        if calls:
            ordered = tuple(call for _, call in sorted(calls, key=lambda item: item[0]))
            yield HeldSession(session_id, conversations[0].group, ordered)


def split(store: Store, how: Split) -> list[str]:
    """Choose the sessions to hold out, the same ones each time.

    `leave-run`: one session of each group that has several, drawn by a hash. `task`: all sessions of 30 % of
    the groups. `random`: 30 % of the sessions.
    """
    groups: dict[str, list[str]] = {}
    for conversation in store.conversations():
        sessions = groups.setdefault(conversation.group, [])
        if conversation.session_id not in sessions:
            sessions.append(conversation.session_id)
    if how == "leave-run":
        return [min(sessions, key=_drawn) for sessions in groups.values() if len(sessions) > 1]
    if how == "task":
        held = sorted(groups, key=_drawn)[: round(HELD_SHARE * len(groups))]
        return [session for group in held for session in groups[group]]
    everything = sorted((session for sessions in groups.values() for session in sessions), key=_drawn)
    return everything[: round(HELD_SHARE * len(everything))]


def measure(
    store: Store,
    learned: Learned,
    held: Iterable[HeldSession],
    *,
    min_trust: float | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    tiers: Sequence[Any] = (),
    labels: Mapping[str, Any] | None = None,
) -> Fidelity:
    """Replay held-out sessions, one rollout each with its group, and compare.

    Only server, tool and arguments are passed, in order.
    """
    replayer = Replayer(store, learned, min_trust=min_trust, explain=True, tiers=tiers)
    baseline = Baseline(store, learned)
    results: list[CallResult] = []
    sessions = list(held)
    for done, session in enumerate(sessions):
        if progress:
            progress("replaying", done, len(sessions))
        rollout = replayer.session(session.group)
        for index, call in enumerate(session.calls):
            answer = rollout.ask(call.server, "tools/call", {"name": call.tool, "arguments": call.arguments})
            results.append(_compared(store, learned, baseline, session, index, call, answer))
    if min_trust is None:
        thresholds = (learned.known_group.threshold, learned.unknown_group.threshold)
    else:
        thresholds = (min_trust, min_trust)
    return Fidelity(results, thresholds, len(sessions), min_trust, labels or {})


def _compared(
    store: Store,
    learned: Learned,
    baseline: Baseline,
    session: HeldSession,
    index: int,
    call: HeldCall,
    answer: Any,
) -> CallResult:
    tier: str | None = None
    trust: float | None = None
    output: str | None = None
    source: dict[str, Any] | None = None
    answered = isinstance(answer, Answer)
    if isinstance(answer, Answer):
        tier, trust, output = answer.tier, answer.trust, output_text(answer.outcome)
        if answer.exchange is not None:
            source = {"session": answer.exchange.session_id, "exchange": answer.exchange.id}
    elif answer.rejected is not None:
        tier, trust = answer.rejected.tier, answer.rejected.trust
        exchange = store.exchange(answer.rejected.exchange_id)
        output = output_text(exchange.outcome)
        source = {"session": exchange.session_id, "exchange": exchange.id}
    facts = learned.facts(tool_id(call.server, call.tool))
    baseline_tier, baseline_output = baseline.answer(call)
    truth = masked(call.output)
    return CallResult(
        session.session_id,
        index,
        call.server,
        call.tool,
        tier,
        trust,
        answered,
        output is not None and masked(output) == truth,
        output is not None and _learned(output, facts) == _learned(call.output, facts),
        source,
        output,
        baseline_tier,
        baseline_output is not None and masked(baseline_output) == truth,
    )


class Baseline:
    """Exact, else normalised, else the nearest neighbour by edit similarity: always an answer."""

    def __init__(self, store: Store, learned: Learned) -> None:
        self._store, self._learned = store, learned
        self._tools: dict[int, tuple[dict[str, int], dict[str, int], list[str], list[int]]] = {}

    def answer(self, call: HeldCall) -> tuple[str | None, str | None]:
        """Return the tier and the text of the answer; nothing for a tool that was never called."""
        tool = tool_id(call.server, call.tool)
        exact, normal, texts, exchanges = self._calls(tool)
        if not texts:
            return None, None
        text = canonical_text(plain(call.arguments))
        if text in exact:
            return "exact", reply_text(self._store, exact[text])
        if (normalised := canonical_text(_normalised(plain(call.arguments)))) in normal:
            return "normalised", reply_text(self._store, normal[normalised])
        best = process.extractOne(text[:2000], texts, scorer=fuzz.ratio)
        return "nearest", reply_text(self._store, exchanges[best[2]])

    def _calls(self, tool: int) -> tuple[dict[str, int], dict[str, int], list[str], list[int]]:
        if tool not in self._tools:
            calls = sorted(self._learned.distinct_calls(tool, 100_000))
            exact = {text: exchange for exchange, _, text in reversed(calls)}
            normal = {
                canonical_text(_normalised(json.loads(text))): exchange
                for exchange, _, text in reversed(calls)
            }
            self._tools[tool] = (
                exact,
                normal,
                [text[:2000] for _, _, text in calls],
                [exchange for exchange, _, _ in calls],
            )
        return self._tools[tool]


def _normalised(value: Any) -> Any:
    match value:
        case str():
            return spelled(value)
        case dict():
            return {key: _normalised(item) for key, item in value.items() if item not in ("", [], {})}
        case list():
            return [_normalised(item) for item in value]
        case _:
            return value


def write_rows(measured: Fidelity, path: Path) -> None:
    """Write one line of JSON for each call.

    Raises:
        FireflyError: the file cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8") as file:
            for result in measured.results:
                file.write(readable_json(result.row()) + "\n")
    except OSError as error:
        raise FireflyError(f"cannot write {path}: {error.strerror}") from error


def interval(results: Sequence[CallResult]) -> list[float] | None:
    """Return the 95 % bootstrap interval of the wrong rate, sessions resampled."""
    by_session: dict[str, list[int]] = {}
    for result in results:
        if result.answered:
            counts = by_session.setdefault(result.session_id, [0, 0])
            counts[0] += not result.right
            counts[1] += 1
    if not by_session:
        return None
    sampled, rng, rates = list(by_session.values()), random.Random(SEED), []
    for _ in range(RESAMPLES):
        drawn = rng.choices(sampled, k=len(sampled))
        rates.append(sum(wrong for wrong, _ in drawn) / sum(answered for _, answered in drawn))
    rates.sort()
    return [round(rates[int(0.025 * RESAMPLES)], 4), round(rates[int(0.975 * RESAMPLES)], 4)]


def curve(results: Sequence[CallResult]) -> list[dict[str, float | None]]:
    """Return coverage and wrong rate for each least trust: what `--min-trust` would give.

    An answer whose trust could not be measured is always given, the nearest neighbour only at 0.
    """
    points: list[dict[str, float | None]] = []
    trusts = sorted({round(r.trust, 3) for r in results if r.trust is not None and r.tier != "nearest"})
    for least in [0.0, *trusts[:: max(1, len(trusts) // 50)]]:
        tally = Tally()
        for result in results:
            found = result.tier is not None and (
                least == 0
                or (
                    (result.answered if result.trust is None else result.trust >= least)
                    and (result.tier != "nearest")
                )
            )
            tally.add(answered=found, right=result.right)
        points.append(
            {
                "min_trust": least,
                "coverage": _rounded(tally.coverage),
                "wrong_rate": _rounded(tally.wrong_rate),
            }
        )
    return points


def expected_calibration_error(results: Sequence[CallResult], bins: int = 10) -> float | None:
    """Return the mean distance between trust and the share that is right, over bins of equal mass."""
    rows = sorted((r.trust, r.right) for r in results if r.trust is not None)
    if not rows:
        return None
    error = 0.0
    for number in range(bins):
        part = rows[number * len(rows) // bins : (number + 1) * len(rows) // bins]
        if part:
            error += abs(sum(trust for trust, _ in part) - sum(right for _, right in part)) / len(rows)
    return error


def area_under_risk_coverage(results: Sequence[CallResult]) -> float | None:
    """Return the mean share of wrong answers over all coverages, most trusted answers first."""
    rows = sorted(((r.trust, r.right) for r in results if r.trust is not None), key=lambda row: -row[0])
    if not rows:
        return None
    wrong, area = 0, 0.0
    for count, (_, right) in enumerate(rows, 1):
        wrong += not right
        area += wrong / count
    return area / len(rows)


def _tally(results: Iterable[CallResult]) -> Tally:
    tally = Tally()
    for result in results:
        tally.add(answered=result.answered, right=result.right, right_learned=result.right_learned)
    return tally


def _learned(text: str, facts: Facts) -> str:
    return masked(without_volatile(text, facts.volatile) if facts.volatile else text)


def _reply(text: str) -> str:
    reply = json.loads(text)
    return result_text(reply["result"]) if "result" in reply else error_text(reply.get("error"))


def _text(output: object) -> str:
    return output if isinstance(output, str) else json.dumps(output)


def _drawn(name: str) -> str:
    return content_hash(["drawn", name])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
