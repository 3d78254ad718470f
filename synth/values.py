"""Typed values in a tool's output, and where they stand.

An output is read into a tree of JSON values whatever it was written in (`recorder.explore.outputs`). An
address is a path into that tree: the names of members and the numbers of items, from the outside in. The
same text always reads into the same tree, so an address keeps its meaning for as long as `READER` does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

from recorder.exchange import Json
from recorder.explore.names import words_in
from recorder.explore.outputs import MOST_CHARACTERS, output_of, parsed, text_of

READER = 1
"""Of how outputs are read: another one may read the same text into another tree."""

Address = tuple[str | int, ...]

Kind = Literal["boolean", "number", "date", "duration", "size", "id", "text"]
"""`date`: a day or a moment; `duration` in seconds and `size` in bytes, once read; `id` tells one thing from
all others, and `text` does not have to."""

MOST_ITEMS, MOST_NODES, MOST_DEPTH = 200, 5000, 12
MOST_DIGITS = 80
LONGEST_TEXT = 160
"""Characters of a text that can be a value; what is longer is content."""

Plain = str | int | float | bool


class Leaf(NamedTuple):
    address: Address
    value: Plain


class WrongKind(ValueError):
    """A value cannot be read as what it was said to be."""


def read(result: Json) -> Json:
    """Return a tool's result as a tree; `None` if it says nothing."""
    text = text_of(result)
    if (rows := _tagged_lines(text)) is not None or (rows := _json_lines(text)) is not None:
        return rows
    value = output_of(result)
    if isinstance(value, list) and not text.lstrip().startswith(("[", "{", "(")) and _is_of_text(result):
        return _listing(text)
    # One line with a colon in it is a sentence more often than a record.
    if isinstance(value, dict) and len(value) == 1 and not text.lstrip().startswith(("{", "[")):
        (inner,) = value.values()
        return text.strip() if isinstance(inner, str) and text else value
    return value


def _is_of_text(result: Json) -> bool:
    """Whether a result is one text, so that a list read out of it is a reading of its lines."""
    if not isinstance(result, dict) or not isinstance(content := result.get("content"), list):
        return False
    structured = result.get("structuredContent")
    lists = isinstance(structured, dict) and any(
        isinstance(inner, list | dict) for inner in structured.values()
    )
    return len(content) == 1 and not lists


