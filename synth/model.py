"""Models asked by name, within one budget, everything that they answered kept.

A completion costs money and comes out differently the next time, so each is written to a file as soon as it
is there. Asked the same again, in this run or in one that goes on after it, the kept one is returned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from recorder.canonical import content_hash, readable_json
from recorder.claude_api import BudgetError, ClaudeApi, known_price, most_tokens
from recorder.errors import FireflyError
from recorder.exchange import Json, Record

T = TypeVar("T")

MAX_TOKENS = 8000
"""Of a completion. What is asked for here takes some hundred; current models think unasked."""

TIMEOUT_S = 180.0

ITEM_CAPS = (5000, 200, 50, 20, 8, 3)
"""Items of a list, or members of an object, that are shown: fewer until the whole fits."""

CHARACTERS_PER_ITEM = 20
"""Of a text, for each item that a list may have."""

DEEPEST_SHOWN = 12


class NoAnswer(FireflyError):
    """A model refused, or answered twice with something else than it was asked for."""


class ModelSpec(NamedTuple):
    name: str
    """As the API names it."""
    base_url: str | None
    """`None`: where the SDK finds the API."""


def read_spec(spec: str) -> ModelSpec:
    """Read `NAME` or `NAME@BASE_URL`, such as `Qwen/Qwen3-8B@http://localhost:8000`.

    Raises:
        FireflyError: it is neither.
    """
    found = re.fullmatch(r"(?P<name>\S+?)(?:@(?P<url>https?://\S+))?", spec)
    # Without an address, an @ is the beginning of a mistyped one.
    if found is None or ("@" in found["name"] and found["url"] is None):
        raise FireflyError(f"a model is NAME or NAME@BASE_URL, such as qwen3-8b@http://host:80, got {spec!r}")
    return ModelSpec(found["name"], found["url"])


def family(spec: str) -> str:
    """Return the letters that a model's name begins with, in lower case: `Qwen/Qwen3-8B` is a qwen."""
    name = read_spec(spec).name.rpartition("/")[2]
    found = re.match(r"[^\W\d_]+", name)
    return (found[0] if found is not None else name).lower()


class Reply(Record):
    """A completion, as it is kept."""

    key: str
    """Content hash of all that it answers."""
    model: str
    """As it was asked for."""
    answered_by: str
    """The model as the API named it, which can be a dated version."""
    content: list[Json]
    """Its blocks, as received."""
    stop_reason: str
    input_tokens: int
    """All of them, cached ones too."""
    output_tokens: int
    """Thinking included."""
    cost_usd: float | None
    """`None` when the price of the model is not known."""

    @property
    def text(self) -> str:
        """What it said, without what it thought."""
        texts = (block.get("text") for block in self.content if _is_text(block))
        return "".join(text for text in texts if isinstance(text, str))


class Used(NamedTuple):
    """What the answers that a run used took, be they kept ones or new."""

    completions: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    """`None` when the price of one of the models is not known."""


