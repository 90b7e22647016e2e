"""The order within a cluster: a hash of seed and key, so neither shards nor the order of samples matter."""

from __future__ import annotations

import hashlib

import numpy as np

from flame_core.selections.picking import hash_numbers, ranks


def test_the_number_of_a_key_is_its_sha256():
    expected = int.from_bytes(hashlib.sha256("7 toys/é".encode()).digest()[:8], "big")
    assert hash_numbers(["a", "toys/é"], 7)[1] == expected
    assert len(hash_numbers([], 7)) == 0


def test_ranks_are_the_order_by_number_within_each_cluster():
    keys = [f"k{i}" for i in range(50)]
    clusters = np.random.default_rng(0).integers(0, 4, size=50)
    numbers = hash_numbers(keys, 0)
    found = ranks(clusters, numbers, keys)
    for cluster in range(4):
        own = np.flatnonzero(clusters == cluster)
        assert sorted(found[own]) == list(range(len(own)))
        assert own[np.argsort(found[own])].tolist() == sorted(own, key=lambda i: numbers[i])


def test_equal_numbers_are_ordered_by_key_and_the_order_of_samples_does_not_matter():
    keys, clusters, numbers = ["c", "a", "b"], np.array([0, 0, 0]), np.array([5, 5, 1], np.uint64)
    assert ranks(clusters, numbers, keys).tolist() == [2, 1, 0]
    shuffled = [2, 0, 1]
    again = ranks(clusters[shuffled], numbers[shuffled], [keys[i] for i in shuffled])
    assert again.tolist() == [0, 2, 1]


def test_a_true_random_subset_is_no_prefix_and_a_seed_is_a_choice():
    keys = [f"{i:05}" for i in range(400)]
    first = set(np.argsort(hash_numbers(keys, 0))[:100].tolist())
    assert 10 < len(first & set(range(100))) < 45  # 25 expected
    assert first != set(np.argsort(hash_numbers(keys, 1))[:100].tolist())
