"""Messages for people on this machine, as a client may read them: without the folders of the machine."""

from __future__ import annotations

import re
from pathlib import Path

_PATH = re.compile(r"(?<![\w/.:])(?:/[^\s/'\",;:()]+)+/([^\s/'\",;:()]+)")


def without_folders(message: str, root: Path) -> str:
    """Paths in the project are relative to it, of others only the last part is left; the rest is unchanged."""
    return _PATH.sub(r"…/\1", message.replace(f"{root}/", ""))