def _listing(text: str) -> Json:
    """Read lines that name one thing each, under a heading or not; any other text stays one, unless it is a
    table."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    value = parsed(text)
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return value
    if lines and lines[0].endswith(":"):
        lines = lines[1:]
    names = [re.sub(r"^(?:[-*•+]|\d+[.)])\s+", "", line) for line in lines]
    if len(names) >= 2 and all(re.fullmatch(r"[^\s{}()<>;=]{2,200}", name) for name in names):
        return list(names)
    return text.strip()


def at(tree: Json, address: Sequence[str | int]) -> Json:
    """Return the node at an address.

    Raises:
        LookupError: there is none.
    """
    for step in address:
        if isinstance(tree, dict) and isinstance(step, str):
            tree = tree[step]
        elif isinstance(tree, list) and isinstance(step, int) and not isinstance(step, bool):
            if step < 0:
                raise IndexError(step)
            tree = tree[step]
        else:
            raise LookupError(step)
    return tree


def replaced(tree: Json, address: Sequence[str | int], value: Json) -> Json:
    """Return the tree with another value at an address; the given one stays as it is.

    Raises:
        LookupError: there is no such address.
    """
    if not address:
        return value
    step, rest = address[0], address[1:]
    inner = replaced(at(tree, (step,)), rest, value)
    if isinstance(tree, dict):
        return {**tree, step: inner}
    copy = list(tree)
    copy[int(step)] = inner
    return copy


def leaves(tree: Json) -> Iterator[Leaf]:
    """Yield the plain values of a tree in order; `null` and empty texts are none."""
    stack: list[tuple[Address, Json]] = [((), tree)]
    count = 0
    while stack and count < MOST_NODES:
        address, node = stack.pop()
        count += 1
        if isinstance(node, dict) and len(address) < MOST_DEPTH:
            stack.extend(reversed([((*address, str(name)), inner) for name, inner in node.items()]))
        elif isinstance(node, list) and len(address) < MOST_DEPTH:
            stack.extend(reversed([((*address, n), inner) for n, inner in enumerate(node[:MOST_ITEMS])]))
        elif isinstance(node, str | int | float) and node != "":
            yield Leaf(address, node)


# --- what a plain value is ---

_NUMBER = re.compile(r"[-+]?(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|[-+]?\.\d+")
_QUANTITY = re.compile(
    r"(?P<before>[$€£¥])?\s*(?P<number>[-+]?(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d+)?)\s*"
    r"(?P<after>%|°[CF]|[A-Za-zµ]{1,12}(?:/[A-Za-z]{1,3})?)?"
)
_SIZES = {"b": 1, "byte": 1, "bytes": 1}
for _power, _letter in enumerate("kmgtp", 1):
    for _spelling, _base in ((f"{_letter}b", 1024), (f"{_letter}ib", 1024), (_letter, 1024)):
        _SIZES[_spelling] = _base**_power
_DURATIONS: dict[str, float] = {
    "ns": 1e-9, "µs": 1e-6, "us": 1e-6, "ms": 1e-3, "millisecond": 1e-3, "s": 1, "sec": 1, "second": 1,
    "m": 60, "min": 60, "minute": 60, "h": 3600, "hr": 3600, "hour": 3600, "d": 86400, "day": 86400,
    "w": 604800, "week": 604800,
}  # fmt: skip
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?(Z|UTC|[+-]\d\d:?\d\d)?)?"
)
_MONTHS = {name: number for number, name in enumerate(
    "jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}  # noqa: SIM905  # fmt: skip
_JAVASCRIPT_DATE = re.compile(
    r"(?:\w{3} )?(\w{3}) (\d\d?),? (\d{4})(?: (\d\d):(\d\d):(\d\d)(?: GMT([+-]\d{4})(?: \([^)]*\))?)?)?"
)
_WORDS_OF_TRUTH = {"true": True, "yes": True, "false": False, "no": False}
_ID_VALUE = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{12,64}|[A-Za-z]{1,12}[-_#]?\d{1,12}", re.IGNORECASE
)
_ID_NAMES = frozenset(
    {
        "id",
        "uuid",
        "guid",
        "isbn",
        "ean",
        "iban",
        "key",
        "sha",
        "hash",
        "sku",
        "code",
        "number",
        "cid",
        "rowid",
        "slug",
    }
)
_NO_MEASURE = frozenset(
    """id uuid guid isbn ean iban key sha hash sku code zip postal phone year month day port pid line row
    column version rank index lat latitude lon longitude no number cid pk position start end offset
    precision permission permissions mode published founded born since released
    """.split()  # noqa: SIM905
)
"""Words in the names of numbers that say which or where: no sum or mean is asked of them."""


def number(value: Json) -> int | float:
    """Read a number: `"1,234.50"` is 1234.5.

    Raises:
        WrongKind: it is none, or not finite.
    """
    if isinstance(value, bool):
        raise WrongKind("a truth value is no number")
    if isinstance(value, int):
        if abs(value) >= 10**MOST_DIGITS:
            raise WrongKind(f"a number has at most {MOST_DIGITS} digits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise WrongKind(f"{value} is no finite number")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, str) and len(value) <= 80 and _NUMBER.fullmatch(value.strip()):
        try:
            exact = Decimal(value.strip().replace(",", ""))
        except InvalidOperation:
            raise WrongKind(f"{value[:40]!r} is no number") from None
        # With an exponent it was a float where it was written; as digits, all of them count.
        most = 2**53 if "e" in value.lower() else 10**MOST_DIGITS
        if abs(exact) < most and exact == exact.to_integral_value():
            return int(exact)
        found = float(exact)
        if math.isfinite(found):
            return found
    raise WrongKind(f"{_shown(value)} is no number")


def quantity(value: Json) -> tuple[int | float, str]:
    """Read a number with its unit: `"12.5 kB"` is (12.5, "kB"), and `"$3"` is (3, "$").

    Raises:
        WrongKind: it is none.
    """
    if isinstance(value, str) and len(value) <= 60 and (found := _QUANTITY.fullmatch(value.strip())):
        return number(found["number"]), found["before"] or found["after"] or ""
    return number(value), ""


def size_bytes(value: Json) -> int:
    """Read a size: `"1.5 KB"` is 1536, as file listings count. A bare number is in bytes."""
    amount, unit = quantity(value)
    factor = _SIZES.get(unit.lower()) if unit else 1
    if factor is None:
        raise WrongKind(f"{_shown(value)} is no size")
    return round(amount * factor)


def duration_s(value: Json) -> int | float:
    """Read a duration in seconds: `"1.5 h"` is 5400. A bare number is none, since its unit is not known."""
    amount, unit = quantity(value)
    name = unit.lower()
    factor = _DURATIONS.get(name) or _DURATIONS.get(name.removesuffix("s"))
    if factor is None:
        raise WrongKind(f"{_shown(value)} is no duration")
    return number(round(amount * factor, 9))


def moment(value: Json) -> datetime | date:
    """Read a day or a moment, in ISO 8601, RFC 5322 or JavaScript's form; a moment without a zone is in UTC.

    Raises:
        WrongKind: it is neither.
    """
    if not isinstance(value, str) or not 8 <= len(value) <= 90:
        raise WrongKind(f"{_shown(value)} is no date")
    text = value.strip()
    try:
        if (found := _ISO.fullmatch(text)) is not None:
            year, month, day = int(found[1]), int(found[2]), int(found[3])
            if found[4] is None:
                return date(year, month, day)
            micro = int((found[7] or "0")[:6].ljust(6, "0"))
            clock = (int(found[4]), int(found[5]), int(found[6] or 0), micro)
            return datetime(year, month, day, *clock, tzinfo=UTC) - _offset(found[8])
        if (found := _JAVASCRIPT_DATE.fullmatch(text)) is not None and found[1].lower() in _MONTHS:
            day_of = (int(found[3]), _MONTHS[found[1].lower()], int(found[2]))
            if found[4] is None:
                return date(*day_of)
            hour, minute, second = map(int, found.groups()[3:6])
            return datetime(*day_of, hour, minute, second, tzinfo=UTC) - _offset(found[7])
        if "," in text[:5] or text[:3].isalpha():
            read_date = parsedate_to_datetime(text)
            return (read_date if read_date.tzinfo else read_date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, TypeError):
        pass
    raise WrongKind(f"{_shown(value)} is no date")


def date_text(value: Json) -> str:
    """Read a day or a moment and write it in ISO 8601; a moment in UTC, to the second."""
    found = moment(value)
    if isinstance(found, datetime):
        # Not strftime, which writes the year 99 as such.
        return f"{found.astimezone(UTC).replace(tzinfo=None, microsecond=0).isoformat()}Z"
    return found.isoformat()


def truth(value: Json) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _WORDS_OF_TRUTH:
        return _WORDS_OF_TRUTH[value.strip().lower()]
    raise WrongKind(f"{_shown(value)} is neither true nor false")


def text(value: Json) -> str:
    """Read a text, without space around it. A number is the text of itself.

    Raises:
        WrongKind: it is a truth value, empty, or no plain value.
    """
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(number(value))
    raise WrongKind(f"{_shown(value)} is no text")


READERS = {
    "boolean": truth,
    "number": number,
    "date": date_text,
    "duration": duration_s,
    "size": size_bytes,
    "id": text,
    "text": text,
}


def as_kind(value: Json, kind: str) -> Plain:
    """Read a plain value as a kind.

    Raises:
        WrongKind: it is not of that kind, or there is no such kind.
    """
    if kind not in READERS:
        raise WrongKind(f"there is no kind {kind!r} (kinds: {', '.join(READERS)})")
    found: Plain = READERS[kind](value)
    return found


def kind_of(value: Json, name: str = "") -> Kind | None:
    """Return what a plain value is, going by its name, too; `None` if it is nothing to ask for."""
    words = words_in(name)
    if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _WORDS_OF_TRUTH):
        return "boolean"
    if value is None or isinstance(value, dict | list) or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str) and ("\n" in value or len(value) > LONGEST_TEXT):
        return None
    if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
        return None
    if words and words[-1] in _ID_NAMES:
        return "id"
    if _is(value, "date"):
        return "date"
    if _is(value, "number"):
        return "text" if isinstance(value, str) and _is_label(value, words) else "number"
    if isinstance(value, str):
        if _is(value, "size") and set(words) & {"size", "length", "memory", "bytes", "column"}:
            return "size"
        if _QUANTITY.fullmatch(value.strip()) and _unit(value).lower() in {
            "kb",
            "mb",
            "gb",
            "kib",
            "mib",
            "gib",
            "b",
        }:
            return "size"
        if _is(value, "duration") and " " in value.strip():
            return "duration"
        return "id" if _ID_VALUE.fullmatch(value.strip()) else "text"
    return None


def _is_label(value: str, words: Sequence[str]) -> bool:
    """Whether digits are no number: `007`, or the version `1.10`."""
    return bool(re.match(r"[-+]?0\d", value.strip())) or bool(set(words) & _LABELS)


_LABELS = frozenset("version phone zip postal release revision".split())  # noqa: SIM905


def is_exact(value: Json) -> bool:
    """Whether a size is told to the byte: of `52.4 KB` nobody knows the bytes, nor the kilobyte."""
    if not isinstance(value, str):
        return True
    try:
        return _SIZES.get(quantity(value)[1].lower() or "b", 1) == 1
    except WrongKind:
        return True


def is_measure(name: str) -> bool:
    """Whether numbers of this name say how much, so that their sum and mean mean something."""
    return not set(words_in(name)) & _NO_MEASURE


# --- tables ---


@dataclass(frozen=True, slots=True)
class Column:
    path: Address
    """Within a row."""
    kind: Kind
    values: tuple[Plain, ...]
    """Of each row, read as `kind`."""
    exact: bool = True
    """Whether sizes are told to the byte, each of them."""

    @property
    def name(self) -> str:
        return " ".join(str(step) for step in self.path)

    @property
    def distinct(self) -> bool:
        return len(set(self.values)) == len(self.values)


@dataclass(frozen=True, slots=True)
class Table:
    """A list of records of the same kind."""

    address: Address
    rows: int
    columns: tuple[Column, ...]
    """Those that every row has, with a value of one kind."""
    keyed: bool = False
    """The rows are members of an object, each under a name; the name is at `key`, the rest at `value`."""


def tables(tree: Json) -> list[Table]:
    """Return the lists of two or more records in a tree, outermost first, none within another's rows."""
    found: list[Table] = []
    stack: list[tuple[Address, Json]] = [((), tree)]
    while stack:
        address, node = stack.pop(0)
        if isinstance(node, list):
            table = _table(address, node) if 2 <= len(node) <= MOST_ITEMS else None
            if table is not None:
                found.append(table)
        elif isinstance(node, dict) and len(address) < MOST_DEPTH:
            if len(node) > 2 and all(isinstance(inner, dict) for inner in node.values()):
                table = _table(address, items_of(node))
                if table is not None:
                    found.append(Table(table.address, table.rows, table.columns, keyed=True))
                    continue
            stack.extend(((*address, str(name)), inner) for name, inner in node.items())
    return found


