"""ProtoCLIP's term against its formulas and the anchors of a computation by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from torch.nn import functional as F

from flame_core.errors import InputError
from flame_core.objectives.batch import Moment
from flame_core.objectives.prototypes import Prototypes, prototype_losses, soft_targets
from flame_core.params import PrototypesParams
from flame_core.params.training import OptimizerParams
from flame_core.processes.ranks import ALONE
from tests.objectives.terms import batch_of, setup
from tests.training.clustered import CLUSTERS, DIMS, clusters_of, write_labels
from tests.training.world import write_world

ALL = torch.ones(3, dtype=torch.bool)
CENTROIDS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
TABLE = torch.tensor([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
H = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])


def anchored(temperature: float | None) -> float:
    targets = soft_targets(CENTROIDS, LABELS, ALL, temperature)
    return prototype_losses(H, torch.tensor(2.0), TABLE, ALL, targets).mean().item()


def test_it_is_the_loss_computed_by_hand():
    assert soft_targets(CENTROIDS, LABELS, ALL, 0.5)[0].tolist() == pytest.approx(
        [0.866813, 0.117310, 0.015876], abs=1e-6
    )
    assert anchored(0.5) == pytest.approx(1.2698472943530383, rel=1e-14)
    assert anchored(None) == pytest.approx(1.2058115336479063, rel=1e-14)


def test_targets_harden_as_the_temperature_falls():
    assert anchored(1e-3) == pytest.approx(anchored(None), rel=1e-14)


def test_the_gradient_is_that_of_a_softmax_and_reaches_only_the_pictures():
    h, table, centroids = (x.clone().requires_grad_() for x in (H, TABLE, CENTROIDS))
    with torch.no_grad():
        targets = soft_targets(centroids, LABELS, ALL, 0.5)
    prototype_losses(h, torch.tensor(2.0), table.detach(), ALL, targets).mean().backward()
    expected = 2.0 / 2 * ((2.0 * H @ TABLE.T).softmax(dim=1) - targets) @ TABLE
    assert h.grad is not None
    torch.testing.assert_close(h.grad, expected, rtol=1e-12, atol=0)
    assert table.grad is None and centroids.grad is None


def test_the_order_of_clusters_does_not_matter_and_one_cluster_is_no_problem_to_solve():
    order = torch.tensor([2, 0, 1])
    targets = soft_targets(CENTROIDS[order], order.argsort()[LABELS], ALL, 0.5)
    moved = prototype_losses(H, torch.tensor(2.0), TABLE[order], ALL, targets).mean().item()
    assert moved == pytest.approx(anchored(0.5), rel=1e-14)
    one = soft_targets(CENTROIDS[:1], torch.zeros(2, dtype=torch.long), ALL[:1], 0.5)
    assert prototype_losses(H, torch.tensor(2.0), TABLE[:1], ALL[:1], one).tolist() == [0.0, 0.0]


def test_an_empty_cluster_is_as_if_it_were_not_there():
    there = torch.tensor([True, True, False])
    targets = soft_targets(CENTROIDS, LABELS, there, 0.5)
    found = prototype_losses(H, torch.tensor(2.0), TABLE, there, targets).mean().item()
    two = soft_targets(CENTROIDS[:2], LABELS, ALL[:2], 0.5)
    assert found == pytest.approx(
        prototype_losses(H, torch.tensor(2.0), TABLE[:2], ALL[:2], two).mean().item(), rel=1e-14
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Labels and centroids of two dozen samples."""
    root = tmp_path_factory.mktemp("clustered")
    write_world(root)
    return write_labels(root, np.arange(24) % 4, clusters_of(hidden=8))


def term_of(folder: Path, micro: int | None = None, **values) -> Prototypes:
    torch.manual_seed(0)
    params = PrototypesParams(**{"hidden": 12, "dim": 6} | values)
    own = setup(batch_size=4)
    return Prototypes(params, dataclasses.replace(own, sidecars={params.labels: folder}, micro_batch_size=micro))


