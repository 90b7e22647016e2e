"""One command for the web interfaces: Dagster (web server, daemon, code server) and MLflow, all on loopback.

    flame ui

State is stored below `.flame/`: Dagster's in `dagster/`, MLflow's in `mlflow/`, the servers' logs in `logs/`. Ctrl-C,
SIGTERM or a closed terminal first terminates the runs in progress (a training writes a checkpoint), then the servers;
no process is left. A second Ctrl-C does not wait. If this process is killed (SIGKILL), `watch.py` does the same.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from flame_core.digest import text_sha256
from flame_core.dvc_project.stage_processes import tree_label
from flame_core.errors import FlameError, ParamsError, ResourceError
from flame_core.layout import Layout
from flame_core.loopback import opener
from flame_core.process_trees.stop_signals import Stop, stop_signals
from flame_core.process_trees.tree import ProcessTree
from flame_core.program import begin, errors_in_a_sentence
from flame_core.reporting import configure_logging, console
from flame_core.settings import settings
from flame_core.shipped import shipped
from flame_core.tracking.pages import runs_url
from flame_core.tracking.store import local_store
from flame_core.workspace import environment
from orchestration.instance import end_dead_runs, instance_home, only_interface, opened, set_up_pools
from orchestration.ui.watch import DAEMON, STOP_SECONDS, end_daemon, end_in_order, end_runs

log = logging.getLogger("flame_core.ui")
_MLFLOW = shipped("mlflow/server.sh")
_MODULE = "orchestration.definitions"
_READY_SECONDS = 180.0
_SOCKET_BYTES = 107  # of a socket's path, on Linux


@dataclass(frozen=True)
class Server:
    """A process of the interface; `url` answers once it is ready."""

    name: str
    command: tuple[str, ...]
    url: str | None = None


def servers(layout: Layout, home: Path) -> list[Server]:
    """The server processes, in starting order."""
    here = settings()
    python = [sys.executable, "-m"]
    workspace = str(home / "workspace.yaml")
    code = ["dagster", "code-server", "start", "--socket", str(code_socket(home)), "-m", definitions_module(layout)]
    daemon = [DAEMON, "run", "-w", workspace]
    web = ["orchestration.ui.dagster_server", workspace]  # Dagster's own server has no guard
    return [
        Server("dagster-code", (*python, *code, "--working-directory", str(layout.root))),
        Server("dagster-webserver", (*python, *web), f"{here.ui_url(here.dagster_port)}/server_info"),
        Server("dagster-daemon", (*python, *daemon)),
        Server("mlflow", ("bash", str(_MLFLOW)), f"{here.ui_url(here.mlflow_port)}/health"),
    ]


def definitions_module(layout: Layout) -> str:
    """The module that holds the definitions: what the project's `pyproject.toml` names for `dagster dev`, or ours.

    Raises:
        ParamsError: that file cannot be read, or names no module.
    """
    path = layout.root / "pyproject.toml"
    try:
        named = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("dagster", {}).get("module_name", _MODULE)
    except FileNotFoundError:
        return _MODULE
    except (OSError, ValueError) as error:
        raise ParamsError(f"{path} cannot be read: {error}") from None
    if not (isinstance(named, str) and all(part.isidentifier() for part in named.split("."))):
        raise ParamsError(f"{path}: tool.dagster.module_name must be the name of a Python module, and is {named!r}")
    return named


def code_socket(home: Path) -> Path:
    """The code server's socket: in `home`, or in a folder of this user's below /tmp, if that path is too long for one.

    Raises:
        ResourceError: that folder is someone else's, or open to others, who could then run code here.
    """
    path = home / "code.sock"
    if len(os.fsencode(path)) <= _SOCKET_BYTES:
        return path
    folder = Path(tempfile.gettempdir()) / f"flame-{os.getuid()}-{text_sha256(str(home))[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ResourceError(f"{folder} must be a folder of yours alone, for the code server's socket: remove it")
    return folder / path.name


def remove_socket(home: Path) -> None:
    """Remove the code server's socket, and the folder that was made for it, if any."""
    path = code_socket(home)
    path.unlink(missing_ok=True)
    if path.parent != home:
        path.parent.rmdir()


