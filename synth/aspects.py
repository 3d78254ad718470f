"""What can be asked of one output: counts, extremes, sums, look-ups and the like, each as an expression.

An aspect is worded as a noun phrase ("the number of entries"), so that questions can be put together from
any.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median

from recorder.exchange import Json
from synth.program import Expression
from synth.trace import Observation
from synth.values import Address, Column, Kind, Plain, Table, is_exact, is_measure, kind_of, leaves

MEASURES = ("number", "size", "duration")

MOST_LISTED = 6
"""Items of a list that an answer may be."""

SHORTEST_TABLE = 3
"""Rows from which extremes and sums are asked for: of two a guess is right half the time."""

_GENERIC = frozenset(
    """
    result results item items list content output data value values rows records entries matches body
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Aspect:
    name: str
    """Of the answer's field."""
    words: str
    expression: Expression
    kind: Kind
    op: str
    """What kind of aspect it is."""
    about: str
    """The column or value that it is about: of several with the same, one is enough."""
    listed: bool = False
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Selector:
    """A row of a table, said without its number."""

    row: Expression
    words: str
    op: str


def aspects(seen: Observation, call: int, rng: Random) -> list[Aspect]:
    """Return what can be asked of an output, in an order that the random source decides."""
    found = [*_scalars(seen, call), *_nested_lists(seen, call)]
    for table in seen.tables[:4]:
        found += _of_table(seen, table, call, rng)
    rng.shuffle(found)
    return found


def selectors(seen: Observation, table: Table, number: int, taken: Column, call: int) -> list[Selector]:
    """Return the ways to say which row is meant without saying the value that is to be taken from it."""
    rows, noun = rows_of(table, call), noun_of(table)
    found: list[Selector] = []
    for column in table.columns:
        label = label_of(column.path)
        if table.rows >= SHORTEST_TABLE and (column.kind in (*MEASURES, "date")) and is_measure(column.name):
            order = sorted(column.values)
            value = column.values[number]
            if column.values.count(value) == 1:
                place, back = order.index(value), len(order) - 1 - order.index(value)
                for rank, largest in ((back, True), (place, False)):
                    if rank == 0:
                        op = "argmax" if largest else "argmin"
                        row = _best(op, rows, column)
                        found.append(Selector(row, f"the {noun} with {_extreme(column, largest)}", op))
                    elif rank <= 2 and len(set(order)) == len(order):
                        taken_rows = _sorted(rows, column, rank + 1, descending=largest)
                        row = {"op": "item", "of": taken_rows, "number": rank}
                        nth = ("second", "third")[rank - 1]
                        words = f"the {noun} with the {nth} {_extreme(column, largest).removeprefix('the ')}"
                        found.append(Selector(row, words, "sort_take"))
        if column.kind in ("text", "id", "boolean") and column is not taken:
            value = column.values[number]
            if column.values.count(value) == 1 and table.rows > 1 and len(str(value)) <= 60:
                found.append(
                    Selector(
                        _only(rows, column, "eq", value),
                        f"the {noun} whose {label} is {shown(value)}",
                        "filter",
                    )
                )
    if taken.kind in ("text", "id") and taken.distinct:
        value = str(taken.values[number])
        order = sorted(str(v) for v in taken.values)
        for text, place in (("first", 0), ("last", -1)):
            if order[place] == value and table.rows >= SHORTEST_TABLE:
                op = "argmin" if place == 0 else "argmax"
                row = {"op": op, "of": rows, "path": list(taken.path), "as": "text"}
                where = f"whose {label_of(taken.path)} comes {text}" if taken.path else f"that comes {text}"
                found.append(
                    Selector(row, f"the {noun} {where} when sorted by character code", f"{text} by text")
                )
        dot = value.rfind(".")
        ending = value[dot:] if 0 < dot < len(value) - 1 and "/" not in value[dot:] else ""
        if 2 <= len(ending) <= 8 and sum(str(v).endswith(ending) for v in taken.values) == 1:
            where = f"whose {label_of(taken.path)} ends in" if taken.path else "that ends in"
            found.append(
                Selector(
                    _only(rows, taken, "ends", ending),
                    f"the one {noun} {where} {shown(ending)}",
                    "filter by ending",
                )
            )
    return found


def _best(op: str, rows: Expression, column: Column) -> Expression:
    return {"op": op, "of": rows, "path": list(column.path), "as": column.kind}


def column_of(row: Expression, column: Column, label_kind: Kind | None = None) -> Expression:
    return {"op": "get", "of": row, "path": list(column.path), "as": label_kind or column.kind}


def rows_of(table: Table, call: int) -> Expression:
    return {"op": "extract", "call": call, "path": list(table.address)}


