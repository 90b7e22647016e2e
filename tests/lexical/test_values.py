"""Weights of words: the activation, the heaviest words, and their stored form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flame_core.lexical.values import GRID, dense, dense_tensor, heaviest, is_active, only_active, pack, phi, unpack
from flame_core.vision.lexical_head import word_weights


def test_the_activation_is_elu_plus_one():
    assert phi(np.array([0.0, -1.0, 2.0])).tolist() == pytest.approx([1, math.exp(-1), 3])
    assert np.all(np.diff(phi(np.linspace(-5, 5, 101))) > 0)
    x = torch.linspace(-4, 4, 9)
    expected = phi(x.double().numpy())
    assert word_weights(x[None])[0].numpy() == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


def test_the_heaviest_are_kept_and_of_equal_ones_the_first():
    weights = np.array([[3.0, 1, 3, 2, 3], [0, 0, 0, 0, 0]])
    assert heaviest(weights, 2).tolist() == [[0, 2], [0, 1]]
    assert heaviest(weights, 4).tolist() == [[0, 2, 3, 4], [0, 1, 2, 3]]
    assert heaviest(weights, 9).tolist() == [[0, 1, 2, 3, 4]] * 2


def test_the_stored_form_is_a_unit_vector_of_the_heaviest():
    logits = np.rint(np.random.default_rng(0).normal(size=(6, 300)) * GRID) / GRID
    packed = pack(logits, 20)
    assert packed.dtype == np.int32 and packed.shape == (6, 20)
    numbers, weights = unpack(packed)
    assert [set(row) for row in numbers.tolist()] == [set(np.argsort(-row)[:20].tolist()) for row in logits]
    expected = phi(np.take_along_axis(logits, numbers, 1))
    assert weights == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True), rel=1e-3)
    assert np.linalg.norm(dense(packed, 300), axis=1) == pytest.approx(1, abs=1e-3)
    assert torch.equal(dense_tensor(torch.from_numpy(packed), 300), torch.from_numpy(dense(packed, 300)))


def test_numbers_of_words_up_to_the_largest_are_stored():
    logits = np.zeros((1, 2**16))
    logits[0, [5, 40_000, 65_535]] = 7
    numbers, _ = unpack(pack(logits, 3))
    assert numbers.tolist() == [[5, 40_000, 65_535]]


@pytest.mark.parametrize("words", [16, 2048, 17_149])
def test_a_word_is_active_above_the_weight_of_a_uniform_vector(words):
    uniform = np.full((1, words), 1.0)
    assert not is_active(uniform / np.linalg.norm(uniform), words).any()
    assert not is_active(word_weights(torch.zeros(1, words)).numpy(), words).any()  # as a model gives it, in float32
    assert is_active(np.eye(words)[3], words).sum() == 1
    drawn = np.abs(np.random.default_rng(0).normal(size=(3, words)))
    once = only_active(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
    assert np.array_equal(only_active(once), once) and 0 < (once > 0).mean() < 0.5
