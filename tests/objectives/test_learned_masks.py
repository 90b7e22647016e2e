"""The term of the learned masks: its Lagrangian, its multipliers, and what it refuses."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from flame_core.errors import ParamsError
from flame_core.objectives.batch import Moment
from flame_core.objectives.learned_masks import LearnedMasks, lagrangian
from flame_core.objectives.term import Setup
from flame_core.params import LearnedMasksParams, ModelParams, SizesParams, TrainParams
from flame_core.params.training import OptimizerParams
from flame_core.processes.ranks import ALONE
from flame_core.stepping.learning_rate import set_learning_rate
from flame_core.vision.block_sizes import block_weights
from flame_core.vision.tower import ImageTower
from tests.objectives.terms import batch_of

OPTIONS = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
WHOLE = 2 * (4 * 24 * 24 + 2 * 24 * 96)
STEPS = 400


def tower(**model) -> ImageTower:
    return ImageTower(ModelParams(**{"backbone_options": OPTIONS, "image_size": 16} | model), hidden=8, facets=1)


def term(made: ImageTower | None = None, **changes) -> LearnedMasks:
    setup = Setup(made or tower(), batch_size=8, samples=24, hidden=8, steps=STEPS)
    return LearnedMasks(LearnedMasksParams(**{"share": 0.5} | changes), setup)


def set_to(masks: LearnedMasks, value: float) -> None:
    with torch.no_grad():
        for a in masks._logits():
            a.fill_(value)


def test_masks_begin_open_and_are_bounded_after_a_step():
    masks, made = term(), tower()
    assert {a.shape for a in masks._logits()} == {(24,), (2,), (96,)}
    assert all(bool((a == 10).all()) for a in masks._logits())
    end = partial(torch.no_grad()(masks.after_step), made, {}, batch_of(torch.ones(2, 1)), Moment(0, STEPS, 10), ALONE)
    end()
    assert all(bool((a == torch.tensor(math.log(100))).all()) for a in masks._logits())
    set_to(masks, -9.0)
    end()
    assert all(bool((a == torch.tensor(math.log(0.01))).all()) for a in masks._logits())


def test_the_expected_size_is_the_number_of_weights_that_stay():
    masks = term()
    with torch.no_grad():
        for a in masks._logits():
            a.fill_(-60.0)  # a probability of 0
        masks.hidden[:17] = 60.0  # and of 1
        for kept, each in ((1, masks.heads[0]), (2, masks.heads[1]), (30, masks.intermediate[0])):
            each[:kept] = 60.0
        masks.intermediate[1][:50] = 60.0
    sizes = SizesParams(width=17, heads=[1, 2], intermediate=[30, 50])
    assert masks.expected_size().item() * WHOLE == pytest.approx(block_weights(sizes, 12))
    masks.size.fill_(0)


def test_the_expected_size_rises_with_each_logit():
    masks = term()
    set_to(masks, 0.5)
    masks.expected_size().backward()
    assert all(a.grad is not None and bool((a.grad > 0).all()) for a in masks._logits())


def test_the_lagrangian_is_one_sided():
    multipliers = torch.tensor([10.0, 20.0])
    assert lagrangian(torch.tensor(0.1), multipliers).item() == pytest.approx(10 * 0.1 + 20 * 0.01)
    assert lagrangian(torch.tensor(0.0), multipliers).item() == 0


@pytest.mark.parametrize(("size", "rises"), [(4.0, True), (-4.0, False)])
def test_multipliers_rise_while_sparsity_is_missing_and_only_then(size, rises):
    masks, made = term(keep=0.5), tower()
    set_to(masks, size)
    optimizer = torch.optim.AdamW(masks.groups(OptimizerParams()), lr=1.0)
    set_learning_rate(optimizer, 0.0)
    batch = masks.prepare(batch_of(torch.ones(2, 1)), made, Moment(STEPS // 2 - 1, STEPS, 10), ALONE)
    (share,) = masks({"t": torch.zeros(2, 1, 8)}, batch, ALONE).values()
    assert (share > 0) == rises
    share.backward()
    masks.after_backward(1)
    optimizer.step()
    assert masks.multipliers.tolist() == pytest.approx([10.075, 10.075] if rises else [10.0, 10.0])
    assert (masks.hidden[0] < size) == rises


def test_the_target_rises_linearly_over_a_third_of_the_steps_of_the_masks():
    masks, made = term(keep=0.4), tower()
    found = []
    for step in (0, 32, 66, 120, 199):  # of 200
        masks.prepare(batch_of(torch.ones(2, 1)), made, Moment(step, STEPS, 10), ALONE)
        found.append(masks._wanted)
    assert found == pytest.approx([0.6 * 3 / 200, 0.6 * 99 / 200, 0.6, 0.6, 0.6])


def test_masks_are_drawn_anew_in_each_step_and_reach_the_tower():
    masks, made = term(), tower()
    set_to(masks, 0.0)
    seen = []
    for step in (0, 1, 0):
        masks.prepare(batch_of(torch.ones(2, 1)), made, Moment(step, STEPS, 10), ALONE)
        seen.append([m.detach().clone() for m in made.masked.masks.each()])
        made.z(torch.randn(2, 3, 16, 16))[..., 0].sum().backward()
        masks.after_backward(1)
    assert all(torch.equal(one, again) for one, again in zip(seen[0], seen[2], strict=True))
    assert not torch.equal(seen[0][0], seen[1][0])
    assert all(a.grad is not None and bool(a.grad.abs().sum() > 0) for a in masks._logits())


def test_it_prunes_once_after_its_share():
    masks = term(keep=0.5)
    set_to(masks, 4.6)
    with torch.no_grad():
        masks.hidden[12:] = -4.0
    assert masks.pruning(Moment(199, STEPS, 10)) is None and masks.prunes
    settled = masks.pruning(Moment(200, STEPS, 10))
    assert settled is not None and int((settled.hidden > 0).sum()) == 12
    assert not masks.prunes and list(masks.parameters()) == []
    assert masks.scalars()["size"] == 0.5
    assert masks.pruning(Moment(201, STEPS, 10)) is None
    fresh = term(keep=0.5)
    fresh.load_state_dict(masks.state_dict())
    assert not fresh.prunes and fresh.scalars() == masks.scalars()


@pytest.mark.parametrize("value", [5.0, 0.0, -4.0])
def test_masks_that_keep_too_much_or_too_little_are_shifted_to_what_is_wanted(value):
    """Which of them stay is not changed by that."""
    masks = term(keep=0.5)
    set_to(masks, value)
    with torch.no_grad():
        masks.hidden[::2] += 0.5
        masks.heads[0][0] -= 0.5
    left = masks.pruning(Moment(200, STEPS, 10))
    assert left is not None and 0.42 < masks.scalars()["size"] <= 0.5
    kept = left.hidden > 0
    assert bool(kept[::2].all()) or not bool(kept[1::2].any())
    assert left.heads[0].tolist()[1] >= left.heads[0].tolist()[0]


@pytest.mark.parametrize(
    ("model", "recipe", "message"),
    [
        ({}, {"keep": 0.02}, r"keep 0.02 leaves nothing: 0.087 of the weights"),
        ({"facet_blocks": 1}, {}, "facet tokens are as wide as the backbone"),
        ({"backbone_options": OPTIONS | {"scale_attn_norm": True}}, {}, "take a plain ViT"),
        ({}, {"model": {"head": "none"}, "text_projection": {}}, "head none keeps the backbone's width"),
        ({}, {"terms": [{"name": "simclr"}]}, "simclr reads cls, whose size changes"),
        ({}, {"terms": [{"name": "attentive_mask"}]}, "attentive_mask reads a copy of the tower"),
        ({}, {"terms": [{"name": "self_distillation"}]}, "self_distillation reads a copy of the tower"),
    ],
)
def test_what_masks_do_not_suit_is_refused(model, recipe, message):
    changes = dict(recipe)
    others = changes.pop("terms", [])
    links = {name: changes.pop(name) for name in ("model", "text_projection") if name in changes}
    params = LearnedMasksParams(**changes)
    trained = TrainParams.model_validate({"terms": [params.model_dump(), *others], **links})
    assert any(message in found for found in LearnedMasks.faults(params, trained, tower(**model)))
    assert not list(LearnedMasks.faults(LearnedMasksParams(), TrainParams(terms=[LearnedMasksParams()]), tower()))


def test_a_tower_that_is_small_enough_already_and_too_few_steps_are_refused():
    sizes = SizesParams(width=12, heads=[2, 2], intermediate=[96, 96])
    with pytest.raises(ParamsError, match=r"keep 0.75, and the tower begins with 0.5 of the backbone's weights"):
        term(tower(sizes=sizes))
    assert term(tower(sizes=sizes), keep=0.25).scalars() == {"size": 0.5}
    with pytest.raises(ParamsError, match=r"200 steps \(share 0.5 of 400\) with learning_rate 0.02 close no mask"):
        term(learning_rate=0.02)
    with pytest.raises(ParamsError, match=r"40 steps \(share 0.1 of 400\) are too few"):
        term(share=0.1)
    with pytest.raises(ParamsError, match=r"400 steps \(share 0.999 of 400\) leave none for the pruned tower"):
        term(share=0.999)
