"""Small languages that parameters are written in: SQL over tables that are known, arithmetic, globs and
others.

Each is recognised by what the parameter is called and by what its schema and description say, and makes new
sentences each time it is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from recorder.exchange import Json
from recorder.explore.harvest import Harvest, Table
from recorder.explore.names import Words


@dataclass(frozen=True, slots=True)
class Asked:
    """A parameter for which a sentence is wanted."""

    words: Words
    text: str
    """Its description, and what the tool's says of it."""
    tool: str
    about: str
    """The tool's name and description."""
    harvest: Harvest
    words_around: tuple[str, ...] = ()
    """Of the files that the server works on."""


def dialect_of(asked: Asked) -> str | None:
    """Name the language that a parameter is written in, if it is one of ours."""
    name = " ".join(asked.words)
    for dialect, (in_name, in_text, _) in _DIALECTS.items():
        if in_name is not None and in_name.search(name):
            about = asked.about[:120] if dialect == "glob" else "" if dialect in _BY_OWN_TEXT else asked.about
            own = f"{asked.text} {about}"
            if in_text is None or in_text.search(own):
                return dialect
        elif in_name is None and in_text is not None and in_text.search(asked.text):
            return dialect
    return None


def sentences(dialect: str, asked: Asked, rng: Random) -> list[Json]:
    """Make some sentences, the plainest first; equal arguments make equal ones."""
    return _DIALECTS[dialect][2](asked, rng)


def _sql(asked: Asked, rng: Random) -> list[Json]:
    about = f"{asked.tool} {asked.text} {asked.about}".lower()
    tables = asked.harvest.tables
    if re.search(
        r"create[_ ]+(?:a )?(?:new )?table|create table", asked.tool.replace("-", "_").lower() + about[:80]
    ):
        number = rng.randrange(10_000)
        return [
            f"CREATE TABLE firefly_{number} (id INTEGER PRIMARY KEY, name TEXT, amount REAL)",
            f"CREATE TABLE IF NOT EXISTS firefly_{number} (id INTEGER, label TEXT)",
        ]
    if re.search(r"write|insert|update|modify|\bmutat", asked.tool.lower()) or (
        "insert" in about[:300] and "select" not in about[:300]
    ):
        return _sql_changes(tables, rng)
    return _sql_reads(tables, rng)


def _sql_reads(tables: dict[str, Table], rng: Random) -> list[Json]:
    if not tables:
        return [
            "SELECT name, sql FROM sqlite_master WHERE type = 'table'",
            "SELECT table_name FROM information_schema.tables",
            "SHOW TABLES",
            f"SELECT {rng.randint(1, 99)} AS value, 'firefly' AS name",
            f"SELECT {rng.randint(1, 9)} + {rng.randint(1, 99)} AS total",
        ]
    # Tables with rows have something to tell; those that we made ourselves are mostly empty.
    full = [name for name in sorted(tables) if tables[name].rows and "firefly" not in name]
    theirs = [name for name in sorted(tables) if "firefly" not in name]
    name = _one(full if full and rng.random() < 0.7 else theirs or sorted(tables), rng)
    table = tables[name]
    columns = list(table.columns)
    made: list[Json] = [
        f"SELECT * FROM {name} LIMIT {rng.randint(1, 20)}",
        f"SELECT COUNT(*) AS n FROM {name}",
    ]
    if columns:
        first, second = _one(columns, rng), _one(columns, rng)
        made += [
            f"SELECT {first}, COUNT(*) AS n FROM {name} GROUP BY {first} ORDER BY n DESC LIMIT {rng.randint(2, 12)}",
            f"SELECT {first}, {second} FROM {name} ORDER BY {second} DESC LIMIT {rng.randint(1, 15)}",
            f"SELECT DISTINCT {first} FROM {name} LIMIT {rng.randint(3, 25)}",
            f"SELECT MIN({first}) AS least, MAX({first}) AS most FROM {name}",
            f"SELECT * FROM {name} WHERE {first} IS NOT NULL LIMIT {rng.randint(1, 9)} OFFSET {rng.randint(0, 5)}",
        ]
        rows = [row for row in table.rows if first in row]
        if rows:
            made.append(f"SELECT * FROM {name} WHERE {first} = {_literal(_one(rows, rng)[first])}")
        for other in sorted(tables):
            shared = [column for column in tables[other].columns if column in table.columns]
            if other != name and shared:
                made.append(
                    f"SELECT * FROM {name} JOIN {other} USING ({_one(shared, rng)}) LIMIT {rng.randint(1, 10)}"
                )
                break
    rng.shuffle(made)
    return made


