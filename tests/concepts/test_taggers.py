"""Taggers on tiny models that the test saves: scores are those of the model, concepts without a label have no count."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from flame_core.concepts.concept_list import ConceptList, Given, concept_list
from flame_core.concepts.taggers import ClassifierTagger, SimilarityTagger, TableTagger
from flame_core.concepts.tags import TAGS, image_hits, write_tags
from flame_core.data.shards import Index, read_index
from flame_core.errors import ComputationError, InputError
from flame_core.suite.models.model import open_model
from flame_core.suite.models.picture_classifier import PictureClassifier
from tests.suite import tiny_clip
from tests.training.world import write_world


@pytest.fixture
def index(tmp_path) -> Index:
    write_world(tmp_path)
    return read_index(tmp_path / "shards", "train")


def concepts_of(*names: str) -> ConceptList:
    return concept_list([Given(name, "file", "x") for name in names], "en")


def classifier(folder: Path, several: bool) -> Path:
    """A random ViT for four labels."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        id2label={0: "Red_Foxes", 1: "tabby, tabby cat", 2: "dog", 3: "cat"},
        label2id={"Red_Foxes": 0, "tabby, tabby cat": 1, "dog": 2, "cat": 3},
        problem_type="multi_label_classification" if several else None,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("several", [False, True])
