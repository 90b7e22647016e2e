"""A source of shards in Google's storage, in buckets of an emulator that is started here.

Needs the command `gcp-storage-emulator` (`pipx install gcp-storage-emulator`) on PATH; skipped without it.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow.fs import GcsFileSystem

from flame_core.data.buckets import staging
from flame_core.data.buckets.bucket import open_bucket
from flame_core.data.buckets.outs import fetch_outs
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.verification import write_digests
from tests.data.sources.test_webdataset import members_of, write_tar
from tests.integration.test_s3 import run_source
from tests.ports import free_port
from tests.stages.pipeline import tree

EMULATOR = shutil.which("gcp-storage-emulator")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(EMULATOR is None, reason="gcp-storage-emulator is not installed"),
]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsFileSystem]:
    """A server on loopback with the bucket `flame`, and an empty folder of copies."""
    host = f"127.0.0.1:{free_port()}"
    command = [str(EMULATOR), "-d", str(tmp_path / "server"), "start", "--host", "127.0.0.1"]
    command += ["--port", host.rpartition(":")[2], "--default-bucket", "flame"]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}")
    monkeypatch.setenv("FLAME_STAGE_DIR", str(tmp_path / "stage"))
    settings.cache_clear()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            system = GcsFileSystem(anonymous=True, scheme="http", endpoint_override=host)
            _wait(system, process)
            yield system
        finally:
            process.terminate()
            staging.release()


def _wait(system: GcsFileSystem, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            system.get_file_info("flame")
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)


def put(system: GcsFileSystem, folder: Path, prefix: str) -> None:
    for name, content in tree(folder).items():
        with system.open_output_stream(f"flame/{prefix}/{name}") as file:
            file.write(content)


def test_shards_of_a_bucket_give_what_those_of_a_folder_give(storage: GcsFileSystem, tmp_path: Path) -> None:
    folder = tmp_path / "wds"
    (folder / "more").mkdir(parents=True)
    write_tar(folder / "00000.tar", members_of(*range(12)))
    write_tar(folder / "more" / "00001.tar", members_of(*range(12, 20)))
    put(storage, folder, "wds")
    local, ours = run_source(tmp_path / "a", str(folder)), run_source(tmp_path / "b", "gs://flame/wds/")
    assert tree(ours.raw) == tree(local.raw) and tree(ours.shards) == tree(local.shards)


def test_outs_are_staged_in(storage: GcsFileSystem, tmp_path: Path) -> None:
    source = tmp_path / "there" / "shards"
    source.mkdir(parents=True)
    # The emulator answers one connection at a time, so the file is of one piece.
    (source / "0.bin").write_bytes(bytes(range(256)) * 9)
    write_digests(source)
    put(storage, tmp_path / "there", "data")
    fetch_outs("gs://flame/data", ["shards"], Layout.find(tmp_path / "project"))
    assert tree(tmp_path / "project" / "data") == tree(tmp_path / "there")


def test_nothing_at_an_address_is_said(storage: GcsFileSystem) -> None:
    for address in ("gs://flame/nothing", "gs://no-such-bucket/wds"):
        with pytest.raises(InputError, match="nothing is there"):
            open_bucket(address).files()