def _sql_changes(tables: dict[str, Table], rng: Random) -> list[Json]:
    usable = sorted(name for name, table in tables.items() if table.columns)
    usable = [name for name in usable if "firefly" in name] if rng.random() < 0.3 else usable
    usable = usable or sorted(name for name, table in tables.items() if table.columns)
    if not usable:
        return ["INSERT INTO firefly (name) VALUES ('ada')", "UPDATE firefly SET name = 'grace' WHERE 1 = 0"]
    name = _one(usable, rng)
    columns = tables[name].columns
    kept = {column: kind for column, kind in columns.items() if column.lower() not in ("id", "rowid")}
    values = ", ".join(_sample(kind, rng) for kind in kept.values())
    first = _one(list(kept or columns), rng)
    return [
        f"INSERT INTO {name} ({', '.join(kept)}) VALUES ({values})"
        if kept
        else f"INSERT INTO {name} DEFAULT VALUES",
        f"UPDATE {name} SET {first} = {first} WHERE rowid = {rng.randint(1, 40)}",
        f"UPDATE {name} SET {first} = {_sample(columns[first], rng)} WHERE rowid = {rng.randint(1, 40)}",
        f"DELETE FROM {name} WHERE rowid = {rng.randint(1000, 9999)}",
    ]


def _sample(kind: str, rng: Random) -> str:
    if re.search(r"int|serial", kind):
        return str(rng.randint(1, 500))
    if re.search(r"real|float|double|dec|num|money", kind):
        return f"{rng.uniform(1, 200):.2f}"
    if re.search(r"bool", kind):
        return "1"
    if re.search(r"date|time", kind):
        return f"'2024-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}'"
    return f"'firefly {rng.randint(1, 9999)}'"


def _literal(value: Json) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def _arithmetic(asked: Asked, rng: Random) -> list[Json]:
    a, b, c = rng.randint(2, 99), rng.randint(2, 99), rng.randint(2, 12)
    made: list[Json] = [
        f"{a} + {b}",
        f"{a} * {b}",
        f"({a} + {b}) * {c}",
        f"{a * c} / {c}",
        f"{a} - {b} + {c}",
        f"{c} ** 2",
        f"{a}.5 * {c}",
        f"sqrt({c * c})",
    ]
    if re.search(
        r"symbol|variable|integra|deriv|simplif|equation|calculus|algebra|\bx\b|表达式",
        f"{asked.text} {asked.about}",
    ):
        made = [
            f"x^2 + {a}*x + {b}",
            f"(x + {c})^2",
            f"sin(x) + {c}*x",
            f"x^3 - {b}*x",
            f"{c}*x^2 - {a}",
            *made[:3],
        ]
    rng.shuffle(made)
    return made


def _equation(asked: Asked, rng: Random) -> list[Json]:
    a, b = rng.randint(1, 12), rng.randint(1, 12)
    return [f"x^2 - {a * a} = 0", f"{a}*x + {b} = {a * b}", f"x^2 - {a + b}*x + {a * b} = 0", f"x^3 = {a**3}"]


def _matrix(asked: Asked, rng: Random) -> list[Json]:
    a, b, c, d = (rng.randint(1, 9) for _ in range(4))
    return [f"[[{a},{b}],[{c},{d + 10}]]", f"[[{a},0],[0,{d}]]", f"[[2,{b},0],[{b},3,1],[0,1,{c + 5}]]"]


