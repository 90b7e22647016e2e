"""The null device in place of standard streams that whoever started a command has closed (`flame run >&- 2>&-`).

Libraries write to all of them, and a file that is opened later must not get the number of one.
"""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Open the null device as each of standard input, output and error that is closed, also for child processes."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # as the lowest free number, which is this one
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))
