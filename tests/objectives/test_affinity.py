"""TinyCLIP's term against its formula, and the anchors of a computation by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from flame_core.objectives.affinity import Affinity, affinity_loss
from flame_core.objectives.infonce import InfoNCE
from flame_core.objectives.teacher import taught
from flame_core.params import AffinityParams, InfoNCEParams, TrainParams
from flame_core.processes.ranks import ALONE
from tests.objectives.terms import batch_of, setup, share


def rows(*values: tuple[float, float]) -> Tensor:
    return F.normalize(torch.tensor(values, dtype=torch.float64), dim=1)


OF_TEACHER = rows((1, 0), (0, 1), (1, 1))
TEXTS = rows((1, 0.2), (0.1, 1), (1, 0.8))
OF_STUDENT = rows((1, 0.5), (-0.2, 1), (0.7, 1))


def anchored(pictures: Tensor, scale: float = 5.0) -> Tensor:
    logits, teacher = (scale * (each @ TEXTS.T)[..., None] for each in (pictures, OF_TEACHER))
    return affinity_loss(logits, teacher)


def test_it_is_the_loss_computed_by_hand():
    found, least = anchored(OF_STUDENT).item(), anchored(OF_TEACHER).item()
    assert found == pytest.approx(0.7928305769299178, rel=1e-14)
    assert least == pytest.approx(0.704129339537837, rel=1e-14)
    assert found - least == pytest.approx(0.0887012373920808, rel=1e-13)


def test_the_least_is_the_entropy_of_the_teacher_and_has_no_gradient():
    logits = 5 * OF_TEACHER @ TEXTS.T
    entropy = -sum((p * p.log()).sum() for p in (logits.softmax(dim=1), logits.softmax(dim=0).T)) / 6
    assert anchored(OF_TEACHER).item() == pytest.approx(float(entropy), rel=1e-14)
    pictures = OF_TEACHER.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(anchored(pictures), pictures)
    assert gradient.abs().max().item() < 1e-15


def test_a_teacher_that_is_sure_of_the_pairs_gives_clips_loss():
    sure = 1e4 * torch.eye(3, dtype=torch.float64)[..., None]
    logits = 14.0 * OF_STUDENT @ TEXTS.T
    labels = torch.arange(3)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    assert affinity_loss(logits[..., None], sure).item() == pytest.approx(expected.item(), rel=1e-14)
    z, t = OF_STUDENT.float()[:, None], TEXTS.float()[:, None]
    clip = share(InfoNCE(InfoNCEParams(logit_scale=14.0), setup(3)), z, t)
    assert clip.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_order_of_the_batch_does_not_matter():
    order = torch.tensor([2, 0, 1])
    moved = affinity_loss(*((5 * each[order] @ TEXTS[order].T)[..., None] for each in (OF_STUDENT, OF_TEACHER)))
    assert moved.item() == pytest.approx(anchored(OF_STUDENT).item(), rel=1e-14)


def vectors(seed: int, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def soft(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross entropy of rows, by torch."""
    return F.cross_entropy(logits, targets.softmax(dim=1))


def test_of_several_texts_it_is_the_mean_over_the_slots_and_each_side_has_its_scale():
    term = Affinity(AffinityParams(scale=20.0, teacher_scale=30.0), setup(5))
    z, t, seen = vectors(0, 5, 8), vectors(1, 5, 3, 8), vectors(2, 5, 8)
    z.requires_grad_()
    seen.requires_grad_()
    batch = replace(batch_of(torch.ones(5, 3)), texts=t).with_extra(**{taught("z"): seen})
    (found,) = term({"z": z[:, None, None], "t": t}, batch, ALONE).values()
    parts = []
    for slot in range(3):
        logits, targets = 20 * z @ t[:, slot].T, 30 * seen @ t[:, slot].T
        parts += [soft(logits, targets), soft(logits.T, targets.T)]
    assert found.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-5)
    found.backward()
    assert z.grad is not None and seen.grad is None
    assert not list(term.parameters())


def test_a_teacher_of_the_texts_space_is_compared_with_the_stored_vectors_whatever_the_student_makes_of_them():
    term = Affinity(AffinityParams(scale=20.0, teacher_scale=20.0), setup(5))
    z, stored, projected = vectors(0, 5, 8), vectors(1, 5, 1, 8), vectors(2, 5, 1, 8)
    batch = replace(batch_of(torch.ones(5, 1)), texts=stored).with_extra(**{taught("z"): stored[:, 0]})
    (found,) = term({"z": z[:, None, None], "t": projected}, batch, ALONE).values()
    logits, targets = (20 * each[0] @ each[1].T for each in ((z, projected[:, 0]), (stored[:, 0], stored[:, 0])))
    expected = (soft(logits, targets) + soft(logits.T, targets.T)) / 2
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_weights_of_words_are_no_vectors_of_texts():
    recipe = TrainParams.model_validate({"objective": {"name": "lexical"}, "model": {"head": "lexical"}})
    assert any("head lexical" in said for said in Affinity.faults(AffinityParams(), recipe, setup(2).tower))


def test_large_scales_stay_finite():
    term = Affinity(AffinityParams(scale=1000.0, teacher_scale=1000.0), setup(4))
    z, t = vectors(0, 4, 1, 8).requires_grad_(), vectors(1, 4, 2, 8)
    batch = replace(batch_of(torch.ones(4, 2)), texts=t).with_extra(**{taught("z"): vectors(2, 4, 8)})
    (found,) = term({"z": z[:, None], "t": t}, batch, ALONE).values()
    found.backward()
    assert math.isfinite(found.item()) and z.grad is not None and z.grad.isfinite().all()
