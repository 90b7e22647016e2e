"""A-CLIP's mask: what the average is, what it chooses, and what it costs the tower."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flame_core.objectives.attentive_mask import AVERAGE, AttentiveMask, momentum
from flame_core.objectives.batch import Batch, Moment
from flame_core.objectives.moving_average import MovingAverage
from flame_core.objectives.term import Needs, Setup
from flame_core.params import AttentiveMaskParams, ModelParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.vision.patch_scores import look
from flame_core.vision.tower import ImageTower

MODEL = ModelParams(
    backbone_options={"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}, image_size=32
)
START = Moment(0, 10, 5)


def tower_of(model: ModelParams = MODEL) -> ImageTower:
    torch.manual_seed(0)
    return ImageTower(model, hidden=8, facets=1)


def term_of(tower: ImageTower, micro: int | None = None, **params) -> AttentiveMask:
    return AttentiveMask(AttentiveMaskParams(**params), Setup(tower, 4, 24, 8, micro_batch_size=micro))


def batch_of(b: int = 4, views: int = 2, around: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(b, views, 2, 2, generator=generator).sort(dim=2).values
    return Batch(
        pictures=torch.randn(b, views, 3, 32, 32, generator=generator),
        boxes=torch.cat([corners.flatten(2), torch.zeros(b, views, 1)], dim=-1),
        texts=torch.zeros(b, 1, 8),
        facets=torch.ones(b, 1),
        rows=torch.arange(b),
        keys=[str(row) for row in range(b)],
        around=torch.randn(b, 3, around, around, generator=generator),
    )


def test_the_average_sees_pixels_as_its_tower_does():
    """With `pixels: timm`, a backbone of timm's wants them otherwise than CLIP's."""
    tower = tower_of(MODEL.model_copy(update={"backbone": "vit_base_patch16_224", "pixels": "timm"}))
    term, batch = term_of(tower, resolution=1.0).eval(), batch_of(around=32)
    found = term.prepare(batch, tower.eval(), START, ALONE)
    shown = tower(batch.around, ("cls", "pooled"))
    for name in ("cls", "pooled"):
        torch.testing.assert_close(found.extra[AVERAGE[name]], shown[name])


def test_momentum_rises_along_a_half_cosine_to_one():
    assert momentum(0.996, Moment(0, 100, 10)) == 0.996
    assert momentum(0.996, Moment(50, 100, 10)) == pytest.approx(0.998)
    assert momentum(0.996, Moment(99, 100, 10)) == pytest.approx(1, abs=1e-6)
    assert momentum(0.996, Moment(99, 100, 10)) < momentum(0.996, Moment(100, 100, 10)) == 1


def test_the_average_has_its_closed_form():
    """On a scalar: theta_n = prod m_i theta_0 + sum_i (1 - m_i) prod_(j > i) m_j x_i."""
    weight = nn.Linear(1, 1, bias=False)
    nn.init.constant_(weight.weight, 2.0)
    average = MovingAverage(weight)
    factors = [momentum(0.5, Moment(step, 4, 4)) for step in range(4)]
    values = [1.0, -3.0, 0.5, 7.0]
    for factor, value in zip(factors, values, strict=True):
        nn.init.constant_(weight.weight, value)
        average.update(weight, factor)
    rest = [torch.tensor(factors[i:]).prod().item() for i in range(5)]
    expected = rest[0] * 2.0 + sum((1 - factors[i]) * rest[i + 1] * values[i] for i in range(4))
    assert average.module.weight.item() == pytest.approx(expected)


def test_the_average_moves_after_each_step_and_has_no_gradient():
    tower = tower_of()
    term = term_of(tower, momentum=0.9)
    assert not any(p.requires_grad for p in term.parameters())
    before = term.average.module.cls_token.clone()
    with torch.no_grad():
        tower.backbone.cls_token.add_(1.0)
    term.after_step(tower, {}, batch_of(), START, ALONE)
    torch.testing.assert_close(term.average.module.cls_token, before + 0.1)
    assert term.train().average.module.training is False


def test_it_keeps_the_most_attended_cells_of_each_view():
    tower, batch = tower_of(), batch_of()
    term = term_of(tower, keep=0.25)
    found = term.prepare(batch, tower, START, ALONE)
    seen = look(term.average.module, batch.around, "cls")
    ratings = term._cells.ratings(seen.scores, batch.boxes)
    assert found.keep.shape == (4, 2, 20)  # 5 of 16 cells of 4 patches
    assert torch.equal(found.keep, term._cells.best(ratings, 5))
    assert torch.equal(found.extra[AVERAGE["cls"]], seen.cls)
    assert torch.equal(found.extra[AVERAGE["pooled"]], seen.pooled)
    least = term_of(tower, keep=0.25, mode="inverted").prepare(batch, tower, START, ALONE).keep
    assert torch.equal(least, term._cells.best(-ratings, 5))


def test_the_average_runs_in_parts_that_memory_has_room_for():
    tower, batch = tower_of(), batch_of()
    whole, parts = (term_of(tower, micro).prepare(batch, tower, START, ALONE) for micro in (None, 3))
    assert torch.equal(whole.keep, parts.keep)
    torch.testing.assert_close(whole.extra[AVERAGE["cls"]], parts.extra[AVERAGE["cls"]])


@pytest.mark.parametrize("mode", ["attentive", "random"])
def test_with_all_cells_the_tower_sees_the_whole_picture(mode):
    tower, batch = tower_of(), batch_of()
    assert term_of(tower, keep=1.0, mode=mode).prepare(batch, tower, START, ALONE).keep is None


def test_random_cells_follow_from_seed_and_step_for_any_number_of_ranks():
    tower, batch = tower_of(), batch_of(4)
    term = term_of(tower, mode="random")
    assert term.average is None and AttentiveMask.needs(AttentiveMaskParams(mode="random")).around == 0
    drawn = term.prepare(batch, tower, START, ALONE).keep
    assert torch.equal(drawn, term.prepare(batch, tower, START, ALONE).keep)
    assert not torch.equal(drawn, term.prepare(batch, tower, Moment(1, 10, 5), ALONE).keep)
    assert not torch.equal(drawn[:, 0], drawn[:, 1])
    halves = [term.prepare(batch[2 * r : 2 * r + 2], tower, START, Ranks(r, 2)).keep for r in (0, 1)]
    assert torch.equal(torch.cat(halves), drawn)
    other = term_of(tower_of(), mode="random")
    torch.manual_seed(1)
    assert torch.equal(other.seed, term_of(tower_of(), mode="random").seed)
    another = term_of(tower, mode="random")
    assert not torch.equal(other.seed, another.seed)
    assert not torch.equal(another.prepare(batch, tower, START, ALONE).keep, drawn)
    another.load_state_dict(term.state_dict())  # a checkpoint's seed counts, also after the first draw
    assert torch.equal(another.prepare(batch, tower, START, ALONE).keep, drawn)


def test_what_it_needs():
    assert AttentiveMask.needs(AttentiveMaskParams()) == Needs(views=2, reads=frozenset(), around=0.5, copies=True)
    assert AttentiveMask.needs(AttentiveMaskParams(views=1, resolution=1.0)).views == 1
