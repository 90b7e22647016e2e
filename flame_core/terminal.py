"""Lays out facts and tables at the terminal's width without cutting or breaking a word, so that a path can be copied.

A value whose longest word does not fit beside its name stands on a line of its own, whole. A table whose columns do
not fit is printed as one block per row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_NAME_WIDTH = 28  # at most, of the column of names
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BORDER = 3  # columns that rich puts between two cells, and one more in front


def print_facts(console: Console, title: str, values: Mapping[str, str]) -> None:
    """Print a title, and names with their values."""
    print_title(console, title)
    print_values(console, values)


def print_title(console: Console, title: str) -> None:
    console.print(Text(title, style="italic"), soft_wrap=True)


def print_values(console: Console, values: Mapping[str, str]) -> None:
    """Print names with their values in two columns, with a line of its own for a word that is too long for them."""
    values = {without_controls(name): without_controls(value) for name, value in values.items()}
    width = min(_NAME_WIDTH, max(map(cell_len, values), default=0))
    room = console.width - width - 4
    for name, value in values.items():
        if cell_len(name) <= width and longest_word(value) <= room:
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(width=width + 2)
            grid.add_column(overflow="fold")
            grid.add_row(Text(f"  {name}"), Text(value))
            console.print(grid)
        elif cell_len(name) > width and longest_word(value) <= console.width - 4:
            console.print(Text(f"  {name}  {value}"), soft_wrap=True)
        else:
            console.print(Text(f"  {name}"), soft_wrap=True)
            console.print(Text(value), soft_wrap=True)


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a table, or as blocks of names and values if a word would have to be broken; the title if none."""
    rows = [[*map(without_controls, row)] for row in rows]
    widths = column_widths(columns, rows, console.width)
    if widths is None or not rows:
        print_title(console, title)
        for row in rows:
            console.print()
            print_values(console, {name: cell for name, cell in zip(columns, row, strict=True) if cell})
        return
    shown = Table(title=Text(title), title_justify="left")
    for name, width in zip(columns, widths, strict=True):
        shown.add_column(Text(name), width=width, overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row))
    console.print(shown)


def without_controls(text: str) -> str:
    """A text whose control characters are escaped, since names of files may hold what steers a terminal."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def column_widths(columns: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Widths that break no word and fill at most `room` columns with the borders; None if there are none."""
    texts = [[name, *(row[i] for row in rows)] for i, name in enumerate(columns)]
    widths = [max(map(longest_word, column)) for column in texts]
    wanted = [max(max(map(cell_len, text.splitlines()), default=0) for text in column) for column in texts]
    left = room - sum(widths) - _BORDER * len(columns) - 1
    if left < 0:
        return None
    while left and any(own < full for own, full in zip(widths, wanted, strict=True)):
        growing = [i for i, full in enumerate(wanted) if widths[i] < full]
        widths[min(growing, key=lambda i: widths[i])] += 1
        left -= 1
    return widths


def longest_word(text: str) -> int:
    """Columns that the longest word of a text takes."""
    return max(map(cell_len, text.split()), default=0)
