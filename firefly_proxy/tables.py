"""How commands print tables: for people, in the same look everywhere."""

from __future__ import annotations

from collections.abc import Collection

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recorder.canonical import encodable


def console() -> Console:
    made = Console()
    # Into a pipe or file there is no window to fit into.
    return made if made.is_terminal else Console(width=160)


def table(*columns: str, folding: Collection[str] = (), right: Collection[str] = ()) -> Table:
    """Make a table.

    Args:
        folding: Columns whose text may go on in another line.
        right: Columns of numbers.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        justify = "right" if column in right else "left"
        # rich takes a literal type here, which a conditional expression is not inferred to be.
        made.add_column(column, no_wrap=column not in folding, overflow="fold", justify=justify)  # type: ignore[arg-type]
    return made


def cell(text: str) -> Text:
    """Return text that is shown as it is: no mark-up in it means anything."""
    return Text(encodable(text))
