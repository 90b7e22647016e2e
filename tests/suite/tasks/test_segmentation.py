from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from flame_core.errors import InputError
from flame_core.suite.content import Masked, Picture
from flame_core.suite.tasks import segmentation
from flame_core.suite.tasks.segmentation import SegmentationParams
from flame_core.vision.lexical_head import LexicalHead, word_weights
from tests.suite.datasets import vectors


def task(**changes) -> SegmentationParams:
    return SegmentationParams.model_validate({"kind": "segmentation", **changes})


def png(array, mode="L") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8), mode).save(file, "PNG")
    return file.getvalue()


def test_a_4x4_mask_by_hand():
    """2x2 patches say [[0, 1], [1, 1]]; the mask is 0 on the left, 1 on the right, its first row is ignored."""
    mask = np.array([[255] * 4, [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]])
    eye = np.eye(2, dtype=np.float32)
    patches = eye[np.array([[0, 1], [1, 1]])]
    predicted = segmentation.label_patches(patches, eye, mask, task())
    assert predicted.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    both, either = segmentation.overlap(predicted, mask, 2, 255)
    assert both.tolist() == [2, 6]  # of class 0 the pixels of row 1, of class 1 the right half of rows 1 to 3
    assert either.tolist() == [6, 10]
    found = segmentation.score_overlaps([(both, either)], "en")
    assert found.metrics["miou"] == pytest.approx((2 / 6 + 6 / 10) / 2)


def test_only_present_classes_compete_unless_all_are_asked():
    mask = np.zeros((4, 4), int)
    eye = np.eye(3, dtype=np.float32)
    patches = np.broadcast_to(eye[2], (2, 2, 3))
    assert (segmentation.label_patches(patches, eye, mask, task()) == 0).all()
    assert (segmentation.label_patches(patches, eye, mask, task(candidates="all")) == 2).all()


def test_planted_patches_are_perfect_and_random_ones_are_not():
    rng = np.random.default_rng(0)
    t = vectors(5, 32)
    right, random = [], []
    for _ in range(20):
        labels = rng.integers(0, 5, (8, 8))
        mask = np.kron(labels, np.ones((4, 4), int))
        for patches, overlaps in ((t[labels], right), (vectors(64, 32, seed=1).reshape(8, 8, 32), random)):
            predicted = segmentation.label_patches(patches, t, mask, task())
            overlaps.append(segmentation.overlap(predicted, mask, 5, 255))
    assert segmentation.score_overlaps(right, "en").metrics["miou"] == 1
    chance = 1 / (2 * 5 - 1)  # of independent uniform labels: 1/25 over 2/5 - 1/25
    assert segmentation.score_overlaps(random, "en").metrics["miou"] == pytest.approx(chance, abs=0.05)


def test_patches_of_a_head_of_words_are_perfect_if_each_is_a_row_of_its_codebook():
    head = LexicalHead(width=16, dims=16, words=16)
    head.start_from(6 * torch.eye(16))
    head.block, head.layers = torch.nn.Identity(), torch.nn.Identity()
    t = word_weights(6 * torch.eye(16)[:5]).numpy()  # classes that are words
    rng = np.random.default_rng(0)
    for planted, expected in ((True, 1.0), (False, 1 / 9)):
        overlaps = []
        for _ in range(20):
            labels = rng.integers(0, 5, (8, 8))
            rows = torch.eye(16)[labels] if planted else torch.from_numpy(rng.normal(size=(8, 8, 16))).float()
            patches = head.of_patches(rows.reshape(1, 64, 16)).detach().numpy().reshape(8, 8, 16)
            predicted = segmentation.label_patches(patches, t, labels, task())
            overlaps.append(segmentation.overlap(predicted, labels, 5, 255))
        found = segmentation.score_overlaps(overlaps, "en").metrics["miou"]
        assert found == pytest.approx(expected, abs=0.0 if planted else 0.05)


def test_a_class_that_is_in_no_picture_does_not_count():
    overlaps = [(np.array([3.0, 0, 0]), np.array([4.0, 2, 0]))]
    found = segmentation.score_overlaps(overlaps, "en")
    assert found.metrics["miou"] == pytest.approx((3 / 4 + 0) / 2)
    assert found.facts["classes"] == 2


def test_masks_are_cut_as_the_model_sees_the_picture():
    wide = np.arange(24).reshape(3, 8) % 3
    assert segmentation.view_of_mask(png(wide), "m", 3, 255).tolist() == wide[:, 2:5].tolist()
    with pytest.raises(InputError, match="mask m: value 2 is none of the 2 classes"):
        segmentation.view_of_mask(png(wide), "m", 2, 255)
    with pytest.raises(InputError, match="mask m: must have one channel"):
        segmentation.view_of_mask(png(np.zeros((4, 4, 3)), "RGB"), "m", 2, 255)


def test_masks_in_which_nothing_counts_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.full((4, 4), 255)))
    shown = Picture("a.png", tmp_path / "a.png")
    eye = np.eye(2, dtype=np.float32)
    seen = SimpleNamespace(patches=lambda picture: eye[np.zeros((2, 2), int)], texts=lambda texts: eye[: len(texts)])
    content = Masked([shown], [shown], {"en": ["a", "b"]})
    with pytest.raises(InputError, match="no pixel of the 1 masks counts, because all have the value 255"):
        segmentation.score_patches(task(), content, "en", cast(Any, seen))
