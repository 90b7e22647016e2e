"""A step over ranks and in pieces is the step of one process: same loss, same gradients (invariant 5)."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from flame_core.objectives import create_objective
from flame_core.params import TrainParams
from flame_core.training.distributed import ALONE, Ranks
from flame_core.training.step import Step, features
from flame_core.vision.tower import ImageTower
from tests.training.processes import on_ranks
from tests.training.world import HIDDEN, recipe

BATCH, TEXTS = 8, 2
PLAIN = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def params_of(name: str = "multi_positive_sigmoid", **model) -> TrainParams:
    if name == "facet_sigmoid":
        model["facet_blocks"] = 1
    objective = {"name": name, "texts_per_image": TEXTS, "logit_bias": "auto"}
    return recipe(model={"backbone_options": PLAIN, "image_size": 16, **model}, objective=objective)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    pictures = torch.randn(BATCH, 3, 16, 16, generator=generator)
    t = F.normalize(torch.randn(BATCH, TEXTS, HIDDEN, generator=generator), dim=-1)
    return pictures, t, torch.randint(1, 3, (BATCH, TEXTS), generator=generator)


def one_step(ranks: Ranks, params: TrainParams) -> dict[str, torch.Tensor]:
    """The loss of a step and the gradients that it leaves on a rank."""
    torch.manual_seed(0)
    tower = ImageTower(params.model, HIDDEN, facets=2)
    objective = create_objective(params.objective, BATCH)
    optimizer = torch.optim.SGD([*tower.parameters(), *objective.parameters()], lr=0.0)
    own = slice(ranks.rank * BATCH // ranks.world, (ranks.rank + 1) * BATCH // ranks.world)
    step = Step(ranks.wrap(tower), None, objective, optimizer, params, ranks, "cpu")
    for _ in range(2):  # nothing of the first may stay
        share = step(*(part[own] for part in batch()))
    ranks.sum_(share)
    named = [*tower.named_parameters(), *objective.named_parameters()]
    return {"loss": share, **{name: p.grad for name, p in named}}


def formula(params: TrainParams) -> dict[str, torch.Tensor]:
    """The same by autograd through the loss written out, in one graph."""
    torch.manual_seed(0)
    tower = ImageTower(params.model, HIDDEN, facets=2)
    objective = create_objective(params.objective, BATCH)
    loss = objective(tower(batch()[0]), *batch()[1:], ALONE)
    loss.backward()
    named = [*tower.named_parameters(), *objective.named_parameters()]
    return {"loss": loss.detach(), **{name: p.grad for name, p in named}}


def assert_equal_to(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


CASES = [("multi_positive_sigmoid", None), ("multi_positive_sigmoid", 2), ("facet_sigmoid", None), ("infonce", None)]


def every_case(ranks: Ranks) -> list[dict[str, torch.Tensor]]:
    return [one_step(ranks, params_of(name).model_copy(update={"micro_batch_size": micro})) for name, micro in CASES]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_loss_and_gradients_over_ranks_are_those_of_one_process(tmp_path, world):
    expected = [formula(params_of(name)) for name, _ in CASES]
    assert all(each["logit_scale"].abs() > 1e-3 for each in expected)  # nothing is compared with zeros
    for of_rank in on_ranks(world, every_case, tmp_path):
        for found, right in zip(of_rank, expected, strict=True):
            assert_equal_to(found, right)


@pytest.mark.parametrize("micro", [1, 3, 8, 100])
def test_pieces_of_any_size_give_the_gradients_of_the_whole(micro):
    params = params_of()
    assert_equal_to(one_step(ALONE, params.model_copy(update={"micro_batch_size": micro})), formula(params))


def test_a_piece_runs_twice_with_the_same_dropout():
    """Features from the run without a graph, gradients from the run with one: they must have dropped alike."""
    torch.manual_seed(0)
    tower = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(64, 1))
    torch.nn.init.ones_(tower[1].weight)
    inputs = torch.ones(6, 64)
    z, backward = features(tower, inputs, 2, lambda: torch.autocast("cpu", enabled=False))
    z.grad = torch.ones_like(z)
    backward(1)
    assert tower[1].weight.grad.sum().item() == pytest.approx((z - tower[1].bias).sum().item())  # = what was kept


def test_activation_checkpointing_changes_no_gradient():
    for name in ("multi_positive_sigmoid", "facet_sigmoid"):
        assert_equal_to(one_step(ALONE, params_of(name, checkpoint_activations=True)), formula(params_of(name)))
