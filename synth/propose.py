"""Tasks that recorded calls support: how calls hang together, and programs over what they answered.

A proposal is a task without verdicts. Its answer is what its program says of the recorded outputs; the
question follows from the program. What is proposed may still be ambiguous, guessable or unstable: the gates
see to that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from recorder.canonical import canonical_json
from recorder.exchange import Json, ToolRef
from recorder.explore.names import words_in
from synth.answers import Schema, answer_schema, field_schema, list_schema
from synth.aspects import (
    Aspect,
    Selector,
    aspects,
    column_of,
    label_of,
    numbers_of,
    rows_of,
    selectors,
    snake,
)
from synth.gates.leak import leaks, tool_texts
from synth.phrase import Asked, Step, purpose, question
from synth.program import (
    AnswerProgram,
    Argument,
    Expression,
    ProgramError,
    arguments_of,
    calls_of,
    operations_of,
    run,
)
from synth.repeats import repeats_of
from synth.task import Difficulty, ReferenceCall, Task, Tool, task_id
from synth.trace import Link, Observation, argument_leaves
from synth.values import Address, Column, Table
from synth.world import World

MOST_FIELDS, MOST_CALLS = 6, 5
MOST_DISTRACTORS = 8
LONGEST_ANSWER = 120
"""Characters of a text that an answer may hold."""

PATTERNS = {"single": 4, "chain": 22, "fork": 7, "pair of a kind": 3, "pair": 2, "sets": 2, "join": 2}
"""How calls hang together, and how often each is tried.

`chain`: an argument of each call comes out of an earlier one; `fork`: two calls about two rows of the same
list; `pair of a kind`: one tool asked twice, to compare; `pair`: two tools; `sets`: what two lists share;
`join`: two tables on a key.
"""

TRIES = 40
"""Attempts at a pattern that count as one task of it, when it is chosen which is tried next."""

COMMON = 0.4
"""Share of a server's calls that name a value before it says nothing of what they are about."""


@dataclass(slots=True)
class Plan:
    """Calls in order, what is taken from one for another, and what is asked."""

    pattern: str
    seen: list[Observation] = field(default_factory=list)
    arguments: list[Argument] = field(default_factory=list)
    words: dict[int, list[tuple[Address, str]]] = field(default_factory=lambda: defaultdict(list))
    """Call → its bound arguments, said."""
    ops: list[str] = field(default_factory=list)
    chosen: list[tuple[int, Aspect]] = field(default_factory=list)
    """Fields, with the call that they are about; -1 for several."""

    def add(self, seen: Observation) -> int:
        if seen in self.seen:
            return self.seen.index(seen)
        self.seen.append(seen)
        return len(self.seen) - 1

    @property
    def trees(self) -> list[Json]:
        return [seen.tree for seen in self.seen]


