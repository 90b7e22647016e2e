"""Errors of MLflow's stores in one sentence."""

from __future__ import annotations

import re

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


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (401, r" asks for a login, or does not accept this one: .*MLFLOW_TRACKING_USERNAME"),
        (403, r": this user may not do that \(/api/2\.0/mlflow/runs/update\)\. An admin can allow it"),
    ],
)
def test_a_refused_login_says_what_to_do(code: int, told: str) -> None:
    said = f"API request to endpoint /api/2.0/mlflow/runs/update failed with error code {code} != 200. Body: x"
    assert re.match(f"MLflow at http://host{told}", trouble("http://host", MlflowException(said)))
