"""A-CLIP trains, resumes, and does not know of ranks and pieces; its mistakes are found before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flame_core.errors import ParamsError
from flame_core.params import TrainParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.stepping import checkpoint
from flame_core.training.assembly import assemble
from flame_core.training.made_batch import MadeTexts
from flame_core.training.recipe_check import recipe_faults
from flame_core.vision.views import box_around
from tests.training.a_clip import HEADS, MASK, OPTIONS, a_clip, train_on
from tests.training.killed import train_killed
from tests.training.processes import on_ranks
from tests.training.test_seam import assert_alike
from tests.training.world import HIDDEN, samples_of, write_world


@pytest.fixture
def world(tmp_path) -> Path:
    write_world(tmp_path)
    return tmp_path


def test_it_trains_and_each_share_is_reported(world):
    metrics = train_on(
        ALONE, world, world / "checkpoints", a_clip(epochs=20, optimizer={"learning_rate": 3e-3})
    ).metrics
    first, last = metrics[0], metrics[-1]
    shares = [first[f"loss/{name}"] for name in ("infonce", "simclr", "byol")]
    assert first["loss"] == pytest.approx(sum(shares)) and "loss/attentive_mask" not in first
    assert last["loss/infonce"] < 0.8 * first["loss/infonce"]
    assert last["loss/byol"] < 0.5 * first["loss/byol"]


def test_the_box_around_the_views_comes_with_the_batch(world):
    plain = a_clip(terms=[MASK | {"mode": "random"}])
    two, without = (samples_of(world, params)[[(0, 3), (1, 7)]].on("cpu") for params in (a_clip(), plain))
    assert two.around.shape == (2, 3, 16, 16) and two.pictures.shape == (2, 2, 3, 32, 32)
    assert without.around is None and torch.equal(without.pictures, two.pictures)
    assert torch.equal(two[1:].around, two.around[1:]) and torch.equal(two.to("cpu").around, two.around)
    widths = box_around(two.boxes)[:, 2:] - box_around(two.boxes)[:, :2]
    assert bool((widths[:, None] + 1e-6 >= two.boxes[..., 2:4] - two.boxes[..., :2]).all())


def test_killed_it_resumes_bit_for_bit(world):
    """By SIGKILL in a separate process; the averages and heads continue, and so does stochastic depth."""
    params = a_clip(drop=0.2)
    whole, metrics, _ = train_on(ALONE, world, world / "whole", params)
    train_killed(train_on, world, world / "killed", params, 3)
    saved = checkpoint.load(world / "killed")
    assert saved.step == 3
    for name in ("attentive_mask.average.module.cls_token", "byol.target.module.0.weight", "simclr.head.0.weight"):
        assert f"objective.terms.{name}" in saved.model
    resumed, again, _ = train_on(ALONE, world, world / "killed", params)
    assert again == metrics
    assert bytes_of(resumed) == bytes_of(whole)


def bytes_of(module: torch.nn.Module) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in module.state_dict().items()}


class Stopped(Exception):
    """Raised in a training to end it where a power cut would."""


def weights_of(ranks: Ranks, folder: Path, name: str, params: TrainParams, stop: int | None = None) -> dict:
    """The weights and metrics of a training, which first ends after the step `stop`, if given, and then resumes."""

    def end(row: dict[str, float]) -> None:
        if row["step"] == stop:
            raise Stopped

    where = folder / f"{name}-{ranks.world}"
    if stop is not None:
        try:
            train_on(ranks, folder, where, params, end)
        except Stopped:
            assert checkpoint.load(where, ranks).step == stop
    trained = train_on(ranks, folder, where, params)
    return {"weights": dict(trained.tower.state_dict()), "metrics": trained.metrics}


def test_two_ranks_and_pieces_give_the_weights_of_one(world, monkeypatch):
    monkeypatch.setenv("FLAME_CHECKPOINT_SECONDS", "0")
    one, pieces, two_each = (a_clip(epochs=1, micro_batch_size=size) for size in (None, 3, 2))
    expected = weights_of(ALONE, world, "one", one)
    assert_alike(weights_of(ALONE, world, "pieces", pieces), expected)
    two = on_ranks(2, weights_of, world, world, "two", two_each)
    for of_rank in two:
        assert_alike(of_rank, expected)
    resumed = on_ranks(2, weights_of, world, world, "resumed", two_each, 1)
    for of_rank, whole in zip(resumed, two, strict=True):
        assert of_rank["metrics"] == whole["metrics"]
        assert all(torch.equal(weight, whole["weights"][name]) for name, weight in of_rank["weights"].items())


def test_random_masks_are_the_same_on_two_ranks(world):
    params = a_clip(terms=[MASK | {"mode": "random"}], epochs=1)
    expected = weights_of(ALONE, world, "random", params)
    for of_rank in on_ranks(2, weights_of, world, world, "random", params):
        assert_alike(of_rank, expected)


def test_evaluation_sees_all_patches(world):
    """A trained tower's vectors depend on every patch."""
    tower = train_on(ALONE, world, world / "checkpoints", a_clip(epochs=1)).tower.eval()
    picture = torch.zeros(1, 3, 32, 32, requires_grad=True)
    tower.z(picture).sum().backward()
    of_patches = picture.grad.abs().unfold(2, 4, 4).unfold(3, 4, 4).sum(dim=(1, 4, 5))
    assert bool((of_patches > 0).all())


