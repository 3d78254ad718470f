"""What an error says would have been right."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from recorder.exchange import Json
from recorder.explore.mined import listed, quoted
from recorder.explore.names import words_in
from recorder.explore.outputs import leaves, parsed

MOST_CHARACTERS = 6000
"""Of an error's text that are read."""


@dataclass(frozen=True, slots=True)
class Complaint:
    about: tuple[str, ...] = ()
    """Parameters it is about: named in it, or their value is."""
    allowed: tuple[str, ...] = ()
    """Values it says would be right."""
    allowed_for: str | None = None
    """The parameter that they are for."""
    required: tuple[str, ...] = ()
    """Parameters that are missing."""
    unexpected: tuple[str, ...] = ()
    """Parameters that should not be there."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Parameter → the JSON type it should have."""
    tools: tuple[str, ...] = ()
    """Tools it says to call, first of all set-up."""
    extensions: tuple[str, ...] = ()
    """File name endings that would do, such as `.csv`."""
    absolute: bool | None = None
    """Whether paths should be absolute; `None` if it says nothing of that."""
    pattern: str | None = None
    """A regular expression that the value should match."""
    minimum: float | None = None
    maximum: float | None = None
    set_up: bool = False
    """Whether it says that something has to be done, opened or chosen first."""
    missing: bool = False
    """Whether it says that something is not there."""
    directory: bool | None = None
    """Whether a path should name a directory, or should not; `None` if it says nothing of that."""
    exclusive: tuple[str, ...] = ()
    """Parameters of which only one may be given."""