def _numbers(asked: Asked, rng: Random) -> list[Json]:
    return ["[" + ", ".join(str(rng.randint(1, 100)) for _ in range(size)) + "]" for size in (5, 8)] + [
        ",".join(str(rng.randint(1, 50)) for _ in range(6))
    ]


def _glob(asked: Asked, rng: Random) -> list[Json]:
    endings = _endings_known(asked.harvest)
    made: list[Json] = [
        "*",
        "**/*",
        *(f"*{ending}" for ending in endings),
        *(f"**/*{ending}" for ending in endings[:4]),
    ]
    return made


def _endings_known(harvest: Harvest) -> list[str]:
    files = harvest.by_words.get(("file", "path"), {})
    found = (re.search(r"\.[A-Za-z0-9]{1,5}$", str(entry.value)) for entry in files.values())
    endings = dict.fromkeys(match[0].lower() for match in found if match is not None)
    return list(endings)[-6:] or [".py", ".md", ".json", ".txt", ".csv"]


def _search(asked: Asked, rng: Random) -> list[Json]:
    """Words that the server itself has said: what is searched for should be found."""
    said = [*asked.words_around[:60], *asked.harvest.searchable()[:60]]
    rng.shuffle(said)
    return [*said[:6]]


def _regex(asked: Asked, rng: Random) -> list[Json]:
    return [*_search(asked, rng)[:4], r"\w+", r"[a-z]+", r"\d+", "e"]


def _tree_query(asked: Asked, rng: Random) -> list[Json]:
    return [
        "(function_definition name: (identifier) @name)",
        "(class_definition name: (identifier) @class)",
        "(identifier) @id",
        "(call function: (identifier) @call)",
    ]


def _json_path(asked: Asked, rng: Random) -> list[Json]:
    names = dict.fromkeys(name for flat, _, _ in asked.harvest.objects[-10:] for name in flat)
    return ["$", "$.*", "$..*", *(f"$..{name}" for name in list(names)[:5] if name.isidentifier())]


_SAMPLES: dict[str, tuple[str, ...]] = {
    "python": (
        "def add(a, b):\n    return a + b\n",
        "class Greeter:\n    def greet(self, name):\n        return f'Hello, {name}'\n",
        "for i in range(3):\n    print(i)\n",
        "print(sum(range(10)))",
    ),
    "json": ('{"name": "Ada", "age": 36, "tags": ["math", "code"]}', '{"a": 1, "b": [1, 2, 3]}', "[1, 2, 3]"),
    "csv": ("name,age,city\nAda,36,London\nGrace,45,New York\n", "x,y\n1,2\n3,4\n5,7\n"),
    "yaml": ("name: Ada\nage: 36\ntags:\n  - math\n", "a: 1\nb: 2\n"),
    "toml": ('name = "Ada"\n[owner]\nage = 36\n',),
    "xml": ("<note><to>Ada</to><body>Hello</body></note>", "<a><b>1</b><b>2</b></a>"),
    "html": ("<h1>Title</h1><p>Hello <b>world</b></p>", "<ul><li>One</li><li>Two</li></ul>"),
    "markdown": (
        "# Title\n\nSome *text* and a [link](https://example.com).\n\n- one\n- two\n",
        "## Notes\n\n1. First\n",
    ),
    "mermaid": (
        "graph TD\n  A[Start] --> B{Choice}\n  B -->|yes| C[End]",
        "sequenceDiagram\n  Ada->>Grace: Hello",
    ),
    "dot": ("digraph G { a -> b; b -> c; }",),
    "plantuml": ("@startuml\nAda -> Grace: hello\n@enduml",),
    "svg": (
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle cx="20" cy="20" r="10"/></svg>',
    ),
    "latex": (r"\frac{a}{b} + \sqrt{x}", r"E = mc^2"),
    "sql ddl": ("CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT)",),
    "cron": ("0 9 * * *", "*/15 * * * *", "0 0 1 * 1"),
    "fen": (
        "rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1",
        "r1bqkbnr/pppp1ppp/2n5/4p3/4P3/5N2/PPPP1PPP/RNBQKB1R w KQkq - 2 3",
    ),
    "chess move": ("e4", "e2e4", "Nf3", "d4", "g1f3"),
    "pgn": ("1. e4 e5 2. Nf3 Nc6 3. Bb5 a6",),
    "base64": ("SGVsbG8sIHdvcmxkIQ==", "RmlyZWZseQ=="),
    "hex": ("48656c6c6f", "ff00aa"),
    "jwt": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",),
    "jq": (".", ".[]", "keys", "length"),
    "smiles": ("CCO", "c1ccccc1"),
    "dna": ("ATGCGTACGTTAG", "GGGCCCATAT"),
    "formula": ("=SUM(A1:A3)", "=AVERAGE(B2:B5)"),
    "cell": ("A1", "B2", "C3"),
    "range": ("A1:C3", "A1:B2"),
    "openapi": ('{"openapi": "3.0.0", "info": {"title": "t", "version": "1"}, "paths": {}}',),
    "json schema": ('{"type": "object", "properties": {"name": {"type": "string"}}}',),
    "ics": ("BEGIN:VCALENDAR\nVERSION:2.0\nEND:VCALENDAR",),
}

