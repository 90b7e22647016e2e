"""P-Former's term against its formula, its reference that stays frozen, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flame_core.errors import ParamsError
from flame_core.objectives.batch import Moment
from flame_core.objectives.objective import Objective
from flame_core.objectives.prompt_alignment import PromptAlignment
from flame_core.objectives.term import Setup
from flame_core.params import ConnectorParams, ModelParams, PromptsTermParams, TrainParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.vision.tower import ImageTower
from tests.captioning.heads import write_head
from tests.objectives.terms import TINY, batch_of


def setup_with(folder, prompts: int = 4, vector: int = 12, **of_head) -> Setup:
    write_head(folder, **{"vector": 12, "hidden": 20, **of_head})
    params = ModelParams(
        backbone_options=TINY, image_size=16, connector=ConnectorParams(prompts=prompts, width=16, heads=2)
    )
    tower = ImageTower(params, hidden=vector, facets=1, prompt_dims=20)
    return Setup(tower, 3, samples=24, hidden=vector, prompts=folder)


def term(folder, setup: Setup | None = None, **params) -> PromptAlignment:
    return PromptAlignment(PromptsTermParams(**params), setup or setup_with(folder))


def share(own: PromptAlignment, v: torch.Tensor, t: torch.Tensor, ranks: Ranks = ALONE) -> torch.Tensor:
    (value,) = own({"prompts": v[:, None], "t": t}, batch_of(torch.ones(t.shape[:2])), ranks).values()
    return value


def test_it_is_the_mean_squared_difference_to_the_reference_of_the_first_drawn_caption(tmp_path):
    own = term(tmp_path, relative=False)
    v, t = torch.randn(3, 4, 20, requires_grad=True), torch.randn(3, 2, 12)
    p = own.head(t[:, 0])
    expected = sum(((v[b] - p[b]) ** 2).sum() for b in range(3)) / (3 * 4 * 20)
    found = share(own, v, t)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found.backward()
    torch.testing.assert_close(v.grad, 2 * (v.detach() - p) / v.numel())
    assert share(own, p, t).item() == 0
    relative = term(tmp_path)
    assert share(relative, v, t).item() == pytest.approx(expected.item() / 0.1**2, rel=1e-5)
    assert share(relative, v, t, Ranks(0, 2)).item() == pytest.approx(expected.item() / 0.1**2 / 2, rel=1e-5)


def test_a_weight_of_one_begins_near_two_with_any_scale(tmp_path):
    for scale in (0.02, 3.0):
        setup = setup_with(tmp_path, scale=scale)
        connector = setup.tower.connector
        assert connector is not None
        connector.start_at(scale)
        v = setup.tower(torch.randn(3, 3, 16, 16), ("prompts",))["prompts"]
        assert 0.5 < share(term(tmp_path, setup), v, torch.randn(3, 1, 12)).item() < 4


def test_the_reference_is_frozen_whatever_is_done_to_the_objective(tmp_path):
    own = term(tmp_path)
    objective = Objective({"prompts": own})
    objective.train()
    t = torch.randn(3, 12)
    assert torch.equal(own.head(t), own.head(t)) and not own.head.training
    assert not any(parameter.requires_grad for parameter in objective.parameters())
    assert objective.state() == {}


def test_its_weight_falls_to_zero_over_the_last_steps(tmp_path):
    own, setup = term(tmp_path, decay=0.5, weight=3.0), setup_with(tmp_path)
    v, t = torch.randn(3, 4, 20), torch.randn(3, 1, 12)
    whole = share(own, v, t).item()
    shares = []
    for step in range(0, 10):
        own.prepare(batch_of(torch.ones(3, 1)), setup.tower, Moment(step, 10, 5), ALONE)
        shares.append(share(own, v, t).item() / whole)
    assert shares == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert own.scalars()["omega"] == pytest.approx(3 * 0.2 / 0.1**2)


def test_what_cannot_be_aligned_is_refused_with_both_numbers(tmp_path):
    with pytest.raises(ParamsError, match=r"connector.prompts: 5, and the head in .* makes 4 prompts"):
        term(tmp_path, setup_with(tmp_path, prompts=5))
    with pytest.raises(ParamsError, match="reads vectors of 12 numbers, and the recipe's texts have 13"):
        term(tmp_path, setup_with(tmp_path, vector=13))
    with pytest.raises(ParamsError, match="none is given"):
        term(tmp_path, replace(setup_with(tmp_path), prompts=None))


def test_a_recipe_without_a_connector_or_with_a_text_tower_is_refused():
    tower = ImageTower(ModelParams(backbone_options=TINY, image_size=16), hidden=8, facets=1)
    recipe = TrainParams.model_validate({"terms": [{"name": "prompts"}], "text_tower": {}})
    said = list(PromptAlignment.faults(PromptsTermParams(), recipe, tower))
    assert len(said) == 3 and "connector" in said[0] and "prompts: data/prompts" in said[1]
    for name, own in (("text_projection", {"layers": 1}), ("lora", {})):
        recipe = recipe.model_copy(update={"text_tower": None, "text_projection": None, "lora": None, name: own})
        assert said[2].replace("text_tower", name) in PromptAlignment.faults(PromptsTermParams(), recipe, tower)
    with pytest.raises(ValueError, match=r"model.connector is of use only with the term prompts"):
        TrainParams.model_validate({"model": {"connector": {}}})
    with pytest.raises(ValueError, match=r"prompts is of use only with the term prompts"):
        TrainParams.model_validate({"prompts": "data/prompts"})
