"""Shows a run to its user: log lines, progress with time left, and facts, tables and pictures at the end.

Nothing here enters an out. A terminal gets rich progress bars and tables; without one, plain lines at intervals.
A process started by Dagster also reports to the asset's page (`pipes.py`), including pictures.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

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

from flame_core import pipes

console = Console(stderr=True)
_PLAIN_INTERVAL = 10.0  # least seconds between two progress lines without a terminal
_PLAIN_SHARE = 0.02  # least share of a stage's time between them, since Dagster keeps every line
_PICTURE_BYTES = 200_000  # Dagster keeps pictures in its event log
log = logging.getLogger(__name__)


def configure_logging(level: str) -> None:
    """Send this project's log records to the terminal, and only warnings of other packages."""
    handler = RichHandler(console=console, show_path=False, show_time=False, rich_tracebacks=False, markup=False)
    logging.basicConfig(level="WARNING", format="%(message)s", handlers=[handler], force=True)
    logger = logging.getLogger("flame_core")
    logger.setLevel(level)
    if pipes.session() and not any(isinstance(each, pipes.PipesHandler) for each in logger.handlers):
        logger.addHandler(pipes.PipesHandler())


class Bar:
    """A progress bar. `advance(n, loss=0.3)` also shows the given values."""

    def __init__(self, title: str, total: int, unit: str, progress: Progress | None, done: int) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._first = done
        self._progress = progress
        self._task: TaskID | None = None
        if progress:
            self._task = progress.add_task(escape(title), total=total, completed=done, detail="")
        self._start = self._last_line = time.monotonic()

    def advance(self, amount: int = 1, **values: float | str) -> None:
        self.done += amount
        now = time.monotonic()
        rate = (self.done - self._first) / max(now - self._start, 1e-9)
        detail = f"{rate:,.1f} {self.unit}/s" + "".join(f"  {k} {_short(v)}" for k, v in values.items())
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=self.done, detail=detail)
        elif now - self._last_line >= max(_PLAIN_INTERVAL, _PLAIN_SHARE * (now - self._start)):
            self._last_line = now
            left = (self.total - self.done) / max(rate, 1e-9)
            log.info("%s %d/%d  %s  %.0f s left", self.title, self.done, self.total, detail, left)

    @property
    def seconds(self) -> float:
        """Time since the bar was opened."""
        return time.monotonic() - self._start


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Show progress over `total` units, of which `done` are already finished."""
    if not console.is_terminal:
        yield Bar(title, total, unit, None, done)
        return
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[detail]}"), console=console) as shown:
        yield Bar(title, total, unit, shown, done)


def facts(title: str, values: Mapping[str, Any]) -> None:
    """Show what a stage did as a small table."""
    shown = Table(title=escape(title), title_justify="left", show_header=False, box=None, padding=(0, 2))
    for name, value in values.items():
        shown.add_row(escape(str(name)), escape(_short(value)))
    console.print(shown)
    pipes.send(values)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows to standard output."""
    rows = list(rows)
    shown = Table(*map(escape, columns), title=escape(title), title_justify="left")
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    Console().print(shown)
    pipes.send({title: pipes.table(columns, rows)})


def picture(name: str, make: Callable[[], bytes], kind: Literal["png", "jpeg", "svg+xml"]) -> None:
    """Show the picture or plot that `make` returns on the asset's page; without Dagster, `make` is not called.

    A bitmap that is too large for Dagster's event log is scaled down; an SVG that is too large is left out, with a
    warning.
    """
    if not pipes.session():
        return
    content = make()
    if len(content) > _PICTURE_BYTES and kind != "svg+xml":
        content, kind = _smaller(content), "jpeg"
    if len(content) > _PICTURE_BYTES:
        log.warning("%s is not shown: %d bytes are more than %d", name, len(content), _PICTURE_BYTES)
        return
    pipes.send({name: pipes.markdown(f"![{name}](data:image/{kind};base64,{base64.b64encode(content).decode()})")})


def link(name: str, url: str) -> None:
    """Show an address."""
    console.print(f"{name}: {url}", markup=False, highlight=False, soft_wrap=True)
    pipes.send({name: pipes.link(url)})


def _smaller(content: bytes) -> bytes:
    """The picture as a JPEG that fits."""
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        picture = image.convert("RGB")
    while True:
        buffer = BytesIO()
        picture.save(buffer, "jpeg", quality=80)
        if buffer.tell() <= _PICTURE_BYTES or max(picture.size) <= 64:
            return buffer.getvalue()
        picture.thumbnail((picture.width * 3 // 4, picture.height * 3 // 4))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