WITHOUT_CLS = {"backbone_options": OPTIONS | {"class_token": False}, "image_size": 32}
SIMCLR, BYOL = {"name": "simclr", **HEADS}, {"name": "byol", **HEADS}
MISTAKES = [
    ({"terms": [MASK | {"keep": 0.05}]}, "keep 0.05 of 16 cells leaves no cell: take at least 0.0625"),
    ({"terms": [MASK | {"cell": 3}]}, "cell 3: 8 x 8 patches are not made of whole cells of 3 x 3"),
    ({"terms": [MASK | {"resolution": 0.3}]}, "resolution 0.3 of 32 px is 10 px, which is not made of whole patches"),
    ({"terms": [MASK], "model": WITHOUT_CLS}, "score cls needs a CLS token, which the backbone"),
    (
        {"terms": [MASK | {"score": "pool"}], "model": WITHOUT_CLS},
        "score pool is the attention of model.head attention: set that head, or take score similarity",
    ),
    ({"terms": [MASK | {"views": 1}, SIMCLR]}, "compares two views of a picture, and attentive_mask.views is 1: set 2"),
    ({"terms": [BYOL]}, "it learns from the moving average of the term attentive_mask: add it"),
    ({"terms": [MASK | {"mode": "random"}, BYOL]}, "add it, with a mode other than random"),
    ({"terms": [], "objective": MASK}, "it has no loss: name it under terms"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_mistakes_are_found_before_the_first_step(changes, message):
    params = a_clip(**changes)
    (fault,) = recipe_faults(params)
    assert message in fault.message and fault.key == (("objective",) if "objective" in changes else ("terms",))
    with pytest.raises(ParamsError, match=message.split(",")[0][:40]):
        assemble(params, MadeTexts(params, HIDDEN), 1, 8, 24)


def test_a_head_on_the_cls_token_needs_one():
    (fault,) = recipe_faults(a_clip(terms=[], model=WITHOUT_CLS | {"head": "cls"}))
    assert fault.key == ("model", "head") and "has no class token" in fault.message


@pytest.mark.parametrize(("score", "head"), [("similarity", "pooled"), ("pool", "attention")])
def test_a_backbone_without_a_cls_token_is_scored_in_another_way(world, score, head):
    pooled = {**HEADS, "feature": "pooled"}
    terms = [MASK | {"score": score}, {"name": "simclr", **pooled}, {"name": "byol", **pooled}]
    params = a_clip(model=WITHOUT_CLS | {"head": head}, terms=terms, epochs=1)
    assert list(recipe_faults(params)) == []
    assert len(train_on(ALONE, world, world / "checkpoints", params).metrics) == 3
