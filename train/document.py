"""A page as a list of blocks, and as HTML, Markdown or text for a terminal.

Texts of blocks are plain, and anyone's: only the renderers here write mark-up, and they escape all else.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.markup import escape

from firefly_proxy.tables import cell, table
from recorder.canonical import encodable


@dataclass(frozen=True, slots=True)
class Heading:
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    """Columns of numbers."""
    code: frozenset[str] = frozenset()
    """Columns of names and calls."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The few numbers that matter most: label, value, and what there is to know of it."""

    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Plot:
    name: str
    """Of its file, without the ending."""
    title: str
    svg: str
    """A whole document, made by us: it goes into pages as it is."""


Role = Literal["user", "assistant", "call", "tool"]


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    name: str
    """Of the tool that is called or answers."""
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    title: str
    verdict: Literal["right", "wrong", "missed", "failed"]
    facts: str
    turns: tuple[Turn, ...]
    fields: Table


Block = Heading | Text | Table | Figures | Plot | Conversation

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


def clean(text: str) -> str:
    """Return a text without what no page can hold: control characters and lone surrogates."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", encodable(text.replace("\r\n", "\n")))


# --- HTML ---------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark;
  --page: #f7f7f5; --panel: #ffffff; --text: #1d2126; --quiet: #626a75; --line: #dfe2e6; --sunk: #f2f3f4;
  --accent: #2f6fd0; --second: #c9650a; --right: #17713a; --wrong: #b3261e; --missed: #8a5a00; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171b; --panel: #1c2026; --text: #e4e7eb; --quiet: #9aa3af; --line: #363d47; --sunk: #15191e;
  --accent: #7db0ff; --second: #ffab5c; --right: #5fd38a; --wrong: #ff8a80; --missed: #f0b95a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 28px 20px 60px; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 10px; }
p { margin: 8px 0; max-width: 80ch; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 12px;
  margin: 16px 0; }
.figure, .plot, details { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
.figure { padding: 10px 14px; }
.figure b { display: block; font-size: 23px; font-weight: 600; font-variant-numeric: tabular-nums; }
.figure span, .figure small, figcaption, .facts { color: var(--quiet); font-size: 13px; }
.figure small { display: block; line-height: 1.35; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 14px;
  align-items: start; margin: 14px 0; }
.plot { margin: 0; padding: 12px 14px; }
.plot svg { display: block; width: 100%; height: auto; margin-top: 6px; }
.plot svg text { font-family: inherit !important; }
.scroll { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: 14px; }
th, td { padding: 5px 16px 5px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  overflow-wrap: break-word; }
th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
td { min-width: 3em; max-width: 60ch; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
code, pre { font: 13px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
details { margin: 10px 0; }
summary { padding: 10px 14px; cursor: pointer; overflow-wrap: anywhere; }
details > div { padding: 0 14px 12px; }
.verdict { font-size: 12px; font-weight: 700; border: 1px solid; border-radius: 999px; padding: 1px 9px;
  margin-right: 6px; white-space: nowrap; }
.right { color: var(--right); } .wrong, .failed { color: var(--wrong); } .missed { color: var(--missed); }
.turn { margin: 10px 0; padding-left: 12px; border-left: 3px solid var(--line); }
.turn.assistant, .turn.call { border-left-color: var(--accent); }
.turn b { font-size: 12px; color: var(--quiet); }
.turn pre { margin: 3px 0 0; padding: 7px 10px; background: var(--sunk); border-radius: 6px;
  max-height: 420px; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
@media print { body { background: none; } details { break-inside: avoid; } }
"""


def html_page(title: str, blocks: Sequence[Block], colours: Sequence[tuple[str, str]] = ()) -> str:
    """Return a page that loads nothing and runs nothing.

    Args:
        colours: Of plots → what they become, so that a plot goes with the page in light and dark.
    """
    parts = "\n".join(_html_blocks(blocks, colours))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'\">\n"
        f"<title>{_escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_escaped(title)}</h1>\n{parts}\n</body>\n</html>\n"
    )


def _html_blocks(blocks: Sequence[Block], colours: Sequence[tuple[str, str]]) -> Iterator[str]:
    for place, block in enumerate(blocks):
        match block:
            case Heading(text=text):
                yield f"<h2>{_escaped(text)}</h2>"
            case Text(text=text):
                yield f"<p>{_escaped(text)}</p>"
            case Table():
                yield _html_table(block)
            case Figures(items=items):
                yield '<div class="figures">'
                for label, value, note in items:
                    yield (
                        f'<div class="figure"><span>{_escaped(label)}</span><b>{_escaped(value)}</b>'
                        f"<small>{_escaped(note)}</small></div>"
                    )
                yield "</div>"
            case Plot():
                # Neighbouring plots share a grid.
                if not (place and isinstance(blocks[place - 1], Plot)):
                    yield '<div class="plots">'
                yield _html_plot(block, colours)
                if not isinstance(next(iter(blocks[place + 1 : place + 2]), None), Plot):
                    yield "</div>"
            case Conversation():
                yield _html_conversation(block)


