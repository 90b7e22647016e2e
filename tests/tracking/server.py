"""A tracking server (`mlflow/server.sh`) on loopback, with a store and a port of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.ports import free_port

SCRIPT = Path(__file__).parents[2] / "mlflow" / "server.sh"


@dataclass
class Server:
    """A server with one store for all its lives; `variables` are laid over the environment."""

    folder: Path
    port: int = field(default_factory=free_port)
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it without waiting for an answer."""
        own = {"MLFLOW_STORE": str(self.folder), "MLFLOW_PORT": str(self.port), "MLFLOW_PYTHON": sys.executable}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", str(SCRIPT)],
                env={**os.environ, **own, **self.variables},
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    def start(self) -> None:
        self.launch()
        self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + 300
        while not self.answers():
            assert self.process and self.process.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self) -> list[psutil.Process]:
        """Ask its process to end, by its id; returns what is left of it."""
        assert self.process
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        self.process.wait(timeout=60)
        return psutil.wait_procs(family, timeout=30)[1]

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
