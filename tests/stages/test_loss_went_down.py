"""The check of a training's loss, also where a ratio of losses has no value."""

from __future__ import annotations

import json

import pytest

from flame_core.gates import to_bytes
from flame_core.stages.train import _loss_went_down
from tests.training.world import recipe


@pytest.mark.parametrize(
    ("first", "last", "most", "passed", "value"),
    [
        (4.0, 3.0, 1.0, True, 0.75),
        (4.0, 4.0, 1.0, False, 1.0),
        (4.0, 6.0, 2.0, True, 1.5),
        (0.0, 0.0, 1.0, False, "0 after 0"),  # of a loss between the pictures of a batch with only one
        (0.0, 2.0, 1.0, False, "2 after 0"),
    ],
)
def test_the_last_losses_are_compared_with_the_first(first, last, most, passed, value):
    check = _loss_went_down(first, last, recipe(gates={"max_loss_ratio": most}))
    assert (check.passed, check.value, check.threshold) == (passed, value, most)
    assert json.loads(to_bytes([check]))[0]["value"] == value
