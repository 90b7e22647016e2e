"""S3 as the documentation says it: DVC's remote and MLflow's artifacts in buckets of moto's server, started here.

Needs the extra `s3` and moto (`pip install "moto[server]"`); skipped without them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.data.drawings import png
from tests.stages.pipeline import tree
from tests.tracking.server import Server, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("moto", "dvc_s3", "boto3")),
        reason="the extra s3, or moto, is not installed",
    ),
]
KEYS = {"AWS_ACCESS_KEY_ID": "flame", "AWS_SECRET_ACCESS_KEY": "made up", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Storage:
    """A server on loopback with the bucket `flame`."""

    address: str
    client: Any

    def keys(self, prefix: str) -> set[str]:
        """The names of all objects below a prefix."""
        return {each["Key"] for each in self.client.list_objects_v2(Bucket="flame", Prefix=prefix).get("Contents", [])}


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    import boto3

    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(f"{address}/moto-api/", process)
            client = boto3.client(
                "s3",
                endpoint_url=address,
                aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
                region_name=KEYS["AWS_DEFAULT_REGION"],
            )
            client.create_bucket(Bucket="flame")
            yield Storage(address, client)
        finally:
            process.terminate()


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)


def test_outs_come_back_from_a_bucket(storage: Storage, tmp_path: Path) -> None:
    shards = tmp_path / "data" / "shards"
    (shards / "train").mkdir(parents=True)
    for number in range(20):
        (shards / "train" / f"{number}.png").write_bytes(png(number))
    before = tree(shards)

    def dvc(*words: str) -> str:
        command = [sys.executable, "-m", "dvc", *words]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | KEYS, text=True, capture_output=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    dvc("init", "--no-scm", "--quiet")
    dvc("add", "--quiet", "data/shards")
    dvc("remote", "add", "--default", "store", "s3://flame/dvc")
    dvc("remote", "modify", "store", "endpointurl", storage.address)
    dvc("push")
    assert len(storage.keys("dvc/files/")) == len(before) + 1  # and the list of the folder's files
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    shutil.rmtree(shards)
    dvc("pull")
    assert tree(shards) == before
    assert "in sync" in dvc("status", "--cloud")


def test_mlflow_keeps_artifacts_in_a_bucket(storage: Storage, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    where = {"MLFLOW_ARTIFACTS": "s3://flame/mlflow", "MLFLOW_S3_ENDPOINT_URL": storage.address}
    server = Server(tmp_path, variables=KEYS | where)
    server.start()
    try:
        client = MlflowClient(server.address)
        run = client.create_run(client.create_experiment("flame")).info.run_id
        (tmp_path / "model.safetensors").write_bytes(b"weights")
        client.log_artifact(run, str(tmp_path / "model.safetensors"), "model")  # through the server: no key here
        (key,) = storage.keys("mlflow/")
        assert key.endswith(f"{run}/artifacts/model/model.safetensors")
        back = client.download_artifacts(run, "model/model.safetensors", str(tmp_path))
        assert Path(back).read_bytes() == b"weights"
    finally:
        server.stop()
