"""With DVC, git and MLflow: cache, remote and earlier commits are purged, stages are stale, models are tagged."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flame_core.data.forgotten import read_forgotten
from flame_core.data.shards import read_index
from flame_core.dvc_project.stores import delete_cached, delete_remote
from flame_core.errors import ParamsError
from flame_core.forgetting.models import tag_models, who_saw
from flame_core.layout import Layout
from flame_core.stages import download, ingest
from flame_core.tracking.store import open_client, require_tracking
from tests.forgetting.small_project import CAPTIONS, found_in
from tests.stages.pipeline import ROOT, folder_source, pipeline_params, write_pairs
from tests.tracking.conftest import empty_store, tracked

__all__ = ["empty_store", "tracked"]


def call(root: Path, *command: str, code: int = 0) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FLAME_WORKERS": "1",
    }
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def python(root: Path, *arguments: str, code: int = 0) -> str:
    return call(root, sys.executable, "-m", *arguments, code=code)


@pytest.mark.slow
def test_cache_remote_and_history(tmp_path: Path):
    root = tmp_path / "project"
    root.mkdir()
    for name in ("dvc.yaml", ".dvcignore", "versions.yaml", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "recipes", root / "recipes")
    shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    with (root / ".dvc/config").open("a") as config:
        config.write(f"    remote = here\n['remote \"here\"']\n    url = {tmp_path / 'remote'}\n")
    write_pairs(tmp_path / "pairs", range(40), CAPTIONS)
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["sources"] = {"s": folder_source(tmp_path / "pairs")}
    content["ingest"] = {"val_fraction": 0.25, "shard_samples": 8}
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    call(root, "git", "init", "-q")
    python(root, "dvc", "repro", "caption")
    call(root, "git", "add", ".")
    call(root, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first")
    python(root, "dvc", "push", "-q")
    write_pairs(tmp_path / "pairs", range(40, 50), CAPTIONS)  # a second revision; the first is only in git and caches
    python(root, "dvc", "repro", "--force", "download", "ingest")
    call(root, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "second, which is not pushed")
    shutil.copytree(root / ".dvc/cache", tmp_path / "second")
    index = read_index(root / "data/shards")
    row = next(row for row in index if row.key == "s/0007")
    jpeg = (root / "data/shards" / row.shard).read_bytes()[row.offset : row.offset + row.size]
    needles = (CAPTIONS.format(7).encode(), jpeg[40:])
    assert found_in(root / ".dvc/cache", *needles) and found_in(tmp_path / "remote", *needles)
    lock = yaml.safe_load((root / "dvc.lock").read_text())["stages"]

    clone = tmp_path / "clone"  # which has pulled nothing
    call(tmp_path, "git", "clone", "-q", str(root), str(clone))
    shutil.copytree(root / ".dvc", clone / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"), dirs_exist_ok=True)
    told = python(clone, "flame_core", "forget", "s/0007", "--dry-run")
    assert "`dvc fetch --all-commits`, then the same command, finds them" in told
    call(clone, "git", "checkout", "-q", "HEAD~1")
    told = python(clone, "flame_core", "forget", "s/0007", code=3)
    assert "run `dvc pull data/captions data/raw data/shards` first" in told
    assert not (clone / "opt_out.parquet").exists()

    told = python(root, "flame_core", "forget", "s/0007", "--dry-run")
    assert "would be" in told and yaml.safe_load((root / "dvc.lock").read_text())["stages"] == lock
    told = python(root, "flame_core", "forget", "s/0007", "--reason", "asked")
    assert "not reached" in told and "not done" not in told
    for place in (root / "data", root / ".flame", root / ".dvc", tmp_path / "remote"):
        assert found_in(place, *needles) == [], place
    stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    assert [dep["path"] for dep in stages["ingest"]["deps"]] == ["data/raw", "opt_out.parquet"]
    stale = python(root, "dvc", "status", "caption", "ingest")
    assert "caption" in stale and "ingest:" not in stale and "download:" not in stale
    python(root, "dvc", "repro", "caption")
    for place in (root / "data", root / ".flame", root / ".dvc"):
        assert found_in(place, *needles) == [], place
    assert (tmp_path / "pairs/0007.png").is_file()  # the user's own
    assert "s: 0007.png" in told


def test_an_object_that_the_disk_does_not_let_go_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As in a cache that several users share."""
    objects = [tmp_path / "0a/1b", tmp_path / "0c/2d"]
    for path in objects:
        path.parent.mkdir()
        path.write_bytes(b"held")
        path.chmod(0o444)
    (tmp_path / "link").hardlink_to(objects[1])

    def refuse(path: Path, **options: bool) -> None:
        if path == objects[0]:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        path.rename(tmp_path / "gone")

    monkeypatch.setattr(Path, "unlink", refuse)
    refused: list[str] = []
    both = ["0a1b", "0c2d"]
    assert delete_cached(tmp_path, both, lambda path: False, delete=True, refused=refused) == both
    assert refused == [f"{objects[0]}: Operation not permitted"] and not objects[1].exists()
    assert (tmp_path / "link").stat().st_mode & 0o777 == 0o444  # another project's


