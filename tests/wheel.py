"""This repository as a wheel, installed into a folder of its own and used outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Installed:
    """A folder with what the wheel holds, which Python finds before this repository."""

    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """The environment of its processes."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        own = {"PYTHONPATH": str(self.folder), "PATH": path, "PYTHONSAFEPATH": "1", "FLAME_TRACKING_URI": "off"}
        shared = {"OMP_WAIT_POLICY": "passive"}  # threads that wait spin by default, for whoever else uses the machine
        return {**os.environ, **own, **shared}

    def python(self, *arguments: str, cwd: Path, code: int = 0, **variables: str) -> str:
        """Run Python in `cwd`; returns what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**self.variables, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def flame(self, *arguments: str, cwd: Path, code: int = 0, **variables: str) -> str:
        return self.python("-m", "flame_core", *arguments, cwd=cwd, code=code, **variables)


def install(folder: Path) -> Installed:
    """Build the wheel of this repository, and install it into `folder`."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder / "wheel", ROOT], check=True)
    (wheel,) = (folder / "wheel").glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel], check=True)
    return Installed(folder / "site")