def step(term: Prototypes, pooled: torch.Tensor, labels: list[int], at: int, per_epoch: int = 2) -> torch.Tensor:
    """The share of pooled [b, C] with these labels in step `at`; the sums are updated after it."""
    batch = batch_of(torch.ones(len(labels), 1)).with_extra(clusters=torch.tensor(labels))
    share = term({"pooled": pooled[:, None]}, batch, ALONE)["prototypes"]
    with torch.no_grad():
        term.after_step(setup(4).tower, {}, batch, Moment(at, 100, per_epoch), ALONE)
    return share


def test_the_table_is_the_mean_by_label_of_the_last_episode(folder):
    term = term_of(folder)
    term.head = torch.nn.Sequential(torch.nn.Identity())
    rows = torch.tensor([[3.0, 4.0, 0, 0, 0, 0], [0, 0, 1.0, 0, 0, 0], [4.0, 3.0, 0, 0, 0, 0]])
    assert step(term, rows[:2], [0, 2], at=0).item() == 0  # the first episode has no table
    assert step(term, rows[2:].repeat(2, 1), [0, 3], at=1).item() == 0
    assert term.there.tolist() == [True, False, True, True, False]
    expected = torch.zeros(CLUSTERS, 6)
    expected[0, :2], expected[2, 2], expected[3, :2] = torch.tensor([0.7, 0.7]), 1.0, torch.tensor([0.8, 0.6])
    torch.testing.assert_close(term.table, expected)
    assert not term.sums.any() and not term.counts.any()
    assert step(term, rows[:2], [0, 2], at=2).item() > 0


def test_the_table_is_a_segment_mean():
    """Labels 0, 0, 2, 2, 2 of the features 0 to 9 as [5, 2]."""
    term = Prototypes.__new__(Prototypes)
    torch.nn.Module.__init__(term)
    term._params = PrototypesParams()
    labels = torch.tensor([0, 0, 2, 2, 2])
    term.sums = torch.zeros(4, 2).index_put_((labels,), torch.arange(10.0).view(5, 2), accumulate=True)
    term.counts = torch.bincount(labels, minlength=4).float()
    term.table, term.there = torch.zeros(4, 2), torch.zeros(4, dtype=torch.bool)
    term._swap()
    assert term.table.tolist() == [[1, 2], [0, 0], [6, 7], [0, 0]]


def test_an_episode_is_so_many_steps_and_earlier_ones_count_as_decay_says(folder):
    term = term_of(folder, episode_steps=1, decay=0.5)
    term.head = torch.nn.Sequential(torch.nn.Identity())
    x, y = torch.eye(6)[:1].repeat(2, 1), torch.eye(6)[1:2].repeat(2, 1)
    step(term, x, [0, 1], at=0)
    step(term, y, [0, 2], at=1)
    assert term.table[0, :2].tolist() == pytest.approx([1 / 3, 2 / 3])  # 0.5 of one, 1 of the other
    assert term.there.tolist() == [True, True, True, False, False]


def test_a_picture_whose_cluster_has_no_prototype_has_no_share(folder):
    term = term_of(folder, episode_steps=1)
    pooled = torch.randn(4, 24, generator=torch.Generator().manual_seed(1))
    step(term, pooled, [0, 1, 2, 2], at=0)
    h = F.normalize(term.head(pooled), dim=-1)[:3]
    targets = soft_targets(term.teacher.centroids, torch.tensor([0, 1, 2]), term.there, 0.05)
    losses = prototype_losses(h, term.logit_scale.exp(), term.table, term.there, targets)
    expected = losses.sum().item() / 4
    assert step(term, pooled, [0, 1, 2, 3], at=1).item() == pytest.approx(expected, rel=1e-5)


def test_parts_of_a_batch_give_the_same_loss_and_gradients(folder):
    pooled = torch.randn(4, 24, generator=torch.Generator().manual_seed(1))
    found = []
    for micro in (None, 3):
        term = term_of(folder, micro, episode_steps=1)
        step(term, pooled, [0, 1, 2, 2], at=0)
        leaf = pooled.clone().requires_grad_()
        batch = batch_of(torch.ones(4, 1)).with_extra(clusters=torch.tensor([2, 1, 0, 0]))
        share = term({"pooled": leaf[:, None]}, batch, ALONE)["prototypes"]
        share.backward()
        found.append((share.detach(), leaf.grad, term.head[0].weight.grad, term.logit_scale.grad))
    for one, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, one, rtol=1e-5, atol=1e-7)


