"""Gives another folder the DVC settings of the project, so that its remotes and its cache are found from there too."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from flame_core.errors import ResourceError
from flame_core.layout import Layout
from flame_core.workspace import dvc, dvc_cache, dvc_folder, environment

_PATH_KEYS = (  # values that DVC takes relative to the file that they are in, besides the cache's folder
    "url|keyfile|credentialpath|configpath|cert_path|key_path|"
    "gdrive_user_credentials_file|gdrive_service_account_json_file_path"
)
_PATH = re.compile(
    rf"""\s*(?P<key>{_PATH_KEYS})\s*=\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^"'\#]*?))\s*(?:\#.*)?"""
)


def copy_dvc_settings(layout: Layout, root: Path) -> None:
    """Write `.dvc/` in `root` with the project's `config` and `config.local`, which may name remotes and logins.

    Raises:
        ResourceError: DVC does not take them.
    """
    folder = root / ".dvc"
    folder.mkdir(parents=True, exist_ok=True)
    own = dvc_folder(layout) or layout.project / ".dvc"
    for name in ("config", "config.local"):
        if (own / name).is_file():
            (folder / name).write_text(_absolute((own / name).read_text("utf-8"), own), "utf-8")
            shutil.copymode(own / name, folder / name)
    for command in (
        ("config", "--local", "core.no_scm", "true"),
        ("cache", "dir", "--local", str(dvc_cache(layout).resolve())),
    ):
        if dvc_output(root, *command) is None:
            raise ResourceError(f"`dvc {' '.join(command)}` failed in {root}: {own} has settings that DVC refuses")


def _absolute(config: str, own: Path) -> str:
    """A DVC config with absolute instead of relative paths (relative to `.dvc/`), so that it works elsewhere."""
    lines = []
    for line in config.splitlines():
        if found := _PATH.fullmatch(line):
            path = next(filter(None, found.group("double", "single", "bare")), "")
            if path and "://" not in path and not path.startswith(("/", "~")):
                quote = "'" if '"' in path else '"'
                line = f"{found['key']} = {quote}{(own / path).resolve()}{quote}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def dvc_output(root: Path, *arguments: str) -> str | None:
    """Output of a DVC command; None if it failed."""
    done = subprocess.run(
        [*dvc(), *arguments], cwd=root, env=environment(), capture_output=True, text=True, check=False
    )  # fmt: skip
    return done.stdout if done.returncode == 0 else None