def test_an_object_that_another_process_has_removed_is_no_failure(tmp_path: Path):
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/.part.tmp").write_bytes(b"DVC is writing it")

    def gone(path: Path) -> bool:
        path.unlink()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    refused = list[str]()
    assert delete_cached(tmp_path, [], gone, delete=True, refused=refused) == [] and refused == []


def test_of_what_a_remote_has_a_kill_leaves_nothing_beside_the_project_s_files(tmp_path: Path):
    python(tmp_path, "dvc", "init", "--no-scm", "-q")
    (tmp_path / "remote/files/md5/0a").mkdir(parents=True)
    (tmp_path / "remote/files/md5/0a" / ("1b" * 15)).write_bytes(b"held")
    python(tmp_path, "dvc", "remote", "add", "here", str(tmp_path / "remote"))
    seen = list[Path]()

    def holds(path: Path) -> bool:
        seen.append(path)
        return path.read_bytes() == b"held"

    (tmp_path / "scratch").mkdir()
    found = delete_remote(tmp_path, tmp_path / "scratch", [], [], holds, delete=True)
    assert found.objects == {"here": ["0a" + "1b" * 15]} and not found.unreached
    assert [path.parent for path in seen] == [tmp_path / "scratch"]
    assert not (tmp_path / "remote/files/md5/0a" / ("1b" * 15)).exists()


@pytest.mark.usefixtures("tracked")
def test_models_are_tagged_and_found(
    tracked: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    from flame_core.data.forgotten import ForgottenSample, write_forgotten
    from flame_core.settings import settings
    from flame_core.tracking.store import experiment_id

    address = require_tracking(tracked)
    client = open_client(address)
    runs = {}
    for digest in ("1" * 64, "2" * 64):
        run = client.create_run(experiment_id(client, address))
        from mlflow.entities import Dataset, DatasetInput

        source = json.dumps({"path": "data/shards/train", "sha256": digest})
        client.log_inputs(run.info.run_id, [DatasetInput(Dataset("shards", digest[:36], "local", source))])
        runs[digest] = run.info.run_id
    name = settings().registered_model
    client.create_registered_model(name)
    client.create_model_version(name, str(tmp_path), runs["1" * 64])
    rows = [
        ForgottenSample("s/1", ("a" * 64,), held=("1" * 64,)),
        ForgottenSample("s/2", ("b" * 64,), held=("1" * 64, "3" * 64)),
        ForgottenSample("s/3", ("c" * 64,)),
    ]
    write_forgotten(tracked.opt_out, rows, "salt")
    told = tag_models(tracked, read_forgotten(tracked.opt_out))
    assert told == {f"run {runs['1' * 64]}": 2, f"{name} version 1": 2}
    assert client.get_run(runs["1" * 64]).data.tags["flame.forgotten"] == "2"
    assert client.get_model_version(name, "1").tags["flame.forgotten"] == "2"
    assert "flame.forgotten" not in client.get_run(runs["2" * 64]).data.tags
    for run in runs.values():  # what a person deletes in MLflow is still there: its version is, and it can be restored
        answers = {seen.run: (seen.versions, seen.held) for seen in who_saw(tracked, "b" * 64)}
        assert answers[runs["1" * 64]] == (("1",), "yes, and it was forgotten since")
        assert answers[runs["2" * 64]][1].startswith("not known")
        client.delete_run(run)
    client.delete_model_version_tag(name, "1", "flame.forgotten")
    assert tag_models(tracked, read_forgotten(tracked.opt_out)) == {f"{name} version 1": 2}
    assert client.get_model_version(name, "1").tags["flame.forgotten"] == "2"
    assert runs["1" * 64] in caplog.text and "is deleted in MLflow" in caplog.text
    monkeypatch.setenv("FLAME_REGISTERED_MODEL", "birds")  # what was registered before keeps its name
    settings.cache_clear()
    assert tag_models(tracked, read_forgotten(tracked.opt_out)) == {f"{name} version 1": 2}
    assert {seen.versions for seen in who_saw(tracked, "b" * 64)} == {("1 of flame",), ()}


@pytest.mark.usefixtures("tracked")
def test_a_picture_under_another_key_was_seen(tracked: Layout, tmp_path: Path):
    from mlflow.entities import Dataset, DatasetInput

    from flame_core.tracking.store import experiment_id

    write_pairs(tmp_path / "pairs", range(20), CAPTIONS)
    write_pairs(tmp_path / "others", range(7, 8), "the same picture")
    params = pipeline_params({"s": folder_source(tmp_path / "pairs"), "z": folder_source(tmp_path / "others")})
    for stage in (download, ingest):
        stage.run(params, tracked)
    index = read_index(tracked.shards, "train")
    keys = {row.key for row in index}
    assert "s/0007" in keys and "z/0007" not in keys
    address = require_tracking(tracked)
    client = open_client(address)
    run = client.create_run(experiment_id(client, address))
    source = json.dumps({"path": "data/shards/train", "sha256": index.digest()})
    client.log_inputs(run.info.run_id, [DatasetInput(Dataset("shards", "1", "local", source))])
    answers = {asked: [seen.held for seen in who_saw(tracked, asked)] for asked in ("z/0007", "s/0007", "z/none")}
    assert answers == {"z/0007": ["yes"], "s/0007": ["yes"], "z/none": ["no"]}
    with pytest.raises(ParamsError, match="--contains"):
        who_saw(tracked, "nobody")
