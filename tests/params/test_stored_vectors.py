"""What of stored vectors is refused before they are computed or trained on."""

from __future__ import annotations

import pytest

from flame_core.params import FeaturesParams
from flame_core.training.recipe_check import recipe_faults
from tests.stages.stored_vectors import MODEL, lit


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {**MODEL, "init": None}}, "features.model needs init"),
        ({"model": {**MODEL, "head": "patches"}}, "features.model.head patches"),
        ({"model": MODEL, "views": ["mirrored"]}, "write \\[plain\\] or \\[plain, mirrored\\]"),
    ],
)
def test_a_section_that_cannot_be_stored_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        FeaturesParams.model_validate(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": MODEL}, "set model.train to none"),
        ({"model": {**MODEL, "train": "none", "head": "patches"}}, "model.head patches reads patches"),
        ({"model": {"train": "none"}, "sidecars": {}}, "weights that do not learn must come from model.init"),
        ({"inherit": {"path": "a"}}, "both say what weights the tower begins with"),
    ],
)
def test_a_recipe_on_stored_vectors_has_a_frozen_tower_and_no_crops(changes, message):
    with pytest.raises(ValueError, match=message):
        lit(**changes)


VIT = {
    "backbone_options": {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "image_size": 16,
    "head": "pooled",
    "train": "none",
    "init": {"source": "path:vit.pth"},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation": {"scale": [0.5, 1]}}, "augmentation.scale: stored features are of whole pictures"),
        (
            {"terms": [{"name": "simclr", "feature": "cls"}]},
            "the term simclr reads cls, and stored features are pooled only",
        ),
        ({"model": VIT, "terms": [{"name": "attentive_mask", "mode": "random", "cell": 1}]}, "looks at pictures"),
        ({"model": VIT, "terms": [{"name": "learned_masks", "learning_rate": 2.0}]}, "looks at pictures"),
        ({"model": {**MODEL, "train": {"last_blocks": 1}}, "sidecars": {}}, None),
        ({"model": {**MODEL, "train": {"last_blocks": 9}}, "sidecars": {}}, "model.train: last_blocks 9"),
    ],
)
def test_what_stored_vectors_cannot_give_is_found_before_a_training(changes, message):
    found = [f"{'.'.join(fault.key)}: {fault.message}" for fault in recipe_faults(lit(**changes))]
    assert (message is None and not found) or any(message in each for each in found if message)
