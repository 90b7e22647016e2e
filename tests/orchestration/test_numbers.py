"""Numbers that Dagster plots over time, from the outs of a training and an evaluation, whoever ran them."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from flame_core.dvc_project.project import DvcProject, Stage
from orchestration.dagster_dvc.assets import dvc_assets
from orchestration.dagster_dvc.lock_sensor import dvc_lock_sensor
from orchestration.numbers import read_numbers
from tests.orchestration.conftest import KEYS

STAGE = Stage("any", "flame any", None, {}, (), (), ("data/out",), "v1")


def numbers(root: Path, files: dict[str, str]) -> dict[str, float]:
    out = root / "data/out"
    out.mkdir(parents=True)
    for name, content in files.items():
        (out / name).write_text(content)
    return read_numbers(DvcProject(root), STAGE)


def test_a_training_has_its_first_and_last_loss(tmp_path: Path) -> None:
    losses = [float(100 - step) for step in range(40)]  # a twentieth is two steps
    lines = [json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in enumerate(losses)]
    assert numbers(tmp_path, {"metrics.jsonl": "".join(lines)}) == {"first loss": 99.5, "last loss": 61.5}


def test_terms_beside_the_objective_do_not_count(tmp_path: Path) -> None:
    steps = [{"loss": 9.0, "loss/infonce": 4.0, "loss/flops": 5.0}, {"loss": 8.0, "loss/infonce": 3.0}]
    config = json.dumps({"recipe": {"objective": {"name": "infonce"}}})
    files = {"metrics.jsonl": "".join(json.dumps(step) + "\n" for step in steps), "config.json": config}
    assert numbers(tmp_path, files) == {"first loss": 4.0, "last loss": 3.0}


def test_an_evaluation_has_its_headline_metrics(tmp_path: Path) -> None:
    english = "retrieval/en/image_to_text/recall@10"
    metrics = {english: 0.5, f"{english}/low": 0.4, "classification/top1": float("nan")}
    described = {"headline": [[english, [english]], ["classification/top1", ["classification/top1"]]]}
    files = {"metrics.json": json.dumps(metrics), "results.json": json.dumps(described)}
    assert numbers(tmp_path, files) == {english: 0.5}


def test_a_fit_of_concepts_has_its_slopes_and_correlations(tmp_path: Path) -> None:
    groups = {"classes": {"slope": 4.5, "r": 0.25}, "retrieval": {"slope": None, "r": None}}
    expected = {"flame, classes: points per decade": 4.5, "flame, classes: correlation": 0.25}
    assert numbers(tmp_path, {"fit.json": json.dumps({"recipes": {"flame": groups}})}) == expected


def test_other_outs_have_none_and_a_damaged_one_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert numbers(tmp_path / "one", {"index.parquet": "x"}) == {}
    assert not caplog.records
    assert numbers(tmp_path / "two", {"metrics.jsonl": "{"}) == {}
    assert "no numbers of data/out are shown" in caplog.text


def test_they_are_on_the_asset_s_page_whoever_ran_the_stage(
    reproduced: DvcProject, instance: dg.DagsterInstance
) -> None:
    def grown(project: DvcProject, stage: Stage) -> dict[str, float]:
        return {"numbers": float(len((project.root / "numbers/all.txt").read_text().split()))}

    def read(*_: object) -> list[dg.AssetCheckResult]:
        return [dg.AssetCheckResult(check_name="enough", passed=True)]

    sensor = dvc_lock_sensor(reproduced, read_checks=read, read_numbers=grown)
    events = sensor.evaluate_tick(dg.build_sensor_context(instance=instance)).asset_events
    (reported,) = [
        event for event in events if isinstance(event, dg.AssetMaterialization) and event.asset_key == KEYS[0]
    ]
    assert reported.metadata["numbers"] == dg.FloatMetadataValue(4.0)
    dg.materialize(
        dvc_assets(reproduced, read_checks=read, read_numbers=grown), selection="grow", instance=instance
    )  # unchanged
    event = instance.get_latest_materialization_event(KEYS[0])
    assert event and event.asset_materialization
    assert event.asset_materialization.metadata["numbers"] == dg.FloatMetadataValue(4.0)
