"""Output of a process: lines as they are, a terminal where there is one, advice left out."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from flame_core.process_trees.shown import ShownProcess

HIDDEN = re.compile("Use `dvc push`|\\tgit add ")
TALK = """\
import sys
print("first\\n\\nUse `dvc push` to send\\n\\n\\tgit add x\\n\\n\\nsecond \\x1b[1mbold\\x1b[0m", flush=True)
sys.stderr.write("last words"); sys.exit(3)
"""
DRAW = """\
import os, sys, time
print(sys.stdout.isatty(), sys.stderr.isatty(), os.get_terminal_size(1).columns, flush=True)
for i in range(3):
    sys.stderr.write(f"\\r\\x1b[2Kstep {i}"); sys.stderr.flush(); time.sleep(0.05)
print()
"""
SHOW = """\
import os, re, sys
from pathlib import Path
from flame_core.process_trees.shown import ShownProcess
shown = ShownProcess([sys.executable, "-c", sys.argv[1]], Path.cwd(), os.environ, re.compile("hidden"))
shown.wait()
Path("lines").write_text("\\n".join(shown.lines()))
"""


def test_lines_are_passed_on_and_remembered_without_what_is_hidden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ShownProcess([sys.executable, "-c", TALK], tmp_path, os.environ, HIDDEN)
    assert shown.wait() == 3
    assert shown.lines() == ["first", "second bold", "last words"]
    assert capsys.readouterr().out == "first\n\nsecond \x1b[1mbold\x1b[0m\nlast words"


def test_on_a_terminal_it_has_a_terminal_of_that_size_and_draws_its_bars(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (40, 133))
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW, DRAW],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdin=subprocess.DEVNULL,
        stdout=its,
    )
    os.close(its)
    output = b""
    try:
        while chunk := os.read(ours, 65536):
            output += chunk
    except OSError:
        pass  # the end of a pseudo-terminal
    os.close(ours)
    assert process.wait() == 0
    assert b"True True 133\r\n" in output
    assert b"\rstep" not in output and all(f"\r\x1b[2Kstep {i}".encode() in output for i in range(3))
    assert (tmp_path / "lines").read_text().splitlines() == ["True True 133", "step 2"]  # as it stood in the end
