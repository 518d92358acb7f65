"""Tables and lines for people, on a terminal or in a log.

Names of models are printed as they are: rich would read `[red]` in one as a style, and fail at `[/x]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

LOG_WIDTH = 140


def plain_console(*, stderr: bool = False) -> Console:
    """A console that takes every text as it is: no markup, no colours for what looks like a number or a path."""
    return Console(stderr=stderr, markup=False, highlight=False)


def console_for_tables() -> Console:
    """Where tables are printed: a terminal's width, else `LOG_WIDTH` columns.

    What is read by a program or lands in a log is not to be squeezed into 80 columns.
    """
    console = plain_console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def figure_table(title: str, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table whose texts are folded where a line is too short for them, and never cut off."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
