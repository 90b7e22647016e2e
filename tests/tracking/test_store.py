"""Errors of MLflow's stores in one sentence."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from flame_core.tracking.store import trouble

MANY = """The following failures occurred while downloading one or more artifacts from file:///store:
##### File artifacts/package #####
[Errno 2] No such file or directory: '/store/package'
more
"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no such table\nin a long statement", "no such table"),
        ("\n", "MlflowException"),
        (MANY, f"{MANY.splitlines()[0]} [Errno 2] No such file or directory: '/store/package'"),
    ],
)
def test_the_sentence_says_what_was_announced(said: str, told: str) -> None:
    assert trouble("http://host", MlflowException(said)) == f"MLflow at http://host failed: {told}"