def test_direct_compares_z_with_the_captions_centroids_in_their_reduced_space(folder):
    term = term_of(folder, mode="direct")
    z = F.normalize(torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(2)), dim=-1)
    labels = torch.tensor([0, 1, 2, 3])
    batch = batch_of(torch.ones(4, 1)).with_extra(clusters=labels)
    (share,) = term({"z": z[:, None]}, batch, ALONE).values()
    found = clusters_of(hidden=8)
    centroids = torch.from_numpy(found.centroids)[:4]  # the fifth is empty
    h = F.normalize(z[:, 0] @ torch.from_numpy(found.basis), dim=-1)
    targets = (centroids @ centroids.T / 0.05).softmax(dim=1)
    expected = F.cross_entropy(14.285714 * h @ centroids.T, targets)
    assert share.item() == pytest.approx(expected.item(), rel=1e-5)
    assert [name for name, _ in term.named_parameters()] == ["logit_scale"]


def test_the_head_does_not_decay_and_clusters_from_files_are_not_saved(folder):
    term = term_of(folder)
    groups = term.groups(OptimizerParams(weight_decay=0.5))
    assert {group["weight_decay"] for group in groups} == {0.0}
    assert sum(len(group["params"]) for group in groups) == len(list(term.parameters()))
    assert list(term.frozen()) == [term.teacher]
    assert term.teacher.centroids.shape == (CLUSTERS, DIMS)


def test_the_scale_stays_between_1_and_100(folder):
    term = term_of(folder)
    for value, kept in ((-1.0, 1.0), (9.0, 100.0)):
        term.logit_scale.data.fill_(value)
        step(term, torch.randn(2, 24), [0, 1], at=0)
        assert term.scalars()["logit_scale"] == pytest.approx(kept)


def test_labels_out_of_range_name_file_and_row(tmp_path):
    write_world(tmp_path)
    labels = np.arange(24) % 4
    labels[17] = CLUSTERS
    folder = write_labels(tmp_path, labels, clusters_of(hidden=8))
    with pytest.raises(InputError, match=r"00000\.safetensors: row 17 has the label 5, and there are 5 clusters"):
        term_of(folder)


def test_values_that_are_no_labels_are_refused(tmp_path):
    write_world(tmp_path)
    folder = write_labels(tmp_path, np.zeros((24, 3), np.float32), clusters_of(hidden=8))
    with pytest.raises(InputError, match=r"holds float32 \[3\] per sample, and a label is one int64"):
        term_of(folder)


def test_a_sidecar_without_centroids_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"centroids\.safetensors is missing: these are no labels of `flame cluster`"):
        term_of(tmp_path)


def test_damaged_centroids_are_refused(tmp_path, folder):
    (tmp_path / "centroids.safetensors").write_bytes(save({"centroids": np.zeros((2, 3), np.float32)}))
    with pytest.raises(InputError, match=r"centroids\.safetensors is damaged"):
        term_of(tmp_path)


def test_direct_refuses_clusters_of_another_reading(folder):
    own = dataclasses.replace(setup(batch_size=4), sidecars={"clusters": folder}, reading="sentence")
    Prototypes(PrototypesParams(), own)
    with pytest.raises(InputError, match="read as facets, and the recipe reads sentence"):
        Prototypes(PrototypesParams(mode="direct"), own)


@pytest.mark.parametrize(("vectors", "hidden"), [("store", 7), ("teacher.npy", 8)])
def test_direct_refuses_clusters_of_another_space(tmp_path, vectors, hidden):
    write_world(tmp_path)
    folder = write_labels(tmp_path, np.arange(24) % 4, clusters_of(hidden=hidden), vectors)
    term_of(folder)  # the labels alone are enough for pbt
    with pytest.raises(InputError, match=rf"vectors of {hidden} dimensions from {vectors}; mode: direct"):
        term_of(folder, mode="direct")
