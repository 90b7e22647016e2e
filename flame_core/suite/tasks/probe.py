"""Linear probe and few-shot: a linear classifier on frozen features, trained here, tested on the test split.

`adamw` is CLIP_benchmark's recipe (cross entropy, cosine schedule by step, no warm-up). `logistic` is scikit-learn's
logistic regression; the penalty that does best on a fifth of the training pictures is taken, the strongest of
equals, and the classifier is fitted again on all of them. Features are normalised to unit length in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from flame_core.errors import InputError
from flame_core.suite.definition import ProbeParams
from flame_core.suite.score import Score
from flame_core.suite.tasks.classification import score_labels

VALIDATION_SHARE = 0.2


def few_shot(labels: np.ndarray, shots: int, seed: int, names: Sequence[str]) -> np.ndarray:
    """Rows of `shots` pictures of each class, drawn by `seed`.

    Raises:
        InputError: a class has fewer; names it.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = []
    for label in range(len(names)):
        own = order[labels[order] == label][:shots]
        if len(own) < shots:
            raise InputError(f"few-shot probe: class {names[label]!r} has {len(own)} training pictures, not {shots}")
        chosen.append(own)
    return np.sort(np.concatenate(chosen))


def measure(
    task: ProbeParams,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    names: Sequence[str],
    language: str,
) -> Score:
    """Train on (features [N, C], labels [N]) and test.

    Args:
        task: method, shots and its numbers.
        train: unit features and labels of the training split.
        test: unit features and labels of the test split.
        names: of the classes.
        language: that the score is filed under.
    """
    x, y = train
    if task.shots is not None:
        rows = few_shot(y, task.shots, task.seed, names)
        x, y = x[rows], y[rows]
    facts: dict[str, float] = {"training_pictures": len(x)}
    if task.method == "adamw":
        weight, bias = train_adamw(x, y, len(names), task)
    else:
        penalty, weight, bias = train_logistic(x, y, len(names), task)
        facts["penalty"] = penalty
    tested = np.concatenate([test[0], np.ones((len(test[0]), 1), np.float32)], axis=1)
    score = score_labels("lp_", language, tested, np.concatenate([weight, bias[:, None]], axis=1), test[1])
    score.facts |= facts
    return score


def train_adamw(x: np.ndarray, y: np.ndarray, classes: int, task: ProbeParams) -> tuple[np.ndarray, np.ndarray]:
    """(weight [classes, C], bias [classes]) of a linear layer."""
    import torch
    from torch.nn import functional as F

    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        layer = torch.nn.Linear(x.shape[1], classes)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=task.learning_rate, weight_decay=task.weight_decay)
        steps = math.ceil(len(x) / task.batch_size) * task.epochs
        step = 0
        for _ in range(task.epochs):
            for batch in torch.randperm(len(x)).split(task.batch_size):
                for group in optimizer.param_groups:
                    group["lr"] = 0.5 * (1 + math.cos(math.pi * step / steps)) * task.learning_rate
                optimizer.zero_grad()
                F.cross_entropy(layer(features[batch]), labels[batch]).backward()
                optimizer.step()
                step += 1
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def train_logistic(
    x: np.ndarray, y: np.ndarray, classes: int, task: ProbeParams
) -> tuple[float, np.ndarray, np.ndarray]:
    """(chosen C, weight [classes, C], bias [classes]).

    Raises:
        InputError: a class has no picture to train on, or too few to hold any back.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit

    def fit(penalty: float, rows: np.ndarray) -> Any:
        return LogisticRegression(C=penalty, max_iter=1000, random_state=task.seed).fit(x[rows], y[rows])

    counts = np.bincount(y, minlength=classes)
    if counts.min() == 0:
        raise InputError(f"linear probe: class {int(counts.argmin())} has no training picture")
    everything = np.arange(len(x))
    best = task.penalties[0]
    if len(task.penalties) > 1:
        if counts.min() < 2:
            raise InputError("linear probe: a class has one training picture, too few to validate a penalty; name one")
        share = max(round(VALIDATION_SHARE * len(x)), classes)
        split = StratifiedShuffleSplit(1, test_size=share, random_state=task.seed)
        fitted, held = next(split.split(x, y))
        scores = {penalty: fit(penalty, fitted).score(x[held], y[held]) for penalty in sorted(task.penalties)}
        best = max(scores, key=lambda penalty: scores[penalty])  # the first, strongest of equals
    model = fit(best, everything)
    weight, bias = model.coef_.astype(np.float32), model.intercept_.astype(np.float32)
    if classes == 2:  # scikit-learn keeps one row for two classes
        weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
    return best, weight, bias
