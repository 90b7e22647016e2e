"""Reads what a stage's process reports through Dagster Pipes, completely.

Dagster's own reader tails the file of messages and can lose some on a busy machine: a long line, such as a picture, is
taken for a whole one while it is still being written, which ends the reading; and what is written between the last
look at the file and the end of the session is not read. This one takes only lines with an end, and looks once more
after the session has ended.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import dagster as dg
from dagster_pipes import PipesParams

_SECONDS = 0.05  # between two looks at the file
log = dg.get_dagster_logger("pipes")


class MessageReader(dg.PipesMessageReader):
    """Reads messages from a temporary file."""

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:
        """Read in a thread while the context is open; gives the place of the file."""
        with (
            tempfile.TemporaryDirectory() as folder,
            _FileReader(str(Path(folder) / "messages")).read_messages(handler) as place,
        ):
            yield place

    def no_messages_debug_text(self) -> str:
        """What Dagster adds if a process reported nothing."""
        return "Attempted to read messages from a temporary file."


class _FileReader(dg.PipesFileMessageReader):
    def _reader_thread(self, handler: dg.PipesMessageHandler, is_resource_complete: Event) -> None:
        for line in whole_lines(Path(self._path), is_resource_complete.is_set):
            try:
                handler.handle_message(json.loads(line))
            except Exception as error:  # of one message; those after it are read all the same
                log.warning(f"a message of the stage cannot be shown ({type(error).__name__}: {error})")


def whole_lines(path: Path, ended: Callable[[], bool]) -> Iterator[bytes]:
    """The lines of a file that is being written, each once it has its end, up to those written before `ended`."""
    begun = b""
    with path.open("rb") as file:
        while True:
            last = ended()  # asked before the file is read, so that nothing is written in between
            *lines, begun = (begun + file.read()).split(b"\n")
            yield from lines
            if last:
                return
            if not lines:
                time.sleep(_SECONDS)
