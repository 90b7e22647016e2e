"""A process whose output is shown while it runs, and remembered.

On a terminal the process gets a pseudo-terminal of the same size, so its progress bars look as if it ran there
directly; elsewhere its lines are passed on. It has its own session, so only this process receives Ctrl-C, and then
stops the other one in order.
"""

from __future__ import annotations

import codecs
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

_REMEMBERED_LINES = 400
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x0c\x0e-\x1f]")


class ShownProcess:
    """A started process. Lines that match `hidden` are neither shown nor remembered."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], hidden: re.Pattern[str]
    ) -> None:
        self._output = _Output(hidden)
        self._read, write = _terminal() if sys.stdout.isatty() else os.pipe()
        try:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                start_new_session=True,
            )
        finally:
            os.close(write)
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._pass_on, daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self) -> int:
        return self._process.wait()

    def lines(self) -> list[str]:
        """The last lines of an ended process as plain text, without terminal control sequences."""
        self._reader.join(timeout=5.0)  # a child process may still hold its output open
        return list(self._output.lines)

    def _pass_on(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while chunk := os.read(self._read, 65536):
                self._output.show(decoder.decode(chunk))
        except OSError:
            pass  # a pseudo-terminal signals its end with this error
        self._output.show(decoder.decode(b"", final=True))
        self._output.end()
        os.close(self._read)


class _Output:
    """Passes text to standard output, line by line; a progress bar is passed on while it is being drawn."""

    def __init__(self, hidden: re.Pattern[str]) -> None:
        self.lines: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._hidden = hidden
        self._line, self._shown, self._blank = "", 0, False

    def show(self, text: str) -> None:
        for piece in re.findall(r"[^\n]*\n|[^\n]+", text):
            self._line += piece
            if piece.endswith("\n"):
                self.end()
            elif "\r" in self._line.rstrip("\r"):  # a progress bar, redrawn repeatedly
                self._write(self._line[self._shown :])
                self._shown = len(self._line)
        sys.stdout.flush()

    def end(self) -> None:
        """Finish the current line."""
        line, shown = self._line, self._shown
        self._line, self._shown = "", 0
        plain = _plain(line)
        if not shown and (not plain or self._hidden.match(plain)):
            self._blank = not plain and bool(line)  # shown once something follows that is not hidden
            sys.stdout.write("".join(_CONTROL.findall(line)))  # for example, show the cursor again
        else:
            self.lines.append(plain)
            self._write(line[shown:])

    def _write(self, text: str) -> None:
        sys.stdout.write("\n" + text if self._blank else text)
        self._blank = False


def _plain(line: str) -> str:
    """The final state of a line: what was drawn last, without control sequences."""
    drawn = _CONTROL.sub("", line).rstrip("\r\n").split("\r")
    return drawn[-1].rstrip()


def _terminal() -> tuple[int, int]:
    """Both ends of a pseudo-terminal with the size of our terminal."""
    read, write = pty.openpty()
    termios.tcsetwinsize(write, termios.tcgetwinsize(sys.stdout.fileno()))
    attributes = termios.tcgetattr(write)
    attributes[1] &= ~termios.OPOST  # our terminal converts line ends itself
    termios.tcsetattr(write, termios.TCSANOW, attributes)
    return read, write
