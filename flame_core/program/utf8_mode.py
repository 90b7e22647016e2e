"""Python's UTF-8 mode, in which the encoding of the locale decides nothing (https://peps.python.org/pep-0540/).

Names of files become keys. Where the locale has another encoding, such as de_DE.ISO-8859-1, Python would read the name
`Größe.jpg` as another text, and a stage would make other bytes.
"""

from __future__ import annotations

import os
import sys

_SWITCH = "PYTHONUTF8"


def in_utf8_mode() -> None:
    """Start this program again in UTF-8 mode, as the same process, if it reads names of files in another encoding."""
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get(_SWITCH) == "1":
        return
    os.environ[_SWITCH] = "1"  # also for child processes
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