_ALLOWED = re.compile(
    r"(?:(?:must|should) be (?:one of|either)|(?:must|should) be(?= [\"'`])|one of|\bexpected(?: one of)?|choose from"
    r"|did you mean"
    r"|(?:(?<!in)valid|(?<!un)available|(?<!un)supported|allowed|possible"
    r"|(?<!un)known)\b[\w ]{0,30}?(?:\bare\b|\bis\b|(?=[:=\[]|\((?![^)]*unexpected)))"
    r"|options(?: are)?(?=\s*:)|choices)\s*[:=(\[]?\s*"
    r"(?=(?P<rest>[^\n]{1,1500}))",  # looked at only: another list may begin within it
    re.IGNORECASE,
)
_REQUIRED = re.compile(
    r"[\"'`](?P<quoted>[\w.-]+)[\"'`] is (?:a )?required|missing (?:\d+ )?required (?:positional |keyword )?"
    r"(?:argument|parameter|field|property)s?:? [\"'`]?(?P<missing>[\w.-]+)|(?:^"
    r"|\s)(?P<plain>[a-z][\w]*) is required"
    r"|(?P<pydantic>^[\w.]+)\n\s+(?:Field required|Missing required argument)"
    r"|(?P<given>\w+) must be (?:provided|specified|given|supplied)"
    r"|(?P<either>\w+) or \w+ must be (?:provided|specified|given)|\b(?:provide|specify|supply)(?: (?:a"
    r"|an|the|either))? [\"'`]?(?P<provide>\w+)"
    r"|[\"']path[\"']:\s*\[\s*[\"'](?P<zod>\w+)[\"']\s*\],\s*[\"']message[\"']:\s*[\"'](?:Required"
    r"|Invalid input: expected \w+, received undefined)",
    re.IGNORECASE | re.MULTILINE,
)
_UNEXPECTED = re.compile(
    r"\([\"'](?P<schema>\w+)[\"'] was unexpected\)|unexpected keyword argument [\"'](?P<python>\w+)[\"']"
    r"|unrecognized key\(s\) in object: [\"'](?P<zod>\w+)[\"']|(?P<pydantic>^\w+)\n\s+(?:Extra inputs"
    r"|Unexpected keyword)",
    re.IGNORECASE | re.MULTILINE,
)
_TYPES = (
    re.compile(r"(?P<parameter>^[\w.]+)\n\s+Input should be a valid (?P<type>\w+)", re.MULTILINE),
    re.compile(
        r"expected[\"']?:?\s*[\"']?(?P<type>string|number|integer|boolean|array|object|list|dict)\b"
        r"[^{}]{0,120}?[\"']path[\"']:\s*\[\s*[\"'](?P<parameter>\w+)",
        re.IGNORECASE | re.DOTALL,
    ),
    re.compile(
        r"(?P<parameter>\w+)[\"'`]? must be (?:an? )?(?P<type>string|number|integer|boolean|array|object"
        r"|list|dict)\b"
    ),
)
_TYPE_NAMES = {
    "list": "array",
    "dict": "object",
    "dictionary": "object",
    "bool": "boolean",
    "float": "number",
    "int": "integer",
}
_EXTENSION = re.compile(r"(?<![\w/])\.[a-z][a-z0-9]{1,5}\b")
_FILE_TYPE = re.compile(r"(?:file|format|extension|type|endswith|end with)", re.IGNORECASE)
_PATTERN = re.compile(
    r"(?:match(?:es)?(?: the)?(?: pattern| regex)?:?|pattern)\s*[\"'/`](?P<pattern>\^?[^\"'`\n]{2,120}?\$?)[\"'/`]",
    re.IGNORECASE,
)
_AT_LEAST = re.compile(
    r"(?:>=|at least|greater than or equal to|minimum(?: is| of)?|no less than)\s*(-?\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
_AT_MOST = re.compile(
    r"(?:<=|at most|less than or equal to|maximum(?: is| of)?|no more than"
    r"|exceeds(?: the)?(?: maximum)?(?: of)?)\s*(-?\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"between (-?\d+(?:\.\d+)?) and (-?\d+(?:\.\d+)?)", re.IGNORECASE)
_ABSOLUTE = re.compile(r"absolute", re.IGNORECASE)
_RELATIVE = re.compile(
    r"(?:must|should) be (?:a )?relative|not be absolute|absolute [^.\n]{0,200}?not (?:allowed|permitted"
    r"|supported)|no absolute"
    r"|paths? relative to",
    re.IGNORECASE,
)
_SET_UP = re.compile(
    r"\b(?:call|use|run|set|create|load|open|register|initiali[sz]e|select)\b[^.\n]{0,80}\bfirst\b|not (?:been )?(?:set|initiali[sz]ed|loaded|open(?:ed)?|connected|registered|configured"
    r"|started|selected|indexed|built|available)\b"
    r"|\bno (?:active|current|open|loaded|default|such)?\s?(?:\w+ ){0,4}(?:set|loaded|open|active"
    r"|selected|initiali[sz]ed|registered|connected|configured|found)\b"
    r"|\bbefore (?:using|calling)|please (?:call|use|run|set|create|load|open|register)",
    re.IGNORECASE,
)


def read_complaint(
    text: str, arguments: Mapping[str, Json], parameters: Collection[str], tools: Collection[str]
) -> Complaint:
    """Read the text of an error.

    Args:
        arguments: Of the call that it answers.
        parameters: All that the tool has, by name.
        tools: The names of the server's tools.
    """
    text = text[:MOST_CHARACTERS]
    about = [name for name in parameters if re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", text)]
    about += [name for name, value in arguments.items() if name not in about and _mentions(text, value)]
    missing = [name for match in _MISSING_LIST.finditer(text) for name in _names(match["names"])]
    required = missing + [
        name for match in _REQUIRED.finditer(text) for name in match.groupdict().values() if name
    ]
    extra = [name for match in _EXTRA_LIST.finditer(text) for name in _names(match["names"] or match["keys"])]
    unexpected = extra + [
        name for match in _UNEXPECTED.finditer(text) for name in match.groupdict().values() if name
    ]
    types = {
        match["parameter"]: _TYPE_NAMES.get(match["type"].lower(), match["type"].lower())
        for pattern in _TYPES
        for match in pattern.finditer(text)
        if match["parameter"] in parameters
    }
    extensions = _EXTENSION.findall(text.lower()) if _FILE_TYPE.search(text) else []
    given = {str(value) for value in arguments.values() if isinstance(value, str | int | float)}
    allowed = [
        value for match in _ALLOWED.finditer(text) for value in _values(match["rest"]) if value not in given
    ]
    allowed = _said_in_json(text) or allowed or [v for v in _bracketed(text) if v not in given]
    between = _BETWEEN.search(text)
    least, most = _AT_LEAST.search(text), _AT_MOST.search(text)
    pattern = _PATTERN.search(text)
    return Complaint(
        about=tuple(about),
        allowed=tuple(dict.fromkeys(allowed))[:60],
        allowed_for=_meant(text, arguments, parameters, about) if allowed else None,
        required=tuple(_parameters_named(required, parameters, arguments)),
        unexpected=tuple(dict.fromkeys(name for name in unexpected if name in arguments)),
        types=types,
        tools=tuple(sorted((name for name in tools if _names_tool(text, name)), key=text.find)),
        extensions=tuple(
            dict.fromkeys(e for e in extensions if not any(g.lower().endswith(e) for g in given))
        ),
        absolute=False if _RELATIVE.search(text) else True if _ABSOLUTE.search(text) else None,
        pattern=pattern["pattern"] if pattern else None,
        minimum=float(between[1]) if between else float(least[1]) if least else None,
        maximum=float(between[2]) if between else float(most[1]) if most else None,
        set_up=bool(_SET_UP.search(text)),
        missing=bool(_MISSING.search(text)),
        directory=True if _NOT_DIRECTORY.search(text) else False if _IS_DIRECTORY.search(text) else None,
        exclusive=tuple(name for name in about if name in arguments) if _EXCLUSIVE.search(text) else (),
    )


_NOT_DIRECTORY = re.compile(r"ENOTDIR|not a (?:valid )?(?:directory|folder)", re.IGNORECASE)
_IS_DIRECTORY = re.compile(
    r"EISDIR|is a (?:directory|folder)|not a (?:valid |regular )?file\b", re.IGNORECASE
)
_MISSING = re.compile(r"ENOENT|no such file|not found|does not exist|doesn't exist", re.IGNORECASE)
_EXCLUSIVE = re.compile(
    r"\bboth\b|simultaneous|together with|mutually exclusive|only one of|cannot be (?:used|combined) with",
    re.IGNORECASE,
)
_ALLOWED_KEY = re.compile(
    r"(?<!un)available|(?<!in)valid_|(?<!un)supported|allowed|^options$|^values$|choices|suggest|possible"
    r"|(?<!un)known",
    re.IGNORECASE,
)


def _meant(
    text: str, arguments: Mapping[str, Json], parameters: Collection[str], about: Sequence[str]
) -> str | None:
    """Return the parameter whose right values an error lists: the one that the list is headed with, else one
    named."""
    heads = {word for head in _LIST_HEAD.findall(text) for word in words_in(head)}
    for name in [*about, *parameters]:
        if heads & set(words_in(name)):
            return name
    quoted_values = [name for name in about if _mentions(text, arguments.get(name))]
    return next(iter([*quoted_values, *about, *arguments]), None)


_LIST_HEAD = re.compile(
    r"(?:available|supported|allowed|(?<!in)valid|known|possible|unknown|invalid"
    r"|unsupported)[_ ]([A-Za-z]\w*)",
    re.IGNORECASE,
)


def _bracketed(text: str) -> list[str]:
    """Return the quoted items of the first list in brackets, in whatever language it is announced."""
    match = re.search(r"\[\s*([\"'])[^\[\]]{1,400}?\1\s*,[^\[\]]{1,800}\]", text)
    return [value for value in quoted(match[0]) if _is_value(value)] if match is not None else []


def _said_in_json(text: str) -> list[str]:
    """Return the values that an error written as JSON lists as right."""
    if not re.search(r"[{\[]\s*[{\"']", text):
        return []
    value = parsed(text)
    return [
        str(leaf)
        for path, leaf in leaves(value)
        if any(_ALLOWED_KEY.search(name) for name in path)
        and isinstance(leaf, str | int | float)
        and len(str(leaf)) <= 80
    ]


def _parameters_named(
    names: Sequence[str], parameters: Collection[str], arguments: Mapping[str, Json]
) -> list[str]:
    """Return the parameters that are meant and not given, however they are spelt."""
    by_words = {words_in(parameter): parameter for parameter in parameters}
    found = [by_words.get(words_in(name)) for name in names]
    return list(dict.fromkeys(name for name in found if name is not None and name not in arguments))


_MISSING_LIST = re.compile(
    r"(?:missing \d+ required [\w-]+ arguments?|arguments are required): (?P<names>[^\n]{1,300})",
    re.IGNORECASE,
)
_EXTRA_LIST = re.compile(
    r"\((?P<names>[^()\n]{1,300}) (?:was|were) unexpected\)|unrecognized_keys[^\]]{0,80}\[(?P<keys>[^\]]{1,300})\]",
    re.IGNORECASE,
)


def _names(text: str) -> list[str]:
    """Return the names in a list, quoted or as options of a command line."""
    return quoted(text) or re.findall(r"--([\w-]+)", text)


def _values(rest: str) -> list[str]:
    """Return what a list of allowed values names: quoted, bracketed, or between commas."""
    bracket = re.match(r"\s*[\[({](?P<inside>[^\])}]*)[\])}]", rest)
    if bracket is not None:
        rest = bracket["inside"]
    found = quoted(rest) or listed(rest) or (rest.split(",") if bracket is not None else [])
    return [value.strip() for value in found if _is_value(value.strip())]


def _is_value(text: str) -> bool:
    return len(text) <= 80 and any(map(str.isalnum, text)) and text.lower() not in _NOT_VALUES


_NOT_VALUES = frozenset(
    "str bytes int float bool os.pathlike string number integer boolean array object null undefined the a an one of is are to be received list dict".split()
)


def _mentions(text: str, value: Json) -> bool:
    if isinstance(value, list):
        return any(_mentions(text, item) for item in value)
    if isinstance(value, dict):
        return any(_mentions(text, item) for item in value.values())
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    said = str(value)
    return said in text if len(said) > 1 else bool(re.search(rf"[\"'`]{re.escape(said)}[\"'`]", text))


def _names_tool(text: str, name: str) -> bool:
    """Whether an error names a tool; a name that is an ordinary word has to be marked as one."""
    if re.search(r"[_A-Z-]", name):
        return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None
    return re.search(rf"[\"'`]{re.escape(name)}[\"'`]|\b{re.escape(name)}(?:\(\)| tool\b)", text) is not None
