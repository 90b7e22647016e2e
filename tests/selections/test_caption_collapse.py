"""The mean cosine between captions of different pictures, by kind, against all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from flame_core.selections.caption_collapse import caption_cosines, shards_to_read
from flame_core.text.store import EMBEDDINGS, unit
from flame_core.text.tensor_file import write_tensors


def test_generated_captions_that_say_the_same_are_found(tmp_path):
    draw = np.random.default_rng(0)
    raw = unit(draw.normal(size=(30, 1, 16)))
    short = unit(draw.normal(size=(1, 2, 16)) + 0.1 * draw.normal(size=(30, 2, 16)))
    t = np.concatenate([raw, short], axis=1).astype(np.float32)
    for number, own in enumerate((t[:12], t[12:])):
        write_tensors(tmp_path / f"{number:05}.safetensors", {EMBEDDINGS: own}, "float32")
    files = [tmp_path / "00000.safetensors", tmp_path / "00001.safetensors"]
    found = caption_cosines(files, ["raw/1", "short/1", "short/2"])
    pairs = np.array([(t[i] * t[j]).sum(axis=1) for i, j in combinations(range(30), 2)]).mean(axis=0)
    assert found["raw"] == pytest.approx(pairs[0], abs=1e-5)
    assert found["short"] == pytest.approx(pairs[1:].mean(), abs=1e-5)
    assert found["short"] - found["raw"] > 0.5


def test_whole_shards_are_read_until_there_are_enough():
    sizes = {f"train/{i:05}.tar": 1000 for i in range(9)}
    found = shards_to_read(sizes)
    assert len(found) == 3 and found == sorted(found) and found != sorted(sizes)[:3]
    assert shards_to_read({"train/00000.tar": 5}) == ["train/00000.tar"]