def items_of(node: Json) -> list[Json]:
    """Return the items of a list, or the members of an object as `{"key": …, "value": …}`.

    Raises:
        WrongKind: it is neither.
    """
    if isinstance(node, list):
        return node
    if isinstance(node, dict):
        return [{"key": name, "value": inner} for name, inner in node.items()]
    raise WrongKind(f"{_shown(node)} has no items")


def _table(address: Address, rows: Sequence[Json]) -> Table | None:
    if not all(isinstance(row, dict) for row in rows):
        plain = all(isinstance(row, int | float) and not isinstance(row, bool) for row in rows) or all(
            isinstance(row, str) and row.count(" ") <= 3 for row in rows
        )
        column = _column((), list(rows)) if plain else None
        return Table(address, len(rows), (column,)) if column is not None else None
    paths = [leaf.address for leaf in leaves(rows[0]) if all(isinstance(step, str) for step in leaf.address)]
    columns = []
    for path in paths[:40]:
        try:
            values = [at(row, path) for row in rows]
        except LookupError:
            continue
        if (column := _column(path, values)) is not None:
            columns.append(column)
    return Table(address, len(rows), tuple(columns)) if columns else None


def _column(path: Address, values: list[Json]) -> Column | None:
    name = str(path[-1]) if path else ""
    kinds = {kind_of(value, name) for value in values}
    kind: Kind
    match sorted(str(kind) for kind in kinds):
        case ["None", *_]:
            return None
        case [only]:
            kind = only  # type: ignore[assignment]  # it was a Kind before it was a text
        case ["number", "size"]:
            kind = "size"
        case _:
            kind = "text"
    try:
        exact = kind != "size" or all(map(is_exact, values))
        return Column(path, kind, tuple(as_kind(value, kind) for value in values), exact)
    except WrongKind:
        return None


