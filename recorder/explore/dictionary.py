"""Values that fit a parameter by what it is called: a city for `city`, a date for `date`."""

from __future__ import annotations

import re
from functools import lru_cache

from recorder.exchange import Json
from recorder.explore.names import Words

_ENTRIES: tuple[tuple[str, tuple[Json, ...]], ...] = (
    # A name's words in the singular, as `names.words_in` gives them → values. The first entry that fits counts.
    (r"time ?zone|\btz\b", ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Sydney",
                           "Europe/London", "America/Los_Angeles", "Asia/Kolkata", "America/Sao_Paulo")),
    (r"e ?mail", ("ada@example.com", "info@example.org")),
    (r"phone|mobile", ("+49 30 901820", "+1 202 555 0143")),
    (r"\b(uri|url|link|href|website|endpoint)\b", ("https://example.com", "https://example.com/index.html")),
    (r"\b(domain|host|hostname)\b", ("example.com", "example.org")),
    (r"\bip\b", ("127.0.0.1", "192.0.2.1")),
    (r"\bport\b", (8080, 443, 80)),
    (r"\b(city|town|location|place|origin|destination)\b", ("Berlin", "London", "Paris", "Tokyo", "New York")),
    (r"country", ("Germany", "DE", "US", "France", "JP")),
    (r"\b(state|region|province)\b", ("CA", "Bavaria", "NY")),
    (r"\b(zip|postal|postcode)\b", ("10115", "94105")),
    (r"street|address", ("1 Main Street, Springfield", "Unter den Linden 1, Berlin")),
    (r"\b(lat|latitude)\b", (52.52, 40.71, 35.68)),
    (r"\b(lon|lng|long|longitude)\b", (13.405, -74.0, 139.69)),
    (r"currency", ("USD", "EUR", "GBP", "JPY")),
    (r"\b(ticker|symbol)\b", ("AAPL", "MSFT", "main")),
    (r"\b(locale)\b", ("en_US", "en-US", "de_DE")),
    (r"\b(language|lang)\b", ("python", "en", "javascript", "English", "de")),
    (r"\b(palette|foreground|background)\b", ("#3366ff", "#ff0000", "#ffffff", "#222222")),
    (r"\b(first name|given name)\b", ("Ada", "Grace")),
    (r"\b(last name|surname|family name)\b", ("Lovelace", "Hopper")),
    (r"\b(user|username|login|author|owner|assignee|person|player|customer)( name)?\b", ("ada", "alice", "bob")),
    (r"\bfull name\b", ("Ada Lovelace", "Grace Hopper")),
    (r"password|secret", ("correct-horse-9",)),
    (r"\b(year)\b", (2024, 2023, 2000)),
    (r"\b(month)\b", (6, 1, 12)),
    (r"\b(day)\b", (15, 1, 28)),
    (r"\b(hour)\b", (9, 14)),
    (r"\b(minute|second)\b", (30, 15)),
    (r"\b(age)\b", (30, 42)),
    (r"date ?time|timestamp|\b(since|until|before|after)\b", ("2024-01-15T09:30:00Z", "2024-06-01T00:00:00Z")),
    (r"\b(start|from|begin)\b.*\bdate\b", ("2024-01-01", "2023-06-01")),
    (r"\b(end|to|due)\b.*\bdate\b|deadline|\bdue\b", ("2024-12-31", "2025-03-31")),
    (r"\bdate|birthday\b", ("2024-01-15", "2024-12-31", "2000-02-29")),
    (r"\btime\b", ("09:30", "14:00", "23:59", "06:15", "12:00")),
    (r"duration|timeout|interval|delay|wait|sleep", (1, 2, 0.5)),
    (r"\b(limit|max result|max count|top|count|size|per page|page size|max|num|max row|n)\b", (5, 3, 10, 2, 20, 7)),
    (r"\b(page)\b", (1, 2)),
    (r"\b(offset|skip|start|start line|start index|row|column|line|index|position|begin)\b", (0, 1, 2, 3, 5)),
    (r"\b(end line|end)\b", (10, 20, 5)),
    (r"\b(depth|level)\b", (2, 1, 3)),
    (r"\b(width|height)\b", (400, 300, 800)),
    (r"\b(precision|decimal|digit|place)\b", (4, 2, 6)),
    (r"percent|rate|ratio|probability|threshold|confidence|alpha", (0.5, 0.1, 0.05)),
    (r"\b(price|amount|cost|total|salary|principal|balance)\b", (100, 19.99, 2500)),
    (r"quantity|qty", (1, 3)),
    (r"temperature|\btemp\b", (20, 72.5)),
    (r"weight|mass", (70, 2.5)),
    (r"distance|length|radius", (10, 42.2)),
    (r"from unit|unit from|source unit", ("m", "km", "kg", "celsius")),
    (r"to unit|unit to|target unit", ("km", "m", "g", "fahrenheit")),
    (r"\bunit", ("m", "km", "kg", "celsius")),
    (r"colou?r", ("#3366ff", "red", "#ff0000", "blue")),
    (r"\b(seed)\b", (42, 7)),
    (r"\b(sides)\b", (6, 20)),
    (r"\bdice|notation\b", ("2d6", "1d20+3")),
    (r"\b(base|radix)\b", (2, 16, 10)),
    (r"\b(branch)\b", ("main", "master")),
    (r"\b(revision|commit|ref|target|sha|tag)\b", ("HEAD", "HEAD~1", "main", "master")),
    (r"\bbranch type\b", ("local", "all")),
    (r"\b(encoding|charset)\b", ("utf-8", "latin-1")),
    (r"\b(algorithm|hash)\b", ("sha256", "md5")),
    (r"mime|content type|media type", ("text/plain", "application/json")),
    (r"\b(extension|ext)\b", (".py", ".md", "txt")),
    (r"\b(log )?level|severity\b", ("INFO", "info", "error")),
    (r"\bpriority\b", ("high", "medium", "low", 1)),
    (r"\bstatus\b", ("open", "active", "done", "pending", "todo")),
    (r"\bsort|order by\b", ("name", "date", "asc")),
    (r"\b(order|direction)\b", ("asc", "desc")),
    (r"\b(category|genre|topic)\b", ("science", "books", "history")),
    (r"\b(relation|relationship)( type)?\b", ("knows", "works_at", "part_of")),
    (r"\bentity type\b", ("person", "project", "organization")),
    (r"\b(entity|node)( name)?\b", ("Ada Lovelace", "Analytical Engine")),
    (r"\b(tag|label|keyword)\b", ("important", "draft")),
    (r"\b(title|subject|heading|headline)\b", ("Quarterly report", "Meeting notes")),
    (r"\b(message|comment|note|description|summary|content|text|body|observation|insight|thought|detail|input"
     r"|string|prompt|question|answer|reason|caption|paragraph|sentence|request)\b",
     ("The quick brown fox jumps over the lazy dog.", "Hello, world!", "Sales rose by 12 % in March.")),
    (r"\b(query|search|term|pattern|needle|find|keyword|q)\b", ("the", "a", "test", "data")),
    (r"\bnew\b.*\bname\b", ("renamed_firefly",)),
    (r"\b(model)\b", ("default",)),
    (r"\bversion\b", ("1.0.0", "2.1.3")),
    (r"\bname\b", ("firefly", "example", "test")),
    (r"\bid\b", (1, "1", 2)),
)  # fmt: skip

