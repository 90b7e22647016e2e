"""The retraining loop: new pictures arrive, the sensor asks for a run, and the run ends in the gate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from flame_core.data.shards import read_index
from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.tracking.gate import MEAN
from flame_core.tracking.promotion import PREVIOUS, REASON, TABLE, VERDICT
from flame_core.tracking.store import local_address
from flame_core.workspace import environment
from orchestration.automation import LOOK_AGAIN
from orchestration.instance import opened_in_shell
from orchestration.materialize import QUIET
from orchestration.project_definitions import build
from tests.integration.conftest import Project, Tracked, in_three_languages, write_pictures

pytestmark = pytest.mark.slow
# Nothing is learned at such a rate: the model stays where chance put it.
WORSE = {"train": {"epochs": 1, "optimizer": {"learning_rate": 1.0e-7}}}
BETTER = {"train": {"epochs": 40, "optimizer": {"learning_rate": 1.0e-3}}}


@dataclass
class Loop:
    """A project whose source folder is watched, and Dagster's instance of its runs."""

    project: Tracked
    source: Path
    instance: dg.DagsterInstance
    cursor: str | None = None

    @property
    def layout(self) -> Layout:
        return Layout.find(self.project.root)

    def look(self) -> list[dg.RunRequest]:
        """One tick of the sensor, as the daemon makes it."""
        sensor = build(self.layout).get_sensor_def("new_data")
        data = sensor.evaluate_tick(dg.build_sensor_context(instance=self.instance, cursor=self.cursor))
        self.cursor = data.cursor
        return list(data.run_requests or ())

    def run(self, tags: dict[str, str]) -> dg.ExecuteInProcessResult:
        """The job `pretrain` in this process."""
        job = build(self.layout).resolve_job_def("pretrain")
        result = job.execute_in_process(instance=self.instance, tags=tags, run_config=QUIET, raise_on_error=False)
        assert result.success, [event.step_failure_data for event in result.get_step_failure_events()]
        return result

    def retrain(self, pairs: list, configuration: dict) -> dg.ExecuteInProcessResult:
        """New pictures arrive under a changed configuration; the run that the sensor asks for."""
        self.project.change(configuration)
        write_pictures(self.source, pairs)
        assert self.look() == []  # they may still be copied
        (request,) = self.look()
        assert self.look() == []
        assert LOOK_AGAIN.items() <= request.tags.items()
        return self.run(dict(request.tags))


@pytest.fixture(scope="module")
def loop(project: Project, stamps: list, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The project on a folder that grows, after a first run whose hardly trained model became champion."""
    source = tmp_path_factory.mktemp("incoming")
    write_pictures(source, in_three_languages(stamps)[0::3])
    address = local_address(Layout.find(project.root))
    project.change(
        {"sources": {"pictures": {"path": str(source)}}, "promote": {"min_gain": 0.02, "min_pictures": 1}, **WORSE}
    )
    with pytest.MonkeyPatch.context() as patch, opened_in_shell(Layout.find(project.root)) as instance:
        for name, value in environment().items():
            patch.setenv(name, value)
        patch.setenv("FLAME_TRACKING_URI", address)
        settings.cache_clear()
        loop = Loop(Tracked(project.root, address), source, instance)
        assert loop.look() == []
        loop.run({})
        yield loop


def gate(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = [each for each in result.get_asset_check_evaluations() if each.check_name == "gate"]
    return found


def test_new_data_bring_a_better_model_to_the_top_and_keep_a_worse_one_from_it(loop: Loop, stamps: list) -> None:
    pairs, project = in_three_languages(stamps), loop.project
    assert (project.alias("champion"), project.alias("challenger")) == ("1", None)
    before = len(read_index(loop.layout.shards, "train"))

    result = loop.retrain(pairs[1::3], BETTER)
    assert len(read_index(loop.layout.shards, "train")) > 1.5 * before  # it looked at the source again
    assert gate(result).passed
    assert (project.alias("champion"), project.alias("challenger")) == ("2", None)
    champion = project.client.get_model_version("flame", "2")
    assert (champion.tags[VERDICT], champion.tags[PREVIOUS]) == ("promoted", "1")
    table = {row["measure"]: row for row in json.loads(champion.tags[TABLE])}
    assert table[MEAN]["difference"] >= 0.02

    result = loop.retrain(pairs[2::3], WORSE)
    refused = gate(result)
    assert not refused.passed and refused.severity is dg.AssetCheckSeverity.WARN
    assert (project.alias("champion"), project.alias("challenger")) == ("2", "3")
    challenger = project.client.get_model_version("flame", "3")
    assert challenger.tags[VERDICT] == "refused" and refused.description == challenger.tags[REASON]
    run = project.client.get_run(challenger.run_id)
    assert run.data.tags["dagster.run_id"] == result.run_id
    assert run.data.tags["dagster.asset"] == "train.flame"