def prepare(layout: Layout) -> Path:
    """Prepare DAGSTER_HOME (`.flame/dagster/`), with its configuration and the address of the code server."""
    home = instance_home(layout)
    for folder in (local_store(layout), layout.state / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    code_socket(home).unlink(missing_ok=True)
    server = {"socket": str(code_socket(home)), "location_name": "flame"}
    content = yaml.safe_dump({"load_from": [{"grpc_server": server}]}, allow_unicode=True)
    (home / "workspace.yaml").write_text(content, "utf-8")
    return home


def serve(layout: Layout, ready: Callable[[], None]) -> None:
    """Run all servers until SIGINT, SIGTERM or SIGHUP; `ready` is called once all answer.

    Raises:
        ParamsError: both ports are the same.
        ResourceError: a port is in use, a server ended, or this project's interface already runs; names the setting,
            the log or the process.
    """
    if settings().dagster_port == settings().mlflow_port:
        raise ParamsError(f"FLAME_DAGSTER_PORT and FLAME_MLFLOW_PORT are both {settings().mlflow_port}: change one")
    with only_interface(instance_home(layout)):
        _serve(layout, ready)


def _serve(layout: Layout, ready: Callable[[], None]) -> None:
    here, label = settings(), f"ui-{tree_label(layout.root)}"
    for left in ProcessTree.abandoned(label):
        log.warning("an earlier `flame ui` was killed and left servers; ending its runs and them first")
        end_in_order(left, instance_home(layout))
    _require_free(here.ui_host, here.dagster_port, "FLAME_DAGSTER_PORT")
    _require_free(here.ui_host, here.mlflow_port, "FLAME_MLFLOW_PORT")
    home = prepare(layout)
    _set_up_instance(layout)
    tree = ProcessTree(label)
    variables = {
        **environment(),
        **tree.environment(),
        "DAGSTER_HOME": str(home),
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_HOST": settings().ui_host,
        "MLFLOW_PORT": str(settings().mlflow_port),
        "MLFLOW_STORE": str(local_store(layout)),
        "MLFLOW_PYTHON": sys.executable,
    }
    started: dict[Server, subprocess.Popen[bytes]] = {}
    with stop_signals(), ExitStack() as logs:
        try:
            for server in servers(layout, home):
                output = logs.enter_context((layout.state / "logs" / f"{server.name}.log").open("ab"))
                started[server] = subprocess.Popen(
                    server.command,
                    cwd=layout.root,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # only this process receives Ctrl-C
                )
                if server.name == "dagster-code":
                    logs.enter_context(_watched(tree, home, layout))
                    _wait(started, layout, lambda: code_socket(home).exists())
            _wait(started, layout, lambda: all(_answers(server.url) for server in started if server.url))
            ready()
            while True:
                _require_alive(started, layout)
                time.sleep(0.5)
        except Stop:
            pass
        finally:
            end(started, tree, home)
            remove_socket(home)


@contextmanager
def _watched(tree: ProcessTree, home: Path, layout: Layout) -> Iterator[None]:
    """Run a process that ends the tree if this one is killed, which closes its standard input."""
    with (layout.state / "logs" / "ui.log").open("ab") as output:
        watch = subprocess.Popen(
            [sys.executable, "-m", "orchestration.ui.watch", tree.token, str(home)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
    finally:
        watch.communicate()


def _set_up_instance(layout: Layout) -> None:
    """Create the pools, and end runs that the history shows as running: no server is up, so they cannot be."""
    with opened(layout) as instance:
        set_up_pools(instance, layout)
        end_dead_runs(instance, servers_are_down=True)


def end(started: dict[Server, subprocess.Popen[bytes]], tree: ProcessTree, home: Path) -> None:
    """Terminate the runs in progress, then the servers in reverse order; a `Stop` meanwhile ends the waiting.

    The daemon ends first: queued runs stay in the queue until it runs again.
    """
    try:
        end_daemon(tree)
        end_runs(home, tree)
    except Stop:
        log.warning("not waiting for the runs any longer")
    except FlameError as error:
        log.warning("runs are not ended in order: %s", error)
    for process in reversed(started.values()):
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    try:
        while tree.members() and time.monotonic() < deadline:
            for process in started.values():
                process.poll()
            time.sleep(0.1)
    except Stop:
        log.warning("not waiting for the servers any longer")
    tree.kill()


def _wait(started: dict[Server, subprocess.Popen[bytes]], layout: Layout, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not done():
        _require_alive(started, layout)
        if time.monotonic() > deadline:
            raise ResourceError(
                f"the servers did not answer within {_READY_SECONDS:.0f} s; see {layout.state / 'logs'}"
            )
        time.sleep(0.2)


def _require_alive(started: dict[Server, subprocess.Popen[bytes]], layout: Layout) -> None:
    for server, process in started.items():
        if process.poll() is not None:
            path = layout.state / "logs" / f"{server.name}.log"
            last = "\n".join(path.read_text("utf-8", "replace").splitlines()[-15:])
            raise ResourceError(f"{server.name} ended with code {process.returncode}; {path} ends with:\n{last}")


def _require_free(host: str, port: int, setting: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ResourceError(
                f"cannot listen on {host}:{port} ({error.strerror}); set {setting} to another port"
            ) from None


def _answers(url: str) -> bool:
    try:
        with opener(url).open(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def show(layout: Layout) -> None:
    """Start the interfaces and print their addresses."""
    here = settings()
    serve(
        layout,
        lambda: console.print(
            f"Dagster  {here.ui_url(here.dagster_port)}/asset-groups   graph, runs, schedules\n"
            f"MLflow   {runs_url(here.ui_url(here.mlflow_port), here.experiment)}   trainings and models\n"
            "Ctrl-C ends both, and all runs.",
            highlight=False,
            soft_wrap=True,
        ),
    )


def main() -> None:
    """`python -m orchestration.ui.servers`, as `flame ui`."""
    begin()
    with errors_in_a_sentence():
        configure_logging(settings().log_level)
        console.print("Starting Dagster and MLflow; this takes half a minute.")
        show(Layout.find())


if __name__ == "__main__":
    main()