_TAGGED = re.compile(r"\[([A-Z][A-Z_]{1,11})\]\s+(\S.*)")
_GAP = re.compile(r"\s\s+")


def _tagged_lines(text: str) -> list[Json] | None:
    """Read lines like `[FILE] notes.md    140 B`; a summary may follow them."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(text) > MOST_CHARACTERS or not lines or not _TAGGED.fullmatch(lines[0].strip()):
        return None
    rows: list[Json] = []
    for line in lines:
        found = _TAGGED.fullmatch(line.strip())
        if found is None:
            break
        # The name may have a gap in it, too.
        *names, last = _GAP.split(found[2].strip())
        name, more = ("  ".join(names), [last]) if names else (last, [])
        rows.append({"tag": found[1], "name": name, **({"size": more[0]} if more else {})})
    return rows if len(rows) >= len(lines) - 3 else None


def _json_lines(text: str) -> list[Json] | None:
    """Read an object a line."""
    lines = [line for line in text.splitlines() if line.strip()] if text.lstrip()[:1] == "{" else []
    if len(lines) < 2 or len(text) > MOST_CHARACTERS:
        return None
    try:
        rows = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return None
    return rows if all(isinstance(row, dict) for row in rows) else None


def _is(value: Json, kind: str) -> bool:
    try:
        as_kind(value, kind)
    except WrongKind:
        return False
    return True


def _unit(value: str) -> str:
    try:
        return quantity(value)[1]
    except WrongKind:
        return ""


def _offset(zone: str | None) -> timedelta:
    if zone in (None, "", "Z", "UTC"):
        return timedelta()
    assert zone is not None
    digits = zone[1:].replace(":", "")
    if int(digits[:2]) > 23 or int(digits[2:]) > 59:
        raise ValueError(f"no zone is {zone} away")
    ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -ahead if zone[0] == "-" else ahead


def _shown(value: Json) -> str:
    if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
        return "a number with very many digits"
    shown = repr(value) if not isinstance(value, dict | list) else type(value).__name__
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