def _html_table(shown: Table) -> str:
    def cells(tag: str, texts: Sequence[str]) -> str:
        made = []
        for column, text in zip(shown.columns, texts, strict=True):
            kind = ' class="number"' if column in shown.right else ""
            inner = _escaped(text)
            if tag == "td" and column in shown.code:
                inner = f"<code>{inner}</code>"
            made.append(f"<{tag}{kind}>{inner}</{tag}>")
        return f"<tr>{''.join(made)}</tr>"

    head = cells("th", shown.columns)
    body = "\n".join(cells("td", row) for row in shown.rows)
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'


def _html_plot(plot: Plot, colours: Sequence[tuple[str, str]]) -> str:
    svg = plot.svg[plot.svg.index("<svg") :]
    for own, of_page in colours:
        svg = svg.replace(own, of_page)
    title = _escaped(plot.title)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    return f'<figure class="plot"><figcaption>{title}</figcaption>{svg}</figure>'


def _html_conversation(shown: Conversation) -> str:
    turns = "\n".join(
        f'<div class="turn {turn.role}"><b>{_escaped(_said(turn))}</b><pre>{_escaped(turn.text)}</pre></div>'
        for turn in shown.turns
    )
    return (
        f'<details><summary><span class="verdict {shown.verdict}">{shown.verdict}</span>'
        f'{_escaped(shown.title)}</summary>\n<div><p class="facts">{_escaped(shown.facts)}</p>\n{turns}\n'
        f"{_html_table(shown.fields)}</div></details>"
    )


def _said(turn: Turn) -> str:
    return {"call": f"calls {turn.name}", "tool": f"{turn.name} answers"}.get(turn.role, turn.role)


def _escaped(text: str) -> str:
    return html.escape(clean(text))


# --- Markdown -----------------------------------------------------------------------------------------------

_SPECIAL = re.compile(r"([\\`*_\[\]<>|&~$#])")


def markdown_page(title: str, blocks: Iterable[Block]) -> str:
    return f"# {_in_line(title)}\n\n{markdown(blocks)}"


def markdown(blocks: Iterable[Block]) -> str:
    """Return blocks as GitHub's Markdown; plots are images in files of their names."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text=text):
            return f"## {_in_line(text)}"
        case Text(text=text):
            return _in_line(text)
        case Table():
            return _markdown_table(block)
        case Figures(items=items):
            return _markdown_table(Table(("", "value", "note"), items))
        case Plot(name=name, title=title):
            return f"![{_in_line(title)}]({name}.svg)"
        case Conversation():
            parts = [f"### {block.verdict}: {_in_line(block.title)}", _in_line(block.facts)]
            parts += [f"{_in_line(_said(turn))}:\n\n{_fenced(turn.text)}" for turn in block.turns]
            return "\n\n".join([*parts, _markdown_table(block.fields)])


def _markdown_table(shown: Table) -> str:
    lines = [
        [_in_line(column) for column in shown.columns],
        ["--:" if column in shown.right else "---" for column in shown.columns],
    ]
    for row in shown.rows:
        lines.append(
            [
                _code(text) if column in shown.code else _in_line(text)
                for column, text in zip(shown.columns, row, strict=True)
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _in_line(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(clean(text).split()))


def _code(text: str) -> str:
    """Return a code span in a table, where a bar is escaped even within one."""
    inner = " ".join(clean(text).split()).replace("|", "\\|")
    if not inner:
        return ""
    ticks = "`" * (_longest_run(inner) + 1)
    return f"{ticks} {inner} {ticks}" if "`" in inner else f"{ticks}{inner}{ticks}"


def _fenced(text: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{clean(text)}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


# --- terminal -----------------------------------------------------------------------------------------------


def print_blocks(blocks: Iterable[Heading | Text | Table], out: Console) -> None:
    for block in blocks:
        match block:
            case Heading(text=text) | Text(text=text):
                out.print(cell(clean(text)), soft_wrap=True)
            case Table():
                # rich reads mark-up in the names of columns.
                names, right, folding = (
                    [escape(clean(name)) for name in columns]
                    for columns in (block.columns, block.right, block.code)
                )
                rows = table(*names, right=right, folding=folding)
                for row in block.rows:
                    rows.add_row(*(cell(clean(text)) for text in row))
                out.print(rows)
