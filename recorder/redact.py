"""Secrets out of every text before it is written, and the same transform on what is looked up.

A secret becomes `[redacted:` and 16 hex digits of an HMAC-SHA-256 of it, keyed with a random key that the
recording holds. So equal secrets stay equal, within one recording, and a call that carries one can still be
matched by someone who has it, without the recording giving it away.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

from recorder.canonical import readable_json
from recorder.errors import FireflyError

MIN_LENGTH = 8
"""Characters a value needs to count as secret by its name alone; shorter ones (`on`, `none`, `3000`) would
blot out half of what passes."""

MIN_NAMED_LENGTH = 4
"""The same for a value that the user named with `--redact`."""

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|COOKIE|AUTH(?!ORS?(?![A-Z])|OR_)", re.IGNORECASE)
"""Names whose values are secret; AUTHOR names a person, AUTHORIZATION does not."""

# A token starts where a word starts; in JSON text that can be right after an escape (`\nsk-…`, `\u000ask-…`).
_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4}))"

TOKEN_SHAPES: Sequence[tuple[str, re.Pattern[str]]] = tuple(
    (gate, re.compile(pattern))
    for gate, pattern in (
        # A gate is text that every match holds: searching for it first is some thirty times cheaper.
        *((f"gh{kind}_", rf"gh{kind}_[A-Za-z0-9]{{16,}}") for kind in "pousr"),
        ("github_pat_", r"github_pat_[A-Za-z0-9_]{16,}"),
        ("glpat-", r"glpat-[A-Za-z0-9_-]{16,}"),
        # Words hyphenated after "sk" are no key; one run of sixteen is.
        ("sk-", _START + r"sk-(?:[A-Za-z0-9_]+-){0,4}[A-Za-z0-9_]{16,}[A-Za-z0-9_-]*"),
        *((mode, _START + rf"[sr]k{mode}[A-Za-z0-9]{{16,}}") for mode in ("_live_", "_test_")),
        ("whsec_", _START + r"whsec_[A-Za-z0-9+/=]{24,}"),
        ("gsk_", _START + r"gsk_[A-Za-z0-9]{32,}"),
        ("ya29.", _START + r"ya29\.[A-Za-z0-9_-]{20,}"),
        ("SG.", _START + r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
        ("dop_v1_", _START + r"dop_v1_[a-f0-9]{32,}"),
        ("xapp-", _START + r"xapp-[A-Za-z0-9-]{20,}"),
        ("AKIA", _START + r"AKIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
        ("ASIA", _START + r"ASIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
        ("AIza", _START + r"AIza[A-Za-z0-9_-]{35}"),
        ("xox", _START + r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
        ("npm_", _START + r"npm_[A-Za-z0-9]{36}"),
        ("hf_", _START + r"hf_[A-Za-z0-9]{30,}"),
        ("pypi-", _START + r"pypi-[A-Za-z0-9_-]{40,}"),
        ("eyJ", r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
        # "Bearer authentication" is prose: a credential has a digit, or is long.
        *(
            (gate, r"(?i:bearer[ \t]+)(?P<secret>(?=[A-Za-z._~+/=-]*[0-9]|[^ ]{24})[A-Za-z0-9._~+/=-]{8,})")
            for gate in ("earer", "EARER")
        ),
        (
            "PRIVATE KEY-----",
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\\+[nr]|[\r\n])[A-Za-z0-9+/=:,\\\s]{20,}"
            r"(?:-----END [A-Z ]*PRIVATE KEY-----)?",
        ),
        ("@", r"://[^\s:/@\"\\]*:(?P<secret>(?:[^\s/@\"\\?#,;]|\\+u[0-9a-fA-F]{4})+)@"),
    )
)
"""Texts to look for first, and the shape of a token; its group `secret`, where it has one, is the secret."""


@dataclass(frozen=True, slots=True)
class KnownSecret:
    """How a secret that lookup was never told can be found: by the digest of each text of its length."""

    digest: str
    length: int
    placeholder: str


class Redactor:
    """Replaces secrets in text by placeholders.

    Args:
        key: The recording's own random key.
        secrets: Values known to be secret, such as those of environment variables.
    """

    def __init__(self, key: bytes, secrets: Collection[str] = ()) -> None:
        self._key = key
        longest_first = sorted(
            {secret for secret in secrets if secret}, key=lambda secret: (-len(secret), secret)
        )
        self._secrets = [_Secret.of(secret, self.placeholder(secret)) for secret in longest_first]
        spelled = {"\\" if secret.needs_escape else secret.value for secret in self._secrets}
        spelled |= {secret.value for secret in self._secrets}
        self._gates = (
            *spelled,
            *(["%"] if any(secret.in_urls for secret in self._secrets) else []),
            "\\u",
            "\\/",
            *(gate for gate, _ in TOKEN_SHAPES),
        )

    def placeholder(self, secret: str) -> str:
        return f"[redacted:{self.digest(secret)[:16]}]"

    def digest(self, text: str) -> str:
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()[:32]

    def redact(self, text: str) -> str:
        """Return `text` without secrets; the very same object where it held none.

        JSON stays JSON: where replacing inside the text would break it (a secret made of digits that
        stands as a number), the values are replaced one by one and written anew.
        """
        for gate in self._gates:
            if gate in text:
                break
        else:
            return text
        redacted = self._redact_text(text)
        if redacted is text or _is_json(redacted):
            return redacted
        try:
            value = json.loads(text)
            return readable_json(map_text(value, self._redact_text))
        except (ValueError, RecursionError):
            return redacted

    def known(self) -> Iterator[KnownSecret]:
        """What lookup needs to find each secret without its value."""
        for secret in self._secrets:
            for spelling in secret.in_urls | {secret.value}:
                yield KnownSecret(self.digest(spelling), len(spelling), secret.placeholder)

    def redact_unknown(self, text: str, known: Collection[KnownSecret]) -> str:
        """Replace whatever has the digest of a known secret, also where `text` is JSON that spells it.

        Tries each stretch of a secret's length: about a microsecond for each character and length.
        """
        placeholders = {secret.digest: secret.placeholder for secret in known}
        lengths = sorted({secret.length for secret in known}, reverse=True)
        found: dict[int, tuple[int, str]] = {}
        for level in _levels(text):
            plain = "".join(unit.char for unit in level)
            for length in lengths:
                for at in range(len(level) - length + 1):
                    placeholder = placeholders.get(self.digest(plain[at : at + length]))
                    if placeholder is not None:
                        start, end = level[at].start, level[at + length - 1].end
                        found[start] = max(found.get(start, (0, "")), (end, placeholder))
        parts, done = [], 0
        for start, (end, placeholder) in sorted(found.items()):
            if start >= done:
                parts += [text[done:start], placeholder]
                done = end
        return "".join([*parts, text[done:]])

    def _redact_text(self, text: str) -> str:
        for secret in self._secrets:
            if "\\u" in text or (secret.needs_escape and "\\" in text):
                for spelling in secret.spellings:
                    text = spelling.sub(secret.placeholder, text)
            if secret.value in text:
                text = text.replace(secret.value, secret.placeholder)
            if "%" in text:
                for in_url in secret.in_urls:
                    text = text.replace(in_url, secret.placeholder)
        if "\\u00" not in text and "\\/" not in text:
            return self._redact_tokens(text)
        # A token may be spelled with escapes that an encoder need not have used.
        plain = _NEEDLESS_ESCAPE.sub(_plain, text)
        redacted = self._redact_tokens(plain)
        return text if redacted is plain else redacted

    def _redact_tokens(self, text: str) -> str:
        for gate, shape in TOKEN_SHAPES:
            if gate in text:
                text = shape.sub(self._replace_token, text)
        return text

    def _replace_token(self, match: re.Match[str]) -> str:
        if "[redacted:" in match[0]:
            return match[0]
        start, end = match.span("secret") if "secret" in match.groupdict() else match.span()
        text = match.string
        return text[match.start() : start] + self.placeholder(text[start:end]) + text[end : match.end()]


_NEEDLESS_ESCAPE = re.compile(r"\\+u00(?!22|5[cC])([2-7][0-9a-fA-F])|\\+/")
"""An escape of a printable character, at any depth of JSON in JSON, that JSON does not ask for."""


def _plain(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else "/"


@dataclass(frozen=True, slots=True)
class _Unit:
    """A character, and where it stands in the text that it was read from, escapes included."""

    char: str
    start: int
    end: int


_ESCAPE = re.compile(
    r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\([\"\\/bfnrt])"
)
_SHORT_ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
_SHORT_MEANINGS = {letter: char for char, letter in _SHORT_ESCAPES.items()}


def _levels(text: str) -> Iterator[list[_Unit]]:
    """Yield the characters of `text`, then of what it says as JSON, and so on while that differs."""
    units = [_Unit(char, at, at + 1) for at, char in enumerate(text)]
    while True:
        yield units
        plain = "".join(unit.char for unit in units)
        simpler: list[_Unit] = []
        done = 0
        for escape in _ESCAPE.finditer(plain):
            start, end = escape.span()
            simpler += units[done:start]
            simpler.append(_Unit(_meaning(escape), units[start].start, units[end - 1].end))
            done = end
        if not done:
            return
        units = [*simpler, *units[done:]]


def _meaning(escape: re.Match[str]) -> str:
    high, low, code, short = escape.groups()
    if high:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    return chr(int(code, 16)) if code else _SHORT_MEANINGS.get(short, short)


def map_text(value: object, change: Callable[[str], str]) -> object:
    """Apply `change` to every string of a JSON value, keys too, and to numbers that it alters as text."""
    match value:
        case str():
            return change(value)
        case bool() | None:
            return value
        case int() | float():
            text = str(value)
            changed = change(text)
            return value if changed == text else changed
        case list():
            return [map_text(item, change) for item in value]
        case dict():
            return {change(key): map_text(item, change) for key, item in value.items()}
        case _:
            return value


def secret_values(named: Iterable[tuple[str, str]], also: Collection[str] = ()) -> set[str]:
    """Return the values that their names give away as secret.

    A value such as `Bearer abc…` yields the credential without its scheme, too, a list each of its parts,
    and a value of several lines each of them, since noise is read by the line. The password in a URL is
    secret under any name.

    Args:
        named: Names and values: environment variables, headers, options.
        also: Further names, from `--redact`; matched without regard to case.

    Raises:
        FireflyError: a name in `also` is not among `named`, or its value is too short to be replaced.
    """
    found: set[str] = set()
    missing = {name.upper(): name for name in also}
    for name, value in named:
        found |= {password for password in _PASSWORD_IN_URL.findall(value) if len(password) >= MIN_LENGTH}
        if name.upper() in {other.upper() for other in also}:
            missing.pop(name.upper(), None)
            if len(value) < MIN_NAMED_LENGTH:
                raise FireflyError(
                    f"--redact {name}: its value has {len(value)} characters,"
                    f" at least {MIN_NAMED_LENGTH} are needed"
                )
        elif not SECRET_NAME.search(name) or len(value) < MIN_LENGTH:
            continue
        found.add(value)
        found |= {part for part in re.split(r"[\r\n,]+", value.strip("\"'")) if len(part) >= MIN_LENGTH}
        scheme, _, credential = value.partition(" ")
        if scheme.isalpha() and len(credential) >= MIN_LENGTH:
            found.add(credential)
    if missing:
        name = next(iter(missing.values()))
        raise FireflyError(f"--redact {name}: no environment variable or header of that name is set")
    return found


_PASSWORD_IN_URL = re.compile(r"://[^\s:/@]*:([^\s/@]+)@")


def named_in_arguments(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what a command line gives under a name.

    That is `--name value`, `Header: value`, and `name=value` or `name: value` anywhere in an argument: in a
    shell's line, a URL or JSON.
    """
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument.startswith("-") and len(argument) > 2 and following and not following.startswith("-"):
            yield argument.lstrip("-"), following
        header, _, content = argument.partition(":")
        yield header, content.strip()
        yield from _NAMED.findall(argument)