def noun_of(table: Table) -> str:
    """Return what a row is called, in the singular."""
    names = [step for step in table.address if isinstance(step, str)]
    words = spoken(names[-1]) if names else ""
    if not words or words.split()[-1] in _GENERIC or not re.fullmatch(r"[a-z ]{3,30}", words):
        return "entry"
    if words.endswith("ies"):
        return words[:-3] + "y"
    return words[:-1] if words.endswith("s") and not words.endswith("ss") else words


def plural(noun: str) -> str:
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else noun + "s"


def label_of(path: Address) -> str:
    """Return what a column or a field is called, in words."""
    names = [spoken(step) for step in path if isinstance(step, str)]
    if names[:1] == ["value"] and len(names) > 1:
        names = names[1:]
    return " ".join(dict.fromkeys(" ".join(names[-2:]).split())) if names else "text"


_WORD = re.compile(r"[A-Z]{2,}(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")


def spoken(name: str) -> str:
    """Return a name as words: `unitPrice` and `unit_price` are "unit price"."""
    words = _WORD.findall(name)
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words) or name


def shown(value: Json) -> str:
    """Return a value as questions say it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"' if "`" in value else f"`{value}`"
    if isinstance(value, list):
        return ", ".join(map(shown, value)) if value else "none"
    if isinstance(value, dict):
        return ", ".join(f"{spoken(str(name))} {shown(inner)}" for name, inner in value.items())
    return "nothing"


def snake(words: str) -> str:
    """Return words as the name of a field."""
    return "_".join(re.findall(r"[a-z0-9]+", words.lower()))[:48].strip("_") or "value"


# --- single values ------------------------------------------------------------------------------------------


def _scalars(seen: Observation, call: int) -> Iterator[Aspect]:
    """Yield the plain values that stand in no list."""
    within = [table.address for table in seen.tables]
    told = 0
    for leaf in leaves(seen.tree):
        if any(isinstance(step, int) for step in leaf.address) or told >= 24:
            continue
        if any(leaf.address[: len(address)] == address for address in within):
            continue
        name = str(leaf.address[-1]) if leaf.address else ""
        kind = kind_of(leaf.value, name)
        if kind is None or not _is_telling(leaf.value, kind, at_root=not leaf.address):
            continue
        told += 1
        kind = "text" if kind == "size" and not is_exact(leaf.value) else kind
        label = label_of(leaf.address) if leaf.address else "result"
        unit = " in bytes" if kind == "size" else " in seconds" if kind == "duration" else ""
        unit = unit if isinstance(leaf.value, str) else ""
        words = f"whether {label} is true" if kind == "boolean" else f"the {label}{unit}"
        expression = {"op": "extract", "call": call, "path": list(leaf.address), "as": kind}
        yield Aspect(snake(label), words, expression, kind, f"extract {kind}", f"scalar {leaf.address}")


def _is_telling(value: Plain, kind: str, *, at_root: bool) -> bool:
    """Whether a value is one to report, and not a sentence about it."""
    if not isinstance(value, str) or kind not in ("text", "id"):
        return True
    if at_root and re.match(r"(?:no|none|nothing|empty)\b", value, re.IGNORECASE):
        return False
    return value.count(" ") <= (3 if at_root else 12) and not value.rstrip().endswith((":", "."))


def _nested_lists(seen: Observation, call: int) -> Iterator[Aspect]:
    """Yield the lengths of lists that are no tables."""
    if not isinstance(seen.tree, dict):
        return
    known = {table.address for table in seen.tables}
    for name, inner in seen.tree.items():
        if isinstance(inner, list) and len(inner) > 1 and (name,) not in known:
            label = spoken(name)
            expression = {"op": "count", "of": {"op": "extract", "call": call, "path": [name]}}
            yield Aspect(
                snake(f"number of {label}"),
                f"the number of {label}",
                expression,
                "number",
                "count",
                f"list {name}",
            )


# --- tables -------------------------------------------------------------------------------------------------


def _of_table(seen: Observation, table: Table, call: int, rng: Random) -> list[Aspect]:
    rows, noun = rows_of(table, call), noun_of(table)
    many = plural(noun)
    found = [
        Aspect(
            snake(f"number of {many}"),
            f"the number of {many}",
            {"op": "count", "of": rows},
            "number",
            "count",
            "rows",
        )
    ]
    keys = [c for c in table.columns if c.kind in ("text", "id") and c.distinct and not _long(c)]
    key = keys[0] if keys else None
    for column in table.columns[:12]:
        label = label_of(column.path)
        if column.kind in ("text", "boolean") and not _long(column):
            found += _of_category(rows, table, column, label, noun, rng)
        if _is_amount(column) and table.rows >= SHORTEST_TABLE:
            found += _of_measure(rows, column, label, noun, key)
        if column.kind == "date" and table.rows >= SHORTEST_TABLE:
            found += _of_dates(rows, column, label, noun, key)
    if key is not None and table.rows >= 2:
        found += _lookups(rows, table, key, noun, rng)
    return found


def _of_category(
    rows: Expression, table: Table, column: Column, label: str, noun: str, rng: Random
) -> Iterator[Aspect]:
    counts = Counter(column.values)
    many = plural(noun)
    repeated = [value for value, n in counts.items() if 1 < n < table.rows and len(str(value)) <= 60]
    if repeated and table.rows >= SHORTEST_TABLE:
        value = rng.choice(sorted(repeated, key=str))
        matching = _where(rows, column, "eq", value)
        words = f"the number of {many} whose {label} is {shown(value)}"
        yield Aspect(
            snake(f"number with that {label}"),
            words,
            {"op": "count", "of": matching},
            "number",
            "filter count",
            label,
        )
        share = {
            "op": "round",
            "of": {
                "op": "arithmetic",
                "operator": "percent",
                "left": {"op": "count", "of": matching},
                "right": {"op": "count", "of": rows},
            },
            "digits": 2,
        }
        words = f"the share of {many} whose {label} is {shown(value)}, in percent with two decimals"
        yield Aspect(snake(f"percent with that {label}"), words, share, "number", "share", label)
    if column.kind == "text" and 2 <= len(counts) <= MOST_LISTED and len(counts) < table.rows:
        values = {"op": "distinct", "of": _pluck(rows, column)}
        yield Aspect(
            snake(f"distinct {label}"),
            f"each distinct {label}, once",
            values,
            "text",
            "distinct",
            label,
            listed=True,
        )
    if column.kind == "text" and 3 <= len(counts) < table.rows:
        number = {"op": "count", "of": {"op": "distinct", "of": _pluck(rows, column)}}
        words = f"how many different values of {label} there are"
        yield Aspect(snake(f"different {label}"), words, number, "number", "distinct count", label)


def _of_measure(
    rows: Expression, column: Column, label: str, noun: str, key: Column | None
) -> Iterator[Aspect]:
    values = column.values
    if len(set(values)) < 2:
        return
    unit = {"size": " in bytes", "duration": " in seconds"}.get(column.kind, "")
    plucked = _pluck(rows, column)
    for largest in (True, False):
        word = "highest" if largest else "lowest"
        op = "max" if largest else "min"
        if column.exact:
            value = {"op": op, "of": plucked}
            yield Aspect(snake(f"{word} {label}"), f"the {word} {label}{unit}", value, column.kind, op, label)
        extreme = max(values) if largest else min(values)
        if key is not None and key is not column and values.count(extreme) == 1:
            row = {"op": f"arg{op}", "of": rows, "path": list(column.path), "as": column.kind}
            yield Aspect(
                snake(f"{label_of(key.path)} with {word} {label}"),
                f"the {label_of(key.path)} of the {noun} with {_extreme(column, largest)}",
                column_of(row, key),
                key.kind,
                f"arg{op}",
                label,
            )
    if column.exact:
        yield from _amounts(rows, column, label, noun, unit)
    if key is not None and key is not column and len(set(values)) == len(values) >= 5:
        taken = _pluck(_sorted(rows, column, 3, descending=True), key)
        words = (
            f"the {label_of(key.path)} of the three {plural(noun)} with {_extreme(column, True)},"
            " highest first"
        )
        yield Aspect(
            snake(f"top three by {label}"),
            words,
            taken,
            key.kind,
            "sort_take",
            label,
            listed=True,
            ordered=True,
        )


def _amounts(rows: Expression, column: Column, label: str, noun: str, unit: str) -> Iterator[Aspect]:
    """Yield what needs the amounts themselves, and not only their order."""
    values, plucked = column.values, _pluck(rows, column)
    total = {"op": "round", "of": {"op": "sum", "of": plucked}, "digits": 2}
    yield Aspect(snake(f"total {label}"), f"the total of {label} over all"
        f" {plural(noun)}{unit}", total, "number", "sum",
                 label)  # fmt: skip
    mean = {"op": "round", "of": {"op": "mean", "of": plucked}, "digits": 2}
    words = f"the mean {label} over all {plural(noun)}{unit}, rounded to two decimals"
    yield Aspect(snake(f"mean {label}"), words, mean, "number", "mean", label)
    numbers = [float(value) for value in values]
    middle = median(numbers)
    above = sum(value > middle for value in numbers)
    if 0 < above < len(values) - 1 and middle == int(middle):
        matching = _where(rows, column, "gt", int(middle))
        words = f"the number of {plural(noun)} whose {label}{unit} is above {int(middle)}"
        yield Aspect(
            snake(f"number above in {label}"),
            words,
            {"op": "count", "of": matching},
            "number",
            "filter count",
            label,
        )


def _of_dates(
    rows: Expression, column: Column, label: str, noun: str, key: Column | None
) -> Iterator[Aspect]:
    values = [str(value) for value in column.values]
    plucked = _pluck(rows, column)
    if len(set(values)) < 2:
        return
    for latest in (True, False):
        word, op = ("latest", "max") if latest else ("earliest", "min")
        yield Aspect(
            snake(f"{word} {label}"), f"the {word} {label}", {"op": op, "of": plucked}, "date", op, label
        )
        extreme = max(values) if latest else min(values)
        if key is not None and key is not column and values.count(extreme) == 1:
            row = {"op": f"arg{op}", "of": rows, "path": list(column.path), "as": "date"}
            words = f"the {label_of(key.path)} of the {noun} with the {word} {label}"
            yield Aspect(snake(f"{label_of(key.path)} with {word}"
                f" {label}"), words, column_of(row, key), key.kind,
                         f"arg{op}", label)  # fmt: skip
    span = {
        "op": "date_difference",
        "start": {"op": "min", "of": plucked},
        "end": {"op": "max", "of": plucked},
        "unit": "days",
    }
    words = f"the days from the earliest to the latest {label}, with two decimals"
    yield Aspect(
        snake(f"days of {label}"),
        words,
        {"op": "round", "of": span, "digits": 2},
        "number",
        "date span",
        label,
    )


def _lookups(rows: Expression, table: Table, key: Column, noun: str, rng: Random) -> Iterator[Aspect]:
    """Yield values of a row that is named in the question."""
    number = rng.randrange(table.rows)
    value = key.values[number]
    if len(str(value)) > 60:
        return
    row = _only(rows, key, "eq", value)
    for column in table.columns[:10]:
        # What is the same in every row is known without looking it up.
        if column is key or _long(column) or len(set(column.values)) == 1:
            continue
        label = label_of(column.path)
        kind = column.kind if column.exact else "text"
        unit = {"size": " in bytes", "duration": " in seconds"}.get(kind, "")
        who = (
            f"the {noun} {shown(value)}"
            if not key.path
            else f"the {noun} whose {label_of(key.path)} is {shown(value)}"
        )
        words = (
            f"whether {label} is true of {who}" if column.kind == "boolean" else f"the {label}{unit} of {who}"
        )
        yield Aspect(
            snake(f"{label} of that {noun}"), words, column_of(row, column, kind), kind, "look up", label
        )


def _extreme(column: Column, largest: bool) -> str:
    if column.kind == "date":
        return f"the {'latest' if largest else 'earliest'} {label_of(column.path)}"
    return f"the {'highest' if largest else 'lowest'} {label_of(column.path)}"


def _where(rows: Expression, column: Column, test: str, value: Plain) -> Expression:
    return {
        "op": "filter",
        "of": rows,
        "path": list(column.path),
        "as": column.kind,
        "test": test,
        "value": {"op": "const", "value": value},
    }


def _only(rows: Expression, column: Column, test: str, value: Plain) -> Expression:
    return {"op": "only", "of": _where(rows, column, test, value)}


def _pluck(rows: Expression, column: Column) -> Expression:
    return {"op": "pluck", "of": rows, "path": list(column.path), "as": column.kind}


def _sorted(rows: Expression, column: Column, n: int, *, descending: bool) -> Expression:
    return {
        "op": "sort_take",
        "of": rows,
        "path": list(column.path),
        "as": column.kind,
        "n": n,
        "descending": descending,
    }


def _long(column: Column) -> bool:
    return any(isinstance(value, str) and len(value) > 80 for value in column.values)


def numbers_of(found: Sequence[Aspect]) -> list[Aspect]:
    """Return the aspects that are amounts, to be compared with others'."""
    return [
        aspect
        for aspect in found
        if aspect.kind in MEASURES
        and not aspect.listed
        and (aspect.op.endswith("count") or is_measure(aspect.name))
    ]


def _is_amount(column: Column) -> bool:
    """Whether a column's numbers say how much, and are no years."""
    if column.kind not in MEASURES or not is_measure(column.name):
        return False
    if sorted(column.values, key=str) in (_numbering(len(column.values), first) for first in (0, 1)):
        return False
    return not all(isinstance(value, int) and 1800 <= value <= 2100 for value in column.values)


def _numbering(rows: int, first: int) -> list[Plain]:
    """Return the values of a column that only numbers the rows."""
    return sorted(range(first, first + rows), key=str)