Maker = Callable[[Asked, Random], list[Json]]


def _fixed(name: str) -> Maker:
    def make(asked: Asked, rng: Random) -> list[Json]:
        return list(_SAMPLES[name])

    return make


def _has(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_CONTENT = _has(
    r"\b(content|text|input|data|string|source|document|body|payload|code|definition|diagram|markup|spec|str)\b"
)
_CODE = _has(r"\b(code|snippet|script|program)\b")

_DIALECTS: dict[str, tuple[re.Pattern[str] | None, re.Pattern[str] | None, Maker]] = {
    # What the name says, what description says (of which both must fit, or the one that is there) → maker.
    "sql": (
        _has(r"\b(sql|query|statement)\b"),
        _has(r"\bSQL\b|\bSELECT\b|\bdatabase\b|\bINSERT\b|sqlite|duckdb|postgres"),
        _sql,
    ),
    "tree query": (_has(r"\bquery\b"), _has(r"tree-?sitter"), _tree_query),
    "json path": (
        _has(r"\b(json ?path|path expression|expression|query|path)\b"),
        _has(r"JSON ?Path"),
        _json_path,
    ),
    "jq": (_has(r"\b(jq|filter|query|expression)\b"), _has(r"\bjq\b"), _fixed("jq")),
    "cron": (_has(r"\bcron|schedule|expression\b"), _has(r"\bcron"), _fixed("cron")),
    "fen": (_has(r"\bfen|position|board\b"), _has(r"\bFEN\b"), _fixed("fen")),
    "pgn": (_has(r"\bpgn\b"), None, _fixed("pgn")),
    "chess move": (_has(r"\bmove\b"), _has(r"chess|\bSAN\b|\bUCI\b"), _fixed("chess move")),
    "formula": (_has(r"\bformula\b"), _has(r"excel|sheet|cell"), _fixed("formula")),
    "range": (_has(r"\brange\b"), _has(r"excel|sheet|cell"), _fixed("range")),
    "cell": (_has(r"\bcell\b"), _has(r"excel|sheet|cell"), _fixed("cell")),
    "smiles": (_has(r"\bsmile"), None, _fixed("smiles")),
    "dna": (_has(r"\b(dna|sequence)\b"), _has(r"\bDNA|nucleotide"), _fixed("dna")),
    "latex": (_has(r"\b(latex|tex|formula|equation)\b"), _has(r"latex"), _fixed("latex")),
    "equation": (_has(r"\bequation\b"), None, _equation),
    "matrix": (_has(r"\bmatrix|matrices\b"), None, _matrix),
    "arithmetic": (_has(r"\b(expression|formula|expr|calculation|math)\b"), None, _arithmetic),
    "mermaid": (_CONTENT, _has(r"mermaid"), _fixed("mermaid")),
    "plantuml": (_CONTENT, _has(r"plantuml"), _fixed("plantuml")),
    "dot": (_CONTENT, _has(r"graphviz|\bDOT (?:language|source|graph)"), _fixed("dot")),
    "svg": (_has(r"\b(svg|content|markup)\b"), _has(r"\bSVG\b"), _fixed("svg")),
    "json schema": (_has(r"\bschema\b"), _has(r"JSON ?schema"), _fixed("json schema")),
    "openapi": (_has(r"\b(spec|openapi|swagger)\b"), _has(r"openapi|swagger"), _fixed("openapi")),
    "json": (_has(r"\bjson\b"), None, _fixed("json")),
    "yaml": (_has(r"\byaml|yml\b"), None, _fixed("yaml")),
    "toml": (_has(r"\btoml\b"), None, _fixed("toml")),
    "xml": (_has(r"\bxml\b"), None, _fixed("xml")),
    "html": (_has(r"\bhtml\b"), None, _fixed("html")),
    "markdown": (_has(r"\b(markdown|md)\b"), None, _fixed("markdown")),
    "csv": (_has(r"\bcsv\b"), None, _fixed("csv")),
    "base64": (_has(r"\b(base64|b64|encoded)\b"), None, _fixed("base64")),
    "hex": (_has(r"^(?!.*colou?r).*\bhex\b"), None, _fixed("hex")),
    "jwt": (_has(r"\bjwt|token\b"), _has(r"\bJWT\b"), _fixed("jwt")),
    "ics": (_CONTENT, _has(r"\biCal|\.ics\b"), _fixed("ics")),
    "code": (_CODE, None, _fixed("python")),
    "json text": (_CONTENT, _has(r"\bJSON\b(?! ?path)"), _fixed("json")),
    "yaml text": (_CONTENT, _has(r"\bYAML\b"), _fixed("yaml")),
    "xml text": (_CONTENT, _has(r"\bXML\b"), _fixed("xml")),
    "html text": (_CONTENT, _has(r"\bHTML\b"), _fixed("html")),
    "csv text": (_CONTENT, _has(r"\bCSV\b"), _fixed("csv")),
    "markdown text": (_CONTENT, _has(r"\bmarkdown\b"), _fixed("markdown")),
    "glob": (
        _has(r"\b(glob|pattern|include|exclude|mask)\b"),
        _has(r"\bglob|\*\.|file ?(?:name)? pattern|wildcard|matching files"),
        _glob,
    ),
    "regex": (_has(r"\b(pattern|regex|regexp|expression)\b"), None, _regex),
    "numbers": (
        _has(r"\b(number|data|values|list|dataset|sample)\b"),
        _has(r"\bnumbers\b|comma[- ]separated|数据|statistic"),
        _numbers,
    ),
    "search": (
        _has(r"\b(query|search|term|keyword|needle|text|symbol|q|filter|find)\b"),
        _has(r"search|find|look|match|filter"),
        _search,
    ),
}


_BY_OWN_TEXT = frozenset({"json text", "yaml text", "xml text", "html text", "csv text", "markdown text"})
"""Languages that a parameter is in only if its own description says so, not its tool's."""

STRICT = frozenset(
    """
    sql arithmetic equation matrix cron fen latex mermaid plantuml dot json yaml toml xml csv smiles base64
    hex jwt
    """.split()
) | {"cell", "range", "formula", "tree query", "chess move", "json path", "json schema"}
"""Languages in which ordinary words make no sentence."""


def _one(items: list[Any], rng: Random) -> Any:
    return items[rng.randrange(len(items))]
