"""Linear probe and few-shot: a linear classifier is trained on frozen features and tested on the test split.

`adamw` is CLIP_benchmark's recipe (cross entropy, cosine schedule by step, no warm-up). `logistic` is scikit-learn's
logistic regression: the penalty with the best result on a fifth of the training pictures is chosen, the strongest of
equals, and the classifier is fitted again on all of them. Both normalise features to unit length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from flame_core.errors import InputError
from flame_core.params.section import Positive
from flame_core.suite.content import Labelled
from flame_core.suite.encoding import Vectors
from flame_core.suite.score import Score
from flame_core.suite.tasks.classification import label_metrics, score_labels
from flame_core.suite.tasks.task import Asked, Task, TaskParams

VALIDATION_SHARE = 0.2


class ProbeParams(TaskParams):
    """A linear classifier on the frozen features of the pictures."""

    kind: Literal["linear_probe"]
    train_split: str = "train"
    method: Literal["adamw", "logistic"] = Field(
        default="adamw", description="CLIP_benchmark's recipe, or logistic regression with a validated penalty"
    )
    shots: Positive | None = Field(default=None, description="training pictures per class; null: all")
    seed: int = 0
    learning_rate: float = Field(default=0.1, gt=0, description="adamw")
    epochs: Positive = Field(default=20, description="adamw")
    batch_size: Positive = Field(default=512, description="adamw")
    weight_decay: float = Field(default=0.0, ge=0, description="adamw")
    penalties: list[float] = Field(
        default=[1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0],
        min_length=1,
        description="logistic: values of C, the inverse penalty; the best on a fifth of the training data is used",
    )


class ProbeTask(Task[ProbeParams, Labelled]):
    """Which class does a picture show, according to a classifier trained on the features of others?"""

    params = ProbeParams
    wanted = Labelled
    wanted_is = "pictures with a class"
    exported_as = "linear_probe"
    one_language = True
    titles: ClassVar[Mapping[str, str]] = {"lp_acc1": "top-1"}

    def texts(self, params: ProbeParams, content: Labelled) -> list[str]:
        return []

    def measure(self, asked: Asked[ProbeParams, Labelled], vectors: Vectors) -> Iterator[tuple[str, Score | None]]:
        (language,) = asked.languages
        training, test = asked.training, asked.content
        assert training is not None
        if training.names != test.names:
            raise InputError(f"benchmark {asked.benchmark}: training and test split name other classes")
        train, tested = ((vectors.features(part.pictures), part.labels) for part in (training, test))
        try:
            score = train_and_test(asked.params, train, tested, test.names[language], language)
        except InputError as error:
            raise InputError(f"benchmark {asked.benchmark}: {error}") from None
        yield language, score

    def headline(self, params: ProbeParams) -> list[str]:
        return ["lp_acc1"]

    def metrics(self, params: ProbeParams) -> list[str]:
        return label_metrics("lp_")

    def training_split(self, params: ProbeParams) -> str | None:
        return params.train_split


def few_shot(labels: np.ndarray, shots: int, seed: int, names: Sequence[str]) -> np.ndarray:
    """Row numbers of `shots` pictures of each class, drawn with `seed`.

    Raises:
        InputError: a class has fewer; names it.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = []
    for label in range(len(names)):
        own = order[labels[order] == label][:shots]
        if len(own) < shots:
            raise InputError(
                f"few-shot probe: class {names[label]!r} has {len(own)} training pictures, fewer than the {shots} of "
                "task.shots: ask for fewer, or add pictures"
            )
        chosen.append(own)
    return np.sort(np.concatenate(chosen))


def train_and_test(
    params: ProbeParams,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    names: Sequence[str],
    language: str,
) -> Score:
    """Train on (features [N, C], labels [N]) and test.

    Args:
        params: the method, the shots and hyperparameters.
        train: unit features and labels of the training split.
        test: unit features and labels of the test split.
        names: of the classes.
        language: of the score.
    """
    x, y = train
    if params.shots is not None:
        rows = few_shot(y, params.shots, params.seed, names)
        x, y = x[rows], y[rows]
    facts: dict[str, float] = {"training_pictures": len(x)}
    if params.method == "adamw":
        weight, bias = train_adamw(x, y, len(names), params)
    else:
        penalty, weight, bias = train_logistic(x, y, len(names), params)
        facts["penalty"] = penalty
    tested = np.concatenate([test[0], np.ones((len(test[0]), 1), np.float32)], axis=1)
    score = score_labels("lp_", language, tested, np.concatenate([weight, bias[:, None]], axis=1), test[1])
    score.facts |= facts
    return score


def train_adamw(x: np.ndarray, y: np.ndarray, classes: int, params: ProbeParams) -> tuple[np.ndarray, np.ndarray]:
    """(weight [classes, C], bias [classes]) of a linear layer."""
    import torch
    from torch.nn import functional as F

    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        layer = torch.nn.Linear(x.shape[1], classes)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay)
        steps = math.ceil(len(x) / params.batch_size) * params.epochs
        step = 0
        for _ in range(params.epochs):
            for batch in torch.randperm(len(x)).split(params.batch_size):
                for group in optimizer.param_groups:
                    group["lr"] = 0.5 * (1 + math.cos(math.pi * step / steps)) * params.learning_rate
                optimizer.zero_grad()
                F.cross_entropy(layer(features[batch]), labels[batch]).backward()
                optimizer.step()
                step += 1
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def train_logistic(
    x: np.ndarray, y: np.ndarray, classes: int, params: ProbeParams
) -> tuple[float, np.ndarray, np.ndarray]:
    """(chosen C, weight [classes, C], bias [classes]).

    Raises:
        InputError: a class has no picture to train on, or too few to hold some out.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit

    def fit(penalty: float, rows: np.ndarray) -> Any:
        return LogisticRegression(C=penalty, max_iter=1000, random_state=params.seed).fit(x[rows], y[rows])

    counts = np.bincount(y, minlength=classes)
    if counts.min() == 0:
        raise InputError(f"linear probe: class {int(counts.argmin())} has no training picture")
    everything = np.arange(len(x))
    best = params.penalties[0]
    if len(params.penalties) > 1:
        if counts.min() < 2:
            raise InputError("linear probe: a class has one training picture, too few to validate a penalty; name one")
        share = max(round(VALIDATION_SHARE * len(x)), classes)
        split = StratifiedShuffleSplit(1, test_size=share, random_state=params.seed)
        fitted, held = next(split.split(x, y))
        scores = {penalty: fit(penalty, fitted).score(x[held], y[held]) for penalty in sorted(params.penalties)}
        best = max(scores, key=lambda penalty: scores[penalty])  # of equals the first, which is the strongest
    model = fit(best, everything)
    weight, bias = model.coef_.astype(np.float32), model.intercept_.astype(np.float32)
    if classes == 2:  # scikit-learn keeps one row for two classes
        weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
    return best, weight, bias
