"""A project that is copied or moved takes its tracking store along, and never writes into the original."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flame_core.layout import Layout
from flame_core.tracking.delivery import deliver
from flame_core.tracking.journal import Journal
from flame_core.tracking.relocation import relocate
from flame_core.tracking.store import journals, local_address, open_client
from tests.tracking.conftest import end, start, steps

NAME = "a b?c#d%20e*[f]"  # what is special in addresses and in patterns


def train(layout: Layout, key: str = "abc") -> Journal:
    """A tracked training with an artifact, delivered to the project's own store."""
    journal = Journal(journals(layout) / key)
    (layout.root / "params.yaml").write_text(f"key: {key}\n")
    kept = journal.keep(layout.root / "params.yaml")
    journal.append(start(key), *steps(3), {"kind": "artifacts", "files": {"params.yaml": kept}}, end())
    deliver(journal, local_address(layout))
    return journal


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def artifact(layout: Layout, journal: Journal, folder: Path) -> Path:
    address = local_address(layout)
    run = journal.delivered(address).run_id
    assert run
    folder.mkdir()
    return Path(open_client(address).download_artifacts(run, "params.yaml", str(folder)))


@pytest.fixture
def project(tracked: Layout) -> Layout:
    root = tracked.root / NAME
    root.mkdir()
    tracked.state.rename(root / ".flame")
    return Layout.find(root)


def test_a_copy_reads_and_writes_its_own_store_alone(project: Layout, tmp_path: Path) -> None:
    journal = train(project)
    assert (project.state / "mlflow" / "mlflow.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]  # nothing beside the project
    copy = Layout.find(Path(shutil.copytree(project.root, tmp_path / "copy")))
    before = files(project.state)
    copied = Journal(journals(copy) / journal.key)
    assert copied.pending(local_address(copy)) == 0
    assert artifact(copy, copied, tmp_path / "one").read_text() == "key: abc\n"
    train(copy, "def")
    assert files(project.state) == before
    shutil.rmtree(project.root)
    assert artifact(copy, copied, tmp_path / "two").read_text() == "key: abc\n"
    assert b"a%20b" not in (copy.state / "mlflow" / "mlflow.db").read_bytes()


def test_a_moved_project_finds_its_artifacts_and_goes_on(project: Layout, tmp_path: Path) -> None:
    journal = train(project)
    moved = Layout.find(project.root.rename(tmp_path / "moved"))
    there = Journal(journals(moved) / journal.key)
    assert artifact(moved, there, tmp_path / "one").read_text() == "key: abc\n"
    there.append({"kind": "tags", "tags": {"more": "yes"}})
    assert deliver(there, local_address(moved)) == 1
    assert not project.root.exists()


def test_a_store_elsewhere_and_one_behind_a_link_are_left_alone(tmp_path: Path) -> None:
    here, linked = tmp_path / "here", tmp_path / "linked"
    database = here / ".flame" / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    linked.symlink_to(here)
    locations = [
        "s3://bucket/.flame/mlflow/artifacts",
        "file:///mnt/share/artifacts",
        "mlflow-artifacts:/1",
        (linked / ".flame/mlflow/artifacts").as_uri(),
        "/old/mlruns/0",
        None,
    ]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE experiments (artifact_location TEXT)")
        connection.executemany("INSERT INTO experiments VALUES (?)", [(each,) for each in locations])
    assert relocate(database) == []
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("INSERT INTO experiments VALUES ('file:///old/.flame/mlflow/artifacts')")
        connection.commit()
        assert relocate(database) == [Path("/old")]
        found = [row[0] for row in connection.execute("SELECT artifact_location FROM experiments")]
    own = (here / ".flame/mlflow/artifacts").as_uri()
    assert found == [*locations[:4], str(here / "mlruns/0"), None, own]


def test_a_file_that_is_no_database_of_mlflow_is_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / ".flame" / "mlflow"
    folder.mkdir(parents=True)
    assert relocate(folder / "mlflow.db") == []
    (folder / "mlflow.db").touch()
    assert relocate(folder / "mlflow.db") == [] and (folder / "mlflow.db").read_bytes() == b""
