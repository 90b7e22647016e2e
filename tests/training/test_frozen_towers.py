"""Towers of which a part is frozen or learns at a rate of its own, and features that no trained weight is behind."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from flame_core.errors import ParamsError
from flame_core.objectives import term_classes
from flame_core.objectives.term import Needs, Term
from flame_core.params import TermParams, TrainParams
from flame_core.params.changed_values import changed_values
from flame_core.params.training import OptimizerParams
from flame_core.processes.ranks import ALONE
from flame_core.training.assembly import Assembly, assemble
from flame_core.training.loop import train
from flame_core.training.made_batch import MadeTexts
from tests.training.world import HIDDEN, recipe, samples_of, write_world


class MapParams(TermParams):
    name: Literal["map"] = "map"


class Map(Term):
    """A linear map of a feature of the backbone, towards the first text."""

    def __init__(self, params, setup):
        super().__init__(params, setup)
        self.map = nn.Linear(setup.tower.backbone.num_features, setup.hidden)

    @classmethod
    def needs(cls, params):
        return Needs(reads=frozenset({"pooled"}))

    def forward(self, features, batch, ranks):
        found = self.map(features["pooled"][:, 0].float())
        return {"map": (1 - F.cosine_similarity(found, features["t"][:, 0])).sum() / (len(batch) * ranks.world)}


@pytest.fixture(autouse=True)
def known(monkeypatch) -> None:
    monkeypatch.setitem(term_classes(), "map", Map)


def params_of(multipliers: dict[str, float], **changes) -> TrainParams:
    return recipe(optimizer={"learning_rate": 3e-3, "multipliers": multipliers}, epochs=2, **changes)


def assembled(params: TrainParams) -> Assembly:
    return assemble(params, MadeTexts(params, HIDDEN), facets=1, batch_size=8, samples=24)


def test_a_frozen_backbone_stays_as_it_is_and_its_head_learns(tmp_path):
    write_world(tmp_path)
    params = params_of({"image.backbone": 0.0})
    start = assembled(params).tower.state_dict()
    tower, _, _ = train(samples_of(tmp_path, params), params, tmp_path / "checkpoints")
    changed = {name.partition(".")[0] for name, w in tower.state_dict().items() if not torch.equal(w, start[name])}
    assert changed == {"projector"}
    assert not any(module.training for module in tower.backbone.modules()) and tower.projector.training


@pytest.mark.parametrize("micro", [None, 3])
def test_a_head_on_a_tower_that_is_frozen_as_a_whole(tmp_path, micro):
    write_world(tmp_path)
    params = params_of({"image": 0.0}, micro_batch_size=micro).model_copy(update={"objective": MapParams()})
    start = assembled(params).tower.state_dict()
    tower, metrics, _ = train(samples_of(tmp_path, params), params, tmp_path / "checkpoints")
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert all(torch.equal(weight, start[name]) for name, weight in tower.state_dict().items())


def test_a_frozen_part_takes_no_part_of_a_joint_gradient(tmp_path):
    write_world(tmp_path)
    params = params_of({"image.backbone": 0.0}, micro_batch_size=3).model_copy(update={"terms": [MapParams()]})
    _, metrics, _ = train(samples_of(tmp_path, params), params, tmp_path / "checkpoints")
    assert metrics[-1]["loss/map"] < metrics[0]["loss/map"]


def test_the_longest_name_decides():
    params = params_of({"image.backbone": 0.0, "image.backbone.blocks": 0.5, "image.backbone.blocks.1": 0.25})
    assembly = assembled(params)
    rates = {id(p): group["multiplier"] for group in assembly.optimizer(params).param_groups for p in group["params"]}
    found = {name: rates.get(id(p)) for name, p in assembly.towers().named_parameters()}
    assert found["image.backbone.patch_embed.proj.weight"] is None
    assert found["image.backbone.blocks.0.mlp.fc1.weight"] == 0.5
    assert found["image.backbone.blocks.1.mlp.fc1.bias"] == 0.25
    assert found["image.projector.layers.0.weight"] == 1.0
    assert not assembly.tower.backbone.training and assembly.tower.backbone.blocks[0].training


def test_a_name_is_whole_between_dots():
    with pytest.raises(ParamsError, match=r"no weight's name begins with 'image.back'; .*image\.backbone"):
        assembled(params_of({"image.back": 0.0}))


def test_nothing_left_to_train():
    params = params_of({"image": 0.0}, objective={"name": "cosine"})
    with pytest.raises(ParamsError, match="multipliers: they freeze all"):
        assembled(params).optimizer(params)


def test_a_rate_is_not_negative():
    with pytest.raises(ValidationError, match="multipliers"):
        OptimizerParams(multipliers={"image": -1.0})


def test_recipes_without_multipliers_are_recorded_as_before():
    assert "multipliers" not in OptimizerParams().model_dump()
    assert changed_values(OptimizerParams(multipliers={"image": 0.0})) == {"multipliers": {"image": 0.0}}


def test_a_head_that_no_loss_reads_is_not_trained():
    params = recipe().model_copy(update={"objective": MapParams()})
    tower = assembled(params).tower
    assert not any(weight.requires_grad for weight in tower.projector.parameters())
    assert all(weight.requires_grad for weight in tower.backbone.parameters())
    assert all(weight.requires_grad for weight in assembled(recipe()).tower.parameters())


def test_a_term_on_one_rank_knows_its_step(tmp_path):
    seen = []

    class Told(Map):
        def prepare(self, batch, tower, at, ranks):
            seen.append(("prepare", at.step, ranks))
            return batch

        def after_step(self, tower, features, batch, at, ranks):
            seen.append(("after", at.step, ranks))

    term_classes()["map"] = Told
    write_world(tmp_path)
    params = recipe(epochs=1).model_copy(update={"objective": MapParams()})
    train(samples_of(tmp_path, params), params, tmp_path / "checkpoints")
    assert seen == [(verb, step, ALONE) for step in range(3) for verb in ("prepare", "after")]
