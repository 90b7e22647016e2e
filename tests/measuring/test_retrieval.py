from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest

from flame_core.errors import ComputationError
from flame_core.measuring import retrieval, similarity
from flame_core.measuring.retrieval import Pairing, rank_answers, retrieve, some_of


def ranking_of(scores, edges):
    """The scores themselves as queries against unit vectors, so that inner products are the scores."""
    scores = np.asarray(scores, dtype=np.float32)
    return rank_answers(scores, np.eye(scores.shape[1], dtype=np.float32), np.array(edges))


def test_hand_made_matrix():
    ranking = ranking_of(
        [
            [0.9, 0.1, 0.2, 0.3],  # right answer 0: first
            [0.9, 0.1, 0.2, 0.3],  # right answer 1: last
            [0.5, 0.4, 0.6, 0.3],  # right answers 1 and 3: the better one is third
            [0.1, 0.2, 0.3, 0.4],  # right answers 2 and 3: first
        ],
        [(0, 0), (1, 1), (2, 1), (2, 3), (3, 2), (3, 3)],
    )
    assert ranking.ranks().tolist() == [1, 4, 3, 1]
    assert ranking.hits(1).tolist() == [1, 0, 0, 1]
    assert ranking.hits(3).tolist() == [1, 0, 1, 1]
    assert ranking.hits(4).tolist() == [1, 1, 1, 1]
    assert ranking.hits(10).tolist() == [1, 1, 1, 1]


def test_ties_are_the_mean_over_all_orders():
    scores, right = [0.7, 0.5, 0.5, 0.5, 0.5, 0.2], {2, 4}
    ranking = ranking_of([scores], [(0, 2), (0, 4)])
    orders = [order for order in permutations(range(6)) if all(scores[a] >= scores[b] for a, b in pairwise(order))]
    first = [min(order.index(answer) for answer in right) for order in orders]
    assert len(orders) == 24
    for k in range(1, 7):
        assert ranking.hits(k)[0] == pytest.approx(np.mean([rank < k for rank in first]))
    assert ranking.ranks()[0] == pytest.approx(np.mean(first) + 1)


def test_constant_scores_give_exactly_chance_in_both_directions():
    pairing = Pairing.of([(0, 0), (1, 0), (2, 1), (3, 2), (3, 3), (5, 4), (6, 4), (7, 4)], list("abcde"))
    z, t = np.ones((8, 3), np.float32), np.ones((5, 3), np.float32)
    for direction in retrieval.DIRECTIONS:
        measured = retrieve(z, t, pairing, direction)
        for k in (1, 2, 3, 10):
            assert measured.recall(k) == measured.chance(k)


def test_chance_against_monte_carlo():
    pairing = Pairing.of([(0, 0), (1, 0), (2, 0), (3, 1), (4, 2), (4, 3), (5, 4), (6, 5), (7, 6)], list("abcdefg"))
    rng = np.random.default_rng(0)
    for direction in retrieval.DIRECTIONS:
        edges = pairing.towards(direction)
        queries, gallery = edges[:, 0].max() + 1, edges[:, 1].max() + 1
        draws = [
            rank_answers(rng.random((queries, gallery)), np.eye(gallery), edges).hits(3).mean() for _ in range(4000)
        ]
        measured = retrieve(np.ones((8, 1)), np.ones((7, 1)), pairing, direction)
        assert measured.chance(3) == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / 4000**0.5)
        assert measured.gallery == gallery


def test_chance_of_one_right_answer_is_k_over_n_and_all_right_is_certain():
    assert some_of(np.array([50]), np.array([1]), np.int64(10))[0] == pytest.approx(10 / 50)
    assert some_of(np.array([4, 4, 3]), np.array([4, 1, 1]), np.int64(10)).tolist() == [1, 1, 1]
    assert some_of(np.array([4]), np.array([1]), np.int64(0))[0] == 0
    assert some_of(np.array([10]), np.array([2]), np.int64(3))[0] == pytest.approx(1 - (8 * 7 * 6) / (10 * 9 * 8))


def test_pictures_that_share_a_text_are_all_right_and_the_text_takes_one_rank():
    # pictures 0 and 1 share text 0; picture 2 has text 1
    pairing = Pairing.of([(0, 0), (1, 0), (2, 1)], ["a bird", "a boat"])
    z = np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32)
    t = np.array([[1, 0], [0, 1]], dtype=np.float32)
    to_text = retrieve(z, t, pairing, "image_to_text")
    assert to_text.gallery == 2
    assert to_text.ranking.ranks().tolist() == [1, 2, 1]
    assert to_text.recall(1) == pytest.approx(2 / 3)
    to_image = retrieve(z, t, pairing, "text_to_image")
    assert to_image.gallery == 3
    assert to_image.answers.tolist() == [2, 1]
    assert to_image.ranking.hits(1).tolist() == [1, 0.5]  # pictures 1 and 2 tie for "a boat"
    assert to_image.pictures.tolist() == [0, 2]


def test_pictures_without_a_text_take_no_part():
    pairing = Pairing.of([(4, 0), (1, 1)], ["x", "y"])
    assert pairing.pictures.tolist() == [1, 4]
    z = np.full((6, 2), np.nan, np.float32)
    z[[1, 4]] = [[0, 1], [1, 0]]
    t = np.array([[1, 0], [0, 1]], np.float32)
    measured = retrieve(z, t, pairing, "image_to_text")
    assert measured.recall(1) == 1
    assert measured.pictures.tolist() == [1, 4]
    assert retrieve(z, t, pairing, "text_to_image").pictures.tolist() == [4, 1]


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    pairing = Pairing.of([(i, int(i * 0.7)) for i in range(40)], [str(i) for i in range(28)])
    z, t = (rng.integers(-3, 4, size=(n, 5)).astype(np.float32) for n in (40, 28))
    whole = retrieve(z, t, pairing, "image_to_text").ranking
    monkeypatch.setattr(similarity, "_BLOCK_SCORES", 28 * 3)
    blocks = retrieve(z, t, pairing, "image_to_text").ranking
    assert (whole.tied > 1).any()
    for name in ("ahead", "tied", "right"):
        assert np.array_equal(getattr(whole, name), getattr(blocks, name))


def test_ranking_against_a_loop():
    rng = np.random.default_rng(2)
    pairs = {(int(a), int(b)) for a, b in rng.integers(0, 30, size=(60, 2))}
    pairing = Pairing.of(pairs, [str(i) for i in range(30)])
    edges = pairing.towards("image_to_text")
    scores = rng.integers(0, 6, size=(len(pairing.pictures), 30)).astype(np.float32)
    ranking = rank_answers(scores, np.eye(30, dtype=np.float32), edges)
    for query, row in enumerate(scores):
        right = [int(b) for a, b in edges if a == query]
        best = max(row[r] for r in right)
        assert ranking.ahead[query] == sum(s > best for s in row)
        assert ranking.tied[query] == sum(s == best for s in row)
        assert ranking.right[query] == sum(row[r] == best for r in right)


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(ComputationError, match="not finite"):
        ranking_of([[np.nan, 1.0]], [(0, 1)])


def test_a_query_without_an_answer_is_a_mistake():
    with pytest.raises(ValueError, match="right answer"):
        ranking_of([[0.1, 1.0], [0.1, 0.2]], [(0, 1)])
