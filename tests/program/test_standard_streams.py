"""Commands whose standard streams are closed."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import os, sys
from flame_core.program.standard_streams import open_closed_streams
open_closed_streams()
sys.stdout.write("out\\n"); sys.stderr.write("err\\n"); sys.stdout.flush(); sys.stderr.flush()
first = os.open("later", os.O_CREAT | os.O_WRONLY)
assert first > 2 and os.system("echo child; echo child >&2; cat") == 0
"""


@pytest.mark.parametrize("closed", ["", "0", "1", "2", "01", "12", "012"])
def test_the_null_device_takes_the_place_of_each_that_is_closed(closed, tmp_path):
    redirected = " ".join(f"{number}{'<' if number == '0' else '>'}&-" for number in closed)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-c", CODE],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if "1" in closed else "out\nchild\n")
    assert done.stderr == ("" if "2" in closed else "err\nchild\n")
    assert (tmp_path / "later").read_bytes() == b""


def test_every_command_has_them_all(tmp_path):
    code = (
        "import os, sys\n"
        "from flame_core.cli import main\n"
        "sys.argv = ['flame', '--version']\n"
        "try:\n    main()\n"
        "finally:\n    os._exit(0 if sys.stdin and sys.stdout and sys.stderr else 1)\n"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