def test_labels_of_a_classifier_stand_for_concepts_with_the_same_lemmas(index, tmp_path, several):
    model = PictureClassifier(str(classifier(tmp_path / "vit", several)), "cpu")
    concepts = concepts_of("red fox", "tabby cat", "tabby", "cat", "horse")
    tagger = ClassifierTagger(
        tmp_path / "shards", model.probabilities, model.labels, concepts, "en", {"kind": "classifier"}
    )
    covered = dict(zip(concepts.names, tagger.covered.tolist(), strict=True))
    assert covered == {"cat": True, "horse": False, "red fox": True, "tabby": True, "tabby cat": True}
    rows = index[:5]
    found = tagger.scores(rows)
    from flame_core.data.shards import PictureReader

    reader = PictureReader(tmp_path / "shards")
    expected = model.probabilities([reader.jpeg(row) for row in rows])
    for name, label in (("cat", 3), ("red fox", 0), ("tabby", 1), ("tabby cat", 1)):
        assert found[:, concepts.names.index(name)] == pytest.approx(expected[:, label])
    assert several or expected.sum(axis=1) == pytest.approx(1.0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a picture classifier"):
        PictureClassifier(str(tmp_path / "empty"), "cpu")


def test_similarity_by_a_clip_is_its_cosine(index, tmp_path, byte_tokenizer):
    source = f"transformers:{tiny_clip.save(tmp_path / 'clip', byte_tokenizer)}"
    model = open_model("tiny", source, "cpu")
    vectors = model.texts("raw", ["a photo of a red.", "a photo of a blue."])
    tagger = SimilarityTagger(tmp_path / "shards", model.pictures, vectors, np.ones(2, bool), model.identity)
    found = tagger.scores(index[:6])
    assert found.shape == (6, 2) and np.abs(found).max() <= 1 + 1e-6
    from flame_core.data.shards import PictureReader

    z = model.pictures([PictureReader(tmp_path / "shards").jpeg(row) for row in index[:6]])
    assert found == pytest.approx(z @ vectors.T, abs=1e-5)
    assert str(tmp_path) not in str(tagger.identity)


def test_stored_scores_give_the_hits_of_any_threshold(tmp_path):
    draw = np.random.default_rng(0)
    scores = draw.random((50, 6)).astype(np.float32)
    covered = np.array([True, True, False, True, True, True])
    stored = write_tags(tmp_path, iter([scores[:20], scores[20:]]), covered, 0.3)
    half = scores.astype(np.float16)
    assert stored == int(((half > 0.3) & covered).sum())
    previous = None
    for threshold in (0.3, 0.5, 0.7, 0.9):
        found = image_hits(tmp_path / TAGS, np.full(6, threshold))
        for concept in range(6):
            expected = np.flatnonzero(half[:, concept] > np.float16(threshold)) if covered[concept] else []
            assert list(found[concept]) == list(expected)
        counts = [len(each) for each in found]
        assert previous is None or all(now <= then for now, then in zip(counts, previous, strict=True))
        previous = counts
    scores[3, 1] = np.nan
    with pytest.raises(ComputationError, match="no number for row 3"):
        write_tags(tmp_path, iter([scores]), covered, 0.3)


@pytest.mark.parametrize("score", [0.3, 0.55, 0.7, 0.85, 0.9])
def test_a_score_equal_to_the_threshold_is_not_above_it(tmp_path, score):
    write_tags(tmp_path, iter([np.array([[score], [score + 0.01]])]), np.ones(1, bool), 0.1)
    assert [list(rows) for rows in image_hits(tmp_path / TAGS, np.array([score]))] == [[1]]


def tagged(tmp_path: Path, **columns) -> list[list[float]]:
    """The scores of the pictures a and 1 for cat and dog, from a table of these columns."""
    pq.write_table(pa.table(columns), tmp_path / "tags.parquet")
    tagger = TableTagger(tmp_path / "tags.parquet", concepts_of("cat", "dog"), "en")
    return tagger.scores(cast(Any, [SimpleNamespace(key="a"), SimpleNamespace(key="1")])).tolist()


def test_a_table_of_tags_is_read_in_the_types_that_programs_write(tmp_path):
    none = -np.inf
    for tags in ([["dogs", "x"], ["cat"]], pa.array([["dogs", "x"], ["cat"]], pa.large_list(pa.large_string()))):
        assert tagged(tmp_path, key=["a", "1"], tags=tags) == [[none, 1.0], [1.0, none]]
    assert tagged(tmp_path, key=[1], tags=[["dog"]], scores=[[2]]) == [[none, none], [none, 2.0]]
    assert tagged(tmp_path, key=["a"], tags=pa.array([["dog", "cat"]], pa.list_(pa.string(), 2))) == [
        [1.0, 1.0], [none, none]
    ]  # fmt: skip
    keys = pa.array(["a", "1"]).dictionary_encode()
    assert tagged(tmp_path, key=keys, tags=[["dog"], None], scores=[None, None]) == [[none, 1.0], [none, none]]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"key": ["a"], "tags": ["dog, cat"]}, "`tags` holds string, and not lists"),
        ({"key": ["a"], "tags": [{"dog": 0.9}]}, "`tags` holds struct<dog: double>, and not lists"),
        ({"key": ["a"], "tags": [["dog"]], "scores": [0.9]}, "`scores` holds double, and not lists"),
        ({"key": ["a"], "tags": [["dog"]], "scores": [["high"]]}, "lists of numbers"),
        ({"key": ["a"], "tags": [["dog", None]]}, "row 0: 'a' has the tag None"),
        ({"key": ["a"], "tags": [["cat", "dog"]], "scores": [[0.1, None]]}, "row 0: 'a' has the tag 'dog' with"),
        ({"key": ["a"], "tags": [["dog"]], "scores": [[float("nan")]]}, "row 0: .* with the score nan"),
        ({"key": ["a", "b"], "tags": [["dog"], []], "scores": [[0.1], [0.2]]}, "row 1: 0 tags and 1 scores of 'b'"),
        ({"key": ["a", "a"], "tags": [["dog"], []]}, "row 1: the key 'a' is there a second time"),
        ({"key": ["a", None], "tags": [["dog"], []]}, "1 rows have no key"),
    ],
)
def test_a_table_that_says_something_else_is_refused(tmp_path, columns, told):
    with pytest.raises(InputError, match=told):
        tagged(tmp_path, **columns)
