"""S3 as the documentation says it, in buckets of moto's server, started here.

DVC's remote, MLflow's artifacts, a source of shards, and outs that are staged in.

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

from flame_core.data.buckets import staging
from flame_core.data.buckets.bucket import open_bucket
from flame_core.data.buckets.outs import OF_A_TRAINING
from flame_core.errors import ResourceError
from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.stages import download, ingest
from flame_core.verification import write_digests
from tests.data.drawings import png
from tests.data.sources.test_webdataset import members_of, write_tar
from tests.ports import free_port
from tests.stages.pipeline import pipeline_params, tree
from tests.tracking.server import Server

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


@pytest.fixture
def staged(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """The server, for pyarrow, and an empty folder of copies."""
    for name, value in (
        KEYS | {"AWS_ENDPOINT_URL": storage.address, "FLAME_STAGE_DIR": str(tmp_path / "stage")}
    ).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield storage
    staging.release()


def put(storage: Storage, folder: Path, prefix: str) -> None:
    for name, content in tree(folder).items():
        storage.client.put_object(Bucket="flame", Key=f"{prefix}/{name}", Body=content)


def run_source(root: Path, path: str) -> Layout:
    params = pipeline_params({"s": {"kind": "webdataset", "path": path, "shards": "**/*.tar"}})
    layout = Layout.find(root)
    download.run(params, layout)
    ingest.run(params, layout)
    return layout


def test_shards_of_a_bucket_give_what_those_of_a_folder_give(staged: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "wds"
    (folder / "more").mkdir(parents=True)
    write_tar(folder / "00000.tar", members_of(*range(12)))
    write_tar(folder / "more" / "00001.tar", members_of(*range(12, 20)))
    (folder / "00000_stats.json").write_text("{}")
    put(staged, folder, "wds")
    local, ours = run_source(tmp_path / "a", str(folder)), run_source(tmp_path / "b", "s3://flame/wds/")
    assert tree(ours.raw) == tree(local.raw) and tree(ours.shards) == tree(local.shards)
    staging.release()
    shutil.rmtree(tmp_path / "stage")
    shutil.rmtree(ours.work)
    assert tree(run_source(tmp_path / "b", "s3://flame/wds").shards) == tree(local.shards)


def test_outs_are_staged_in_by_the_command(staged: Storage, tmp_path: Path) -> None:
    source = tmp_path / "there"
    for name in OF_A_TRAINING:
        (source / name).mkdir(parents=True)
        (source / name / "0.bin").write_bytes(os.urandom(9 << 20))  # more than one piece
        write_digests(source / name)
    put(staged, source, "project/data")
    home = tmp_path / "project"
    home.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        (home / name).write_text("")

    def stage_in(address: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flame_core", "stage-in", address]
        return subprocess.run(command, cwd=home, text=True, capture_output=True, timeout=300)

    done = stage_in("s3://flame/project/data")
    assert done.returncode == 0, done.stderr
    assert tree(home / "data") == tree(source) and "data/embeddings/train" in done.stderr + done.stdout
    for address, code, message in (
        ("s3://flame/nothing", 3, "nothing is there"),
        ("s3://no-such-bucket/data", 3, "nothing is there"),
        ("http://flame/data", 2, "write s3://bucket/folder"),
    ):
        refused = stage_in(address)
        assert (refused.returncode, message in refused.stderr) == (code, True), refused.stderr


def test_a_server_that_does_not_answer_is_something_that_is_missing(
    staged: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ResourceError, match=r"s3://flame/wds cannot be read: .*NETWORK_CONNECTION"):
        open_bucket("s3://flame/wds").files()
