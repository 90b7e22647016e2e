"""A name for a user who has none, as in a container that runs with a number (`docker run --user 1234`).

DVC asks for the user's name and ends with a traceback if there is none.
"""

from __future__ import annotations

import getpass
import os


def name_user() -> None:
    """Let a nameless user be called by its number, in this process and its children."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())
