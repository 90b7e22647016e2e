from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit

from flame_core.errors import InputError
from flame_core.suite.tasks import probe
from flame_core.suite.tasks.probe import ProbeParams
from tests.suite.datasets import vectors

NAMES = ["a", "b", "c", "d", "e", "f"]


def task(**changes) -> ProbeParams:
    return ProbeParams.model_validate({"kind": "linear_probe", **changes})


def blobs(count: int, classes: int = 6, noise: float = 0.9, seed: int = 0):
    centres = vectors(classes, 8, seed=99)
    labels = np.arange(count) % classes
    rows = centres[labels] + noise * vectors(count, 8, seed=seed)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 6])
def test_logistic_regression_with_a_validated_penalty_is_scikit_learns(classes):
    train, test = blobs(150, classes), blobs(90, classes, seed=1)
    options = task(method="logistic", seed=3)
    found = probe.train_and_test(options, train, test, NAMES[:classes], "en")
    split = StratifiedShuffleSplit(1, test_size=30, random_state=3)
    search = GridSearchCV(
        LogisticRegression(max_iter=1000, random_state=3),
        {"C": sorted(options.penalties)},
        cv=split,
        scoring="accuracy",
    ).fit(*train)
    assert found.facts["penalty"] == search.best_params_["C"]
    assert found.metrics["lp_acc1"] == pytest.approx(search.score(*test), abs=1e-6)


def test_adamw_in_one_batch_follows_its_formula():
    """AdamW with a cosine schedule by step, with the update rule written out."""
    import torch

    (x, y), epochs, rate, decay = blobs(40, 3), 5, 0.1, 0.01
    options = task(epochs=epochs, batch_size=64, learning_rate=rate, weight_decay=decay, seed=2)
    weight, bias = probe.train_adamw(x, y, 3, options)
    torch.manual_seed(2)
    layer = torch.nn.Linear(8, 3)
    theta = [layer.weight.detach().numpy().astype(float), layer.bias.detach().numpy().astype(float)]
    m, v = [np.zeros_like(p) for p in theta], [np.zeros_like(p) for p in theta]
    for step in range(epochs):
        lr = 0.5 * (1 + np.cos(np.pi * step / epochs)) * rate
        logits = x @ theta[0].T + theta[1]
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(y)), y] -= 1
        gradients = [p.T @ x / len(x), p.mean(0)]
        for i, g in enumerate(gradients):
            theta[i] *= 1 - lr * decay
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g**2
            theta[i] -= lr * (m[i] / (1 - 0.9 ** (step + 1))) / (np.sqrt(v[i] / (1 - 0.999 ** (step + 1))) + 1e-8)
    np.testing.assert_allclose(weight, theta[0], atol=1e-4)
    np.testing.assert_allclose(bias, theta[1], atol=1e-4)


def test_both_methods_learn_and_repeat_themselves():
    train, test = blobs(240), blobs(120, seed=1)
    for method in ("adamw", "logistic"):
        first = probe.train_and_test(task(method=method, batch_size=64), train, test, NAMES, "en")
        assert first.metrics["lp_acc1"] > 0.8
        again = probe.train_and_test(task(method=method, batch_size=64), train, test, NAMES, "en")
        assert again.metrics == first.metrics
        assert first.facts["training_pictures"] == 240


def test_few_shot_takes_so_many_of_each_class():
    labels = np.array([0] * 5 + [1] * 9 + [2] * 4)
    rows = probe.few_shot(labels, 4, 0, NAMES[:3])
    assert np.bincount(labels[rows]).tolist() == [4, 4, 4]
    assert probe.few_shot(labels, 4, 0, NAMES[:3]).tolist() == rows.tolist()
    assert probe.few_shot(labels, 4, 1, NAMES[:3]).tolist() != rows.tolist()
    with pytest.raises(InputError, match="class 'c' has 4 training pictures, fewer than the 5"):
        probe.few_shot(labels, 5, 0, NAMES[:3])
    train, test = blobs(240), blobs(60, seed=1)
    assert probe.train_and_test(task(shots=3), train, test, NAMES, "en").facts["training_pictures"] == 18


def test_a_class_without_training_pictures_is_refused():
    x, y = blobs(20, 2)
    with pytest.raises(InputError, match="class 2 has no training picture"):
        probe.train_logistic(x, y, 3, task(method="logistic"))
