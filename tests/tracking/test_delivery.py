"""Delivery to MLflow's embedded store: everything arrives, in order, once, whatever is sent twice."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from flame_core.tracking.delivery import deliver
from flame_core.tracking.journal import DELIVERED, EVENTS, KEY_TAG, Delivered, Journal
from flame_core.tracking.obstacles import Outage
from flame_core.tracking.store import journals, open_client
from tests.tracking.conftest import end, start, steps

DATASET = {"name": "shards", "digest": "d1", "source_type": "dvc", "source": '{"path": "data/shards"}', "profile": "{}"}


@pytest.fixture
def journal(tracked) -> Journal:
    return Journal(journals(tracked) / "abc")


def fill(journal: Journal, tmp_path) -> list[dict]:
    """A training's events; returns its steps."""
    (tmp_path / "params.yaml").write_text("a: 1\n")
    rows = steps(450)
    journal.append(
        start(),
        {"kind": "params", "params": {f"key.{i}": str(i) for i in range(150)} | {"long": "x" * 7000}},
        {"kind": "inputs", "context": "training", "datasets": [DATASET]},
        {"kind": "artifacts", "files": {"deep/params.yaml": journal.keep(tmp_path / "params.yaml")}},
        *rows,
        {"kind": "tags", "tags": {"flame.model_sha256": "f00"}},
        end(),
    )
    return rows


def history(client, run_id: str, key: str) -> list[tuple[int, float, int]]:
    return sorted((point.step, point.value, point.timestamp) for point in client.get_metric_history(run_id, key))


def expected(rows: list[dict], key: str) -> list[tuple[int, float, int]]:
    return [(row["step"], row["values"][key], row["time"]) for row in rows]


def test_a_whole_training_arrives(journal, address, tmp_path):
    rows = fill(journal, tmp_path)
    assert deliver(journal, address) == len(rows) + 6
    assert deliver(journal, address) == 0
    client, state = open_client(address), journal.delivered(address)
    run = client.get_run(state.run_id)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1_000, 9_000)
    assert run.data.tags[KEY_TAG] == "abc" and run.data.tags["flame.model_sha256"] == "f00"
    assert run.data.params["key.149"] == "149" and len(run.data.params["long"]) == 6000
    [read] = run.inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == ("shards", "d1")
    assert [tag.value for tag in read.tags if tag.key == "mlflow.data.context"] == ["training"]
    path = client.download_artifacts(state.run_id, "deep/params.yaml", str(tmp_path))
    assert Path(path).read_text() == "a: 1\n"
    for key in ("train/loss", "train/epoch"):
        assert history(client, state.run_id, key) == expected(rows, key)


def test_what_arrived_but_was_not_acknowledged_is_not_there_twice(journal, address, tmp_path):
    rows = fill(journal, tmp_path)
    deliver(journal, address)
    mark = json.loads((journal.folder / DELIVERED).read_text())
    (journal.folder / DELIVERED).unlink()  # as if the process had died before it could note anything
    deliver(journal, address)
    client, state = open_client(address), journal.delivered(address)
    assert (state.run_id, state.position) == (mark["run_id"], mark["position"])
    assert history(client, state.run_id, "train/loss") == expected(rows, "train/loss")
    assert len(client.search_runs([state.experiment_id])) == 1


def test_another_server_gets_the_whole_journal(journal, address, tmp_path):
    rows = fill(journal, tmp_path)
    deliver(journal, address)
    other = f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    assert deliver(journal, other) == len(rows) + 6
    state = journal.delivered(other)
    assert history(open_client(other), state.run_id, "train/loss") == expected(rows, "train/loss")


def test_a_run_goes_on_after_an_interruption(journal, address):
    rows = steps(10)
    journal.append(start(), *rows[:4], end("KILLED"))
    deliver(journal, address)
    first = journal.delivered(address).run_id
    client = open_client(address)
    assert client.get_run(first).info.status == "KILLED"
    journal.append(start(host="other"), *rows[4:])
    deliver(journal, address)
    assert journal.delivered(address).run_id == first
    assert client.get_run(first).info.status == "RUNNING"
    assert client.get_run(first).data.tags["host"] == "other"
    assert history(client, first, "train/loss") == expected(rows, "train/loss")


def test_a_store_that_lost_the_run_gets_it_again(journal, address, caplog):
    rows = steps(5)
    journal.append(start(), *rows)
    deliver(journal, address)
    state = journal.delivered(address)
    journal.mark(Delivered(address, state.position, run_id="0" * 32, experiment_id=state.experiment_id))
    journal.append(end())
    deliver(journal, address)
    assert "no longer has run" in caplog.text
    found = journal.delivered(address).run_id
    assert history(open_client(address), found, "train/loss") == expected(rows, "train/loss")


