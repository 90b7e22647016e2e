"""The batches of a captioner's training: which pictures and captions a step has."""

from __future__ import annotations

import io
import random

import numpy as np
import torch
from PIL import Image

from flame_core.captioning.pairs import Batches, Pair
from flame_core.data.shards import IndexRow, Sample, write_shard
from flame_core.digest import text_sha256
from flame_core.params import AugmentationParams
from flame_core.vision.decoding import open_with
from flame_core.vision.views import normalised, training_view


def test_the_batch_of_a_step_follows_from_the_seed_and_its_number(tmp_path):
    jpegs = []
    for number in range(7):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 32), (30 * number, 90, 200)).save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    places = write_shard(tmp_path / "0.tar", [Sample(f"k{n}", jpeg, {}) for n, jpeg in enumerate(jpegs)])
    pairs = [
        Pair(IndexRow(f"k{n}", "train", "0.tar", n, *place, 40, 32, "", 2), (f"{n} a", f"{n} b"))
        for n, place in enumerate(places)
    ]
    changes = AugmentationParams()
    two = [(seed, Batches(pairs, tmp_path, 3, 16, changes, seed)) for seed in (0, 5)]
    for step in [0, 1, 3, 0, 2]:
        for seed, batches in two:  # by turns, so the order that is kept is another's
            epoch, place = divmod(step, 2)
            views, texts = [], []
            for number in np.random.default_rng([seed, epoch]).permutation(7)[3 * place : 3 * place + 3].tolist():
                draw = random.Random(text_sha256(f"caption {seed} {epoch} k{number}"))
                views.append(training_view(open_with("pil", jpegs[number]), 16, changes, draw).pixels)
                texts.append(draw.choice(pairs[number].captions))
            found = batches(step)
            assert torch.equal(found[0], normalised(torch.stack(views))) and found[1] == texts
