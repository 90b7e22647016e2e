"""`flame forget` beside other processes: another one, stages that are at work, and files that vanish."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flame_core.data.forgotten import read_forgotten
from flame_core.data.shards import read_index
from flame_core.forgetting import forget as flow
from flame_core.forgetting import purge as deleting
from flame_core.forgetting.traces import Traces
from flame_core.layout import Layout
from flame_core.params import Params
from tests.forgetting.small_project import run

pytestmark = pytest.mark.usefixtures("one_worker")


def test_two_at_once_come_one_after_the_other(project: tuple[Params, Layout], monkeypatch, caplog):
    """Each adds to a table that it has read before: the later one would undo the other."""
    caplog.set_level(logging.INFO)
    params, layout = project
    write, others = flow.write_forgotten, list[threading.Thread]()

    def with_another(*arguments: Any) -> None:
        if not others:
            others.append(threading.Thread(target=run, args=(params, layout, "s/0008")))
            others[0].start()
            while others[0].is_alive() and "another process forgets samples of this project" not in caplog.text:
                time.sleep(0.01)
        write(*arguments)

    monkeypatch.setattr(flow, "write_forgotten", with_another)
    run(params, layout, "s/0007")
    others[0].join()
    assert [row.key for row in read_forgotten(layout.opt_out).rows] == ["s/0007", "s/0008"]
    assert not {"s/0007", "s/0008"} & {row.key for row in read_index(layout.shards)}
    assert list((layout.state / "forget").iterdir()) == []


def test_what_a_stage_finishes_until_the_rebuilding_can_begin(
    project: tuple[Params, Layout], monkeypatch: pytest.MonkeyPatch
):
    """`flame run` goes on beside it: the rebuilding waits, while `embed` stores vectors and `train` makes a model."""
    params, layout = project
    key = next(row.key for row in read_index(layout.shards, "train"))
    shard = next(row.shard for row in read_index(layout.shards) if row.key == key)
    vectors = layout.root / f"data/embeddings/{Path(shard).with_suffix('.safetensors')}"
    unit = layout.work / "embed/unit/train.safetensors"
    steps, rebuild = list[str](), flow.rebuild

    def after_a_stage(*arguments: Any) -> None:
        for place in (vectors, unit):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"vectors of a shard")
        steps.append("rebuilt")
        rebuild(*arguments)

    def tag(*_: Any) -> dict[str, int]:
        steps.append("tagged")
        return {}

    monkeypatch.setattr(flow, "rebuild", after_a_stage)
    monkeypatch.setattr(flow, "tracking_address", lambda layout: "there")
    monkeypatch.setattr(flow, "tag_models", tag)
    run(params, layout, key)
    assert not vectors.exists() and not unit.parent.exists()
    assert steps == ["rebuilt", "tagged"]


def test_files_that_another_process_removes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    layout = Layout.find(tmp_path)
    vectors = layout.root / "data/embeddings/train/00000.safetensors"
    vectors.parent.mkdir(parents=True)
    vectors.write_bytes(b"vectors")

    def removed(path: Path) -> str:
        path.unlink()
        raise FileNotFoundError(path)

    monkeypatch.setattr(deleting, "file_md5", removed)
    assert deleting.purge(layout, Traces(keys={"s/0007"}, md5s={"0" * 32}), delete=True).files == []