_COMPILED = tuple((re.compile(pattern), values) for pattern, values in _ENTRIES)

_IN_CONTEXT: tuple[tuple[str, str, tuple[Json, ...]], ...] = (
    # A name → what the tool's description is about → values.
    (r"\b(language|lang)\b", r"\bcode\b|programming|parse|syntax|source|tree-?sitter", ("python", "javascript", "go", "java")),
    (r"\b(language|lang|locale)\b", r"translat|speech|text|content", ("en", "de", "fr", "English")),
    (r"\bsymbol\b", r"\bcode\b|function|class\b", ("main", "add", "__init__")),
)  # fmt: skip
_CONTEXTS = tuple(
    (re.compile(name), re.compile(about, re.IGNORECASE), values) for name, about, values in _IN_CONTEXT
)

FORMATS: dict[str, tuple[Json, ...]] = {
    "date": ("2024-01-15", "2024-12-31"),
    "date-time": ("2024-01-15T09:30:00Z", "2024-12-31T23:59:59Z"),
    "time": ("09:30:00", "14:00:00Z"),
    "duration": ("PT1H", "P1D"),
    "email": ("ada@example.com",),
    "uri": ("https://example.com", "https://example.com/index.html"),
    "url": ("https://example.com",),
    "uri-reference": ("https://example.com",),
    "hostname": ("example.com",),
    "ipv4": ("127.0.0.1",),
    "ipv6": ("::1",),
    "uuid": ("123e4567-e89b-42d3-a456-426614174000",),
    "regex": ("[a-z]+", ".*"),
    "json-pointer": ("/0", ""),
    "byte": ("SGVsbG8=",),
    "binary": ("SGVsbG8=",),
    "color": ("#3366ff",),
}
"""JSON Schema's `format` → values of that format."""

_DATE_FORMATS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"YYYY-MM-DD[T ]HH:MM:SS|ISO ?-?8601 (?:date-?time|timestamp)",
        ("2024-01-15T09:30:00", "2024-06-01T12:00:00"),
    ),
    (r"YYYY-MM-DD|%Y-%m-%d|ISO ?-?8601|ISO (?:date|format)", ("2024-01-15", "2024-12-31", "2024-06-01")),
    (r"DD/MM/YYYY|%d/%m/%Y", ("15/01/2024",)),
    (r"MM/DD/YYYY|%m/%d/%Y", ("01/15/2024",)),
    (r"YYYYMMDD|%Y%m%d", ("20240115",)),
    (r"YYYY-MM(?!-)|%Y-%m(?!-)", ("2024-01", "2024-06")),
    (r"HH:MM:SS|%H:%M:%S", ("09:30:00", "14:05:00")),
    (r"HH:MM|%H:%M|24-hour", ("09:30", "14:00", "23:59", "06:15", "12:45", "18:20", "00:05", "07:07")),
)
_DATES = tuple((re.compile(pattern), values) for pattern, values in _DATE_FORMATS)


@lru_cache(maxsize=20_000)
def values_for(words: Words, about: str = "") -> tuple[Json, ...]:
    """Return values for a parameter of this qualified name, by its most telling entry.

    Args:
        about: The tool's name and description.
    """
    name = " ".join(words)
    for pattern, context, values in _CONTEXTS:
        if pattern.search(name) and context.search(about):
            return values
    for pattern, values in _COMPILED:
        if pattern.search(name):
            return values
    return ()


@lru_cache(maxsize=20_000)
def written_like(text: str) -> tuple[Json, ...]:
    """Return dates and times in the form that a description or an error asks for."""
    for pattern, values in _DATES:
        if pattern.search(text):
            return values
    return ()
