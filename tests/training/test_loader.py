"""A batch whose pictures are left to a GPU is the same batch, within the rounding of PIL's values."""

from __future__ import annotations

import pytest
import torch

from flame_core.objectives import recipe_needs
from tests.training.a_clip import a_clip
from tests.training.world import recipe, samples_of, write_world

CROPS = {"augmentation": {"scale": [0.3, 0.9], "flip": 0.5}}


@pytest.mark.parametrize("make", [recipe, a_clip], ids=["one view", "several views and what is around"])
def test_pictures_that_are_left_to_a_gpu(tmp_path, make):
    write_world(tmp_path)
    recipes = [make(decoder=way, **CROPS) for way in ("pil", "nvjpeg")]
    batch = [(3, number) for number in range(7)]
    one, other = (samples_of(tmp_path, params)[batch] for params in recipes)
    assert one.keys == other.keys and torch.equal(one.boxes, other.boxes) and torch.equal(one.texts, other.texts)
    assert set(one.boxes[..., 4].flatten().tolist()) == {0.0, 1.0}
    moved = other.moved("cpu")
    for expected, found in ((one.pictures, moved.pictures), (one.around, moved.around)):
        if expected is None:
            assert found is None and not recipe_needs(recipes[0]).around
            continue
        assert isinstance(expected, torch.Tensor) and isinstance(found, torch.Tensor)
        assert found.shape == expected.shape and found.dtype == torch.uint8
        assert (found.int() - expected.int()).abs().max() <= 1
    torch.testing.assert_close(other.on("cpu").pictures, one.on("cpu").pictures, atol=0.02, rtol=0)