class Models:
    """Language models, by name. Not to be shared by threads or processes.

    Args:
        path: Where completions are kept, one a line; made with the first one. `None`: for this run alone.
        max_usd: A request is made only if it cannot take what this run spends, on all models together, above
            this. Kept answers are spent already.
        api_key: For all of them; by default the credentials that the SDK finds.
        api_keys: Base URL → key, where one has its own.
        timeout_s: How long one attempt may take.

    Raises:
        FireflyError: a line of the file is no completion; one that was not written to its end is left out.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        max_usd: float | None = None,
        api_key: str | None = None,
        api_keys: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if max_usd is not None and max_usd < 0:
            raise ValueError(f"max_usd must not be negative, got {max_usd}")
        self._max_usd, self._timeout_s = max_usd, timeout_s
        self._api_key, self._api_keys = api_key, dict(api_keys or {})
        self._apis: dict[str, ClaudeApi] = {}
        self._used: dict[str, Reply] = {}
        self._file = _KeptFile(path) if path is not None else None
        self._kept: dict[str, Reply] = self._file.read() if self._file is not None else {}

    @property
    def spent_usd(self) -> float:
        """What the requests of this run cost, as `ClaudeApi` counts it; kept answers cost nothing."""
        return sum(api.spent_usd for api in self._apis.values())

    @property
    def used(self) -> Used:
        """What the answers of this run took. A run that was interrupted and went on has the same as one that
        was not."""
        replies = self._used.values()
        costs = [reply.cost_usd for reply in replies]
        priced = [cost for cost in costs if cost is not None]
        return Used(
            completions=len(costs),
            input_tokens=sum(reply.input_tokens for reply in replies),
            output_tokens=sum(reply.output_tokens for reply in replies),
            # Rounded, as sums of binary fractions differ with their order.
            cost_usd=round(sum(priced), 9) if len(priced) == len(costs) else None,
        )

    def check(self, specs: Iterable[str]) -> None:
        """Make sure that models can be asked, as far as that shows without asking.

        Raises:
            FireflyError: one is misspelt, there are no usable credentials, or there is a budget and no price.
        """
        for spec in specs:
            self._api(spec)

    def ask(
        self,
        spec: str,
        messages: Sequence[Json],
        max_tokens: int = MAX_TOKENS,
        *,
        system: str = "",
        tools: Sequence[Json] = (),
        sample: int = 0,
    ) -> Reply:
        """Return what a model answers to a conversation, or answered before.

        Args:
            messages, max_tokens, system, tools: As in the Messages API.
            sample: Which of several answers to the same.

        Raises:
            BudgetError: the request might cost more than is left.
            CompletionError: the API refused, could not be reached, or did not answer in time. It is not kept.
            FireflyError: as for `check`.
        """
        name = read_spec(spec).name
        key = content_hash([name, system, list(messages), list(tools), max_tokens, sample])
        reply = self._kept.get(key)
        if reply is None:
            api = self._api(spec)
            self._check_budget(name, most_tokens(messages, system, tools), max_tokens)
            found = api.ask(messages, max_tokens, system=system, tools=tools)
            reply = Reply(
                key=key,
                model=name,
                answered_by=found.model,
                content=found.content,
                stop_reason=found.stop_reason,
                input_tokens=found.input_tokens,
                output_tokens=found.output_tokens,
                cost_usd=found.cost_usd,
            )
            if self._file is not None:
                self._file.append(reply)
            self._kept[key] = reply
        self._used[key] = reply
        return reply

    def ask_for(self, spec: str, system: str, prompt: str, read: Callable[[str], T], sample: int = 0) -> T:
        """Return what `read` makes of a model's answer. Where it makes nothing, the model is asked once more.

        Args:
            read: Raises `ValueError` on a text that is not what was asked for, with a message for the model.

        Raises:
            NoAnswer: the model refused, or its second answer was none either.
            BudgetError, CompletionError, FireflyError: as for `ask`.
        """
        name = read_spec(spec).name
        messages: list[Json] = [{"role": "user", "content": prompt}]
        wrong = ""
        for _ in range(2):
            reply = self.ask(spec, messages, system=system, sample=sample)
            if reply.stop_reason == "refusal":
                raise NoAnswer(f"{name} refused")
            try:
                return read(reply.text)
            except ValueError as error:
                wrong = " ".join(str(error).split())
            # The API takes no turn of the model that is empty.
            said = [{"role": "assistant", "content": reply.text}] if reply.text.strip() else []
            again = f"Your answer cannot be used: {wrong}. Answer again, in the form that was asked for."
            messages = [*messages, *said, {"role": "user", "content": again}]
        raise NoAnswer(f"{name} gave no usable answer in two: {wrong:.200}")

    def _api(self, spec: str) -> ClaudeApi:
        if spec not in self._apis:
            name, base_url = read_spec(spec)
            self._apis[spec] = ClaudeApi(
                name,
                base_url=base_url,
                api_key=self._api_keys.get(base_url or "", self._api_key),
                timeout_s=self._timeout_s,
                max_usd=self._max_usd,
            )
        return self._apis[spec]

    def _check_budget(self, name: str, most_input_tokens: int, max_tokens: int) -> None:
        """Each client minds what it spends itself; here, that all of them together do not spend more."""
        price = known_price(name)
        if self._max_usd is None or price is None:
            return
        most_usd = price.cost_usd(most_input_tokens, max_tokens)
        if self.spent_usd + most_usd > self._max_usd:
            raise BudgetError(
                f"the budget of ${self._max_usd:.4g} is used up: ${self.spent_usd:.4f} are spent,"
                f" and one more answer of {name} may cost ${most_usd:.4f}"
            )


class _KeptFile:
    """Completions in a file, one a line, in the order they came."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._whole_bytes = 0
        """Length of the lines that were written to their end."""

    def read(self) -> dict[str, Reply]:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FireflyError(f"{self._path} cannot be read: {error.strerror}") from error
        self._whole_bytes = raw.rfind(b"\n") + 1
        replies: dict[str, Reply] = {}
        for number, line in enumerate(raw[: self._whole_bytes].split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                reply = Reply.model_validate(json.loads(line))
            except (ValidationError, ValueError, RecursionError) as error:
                raise FireflyError(
                    f"{self._path}, line {number}, is no answer of a model: delete it to have it asked again"
                ) from error
            replies.setdefault(reply.key, reply)
        return replies

    def append(self, reply: Reply) -> None:
        line = readable_json(reply.model_dump(mode="json")).encode() + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.truncate(self._whole_bytes)  # what a killed run wrote half
                file.write(line)
        except OSError as error:
            raise FireflyError(f"{self._path} cannot be written: {error.strerror}") from error
        self._whole_bytes += len(line)


# --- what prompts are made of, and answers read by ----------------------------------------------------------


def last_object(text: str) -> dict[str, Json] | None:
    """Return the last JSON object in a text, not one within another; `None` if there is none."""
    found: dict[str, Json] | None = None
    # Not strict: models leave line ends in strings as they are.
    decoder = json.JSONDecoder(strict=False)
    place = text.find("{")
    while place >= 0:
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
        else:
            found = value
        place = text.find("{", place)
    return found


def shown(value: Json, most_characters: int) -> str:
    """Return a value as one line of JSON, without the rest of long lists and texts where it is too long.

    What is left out is said in its place. No text within it can end the line.
    """
    for most_items in ITEM_CAPS:
        text = readable_json(_shortened(value, most_items, 0))
        if len(text) <= most_characters:
            return text
    return readable_json(f"{text[:most_characters]}… ({len(text)} characters in all)")


def _shortened(value: Json, most_items: int, depth: int) -> Json:
    match value:
        case str():
            most = CHARACTERS_PER_ITEM * most_items
            return value if len(value) <= most else f"{value[:most]}… ({len(value)} characters in all)"
        case dict() | list() if depth == DEEPEST_SHOWN:
            return "…"
        case dict():
            members = [(name, _shortened(inner, most_items, depth + 1)) for name, inner in value.items()]
            left_out = len(members) - most_items
            return dict(members[:most_items]) | ({"…": f"{left_out} more members"} if left_out > 0 else {})
        case list():
            items = [_shortened(inner, most_items, depth + 1) for inner in value[:most_items]]
            left_out = len(value) - most_items
            return [*items, *([f"… {left_out} more items"] if left_out > 0 else [])]
        case int() | float() | None:
            return value
    return None  # the output of a call that gave none


def _is_text(block: Json) -> bool:
    return isinstance(block, dict) and block.get("type") == "text"
