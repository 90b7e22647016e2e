"""Which params make another training, and which find the one that is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flame_core.layout import Layout
from flame_core.params import Params, TrainParams, merge
from flame_core.stages import embed, train
from flame_core.text.llm import SOURCE
from flame_core.verification import write_digests
from tests.params.test_digests import LaterTrain
from tests.stages.pipeline import captioned_project
from tests.training.world import recipe

PLAIN = recipe(gates={"max_loss_ratio": 100.0}, epochs=1).model_dump(mode="json")


@pytest.fixture
def project(tmp_path: Path, byte_tokenizer, monkeypatch: pytest.MonkeyPatch) -> tuple[Params, Layout]:
    """A project whose captions are embedded."""
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    monkeypatch.setenv("FLAME_WORKERS", "1")
    params, layout = captioned_project(tmp_path, byte_tokenizer, 20)
    (layout.llm / "tiny" / SOURCE).write_text(json.dumps({"name": "tiny", "source": "path:x", "files": {}}))
    write_digests(layout.llm)
    embed.run(params, layout)
    return params, layout


def test_a_later_field_finds_the_training_that_is_there_and_another_value_does_not(project) -> None:
    params, layout = project

    def units(chosen: TrainParams) -> int:
        train.run(params.model_copy(update={"train": {"plain": chosen}}), layout, "plain")
        return len(list((layout.work / "train").glob("[!.]*")))

    assert units(TrainParams.model_validate(PLAIN)) == 1
    assert units(LaterTrain.model_validate(PLAIN)) == 1
    assert json.loads((layout.model("plain") / "config.json").read_text())["recipe"]["views"] == 1
    assert units(TrainParams.model_validate(merge(PLAIN, {"gates": {"max_loss_ratio": 99.0}}))) == 1
    assert units(TrainParams.model_validate(merge(PLAIN, {"objective": {"weight": 2.0}}))) == 2
    assert units(LaterTrain.model_validate({**PLAIN, "views": 2})) == 3
