"""Hits of concepts in captions: exact sets by hand, whatever the shards, and merged counts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pyroaring import BitMap

from flame_core.captions.table import ShardCaptions
from flame_core.concepts.bitmaps import bitmap_of, read_bitmaps, rows_of, write_bitmaps
from flame_core.concepts.concept_list import ConceptList, Given, concept_list, of_classes, of_file
from flame_core.concepts.lemmas import Numbering, lemmas
from flame_core.concepts.text_hits import (
    TextHits,
    hits_of_shard,
    known_words,
    patterns_of,
    words_of_shard,
)
from flame_core.errors import InputError

CAPTIONS = [
    "Blue Jeans on a line",
    "two men at work",
    "PARIS by night",
    "a Boeing 737-200 takes off",
    "Giraffes and a giraffe's calf",
    "the United States from above",
    "hot dogs with mustard",
    "a dog in the hot sun",
    "A hot-dog stand",
    "Pajamas, folded; not jean jackets",
    "737 boxes of Boeing parts",
    "the states of a united team",
]
# concept: (bag, phrase), sets of the numbers above
EXPECTED = {
    "jeans": ({0}, {0}),
    "man": ({1}, {1}),
    "men": ({1}, {1}),
    "paris": ({2}, {2}),
    "boeing 737-200": ({3}, {3}),
    "737-200": ({3}, {3}),
    "Boeing 737": ({10}, set()),
    "giraffes": ({4}, {4}),
    "United States": ({5, 11}, {5}),
    "hot dog": ({6, 7}, {6}),
    "hot-dog": ({8}, {8}),
    "pajamas": ({9}, {9}),
}


def concepts_of(names: Sequence[str]) -> ConceptList:
    return concept_list([Given(name, "file", "x") for name in names], "en")


def hits(shards: Sequence[Sequence[str]], concepts: ConceptList, unknown="zero") -> list[TextHits]:
    vocabulary = concepts.vocabulary
    captions = [ShardCaptions(np.arange(len(texts)), list(texts)) for texts in shards]
    words = [words_of_shard(own.texts, Numbering(vocabulary, "en")) for own in captions]
    known = dict(zip(vocabulary, known_words(words, len(vocabulary)).tolist(), strict=True))
    patterns = patterns_of(concepts, known, unknown).lemmas
    return [
        hits_of_shard(own, each, patterns, Numbering(vocabulary, "en"))
        for own, each in zip(captions, words, strict=True)
    ]


def test_hit_sets_are_those_by_hand():
    concepts = concepts_of(list(EXPECTED))
    (found,) = hits([CAPTIONS], concepts)
    for number, concept in enumerate(concepts):
        assert (set(found.bag[number]), set(found.phrase[number])) == EXPECTED[concept.name], concept.name


def test_shards_and_their_order_do_not_change_a_count():
    """One shard, one caption a shard, and shards in another order: the reference loses hits of the latter."""
    draw = random.Random(3)
    words = ["red", "car", "dog", "cat", "old", "paris", "man", "men", "hot", "jeans", "states", "united", "737-200"]
    captions = [" ".join(draw.choices(words, k=draw.randrange(1, 7))) for _ in range(400)]
    pairs = [f"{a} {b}" for a in words[:6] for b in words[3:9]]
    concepts = concepts_of([*words, *pairs, "zebra", "red zebra", "hot hot"])

    def counts(shards, unknown):
        found = hits(shards, concepts, unknown)
        return [
            [sum(len(getattr(each, mode)[number]) for each in found) for number in range(len(concepts))]
            for mode in ("bag", "phrase")
        ]

    for unknown in ("zero", "drop"):
        whole = counts([captions], unknown)
        assert counts([[caption] for caption in captions], unknown) == whole
        assert counts([captions[250:], captions[100:250], [], captions[:100]], unknown) == whole
        shuffled = draw.sample(captions, len(captions))
        assert counts([shuffled[:9], shuffled[9:]], unknown) == whole
        expected = [[], []]  # by brute force
        for concept in concepts:
            kept = [lemma for lemma in concept.lemmas if lemma != "zebra"]
            gone = not kept or (unknown == "zero" and len(kept) < len(concept.lemmas))
            texts = [list(lemmas(caption, "en")) for caption in captions]
            places = [[text[i : i + len(kept)] == kept for i in range(len(text) - len(kept) + 1)] for text in texts]
            expected[0].append(0 if gone else sum(set(kept) <= set(text) for text in texts))
            expected[1].append(0 if gone else sum(any(each) for each in places))
        assert whole == expected


def test_merging_is_associative_and_counts_of_parts_add_up():
    concepts = concepts_of(["dog", "hot dog"])
    parts = hits([CAPTIONS[:4], CAPTIONS[4:7], CAPTIONS[7:]], concepts)
    offsets = [0, 4, 7]

    def moved(number, mode, concept):
        return BitMap(row + offsets[number] for row in getattr(parts[number], mode)[concept])

    for mode in ("bag", "phrase"):
        for concept in range(2):
            a, b, c = (moved(number, mode, concept) for number in range(3))
            (whole,) = hits([CAPTIONS], concepts)
            assert (a | b) | c == a | (b | c) == getattr(whole, mode)[concept]
            assert len(a) + len(b) + len(c) == len(getattr(whole, mode)[concept])


def test_a_sample_with_several_captions_counts_once_and_words_of_two_captions_are_no_hit():
    concepts = concepts_of(["hot dog", "dog"])
    captions = ShardCaptions(np.array([0, 0, 1, 1]), ["a dog", "another dog", "hot", "dog"])
    words = words_of_shard(captions.texts, Numbering(concepts.vocabulary, "en"))
    patterns = patterns_of(concepts, dict.fromkeys(concepts.vocabulary, True), "zero").lemmas
    found = hits_of_shard(captions, words, patterns, Numbering(concepts.vocabulary, "en"))
    assert [set(each) for each in found.bag] == [{0, 1}, set()]


def test_bitmaps_come_back_and_equal_sets_are_equal_bytes(tmp_path):
    sets = {"a": [BitMap(), BitMap([3, 1, 70_000])], "b": [bitmap_of(np.arange(5000))]}
    write_bitmaps(tmp_path / "x", sets)
    assert read_bitmaps(tmp_path / "x") == sets
    assert rows_of(sets["a"][1]).tolist() == [1, 3, 70_000] and rows_of(BitMap()).tolist() == []
    write_bitmaps(tmp_path / "y", {"a": [BitMap(), bitmap_of(np.array([70_000, 1, 3]))], "b": [BitMap(range(5000))]})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    (tmp_path / "x").write_bytes(b"?")
    with pytest.raises(InputError, match="cannot be read"):
        read_bitmaps(tmp_path / "x")


def test_concepts_of_several_sources_are_one_and_bad_ones_are_named(tmp_path):
    path: Path = tmp_path / "concepts.txt"
    path.write_text("# mine\n\nhot dog\n owl \n")
    given = [*of_file(path), *of_classes({"pets": ["owl", "red_fox"]}, {"pets": "names.txt"})]
    found = concept_list(given, "en")
    assert [(each.name, each.lemmas, each.sources) for each in found] == [
        ("hot dog", ("hot", "dog"), ("file",)),
        ("owl", ("owl",), ("file", "pets")),
        ("red fox", ("red", "fox"), ("pets",)),
    ]
    assert found.vocabulary == ["dog", "fox", "hot", "owl", "red"]
    path.write_text("owl\n?!\n")
    with pytest.raises(InputError, match=r"concepts\.txt, line 2: the concept '\?!' has no lemma"):
        concept_list(of_file(path), "en")
    with pytest.raises(InputError, match="names, class 2: the concept ' ' has no lemma"):
        concept_list(of_classes({"x": ["b", "_"]}, {"x": "names"}), "en")
    with pytest.raises(InputError, match=r"no concept to count.* lower concepts\.nouns\.min_captions"):
        concept_list([], "en")
    with pytest.raises(InputError, match="is missing, the file of concepts"):
        of_file(tmp_path / "none.txt")
