"""Maps find a linear relation in pairs that they have not seen, and nothing where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flame_core.alignment.maps import COMPONENTS, Components, fit_maps, hits

PAIRS, HELD = 240, 80


def sides(seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [N, 40] and texts [N, 24] of the same 12 hidden numbers, with a large common part each."""
    draw = np.random.default_rng(seed)
    hidden = draw.normal(size=(PAIRS + HELD, 12))
    pictures = hidden @ draw.normal(size=(12, 40)) + noise * draw.normal(size=(PAIRS + HELD, 40)) + 30
    texts = hidden @ draw.normal(size=(12, 24)) + noise * draw.normal(size=(PAIRS + HELD, 24)) - 20
    return pictures.astype(np.float32), texts.astype(np.float32)


def recall(pictures: np.ndarray, texts: np.ndarray, which) -> float:
    of_pictures, of_texts = Components.of(pictures[:PAIRS]), Components.of(texts[:PAIRS])
    maps = fit_maps(of_pictures(pictures[:PAIRS]), of_texts(texts[:PAIRS]), which, 0)
    return float(hits(*maps(of_pictures(pictures[PAIRS:]), of_texts(texts[PAIRS:])), [4]).mean())


@pytest.mark.parametrize("which", ["both", "texts", "pictures"])
def test_a_linear_relation_is_found_and_chance_is_not_beaten_without_one(which):
    pictures, texts = sides(0, 0.3)
    assert recall(pictures, texts, which) > 0.8
    shuffled = np.random.default_rng(1).permutation(len(texts))
    assert recall(pictures, texts[shuffled], which) < 0.12  # chance: 4 / 80


def test_more_noise_gives_less_recall():
    found = [recall(*sides(0, noise), "both") for noise in (0.3, 3.0, 10.0)]
    assert found[0] > found[1] + 0.1 > found[2] + 0.2


def test_a_map_of_one_side_leaves_the_other_as_it_is():
    pictures, texts = sides(0, 0.3)
    of_pictures, of_texts = Components.of(pictures), Components.of(texts)
    maps = fit_maps(of_pictures(pictures), of_texts(texts), "texts", 0)
    z, t = maps(of_pictures(pictures), of_texts(texts))
    assert maps.pictures is None
    torch.testing.assert_close(z, F.normalize(of_pictures(pictures), dim=-1))
    assert t.shape == z.shape


def test_components_are_those_of_the_covariance_with_one_factor():
    pictures, _ = sides(2, 1.0)
    found = Components.of(pictures)(pictures).double()
    values = np.linalg.eigvalsh(np.cov(pictures.T, bias=True))[::-1]
    torch.testing.assert_close(
        found.T @ found / len(found), torch.diag(torch.from_numpy(values / values.sum())), atol=1e-4, rtol=1e-3
    )
    wide = np.random.default_rng(0).normal(size=(400, 500)).astype(np.float32)
    assert Components.of(wide)(wide).shape == (400, COMPONENTS)


def test_vectors_that_are_all_equal_are_no_fault_and_find_nothing():
    same, (pictures, _) = np.ones((PAIRS + HELD, 8), np.float32), sides(0, 0.3)
    assert recall(pictures, same, "both") == 0


def test_hits_are_counted_in_both_directions_and_ties_are_misses():
    z = torch.eye(3)
    t = torch.tensor([[1.0, 0, 0], [0, 0.6, 0.8], [0, 0.8, 0.6]])
    # similarities: pair 0 is first in both; of pairs 1 and 2 the other one is nearer
    np.testing.assert_array_equal(hits(z, t, [1, 2]), [[1, 0, 0], [1, 1, 1]])
    equal = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]])
    # texts 0 and 1 are the same, so picture 0 finds two, and text 1 finds picture 0
    np.testing.assert_array_equal(hits(z, equal, [1]), [[0.5, 0, 1]])
    assert not hits(torch.ones(3, 1), torch.ones(3, 1), [1, 2]).any()


def test_the_same_seed_gives_the_same_maps():
    pictures, texts = (torch.from_numpy(side) for side in sides(0, 0.3))
    one, same, other = (fit_maps(pictures, texts, "both", seed) for seed in (0, 0, 1))
    assert one.texts is not None and same.texts is not None and other.texts is not None
    assert torch.equal(one.texts, same.texts) and not torch.equal(one.texts, other.texts)
