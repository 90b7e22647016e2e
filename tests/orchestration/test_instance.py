"""One instance for interface and shell: runs whose process is gone end, those that live are left alone."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import dagster as dg
import psutil
import pytest

from flame_core.errors import ParamsError, ResourceError
from flame_core.layout import Layout
from orchestration.instance import (
    PROCESS_TAG,
    end_dead_runs,
    instance_home,
    only_interface,
    opened_in_shell,
    process_tag,
)

ROOT = Path(__file__).parents[2]


def begun(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    """A run that has started, and holds the only place of the pool `gpu`."""
    run = instance.create_run_for_job(begun_job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    return run.run_id


@dg.job
def begun_job() -> None:
    """Does nothing."""


def test_a_run_whose_process_is_gone_ends_and_its_place_in_the_pool_is_free(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", "from orchestration.instance import *; print(process_tag()[PROCESS_TAG])"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    dead = {PROCESS_TAG: child.stdout.strip()}
    with opened_in_shell(Layout.find(tmp_path)) as instance:
        killed, mine, served = begun(instance, dead), begun(instance, process_tag()), begun(instance, {})
        instance.event_log_storage.set_concurrency_slots("gpu", 1)
        assert instance.event_log_storage.claim_concurrency_slot("gpu", killed, "train").is_claimed
    with opened_in_shell(Layout.find(tmp_path)) as instance:
        status = {run.run_id: run.status.value for run in instance.get_runs()}
        assert status == {killed: "FAILURE", mine: "STARTED", served: "STARTED"}
        assert instance.event_log_storage.claim_concurrency_slot("gpu", mine, "train").is_claimed
        end_dead_runs(instance, servers_are_down=True)
        status = {run.run_id: run.status.value for run in instance.get_runs()}
        assert status == {killed: "FAILURE", mine: "STARTED", served: "FAILURE"}


def test_the_pools_of_the_graph_are_there_before_the_first_run_and_keep_their_limits(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)

    def limits() -> dict[str, int]:
        with opened_in_shell(Layout.find(tmp_path)) as instance:
            return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}

    assert limits() == {"gpu": 1, "network": 1}
    with opened_in_shell(Layout.find(tmp_path)) as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 3)
    assert limits() == {"gpu": 3, "network": 1}
    (tmp_path / "dvc.yaml").write_text("stages: [")
    assert limits() == {"gpu": 3, "network": 1}


def test_a_process_is_known_by_more_than_its_number(tmp_path: Path) -> None:
    own = process_tag()[PROCESS_TAG]
    host, pid, start = own.rsplit(":", 2)
    assert int(pid) == psutil.Process().pid
    with opened_in_shell(Layout.find(tmp_path)) as instance:
        reused = begun(instance, {PROCESS_TAG: f"{host}:{pid}:{float(start) - 100:.0f}"})
        elsewhere = begun(instance, {PROCESS_TAG: f"another.{own}"})
        end_dead_runs(instance)
        status = {run.run_id: run.status.value for run in instance.get_runs()}
        assert status == {reused: "FAILURE", elsewhere: "STARTED"}


def test_a_run_stays_alive_while_the_clock_is_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened_in_shell(Layout.find(tmp_path)) as instance:
        begun(instance, process_tag())
        started = psutil.boot_time()
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: started - 3600)  # the kernel's: now, less the uptime
        end_dead_runs(instance)
        assert [run.status.value for run in instance.get_runs()] == ["STARTED"]


@pytest.mark.parametrize("name", ["runs.db", "runs/index.db"])
def test_a_damaged_history_is_named(tmp_path: Path, name: str) -> None:
    layout = Layout.find(tmp_path)
    with opened_in_shell(layout):
        pass
    (layout.state / "dagster" / "history" / name).write_bytes(b"no database at all" * 1000)
    told = f"history in {layout.state}/dagster is damaged .* Move the folder away"
    with pytest.raises(ResourceError, match=told), opened_in_shell(layout):
        pass


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    layout = Layout.find(tmp_path)
    with opened_in_shell(layout):
        pass
    database = sqlite3.connect(layout.state / "dagster/history/runs.db")
    told = r"dagster cannot be written: database or disk is full\. Free some room"
    with pytest.raises(ResourceError, match=told), opened_in_shell(layout), closing(database):
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        database.execute("CREATE TABLE more (a)")


def test_a_server_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql+psycopg2://ada:secret@127.0.0.1:1/history"
    (tmp_path / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{url}'}}}}\n")
    monkeypatch.setattr("dagster_postgres.utils.time.sleep", lambda seconds: None)  # between its attempts
    layout = Layout.find(tmp_path)
    with pytest.raises(ResourceError, match=r"127\.0\.0\.1.*refused") as told, opened_in_shell(layout):
        pass
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("storag: 3", r"dagster\.yaml: Received unexpected config entry \"storag\""),
        ("storage: [3", r"dagster\.yaml"),
        ("storage: {postgres: {postgres_url: {env: NOT_SET}}}", r"dagster\.yaml: .*NOT_SET"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "dagster.yaml").write_text(text)
    with pytest.raises(ParamsError, match=f"{tmp_path}/{told}"), opened_in_shell(Layout.find(tmp_path)):
        pass


def test_one_interface_a_project(tmp_path: Path) -> None:
    home = instance_home(Layout.find(tmp_path))
    with (
        only_interface(home),
        pytest.raises(ResourceError, match=f"process {psutil.Process().pid}"),
        only_interface(home),
    ):
        pass
    with only_interface(home):
        pass