# The value is looked ahead at, since what is named in it (`--env=API_KEY=…`) counts, too.
_NAMED = re.compile(r"""([A-Za-z][A-Za-z0-9_.-]*)["']?\s*[=:]\s*["']?(?=([^\s&;,"']+))""")


def named_in_url(url: str) -> Iterator[tuple[str, str]]:
    """Yield what a URL carries under a name: its query and fragment, and a token in the place of a user."""
    parts = urlsplit(url)
    yield from parse_qsl(parts.query)
    yield from parse_qsl(parts.fragment)
    if parts.username and not parts.password:
        yield "token", parts.username


@dataclass(frozen=True, slots=True)
class _Secret:
    value: str
    placeholder: str
    spellings: tuple[re.Pattern[str], ...]
    """Match the value where it stands in JSON, in JSON in JSON, and so on; deepest first, since a shallow
    one may match a part of what is spelled deeper."""
    needs_escape: bool
    in_urls: frozenset[str]
    """As percent-encoded in a URL, where that differs: with `/` as it is or not, in either case of hex."""

    @classmethod
    def of(cls, value: str, placeholder: str) -> _Secret:
        needs_escape = any(char in '"\\/' or not " " <= char <= "~" for char in value)
        depths = range(MAX_DEPTH, 0, -1) if needs_escape else (MAX_DEPTH,)
        spellings = tuple(re.compile("".join(_spelling(char, depth) for char in value)) for depth in depths)
        in_urls = {quote(value, safe=""), quote(value)}
        in_urls |= {re.sub("%..", lambda code: code[0].lower(), spelling) for spelling in in_urls}
        return cls(value, placeholder, spellings, needs_escape, frozenset(in_urls - {value}))


MAX_DEPTH = 4
"""JSON in JSON in JSON …: how deep a secret is looked for."""


def _spelling(char: str, depth: int) -> str:
    """Return a pattern for `char` after `depth` JSON encodings, each of which may escape what it likes.

    Each encoding doubles the backslashes there are.
    """
    inner = 2 ** (depth - 1)
    units = char.encode("utf-16-be", "surrogatepass")
    codes = (f"{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    code = "".join(rf"\\{{1,{inner}}}u(?i:{code})" for code in codes)
    if char == "\\":
        return rf"(?:\\{{{2 * inner}}}|{code})"
    if char == '"':
        return rf'(?:\\{{{2 * inner - 1}}}"|{code})'
    if char == "/":
        return rf"(?:\\{{0,{2 * inner - 1}}}/|{code})"
    if char in _SHORT_ESCAPES:
        return rf"(?:\\{{{inner}}}{_SHORT_ESCAPES[char]}|{code})"
    return rf"(?:{re.escape(char)}|{code})"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
