"""Counts of concepts and of misaligned pairs, on cases by hand."""

from __future__ import annotations

import json

import numpy as np
from pyroaring import BitMap

from flame_core.concepts.concept_counts import Counts, Misalignment, ShardHits, count_shard

ALL = np.ones(2, bool)


def shard(rows: int, text: list[set[int]], image: list[set[int]] | None) -> ShardHits:
    sets = [BitMap(each) for each in text]
    return ShardHits(rows, sets, sets, None if image is None else [BitMap(each) for each in image])


def test_six_pairs_by_both_definitions():
    """0: the same concept; 1: different ones; 2: two and one of them; 3: only text; 4: only picture; 5: none."""
    found = count_shard(shard(6, [{0, 1, 2}, {2, 3}], [{0, 2}, {1, 4}]), "phrase", ALL)
    assert found.misalignment == Misalignment(samples=6, tagged_text=4, tagged_image=4, published=1, algorithm=4)
    assert found.misalignment.rates() == {"published": 1 / 6, "published_of_tagged": 1 / 4, "algorithm": 4 / 6}
    assert (found.phrase.tolist(), found.image.tolist(), found.both.tolist()) == ([3, 2], [2, 2], [2, 0])
    assert Misalignment().rates() == {"published": 0.0, "published_of_tagged": 0.0, "algorithm": 0.0}


def test_counts_of_shards_add_up_in_any_order():
    parts = [
        count_shard(shard(3, [{0}, {1, 2}], [{0, 1}, set()]), "bag", ALL),
        count_shard(shard(2, [set(), {0}], [{1}, {0}]), "bag", ALL),
        count_shard(shard(1, [{0}, set()], [set(), {0}]), "bag", ALL),
    ]
    a, b, c = parts
    whole = count_shard(shard(6, [{0, 5}, {1, 2, 3}], [{0, 1, 4}, {3, 5}]), "bag", ALL)
    for total in ((a + b) + c, a + (b + c), c + a + b):
        assert total.to_json() == whole.to_json()
    assert Counts.from_json(json.loads(json.dumps(whole.to_json()))).to_json() == whole.to_json()


def test_concepts_that_the_tagger_cannot_tell_have_no_count_and_misalign_nothing():
    covered = np.array([True, False])
    found = count_shard(shard(3, [{0}, {1, 2}], [{0, 1}, set()]), "phrase", covered)
    assert (found.image.tolist(), found.both.tolist()) == ([2, -1], [1, -1])
    assert found.misalignment.published == 0 and found.misalignment.tagged_text == 1
    assert (found + found).both.tolist() == [2, -1]
    without = count_shard(shard(3, [{0}, {1, 2}], None), "phrase", ALL)
    assert without.both.tolist() == [-1, -1] and without.text("phrase").tolist() == [1, 2]
