"""Several terms as one objective: weighted shares, what is frozen, groups of parameters, and the state."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from flame_core.errors import ParamsError
from flame_core.objectives import create_objective, recipe_needs, term_classes, term_needs
from flame_core.objectives.batch import Moment
from flame_core.objectives.infonce import InfoNCE
from flame_core.objectives.moving_average import MovingAverage
from flame_core.objectives.objective import Objective
from flame_core.objectives.term import Needs, Term
from flame_core.params import TermParams, TrainParams
from flame_core.params.objectives import OBJECTIVES
from flame_core.params.training import OptimizerParams
from flame_core.processes.ranks import ALONE
from tests.objectives.terms import batch_of, setup


class TaughtParams(TermParams):
    name: Literal["taught"] = "taught"


class Taught(Term):
    """A frozen teacher with batch statistics, an average, a head, a scalar; two shares."""

    def __init__(self, params, setup):
        super().__init__(params, setup)
        self.teacher = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
        self.head = nn.Linear(8, 8)
        self.past = MovingAverage(self.head)
        self.scale = nn.Parameter(torch.tensor(2.0))

    @classmethod
    def needs(cls, params):
        return Needs(views=3, reads=frozenset({"cls"}), sidecars=("labels",))

    def forward(self, features, batch, ranks):
        z = features["z"][:, 0, 0]
        return {"near": (self.head(z) - self.teacher(z)).square().mean(), "small": self.scale.square()}

    def after_step(self, tower, features, batch, at, ranks):
        self.past.update(self.head, 0.5)

    def frozen(self):
        return [self.teacher]

    def scalars(self):
        return {"scale": self.scale.item()}


def test_each_loss_has_params_and_a_class():
    assert set(term_classes()) == set(OBJECTIVES)


def test_a_loss_without_a_class_is_named(monkeypatch):
    monkeypatch.delitem(term_classes(), "cosine")
    with pytest.raises(ParamsError, match=r"the loss cosine has params, but no class in .*term_classes: add it"):
        term_needs(TrainParams.model_validate({"terms": [{"name": "cosine"}]}))


@pytest.fixture
def params(monkeypatch) -> TrainParams:
    monkeypatch.setitem(term_classes(), "taught", Taught)
    known = TrainParams.model_validate({"objective": {"name": "infonce", "weight": 0.5}, "terms": [{"name": "cosine"}]})
    return known.model_copy(update={"terms": [*known.terms, TaughtParams(weight=0.25)]})


@pytest.fixture
def objective(params) -> Objective:
    torch.manual_seed(0)
    return create_objective(params, setup(4))


def features() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    z = F.normalize(torch.randn(4, 1, 1, 8, generator=generator), dim=-1)
    return {"z": z, "t": F.normalize(torch.randn(4, 2, 8, generator=generator), dim=-1)}


BATCH = batch_of(torch.ones(4, 2))


def test_shares_are_weighted_and_named(objective):
    shares = objective(features(), BATCH, ALONE)
    assert list(shares) == ["infonce", "cosine", "taught/near", "taught/small"]
    assert shares["taught/small"].item() == pytest.approx(0.25 * 4.0)
    unweighted = objective.terms["infonce"](features(), BATCH, ALONE)["infonce"]
    assert shares["infonce"].item() == pytest.approx(0.5 * unweighted.item())
    assert objective.scalars() == pytest.approx({"logit_scale": 14.285714, "taught/scale": 2.0})


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ({"near": torch.ones(4)}, r"the share near of the term taught has the shape \[4\], and is a number"),
        ({"near": torch.ones(1)}, r"the share near of the term taught has the shape \[1\]"),
        (torch.tensor(1.0), r"the term taught returns its loss as \{name: number\}, not Tensor"),
    ],
)
def test_a_term_that_returns_something_else_than_numbers_by_name_is_named(objective, monkeypatch, returned, said):
    monkeypatch.setattr(Taught, "forward", lambda *_: returned)
    with pytest.raises(TypeError, match=said):
        objective(features(), BATCH, ALONE)


def test_needs_are_those_of_all_terms(params):
    needs = Needs(views=3, reads=frozenset({"z", "cls"}), sidecars=("labels",), texts=True)
    assert recipe_needs(params) == needs


def test_what_is_frozen_is_never_trained_in_train_mode_or_saved(objective):
    taught = objective.terms["taught"]
    objective.train()
    assert not taught.teacher.training and not taught.teacher[1].training
    assert taught.head.training and not taught.past.training
    before = {name: value.clone() for name, value in taught.teacher.state_dict().items()}
    torch.stack(list(objective(features(), BATCH, ALONE).values())).sum().backward()
    assert all(weight.grad is None for weight in [*taught.teacher.parameters(), *taught.past.parameters()])
    assert taught.head.weight.grad is not None
    assert all(torch.equal(value, before[name]) for name, value in taught.teacher.state_dict().items())
    assert {name.split(".")[2] for name in objective.state() if "taught" in name} == {"head", "past", "scale"}


def test_heads_decay_and_scalars_do_not(objective):
    groups = objective.groups(OptimizerParams(weight_decay=0.3))
    names = {id(p): name for name, p in objective.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {
        "terms.infonce.logit_scale": 0.0,
        "terms.taught.head.weight": 0.3,
        "terms.taught.head.bias": 0.0,
        "terms.taught.scale": 0.0,
    }
    assert all(group["params"] for group in groups)  # none for the cosine


def test_the_state_is_put_back_whole_and_no_other_is_taken(objective, params):
    with torch.no_grad():
        objective.terms["taught"].scale.fill_(7.0)
    objective.after_step(setup(4).tower, features(), BATCH, Moment(0, 1, 1), ALONE)
    state = {name: value.clone() for name, value in objective.state().items()}
    torch.manual_seed(5)
    other = create_objective(params, setup(4))
    other.load_state(state)
    assert all(torch.equal(other.state()[name], value) for name, value in state.items())
    with pytest.raises(RuntimeError, match=r"head\.weight"):
        other.load_state({name: value for name, value in state.items() if "head.weight" not in name})


def test_an_average_moves_by_its_momentum_and_takes_buffers_over():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(module)
    start = module[0].weight.detach().clone()
    with torch.no_grad():
        module[0].weight.add_(1.0)
        module[1].running_mean.fill_(3.0)
    average.update(module, 0.75)
    torch.testing.assert_close(average.module[0].weight, start + 0.25)
    assert average.module[1].running_mean.tolist() == [3.0, 3.0]
    assert not any(weight.requires_grad for weight in average.parameters())


def test_a_term_stands_once():
    with pytest.raises(ValidationError, match="infonce stands more than once"):
        TrainParams.model_validate({"objective": {"name": "infonce"}, "terms": [{"name": "infonce"}]})


def test_a_term_has_no_fields_of_another():
    with pytest.raises(ValidationError, match="logit_scale"):
        TrainParams.model_validate({"objective": {"name": "cosine", "logit_scale": 3.0}})


def test_heads_of_a_contrastive_loss_decay_and_what_it_freezes_is_in_no_group(params):
    class Headed(InfoNCE):
        def __init__(self, params, setup):
            super().__init__(params, setup)
            self.head = nn.Linear(8, 8)
            self.past = MovingAverage(self.head)

    loss = Headed(params.objective.model_copy(update={"learning_rate_multiplier": 5.0}), setup(4))
    names = {id(p): name for name, p in loss.named_parameters()}
    groups = loss.groups(OptimizerParams(weight_decay=0.3))
    assert {names[id(p)]: (g["weight_decay"], g["multiplier"]) for g in groups for p in g["params"]} == {
        "logit_scale": (0.0, 5.0),
        "head.weight": (0.3, 1.0),
        "head.bias": (0.0, 1.0),
    }