class Proposer:
    """Proposes tasks without end, what was used least first. Same observations and seed, same tasks in the
    same order."""

    def __init__(self, world: World, seen: Sequence[Observation], seed: int) -> None:
        self._world, self._seen = world, [each for each in seen if each.tree is not None]
        self._rng = Random(f"synth {seed}")
        self._repeats = repeats_of(world)
        self._by_tool = _by_tool(self._seen)
        self._links = {id(each): [link for link in each.links if _can_be_said(link)] for each in self._seen}
        self._consumers: dict[tuple[int, int], list[tuple[Observation, Link]]] = defaultdict(list)
        for each in self._seen:
            for link in self._links[id(each)]:
                if link.table is not None:
                    self._consumers[id(link.producer), link.row].append((each, link))
        self._told = {ref: tuple(tool_texts(world.entry(ref))) for ref in self._by_tool}
        told = [
            each
            for each in self._seen
            if any(self._may_ask(aspect, [each]) for aspect in aspects(each, 0, Random(0)))
        ]
        self._askable = _by_tool(told)
        self._linked = _by_tool(each for each in told if self._links[id(each)])
        self._forkable = _by_tool(
            each for each in told if any(link.table is not None for link in self._links[id(each)])
        )
        self._countable = _by_tool(each for each in told if numbers_of(aspects(each, 0, Random(0))))
        self._listing = _by_tool(each for each in self._seen if _text_columns(each))
        self._keyed = _by_tool(each for each in self._seen if _key_columns(each))
        self._common = _common_values(self._seen)
        self._used: dict[ToolRef, float] = defaultdict(float)
        self._served: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        """Pattern → tasks that were taken; a pattern that has fewer than its share is tried first."""
        self._tools = sorted(world.tools)

    def proposals(self) -> Iterator[Task | None]:
        """Yield proposals; `None` for an attempt that came to nothing."""
        tried: Counter[str] = Counter()
        pools = {
            "chain": self._linked,
            "fork": self._forkable,
            "sets": self._listing,
            "join": self._keyed,
            "pair": self._countable,
            "pair of a kind": self._countable,
            "single": self._askable,
        }
        possible = [name for name in PATTERNS if pools[name]]
        while possible:
            rng = self._rng
            # What seldom comes to anything is tried less and less.
            pattern = min(
                possible, key=lambda name: (self.passed[name] + tried[name] / TRIES) / PATTERNS[name]
            )
            tried[pattern] += 1
            plan = self._plan(pattern, rng)
            yield None if plan is None else self._task(plan, rng)

    # --- how calls hang together ---

    def _plan(self, pattern: str, rng: Random) -> Plan | None:
        plan = Plan(pattern)
        match pattern:
            case "single":
                if (only := self._pick(rng, self._askable)) is None:
                    return None
                plan.add(only)
                self._ask(plan, 0, rng, 2, 4)
            case "chain":
                if not self._chain(plan, rng):
                    return None
            case "fork":
                if not self._fork(plan, rng):
                    return None
            case "pair of a kind" | "pair":
                if not self._pair(plan, rng, alike=pattern != "pair"):
                    return None
            case "sets":
                if not self._sets(plan, rng):
                    return None
            case "join":
                if not self._join(plan, rng):
                    return None
        return plan if plan.chosen else None

    def _pick(self, rng: Random, pool: Pool) -> Observation | None:
        """Pick a call of one of the tools that were tried least."""
        if not pool:
            return None
        tools_of = Counter(tool.server for tool in pool)
        least = sorted(
            (self._used[tool] + self._served[tool.server] / tools_of[tool.server] + rng.random(), tool)
            for tool in pool
        )[: max(3, len(pool) // 3)]
        tool = rng.choice(least)[1]
        # A tool of which nothing can be made must not be tried for ever.
        self._used[tool] += 0.1
        return rng.choice(pool[tool])

    def _chain(self, plan: Plan, rng: Random) -> bool:
        if (last := self._pick(rng, self._linked)) is None:
            return False
        end = self._place(plan, last, rng.choice((2, 2, 3, 3, 4)), rng)
        if end != len(plan.seen) - 1 or end == 0:
            return False  # it was placed before, as the source of one of its own sources
        self._ask(plan, end, rng, 2, 4)
        if not plan.chosen:
            return False
        if rng.random() < 0.4 and len(plan.seen) < MOST_CALLS:
            self._branch(plan, rng)
        if rng.random() < 0.6:
            self._ask(plan, rng.randrange(len(plan.seen)), rng, 1, 2)
        return bool(plan.chosen)

    def _place(self, plan: Plan, seen: Observation, depth: int, rng: Random) -> int:
        """Put a call into the plan, after the calls that its arguments come from; return its number."""
        by_path: dict[Address, list[Link]] = defaultdict(list)
        for link in self._links[id(seen)] if depth > 1 else ():
            if len(plan.seen) < MOST_CALLS - 1 and seen is not link.producer:
                by_path[link.path].append(link)
        bound: list[tuple[Address, Expression, str, str]] = []
        for path in sorted(by_path, key=str):
            if bound and rng.random() < 0.5:
                continue
            link = rng.choice(by_path[path])
            if link.producer not in plan.seen and len(plan.seen) >= MOST_CALLS - 1:
                continue
            source = self._place(plan, link.producer, depth - 1, rng)
            bound.append((path, *self._taken(link, source, rng)))
        end = plan.add(seen)
        for path, value, words, op in bound:
            if not any(argument.call == end and argument.path == path for argument in plan.arguments):
                plan.arguments.append(Argument(call=end, path=path, value=value))
                plan.words[end].append((path, words))
                plan.ops.append(op)
        return end

    def _taken(self, link: Link, source: int, rng: Random) -> tuple[Expression, str, str]:
        """Return the expression for a linked value, the words for it, and the operation that selects it."""
        as_number = _is_number(link)
        kind = "number" if as_number else "text"
        where = f"from step {source + 1}"
        if link.table is None:
            value: Expression = {"op": "extract", "call": source, "path": list(link.address), "as": kind}
            words = f"the {label_of(link.address)} {where}" if link.address else f"the result {where}"
            selected = "extract"
        else:
            assert link.column is not None
            found = selectors(link.producer, link.table, link.row, link.column, source)
            # There are some, as only links that can be said are kept.
            selector: Selector = rng.choice(found)
            value = column_of(selector.row, link.column, kind)  # type: ignore[arg-type]  # a Kind, of two
            whose = f"the {label_of(link.column.path)} of " if link.column.path else ""
            words, selected = f"{whose}{selector.words} {where}", selector.op
        if link.folder:
            value = {
                "op": "format",
                "template": "{0}/{1}",
                "of": [{"op": "const", "value": link.folder}, value],
            }
            words = f"`{link.folder}/` followed by {words}"
        return value, words, selected

    def _branch(self, plan: Plan, rng: Random) -> None:
        """Add a call that takes the same row as another one does."""
        for argument in list(plan.arguments):
            consumer = plan.seen[argument.call]
            for link in self._links[id(consumer)]:
                if link.path != argument.path or link.table is None or link.producer not in plan.seen:
                    continue
                others = [
                    (each, other)
                    for each, other in self._consumers[id(link.producer), link.row]
                    if each not in plan.seen and other.column is link.column and other.folder == link.folder
                ]
                others = [pair for pair in others if pair[0].ref != consumer.ref]
                if not others:
                    continue
                each, other = rng.choice(others)
                number, asked = plan.add(each), len(plan.chosen)
                self._ask(plan, number, rng, 1, 2)
                if len(plan.chosen) == asked:
                    plan.seen.pop()
                    return
                plan.arguments.append(Argument(call=number, path=other.path, value=argument.value))
                words = next(words for path, words in plan.words[argument.call] if path == argument.path)
                plan.words[number].append((other.path, words))
                plan.ops.append("branch")
                return

    def _fork(self, plan: Plan, rng: Random) -> bool:
        """Ask the same of two rows of one list, and compare."""
        if (first := self._pick(rng, self._forkable)) is None:
            return False
        links = [link for link in self._links[id(first)] if link.table is not None]
        link = rng.choice(links)
        others = [
            (each, other)
            for each in self._by_tool[first.ref]
            if each is not first and each.group == first.group
            for other in self._links[id(each)]
            if other.producer is link.producer and other.path == link.path and other.column is link.column
            and other.row != link.row and _same_besides(each, first, link.path)
        ]  # fmt: skip
        if not others:
            return False
        second, second_link = rng.choice(others)
        source = plan.add(link.producer)
        numbers = []
        for each, its in ((first, link), (second, second_link)):
            value, words, op = self._taken(its, source, rng)
            number = plan.add(each)
            plan.arguments.append(Argument(call=number, path=its.path, value=value))
            plan.words[number].append((its.path, words))
            plan.ops.append(op)
            numbers.append(number)
        if not self._compared(plan, numbers[0], numbers[1], rng, alike=True):
            self._ask(plan, numbers[0], rng, 1, 2)
            self._ask(plan, numbers[1], rng, 1, 2)
        elif rng.random() < 0.6:
            self._ask(plan, rng.choice(numbers), rng, 1, 2)
        return bool(plan.chosen)

    def _pair(self, plan: Plan, rng: Random, *, alike: bool) -> bool:
        if (first := self._pick(rng, self._countable)) is None:
            return False
        pool = {tool: seen for tool, seen in self._countable.items() if (tool == first.ref) == alike}
        if not alike and rng.random() < 0.8:
            pool = {tool: seen for tool, seen in pool.items() if tool.server != first.ref.server} or pool
        second = self._pick(rng, pool)
        if second is None or second is first or second.group != first.group:
            return False
        one, two = plan.add(first), plan.add(second)
        if not self._compared(plan, one, two, rng, alike=alike):
            return False
        if rng.random() < 0.7:
            self._ask(plan, rng.choice((one, two)), rng, 1, 2)
        return True

    def _compared(self, plan: Plan, one: int, two: int, rng: Random, *, alike: bool) -> bool:
        """Ask how numbers of two outputs relate."""
        left = numbers_of(aspects(plan.seen[one], one, rng))
        right = numbers_of(aspects(plan.seen[two], two, rng))
        pairs = [
            (a, b) for a in left for b in right
            if (a.name, a.op, a.kind) == (b.name, b.op, b.kind) or (not alike and a.op == b.op == "count")
            or (not alike and a.kind == b.kind == "size")
        ]  # fmt: skip
        if not pairs:
            return False
        a, b = rng.choice(pairs)
        chosen: list[tuple[int, Aspect]] = [(one, a), (two, b)]
        both = {"left": a.expression, "right": b.expression}
        where = f"from step {one + 1}", f"from step {two + 1}"
        kinds = rng.sample(("difference", "total", "more"), 2)
        if "difference" in kinds:
            difference = {"op": "arithmetic", "operator": "subtract", **both}
            words = f"{a.words} {where[0]} minus {b.words} {where[1]}"
            chosen.append((-1, Aspect("difference", words, difference, "number", "difference", "pair")))
        if "total" in kinds:
            total = {"op": "arithmetic", "operator": "add", **both}
            words = f"{a.words} {where[0]} plus {b.words} {where[1]}"
            chosen.append((-1, Aspect("total", words, total, "number", "total", "pair")))
        if "more" in kinds:
            more = {"op": "compare", "test": "gt", **both}
            words = f"whether {a.words} {where[0]} is greater than {b.words} {where[1]}"
            chosen.append((-1, Aspect("first_is_greater", words, more, "boolean", "compare", "pair")))
        plan.chosen += chosen if rng.random() < 0.5 else chosen[2:]
        return True

    def _sets(self, plan: Plan, rng: Random) -> bool:
        """Ask what two lists have in common."""
        if (first := self._pick(rng, self._listing)) is None:
            return False
        others = [each for seen in self._listing.values() for each in seen if each is not first]
        for second in rng.sample(others, min(len(others), 40)):
            if second.group != first.group:
                continue
            for table, column in _text_columns(first):
                for other_table, other_column in _text_columns(second):
                    if (
                        label_of(column.path) != label_of(other_column.path)
                        and column.path
                        and other_column.path
                    ):
                        continue
                    mine, theirs = set(column.values), set(other_column.values)
                    if not (mine & theirs) or not (mine - theirs):
                        continue
                    one, two = plan.add(first), plan.add(second)
                    both = {
                        "left": _texts(rows_of(table, one), column),
                        "right": _texts(rows_of(other_table, two), other_column),
                    }
                    label = label_of(column.path) if column.path else "entry"
                    for op, words in (
                        ("intersection", f"{{}} {label} values that steps {one + 1} and {two + 1} both list"),
                        (
                            "difference",
                            f"{{}} {label} values that step {one + 1} lists and step {two + 1} does not",
                        ),
                        ("union", f"{{}} {label} values that step {one + 1} or step {two + 1} lists"),
                    ):
                        size = len(
                            {
                                "intersection": mine & theirs,
                                "difference": mine - theirs,
                                "union": mine | theirs,
                            }[op]
                        )
                        expression = {"op": op, **both}
                        count = {"op": "count", "of": expression}
                        plan.chosen.append(
                            (-1, Aspect(f"number_of_{op}", words.format("how many different"), count,
                                        "number", f"{op} count", op))
                        )  # fmt: skip
                        if size <= 4 and op != "union":
                            plan.chosen.append(
                                (
                                    -1,
                                    Aspect(
                                        op,
                                        words.format("the different"),
                                        expression,
                                        "text",
                                        op,
                                        op,
                                        listed=True,
                                    ),
                                )
                            )
                    plan.chosen = rng.sample(plan.chosen, min(3, len(plan.chosen)))
                    return True
        return False

    def _join(self, plan: Plan, rng: Random) -> bool:
        """Ask about rows of one table by what another one says of them."""
        if (first := self._pick(rng, self._keyed)) is None:
            return False
        others = [each for seen in self._keyed.values() for each in seen if each is not first]
        for second in rng.sample(others, min(len(others), 60)):
            if second.group != first.group:
                continue
            for table, key in _key_columns(second):
                if not key.distinct:
                    continue
                for left_table, left_key in _key_columns(first):
                    shared = set(left_key.values) & set(key.values)
                    if len(shared) < 2 or left_key.kind != key.kind or not _same_thing(left_key, key, second):
                        continue
                    one, two = plan.add(first), plan.add(second)
                    joined = {
                        "op": "join", "left": rows_of(left_table, one), "right": rows_of(table, two),
                        "left_path": list(left_key.path), "right_path": list(key.path), "as": key.kind,
                    }  # fmt: skip
                    match = (
                        f"entries of step {one + 1} whose {label_of(left_key.path)} is the"
                        f" {label_of(key.path)} of an"
                        f" entry of step {two + 1}"
                    )
                    plan.chosen.append(
                        (-1, Aspect("number_matched", "the number of"
                            f" {match}", {"op": "count", "of": joined}, "number",
                                    "join count", "join"))
                    )  # fmt: skip
                    measures = [
                        c
                        for c in left_table.columns
                        if c.kind == "number" and c is not left_key and c.distinct
                    ]
                    told = [c for c in table.columns if c is not key and c.kind in ("text", "number", "date")]
                    if measures and told:
                        measure, other = rng.choice(measures), rng.choice(told)
                        row = {"op": "argmax", "of": joined, "path": ["left", *measure.path], "as": "number"}
                        words = (
                            f"among the {match}, for the one with the highest {label_of(measure.path)}"
                            f" in step {one + 1},"
                            f" its {label_of(other.path)} in step {two + 1}"
                        )
                        value = {"op": "get", "of": row, "path": ["right", *other.path], "as": other.kind}
                        plan.chosen.append(
                            (-1, Aspect(snake(f"{label_of(other.path)} of highest"), words, value, other.kind,
                                        "join argmax", "join"))
                        )  # fmt: skip
                    self._ask(plan, one, rng, 1, 1)
                    self._ask(plan, two, rng, 1, 1)
                    return True
        return False

    def _ask(self, plan: Plan, call: int, rng: Random, least: int, most: int) -> None:
        """Choose fields about one output, of different kinds where there are."""
        found = aspects(plan.seen[call], call, rng)
        kinds: Counter[str] = Counter()
        known = {(number, aspect.op, aspect.about) for number, aspect in plan.chosen}
        wanted = rng.randint(least, most)
        for allowed in (1, 2):
            for aspect in found:
                if wanted <= 0 or len(plan.chosen) >= MOST_FIELDS:
                    return
                at = (call, aspect.op, aspect.about)
                if at in known or kinds[aspect.kind] >= allowed or _same_expression(plan, aspect):
                    continue
                if not self._may_ask(aspect, plan.seen):
                    continue
                known.add(at)
                kinds[aspect.kind] += 1
                plan.chosen.append((call, aspect))
                wanted -= 1

    def _may_ask(self, aspect: Aspect, seen: Sequence[Observation]) -> bool:
        """Whether an aspect has a value that is told nowhere before, and will be the same the next time."""
        try:
            found = run(AnswerProgram(fields={"value": aspect.expression}), [each.tree for each in seen])
        except ProgramError:
            return False
        value = found.answer["value"]
        items = value if isinstance(value, list) else [value]
        if not items or any(isinstance(item, str) and len(item) > LONGEST_ANSWER for item in items):
            return False
        for each in seen:
            given = [canonical_json(leaf) for _, leaf in argument_leaves(each.call.arguments)]
            if any(_echoes(item, text) for item in items for text in given):
                return False
            if any(leaks(item, text) for item in items for text in (*given, *self._told[each.ref])):
                return False
        return all(
            self._repeats.fleeting(seen[read.call].call, read, seen[read.call].tree) is None
            for read in found.reads
        )

    # --- a task of a plan ---

    def _task(self, plan: Plan, rng: Random) -> Task | None:
        fields, schemas, asked = _fields(plan)
        try:
            program = AnswerProgram(fields=fields, arguments=tuple(plan.arguments))
            trees = plan.trees
            answer = run(program, trees).answer
            for number, seen in enumerate(plan.seen):
                made = arguments_of(program, number, seen.call.arguments, trees)
                if canonical_json(made) != canonical_json(seen.call.arguments):
                    return None
        except (ProgramError, ValueError):
            return None
        steps = [
            Step(
                purpose(seen.ref.name, self._world.entry(seen.ref), rng),
                seen.call.arguments,
                plan.words.get(number, ()),
            )
            for number, seen in enumerate(plan.seen)
        ]
        text = question(steps, asked, rng)
        calls = [seen.call for seen in plan.seen]
        for seen in plan.seen:
            self._used[seen.ref] += 1.0
            self._served[seen.ref.server] += 1
        needed = list(dict.fromkeys(call.ref for call in calls))
        ops = sorted(aspect.op for _, aspect in plan.chosen)
        return Task(
            task_id=task_id(text, program, calls),
            question=text,
            answer_schema=answer_schema(
                {
                    name: _schema_of(aspect, answer[name], schemas[name])
                    for name, (_, aspect) in zip(fields, plan.chosen, strict=True)
                }
            ),
            answer=answer,
            program=program,
            calls=calls,
            tools=[Tool(server=ref.server, name=ref.name) for ref in needed],
            distractors=self._distractors(needed, rng),
            servers=sorted({ref.server for ref in needed}),
            group=plan.seen[0].group,
            template=f"{plan.pattern}: {' '.join(sorted(plan.ops))} > {' + '.join(ops)}",
            entities=self._entities(plan),
            difficulty=difficulty(program, calls),
            gates=[],
            split="train",
            world=self._world.hashes(calls),
        )

    def _distractors(self, needed: Sequence[ToolRef], rng: Random) -> list[Tool]:
        servers = {ref.server for ref in needed}
        near = [ref for ref in self._tools if ref.server in servers and ref not in needed]
        far = [ref for ref in self._tools if ref.server not in servers]
        chosen = rng.sample(near, min(len(near), MOST_DISTRACTORS - 2))
        chosen += rng.sample(far, min(len(far), MOST_DISTRACTORS - len(chosen)))
        return [Tool(server=ref.server, name=ref.name) for ref in sorted(chosen)]

    def _entities(self, plan: Plan) -> list[str]:
        found = set()
        for seen in plan.seen:
            mine = {
                value
                for _, leaf in argument_leaves(seen.call.arguments)
                if (value := _entity(leaf)) is not None and (seen.ref.server, value) not in self._common
            }
            found |= mine or {f"{seen.ref.server}/{seen.ref.name}"}
        return sorted(found)


Pool = dict[ToolRef, list[Observation]]
"""Calls to choose from, by tool."""


def _by_tool(seen: Iterable[Observation]) -> Pool:
    found: Pool = defaultdict(list)
    for each in seen:
        found[each.ref].append(each)
    return dict(found)


def difficulty(program: AnswerProgram, calls: Sequence[ReferenceCall]) -> Difficulty:
    """Return how hard a task is, by what it takes."""
    depth = [1] * len(calls)
    for argument in sorted(program.arguments, key=lambda each: each.call):
        for source in calls_of(argument.value):
            depth[argument.call] = max(depth[argument.call], depth[source] + 1)
    operations = sum(
        op not in ("extract", "get", "const")
        for expression in [*program.fields.values(), *(argument.value for argument in program.arguments)]
        for op in operations_of(expression)
    )
    servers = len({call.server for call in calls})
    load = len(calls) + servers - 1 + max(depth) - 1 + operations / 3 + len(program.fields) / 4
    level = "easy" if load < 4 else "medium" if load < 7 else "hard"
    return Difficulty(
        level=level,  # type: ignore[arg-type]  # one of the three
        calls=len(calls),
        servers=servers,
        operations=operations,
        depth=max(depth),
        fields=len(program.fields),
    )


def _fields(plan: Plan) -> tuple[dict[str, Expression], dict[str, str], list[Asked]]:
    """Return the fields, the words for each, and what is asked, grouped by call."""
    plan.chosen.sort(key=lambda pair: (pair[0] < 0, pair[0]))
    fields: dict[str, Expression] = {}
    words: dict[str, str] = {}
    asked: list[Asked] = []
    taken: Counter[str] = Counter(aspect.name for _, aspect in plan.chosen)
    for call, aspect in plan.chosen:
        name = aspect.name if taken[aspect.name] == 1 or call < 0 else f"{aspect.name}_{call + 1}"
        while name in fields:
            name += "_b"
        fields[name] = aspect.expression
        where = f" (step {call + 1})" if call >= 0 and len(plan.seen) > 1 else ""
        words[name] = f"{aspect.words[:1].upper()}{aspect.words[1:]}{where}"
        asked.append(Asked(call, aspect.words))
    return fields, words, asked


def _schema_of(aspect: Aspect, value: Json, words: str) -> Schema:
    if aspect.listed:
        items = value if isinstance(value, list) else []
        whole = all(isinstance(item, int) and not isinstance(item, bool) for item in items)
        return list_schema(aspect.kind, words, ordered=aspect.ordered, whole=whole)
    return field_schema(aspect.kind, words, whole=isinstance(value, int) and not isinstance(value, bool))


def _echoes(value: Json, given: str) -> bool:
    """Whether a value only says an argument back, with something around it."""
    told = given.strip('"')
    if not isinstance(value, str):
        return False
    return told.lower() == value.lower() or (len(told) >= 4 and told.lower() in value.lower())


def _same_expression(plan: Plan, aspect: Aspect) -> bool:
    return any(
        canonical_json(other.expression) == canonical_json(aspect.expression) for _, other in plan.chosen
    )


def _texts(rows: Expression, column: Column) -> Expression:
    return {"op": "pluck", "of": rows, "path": list(column.path), "as": "text"}


def _can_be_said(link: Link) -> bool:
    if link.table is None:
        return True
    assert link.column is not None
    return bool(selectors(link.producer, link.table, link.row, link.column, 0))


def _is_number(link: Link) -> bool:
    return (
        link.column is not None
        and link.column.kind == "number"
        and not isinstance(link.column.values[link.row], str)
    )


def _same_besides(one: Observation, other: Observation, path: Address) -> bool:
    """Whether two calls differ in one argument only."""
    left = {at: value for at, value in argument_leaves(one.call.arguments) if at != path}
    right = {at: value for at, value in argument_leaves(other.call.arguments) if at != path}
    return left == right


def _text_columns(seen: Observation) -> list[tuple[Table, Column]]:
    return [
        (table, column)
        for table in seen.tables
        for column in table.columns
        if column.kind in ("text", "id")
        and table.rows >= 3
        and len(set(column.values)) >= 3
        and (
            not column.path or words_in(str(column.path[-1])) not in (("id",), ("cid",), ("pk",), ("rowid",))
        )
    ]


def _key_columns(seen: Observation) -> list[tuple[Table, Column]]:
    return [
        (table, column)
        for table in seen.tables
        for column in table.columns
        if column.path
        and (column.kind == "id" or str(column.path[-1]).lower().endswith("id"))
        and table.rows >= 2
    ]


def _same_thing(left: Column, right: Column, told_by: Observation) -> bool:
    """Whether two columns identify the same things: `sku` and `sku`, or `product_id` and the `id` of a
    product."""
    mine, its = words_in(str(left.path[-1])), words_in(str(right.path[-1]))
    if mine == its:
        return (
            mine[-1:] not in (("id",), ("key",), ("number",), ("cid",), ("pk",), ("rowid",)) or len(mine) > 1
        )
    if len(mine) <= len(its) or mine[-len(its) :] != its:
        return False
    said = canonical_json([told_by.ref.name, told_by.call.arguments]).lower()
    return all(word in said for word in mine[: -len(its)])


def _entity(value: Json) -> str | None:
    if isinstance(value, bool) or (isinstance(value, int | float) and abs(value) < 1000):
        return None
    text = str(value).strip()
    return text if len(text) >= 2 else None


def _common_values(seen: Sequence[Observation]) -> set[tuple[str, str]]:
    calls: Counter[str] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for each in seen:
        calls[each.ref.server] += 1
        values = {
            value for _, leaf in argument_leaves(each.call.arguments) if (value := _entity(leaf)) is not None
        }
        counts.update((each.ref.server, value) for value in values)
    return {at for at, count in counts.items() if count > 2 and count > COMMON * calls[at[0]]}