def test_what_mlflow_refuses_is_named_and_the_rest_arrives(journal, address, caplog):
    journal.append(start(), {"kind": "params", "params": {"a": "1"}}, {"kind": "params", "params": {"a": "2"}}, end())
    deliver(journal, address)
    run = open_client(address).get_run(journal.delivered(address).run_id)
    assert (run.data.params["a"], run.info.status) == ("1", "FINISHED")
    assert "MLflow refused params of abc" in caplog.text


def test_a_damaged_kept_file_is_named_and_the_rest_arrives(journal, address, tmp_path, caplog):
    (tmp_path / "x").write_text("x")
    kept = journal.keep(tmp_path / "x")
    journal.append(start(), {"kind": "artifacts", "files": {"x": kept}}, end())
    (journal.folder / "files" / kept).write_text("y")
    deliver(journal, address)
    assert kept in caplog.text
    assert open_client(address).get_run(journal.delivered(address).run_id).info.status == "FINISHED"


def test_a_server_that_is_not_there_is_an_outage_and_nothing_is_lost(journal):
    journal.append(start(), *steps(3))
    nowhere = "http://127.0.0.1:9"
    with pytest.raises(Outage, match=re.escape(nowhere)):
        deliver(journal, nowhere)
    assert journal.pending(nowhere) == 4


def test_the_undamaged_files_of_an_event_arrive(journal, address, tmp_path, caplog):
    for name in ("dvc.lock", "params.yaml"):
        (tmp_path / name).write_text(name)
    kept = {name: journal.keep(tmp_path / name) for name in ("dvc.lock", "params.yaml")}
    journal.append(start(), {"kind": "artifacts", "files": kept}, end())
    (journal.folder / "files" / kept["dvc.lock"]).write_text("rotten")
    deliver(journal, address)
    found = open_client(address).list_artifacts(journal.delivered(address).run_id)
    assert [file.path for file in found] == ["params.yaml"]
    assert "dvc.lock is not sent" in caplog.text


def test_sending_all_again_to_the_same_server_says_nothing_and_completes_what_is_missing(journal, address, caplog):
    scores = {f"score/{i}": i / 8 for i in range(8)}
    measured = {"kind": "metrics", "time": 5, "step": 0, "of_model": True, "dataset": {"name": "d", "digest": "1"}}
    journal.append(start(), {"kind": "external", "name": "m", "tags": {KEY_TAG: "abc"}})
    journal.append({**measured, "values": dict(list(scores.items())[:3])})
    deliver(journal, address)
    journal.append({**measured, "values": scores}, end())  # three of which are there
    deliver(journal, address)
    journal.mark(Delivered(address))
    deliver(journal, address)
    model = open_client(address).get_logged_model(journal.delivered(address).model_id)
    assert {metric.key: metric.value for metric in model.metrics} == scores
    assert caplog.text == ""


def test_damaged_lines_are_counted_and_a_training_whose_start_rotted_has_a_run(journal, address, caplog):
    rows = steps(3)
    journal.append(start(), *rows, end())
    path = journal.folder / EVENTS
    path.write_bytes(b"!" + path.read_bytes()[1:])
    deliver(journal, address)
    state = journal.delivered(address)
    client = open_client(address)
    assert history(client, state.run_id, "train/loss") == expected(rows, "train/loss")
    assert client.get_run(state.run_id).info.status == "FINISHED"
    assert "1 damaged lines" in caplog.text and "does not begin with a start" in caplog.text


@pytest.mark.parametrize(
    ("whole", "rotten"),
    [("values", "valuer"), ("step", "stdp"), ("time", "tima"), ('"train/epoch": 0', '"train/epoch": ""')],
)
def test_a_rotten_point_of_a_journal_without_checks_takes_no_other_with_it(journal, address, caplog, whole, rotten):
    rows = steps(5)
    lines = [json.dumps(event) for event in (start(), *rows, end())]
    lines[2] = lines[2].replace(whole, rotten)
    journal.folder.mkdir(parents=True)
    (journal.folder / EVENTS).write_text("\n".join(lines) + "\n")
    deliver(journal, address)
    client = open_client(address)
    left = [row for row in rows if row["step"] != 1]
    assert history(client, journal.delivered(address).run_id, "train/loss") == expected(left, "train/loss")
    assert "1 damaged lines" in caplog.text


def test_a_full_disk_below_the_journal_is_named(journal, address, tmp_path, monkeypatch):
    fill(journal, tmp_path)

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # of a write, which names no file

    with monkeypatch.context() as patched:
        patched.setattr("flame_core.tracking.delivery.copy_file", full)
        with pytest.raises(Outage, match=f"{re.escape(str(journal.folder))}: No space left on device. Free some room"):
            deliver(journal, address)
    assert deliver(journal, address) > 0 and journal.pending(address) == 0
