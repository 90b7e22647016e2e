"""PostgreSQL as the documentation says it: MLflow's server and Dagster's instance on Debian's server, started here.

Needs `apt-get install postgresql` and the extra `postgres`; skipped without them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from orchestration.instance import instance_home, opened_in_shell
from tests.ports import free_port
from tests.tracking.server import Server

ROOT = Path(__file__).parents[2]
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not BINARIES or importlib.util.find_spec("dagster_postgres") is None, reason="PostgreSQL is not installed"
    ),
]


@dataclass(frozen=True)
class Postgres:
    """A server on loopback with the databases `mlflow` and `dagster` of the user `flame`."""

    port: int

    def address(self, database: str) -> str:
        return f"postgresql+psycopg2://flame@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    root = os.geteuid() == 0  # the server refuses to run as root
    as_user = ["runuser", "-u", "postgres", "--"] if root else []
    folder = Path("/tmp") / f"flame-postgres-{os.getpid()}"  # pytest's own folders are closed to other users
    folder.mkdir(mode=0o700)
    if root:
        shutil.chown(folder, "postgres")
    port = free_port()

    def run(program: str, *arguments: str) -> None:
        subprocess.run([*as_user, str(BINARIES[-1] / program), *arguments], check=True, cwd="/", timeout=120)

    try:
        run("initdb", "-D", f"{folder}/data", "-U", "flame", "--auth=trust", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-D", f"{folder}/data", "-l", f"{folder}/log", "-o", options, "-w", "start")
        for database in ("mlflow", "dagster"):
            run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "flame", database)
        yield Postgres(port)
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


def test_mlflow_keeps_runs_in_postgres(postgres: Postgres, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    server = Server(tmp_path, variables={"MLFLOW_BACKEND": postgres.address("mlflow")})
    server.start()
    try:
        client = MlflowClient(server.address)
        run = client.create_run(client.create_experiment("flame"))
        client.log_metric(run.info.run_id, "loss", 0.5, step=3)
        assert [(each.value, each.step) for each in client.get_metric_history(run.info.run_id, "loss")] == [(0.5, 3)]
        assert not (tmp_path / "mlflow.db").exists()
    finally:
        server.stop()


def test_an_address_without_a_driver_is_refused_before_anything_starts(tmp_path: Path) -> None:
    for variable in ("MLFLOW_BACKEND", "MLFLOW_AUTH_BACKEND"):
        server = Server(tmp_path, variables={variable: "postgresql://flame:s3cret@127.0.0.1/mlflow"})
        assert server.launch().wait(60) == 2
        assert f"{variable} names no driver" in server.said and "s3cret" not in server.said


@dg.asset
def counted() -> int:
    return 3


def documented(postgres: Postgres) -> str:
    """`orchestration/dagster.yaml` with its commented storage switched on."""
    lines = (ROOT / "orchestration" / "dagster.yaml").read_text("utf-8").splitlines()
    begin = lines.index("# storage:")
    end = lines.index("", begin)
    block = "\n".join(line.removeprefix("# ").removeprefix("#") for line in lines[begin:end])
    storage = yaml.safe_load(block)
    parts = storage["storage"]["postgres"]["postgres_db"]
    assert set(parts) == {"hostname", "username", "password", "db_name", "port", "scheme"}
    parts.update(port=postgres.port)
    return "\n".join(lines[:begin] + lines[end:]) + "\n" + yaml.safe_dump(storage)


def test_dagster_keeps_runs_in_postgres(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOST": "127.0.0.1", "USER": "flame", "PASSWORD": "any", "DB": "dagster"}.items():
        monkeypatch.setenv(f"DAGSTER_PG_{name}", value)
    text = documented(postgres)
    (tmp_path / "dagster.yaml").write_text(text)
    with opened_in_shell(Layout.find(tmp_path)) as instance:
        assert dg.materialize([counted], instance=instance).success
        assert instance.get_latest_materialization_event(counted.key) is not None
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
    (tmp_path / "dagster.yaml").write_text(text.replace("scheme: postgresql+psycopg2", ""))
    with pytest.raises(ParamsError, match=r"dagster.yaml, storage.postgres: .* add `scheme: postgresql\+psycopg2`"):
        instance_home(Layout.find(tmp_path))
