"""Errors that reach the user."""

from __future__ import annotations

import pickle

import pytest

from flame_core.errors import ParamsError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ParamsError("13, which is odd", key="train.batch_size"), "train.batch_size: 13, which is odd"),
        (ParamsError("the recipe is empty"), "the recipe is empty"),
    ],
)
def test_the_key_comes_before_the_message_also_from_another_process(error: ParamsError, said: str):
    assert str(error) == said
    other = pickle.loads(pickle.dumps(error))
    assert (str(other), other.key, other.message) == (said, error.key, error.message)
