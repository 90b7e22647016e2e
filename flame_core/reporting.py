"""What a run is like while it runs: log lines, progress with time left, and facts at the end.

Nothing here reaches an out. A terminal gets rich progress bars and tables; without one, plain lines at intervals.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

console = Console(stderr=True)
_PLAIN_INTERVAL = 10.0  # seconds between two progress lines without a terminal
log = logging.getLogger(__name__)


def configure_logging(level: str) -> None:
    """Send log records of this project to the terminal, and only warnings of everyone else's."""
    handler = RichHandler(console=console, show_path=False, show_time=False, rich_tracebacks=False, markup=False)
    logging.basicConfig(level="WARNING", format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("flame_core").setLevel(level)


class Bar:
    """A progress bar that is being shown. `advance(n, loss=0.3)` also shows the given values."""

    def __init__(self, title: str, total: int, unit: str, progress: Progress | None, done: int) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._first = done
        self._progress = progress
        self._task: TaskID | None = None
        if progress:
            self._task = progress.add_task(title, total=total, completed=done, detail="")
        self._start = self._last_line = time.monotonic()

    def advance(self, amount: int = 1, **values: float | str) -> None:
        self.done += amount
        now = time.monotonic()
        rate = (self.done - self._first) / max(now - self._start, 1e-9)
        detail = f"{rate:,.1f} {self.unit}/s" + "".join(f"  {k} {_short(v)}" for k, v in values.items())
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=self.done, detail=detail)
        elif now - self._last_line >= _PLAIN_INTERVAL:
            self._last_line = now
            left = (self.total - self.done) / max(rate, 1e-9)
            log.info("%s %d/%d  %s  %.0f s left", self.title, self.done, self.total, detail, left)

    @property
    def seconds(self) -> float:
        """Time since the bar was opened."""
        return time.monotonic() - self._start


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Show progress over `total` units, of which `done` are already there."""
    if not console.is_terminal:
        yield Bar(title, total, unit, None, done)
        return
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[detail]}"), console=console) as shown:
        yield Bar(title, total, unit, shown, done)


def facts(title: str, values: Mapping[str, Any]) -> None:
    """Show what a stage did as a small table."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    for name, value in values.items():
        table.add_row(str(name), _short(value))
    console.print(table)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows to standard output."""
    shown = Table(*columns, title=title, title_justify="left")
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    Console().print(shown)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
