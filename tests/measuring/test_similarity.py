"""Scores that are equal in exact arithmetic tie: against rational arithmetic, and under every kernel of BLAS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from flame_core.errors import ComputationError
from flame_core.measuring import similarity
from flame_core.measuring.similarity import best_candidates, count_ahead, first_best, resolution, similarities

KERNELS = ["Haswell", "Prescott", "SkylakeX"]


def exact(queries: np.ndarray, gallery: np.ndarray) -> list[list[Fraction]]:
    """Inner products as fractions."""
    q, g = ([[Fraction(float(x)) for x in row] for row in part] for part in (queries, gallery))
    return [[sum((a * b for a, b in zip(x, y, strict=True)), Fraction()) for y in g] for x in q]


def awkward(rng: np.random.Generator, count: int, dimensions: int = 19) -> np.ndarray:
    """Unit vectors among which some are equal, some are each other's permutation, some differ in a last bit."""
    vectors = rng.normal(size=(count, dimensions))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors[1::5] = vectors[0]
    vectors[2::5] = np.nextafter(vectors[0], np.float32(1))
    vectors[3::5] = vectors[0, ::-1]
    return vectors


@pytest.mark.parametrize("crowded", [1, 64, 10**6])
def test_counts_against_rational_arithmetic(monkeypatch, crowded):
    """A query of equal numbers gives permutations the same score; both roads of the second pass are taken."""
    monkeypatch.setattr(similarity, "_CROWDED", crowded)
    monkeypatch.setattr(similarity, "_BLOCK_SCORES", 40 * 7)
    rng = np.random.default_rng(0)
    queries, gallery = awkward(rng, 30), awkward(rng, 40)
    queries[4::5] = np.float32(19**-0.5)
    edges = np.array(sorted({(i, int(j)) for i in range(30) for j in rng.integers(0, 40, 2)}))
    ahead, tied, right = count_ahead(queries, gallery, edges)
    for query, row in enumerate(exact(queries, gallery)):
        answers = [row[j] for i, j in edges.tolist() if i == query]
        best = max(answers)
        assert ahead[query] == sum(score > best for score in row)
        assert tied[query] == sum(score == best for score in row)
        assert right[query] == sum(score == best for score in answers)
    assert tied.max() >= 8


def test_scores_are_within_half_of_the_resolution():
    rng = np.random.default_rng(1)
    queries, gallery = (rng.normal(size=(n, 200)).astype(np.float32) * 100 for n in (5, 9))
    found, bound = similarities(queries, gallery), resolution(queries, gallery) / 2
    for line, exactly, most in zip(found, exact(queries, gallery), bound, strict=True):
        assert all(abs(Fraction(a) - b) <= most for a, b in zip(line.tolist(), exactly, strict=True))


def test_best_candidates_in_order_ties_in_gallery_order():
    order, scores = best_candidates(np.array([[1.0, 0.0]]), np.array([[0.2, 0], [0.9, 0], [0.2, 0], [0.5, 1]]), 3)
    assert order.tolist() == [[1, 3, 0]]
    assert scores.tolist() == [[0.9, 0.5, 0.2]]
    assert best_candidates(np.ones((1, 1)), np.ones((2, 1)), 9)[0].shape == (1, 2)


def test_equals_keep_the_order_of_the_gallery():
    rng = np.random.default_rng(2)
    vector, other = rng.normal(size=(2, 300)).astype(np.float32)
    gallery = np.stack([other - vector, *[vector] * 40])
    assert best_candidates(vector[None], gallery, 41)[0].tolist() == [[*range(1, 41), 0]]
    scores = similarities(vector[None], gallery)
    assert first_best(scores, resolution(vector[None], gallery)).tolist() == [1]


def test_a_vector_that_is_not_finite_is_refused():
    broken = np.ones((3, 4), np.float32)
    broken[2, 1] = np.nan
    with pytest.raises(ComputationError, match="not finite"):
        count_ahead(np.ones((1, 4), np.float32), broken, np.array([[0, 0]]))
    with pytest.raises(ComputationError, match="not finite"):
        best_candidates(np.ones((1, 4), np.float32), broken, 1)


_MEASURE = """
import hashlib, json
import numpy as np
from threadpoolctl import threadpool_limits
from flame_core.measuring.classification import classify
from flame_core.measuring.retrieval import Pairing, both_ways
from flame_core.measuring.similarity import best_candidates
from flame_core.suite.tasks.choice import chosen

rng = np.random.default_rng(0)
pairing = Pairing.of([(int(rng.integers(300)), text) for text in range(500)], [str(text) for text in range(500)])
point = rng.normal(size=896).astype(np.float32)
point /= np.linalg.norm(point)
models = {
    "constant": (np.tile(point, (300, 1)), np.tile(point, (500, 1))),
    "few": (rng.integers(-1, 2, (300, 896)).astype(np.float32), rng.integers(-1, 2, (500, 896)).astype(np.float32)),
    "equal": (rng.normal(size=(300, 896)).astype(np.float32), rng.normal(size=(500, 896)).astype(np.float32)),
}
models["equal"][1][::3] = models["equal"][1][0]


def measure():
    found = {}
    for name, (z, t) in models.items():
        for direction, measured in both_ways(z, t, pairing).items():
            both = [[measured.recall(k), measured.chance(k)] for k in (1, 5, 10)]
            digest = hashlib.sha256(measured.ranking.ranks().tobytes()).hexdigest()
            found[f"{name}/{direction}"] = [both, digest]
        found[f"{name}/first"] = best_candidates(z[:7], t, 5)[0].tolist()
        found[f"{name}/choice"] = [chosen(z[[i, i]], t[[i, i + 3]], "wrong") for i in range(0, 30, 3)]
    classes = {str(i): str(i % 10) for i in range(300)}
    z, t = models["equal"][0], np.tile(point, (10, 1))
    found["classes"] = classify(z, [str(i) for i in range(300)], classes, t).hits(1).tolist()
    return found


answers = []
for threads in (1, 2):
    with threadpool_limits(threads):
        answers.append(measure())
print(json.dumps(answers))
"""


def test_every_kernel_and_number_of_threads_ranks_alike_and_a_constant_model_gets_chance():
    """The kernels are those of x86; elsewhere OpenBLAS takes its own, and threads alone differ."""
    answers = []
    for kernel in KERNELS:
        setting = {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": "2"}
        command = [sys.executable, "-c", _MEASURE]
        done = subprocess.run(command, env=os.environ | setting, capture_output=True, text=True, timeout=60)
        if done.returncode < 0:  # the processor lacks the kernel's instructions
            continue
        assert done.returncode == 0, done.stderr
        answers += json.loads(done.stdout)
    assert len(answers) >= 4 and all(answer == answers[0] for answer in answers)
    for direction in ("image_to_text", "text_to_image"):
        for recall, chance in answers[0][f"constant/{direction}"][0]:
            assert recall == chance
    assert not any(any(pair) for pair in answers[0]["constant/choice"])
    assert answers[0]["constant/first"] == [[0, 1, 2, 3, 4]] * 7
    assert answers[0]["classes"] == pytest.approx([0.1] * 300, abs=1e-7)
