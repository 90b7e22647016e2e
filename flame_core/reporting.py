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
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from flame_core import pipes
from flame_core.quantities import duration
from flame_core.sketch import sketch
from flame_core.terminal import print_facts, print_table

console = Console(stderr=True)
_PLAIN_INTERVAL = 10.0  # least seconds between two progress lines without a terminal
_PLAIN_SHARE = 0.02  # least share of a stage's time between them, since Dagster keeps every line
_PICTURE_BYTES = 200_000  # Dagster keeps pictures in its event log
log = logging.getLogger(__name__)


class _Lines(logging.Handler):
    """Prints a record on one line, however long it is, so that its paths can be copied."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = (f"{record.levelname:<8} ", f"logging.level.{record.levelname.lower()}")
            console.print(Text.assemble(level, self.format(record)), soft_wrap=True)
        except Exception:  # as every handler of logging: the record's error is printed, and its caller goes on
            self.handleError(record)


def configure_logging(level: str) -> None:
    """Send this project's log records to the terminal, and only warnings of other packages."""
    handler = _Lines()
    logging.basicConfig(level="WARNING", format="%(message)s", handlers=[handler], force=True)
    logger = logging.getLogger("flame_core")
    logger.setLevel(level)
    if pipes.session() and not any(isinstance(each, pipes.PipesHandler) for each in logger.handlers):
        logger.addHandler(pipes.PipesHandler())


def starting(what: str) -> None:
    """Say what is being done, before packages are imported that take seconds; not if only warnings are wanted."""
    if log.isEnabledFor(logging.INFO):
        console.print(Text(f"{what} ...", style="dim"), soft_wrap=True)


class Bar:
    """A progress bar. `advance(n, loss=0.3)` also shows the given values.

    The rate, and with it the time left, is known from the second call on: the first one ends with the first unit, whose
    time also has what is done only once, such as loading a model.
    """

    def __init__(self, title: str, total: int, unit: str, progress: Progress | None, done: int) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = done
        self._first: tuple[float, int] | None = None  # time and units done at the first call
        self._progress = progress
        self._task: TaskID | None = None
        if progress:
            self._task = progress.add_task(escape(title), total=total, completed=done, detail="")
        self._start = self._last_line = time.monotonic()

    def advance(self, amount: int = 1, **values: float | str) -> None:
        self.done += amount
        now = time.monotonic()
        said = [f"{k} {_short(v)}" for k, v in values.items()]
        rate = self._rate(now)
        if rate:
            said = [f"{rate:,.1f} {self.unit}/s", *said, f"{duration((self.total - self.done) / rate)} left"]
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=self.done, detail="  ".join(said))
        elif now - self._last_line >= max(_PLAIN_INTERVAL, _PLAIN_SHARE * (now - self._start)):
            self._last_line = now
            log.info("%s", "  ".join([f"{self.title} {self.done:,}/{self.total:,}", *said]))

    def _rate(self, now: float) -> float | None:
        """Units per second since the first call; None while unknown."""
        if self._first is None:
            self._first = (now, self.done)
        began, done = self._first
        return (self.done - done) / (now - began) if self.done > done and now > began else None

    @property
    def seconds(self) -> float:
        """Time since the bar was opened."""
        return time.monotonic() - self._start


@contextmanager
def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Show progress over `total` units, of which `done` are already finished; nothing is shown for no units."""
    if not console.is_terminal or not total:
        yield Bar(title, total, unit, None, done)
        return
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, TextColumn("{task.fields[detail]}", markup=False), console=console) as shown:
        yield Bar(title, total, unit, shown, done)


def facts(title: str, values: Mapping[str, Any]) -> None:
    """Show what a stage did as a small table."""
    print_facts(console, title, {str(name): _short(value) for name, value in values.items()})
    pipes.send(values)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows to standard output; cells are shown as `str` gives them."""
    texts = [[str(cell) for cell in row] for row in rows]
    print_table(Console(), title, columns, texts)
    pipes.send({title: pipes.table(columns, texts)})


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


def curve(name: str, values: Sequence[float], unit: str) -> None:
    """Show values as a small plot on the asset's page, in place; `unit` is that of the horizontal axis."""
    if pipes.session():
        pipes.send({name: pipes.markdown(sketch(name, values, unit))})


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
