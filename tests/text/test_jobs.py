"""Which texts a file of the store holds in each reading, and which vectors a recipe draws from."""

from __future__ import annotations

import pytest

from flame_core.captions.table import Caption, write_captions
from flame_core.params import TextParams
from flame_core.text.jobs import (
    Job,
    facet_count,
    facet_number,
    reading_of,
    recipe_slots,
    sentence_jobs,
    slot_names,
    training_job,
)
from tests.conftest import text_params
from tests.training.world import recipe


@pytest.fixture
def params() -> TextParams:
    """Two raw captions and a short one per sample, in both readings."""
    return text_params(train_kinds=["raw", "short"], captions_per_image=2, sentence={})


def test_a_sample_s_vectors_are_named_facets_first(params: TextParams) -> None:
    facets = ["raw/1", "raw/1#2", "short/1", "short/2", "short/3"]
    assert slot_names(params) == [*facets, "raw/sentence", "raw/sentence#2", "short/sentence"]
    assert slot_names(params.model_copy(update={"sentence": None})) == facets


def test_a_sentence_belongs_to_no_facet() -> None:
    names = ["raw/1", "short/3", "raw/sentence", "short/sentence#2"]
    assert [facet_number(name) for name in names] == [1, 3, 0, 0]
    assert [reading_of(name) for name in names] == ["facets", "facets", "sentence", "sentence"]
    assert (facet_count(names), facet_count(names[2:])) == (3, 0)


def test_a_recipe_draws_from_its_kinds_and_its_reading(params: TextParams) -> None:
    names = slot_names(params)

    def drawn(**changes: object) -> list[str]:
        return [names[i] for i in recipe_slots(names, recipe(**changes))]

    assert drawn() == names[:5]
    assert drawn(kinds=["raw"]) == ["raw/1", "raw/1#2"]
    assert drawn(reading="sentence") == names[5:]
    assert drawn(reading="sentence", kinds=["short"]) == ["short/sentence"]


def test_several_captions_of_any_kind(tmp_path) -> None:
    params = text_params(train_kinds=["raw", "long"], captions_per_image={"long": 3})
    longs = [Caption(0, "a", "long", text, "en", "table") for text in ("a1", "a2", "a3", "a4")]
    others = [Caption(1, "b", "long", text, "en", "table") for text in ("b1", "b2")]
    raw = [Caption(row, key, "raw", f"{key} raw", "en", "source") for row, key in enumerate("abc")]
    (tmp_path / "train").mkdir()
    write_captions(tmp_path / "train/00000.parquet", [raw[0], *longs, raw[1], *others, raw[2]])
    job = training_job(tmp_path, "train/00000.tar", params, "en")
    assert job.texts["raw"] == ["a raw", "b raw", "c raw"]
    assert job.texts["long"] == ["a1", "a2", "a3", "b1", "b2", "b1", "c raw", "c raw", "c raw"]
    assert [name for name in slot_names(params) if "1" in name] == ["raw/1", "long/1", "long/1#2", "long/1#3"]


def test_training_captions_stand_by_sample_in_the_order_of_their_names(params: TextParams) -> None:
    texts = {"raw": ["a1", "a2", "b1", "b2"], "short": ["a", "b"]}
    (job,) = sentence_jobs([Job("train/00003", texts)], params)
    assert (job.name, job.shard) == ("train/sentence/00003", "train/00003.tar")
    assert job.texts == {"sentence": ["a1", "a2", "a", "b1", "b2", "b"]}
    assert (job.trains, job.reading) == (True, "sentence")


def test_texts_of_evaluation_are_sentences_once_whatever_their_kind(params: TextParams) -> None:
    jobs = [
        Job("texts/00000", {"raw": ["a", "b"], "short": ["b", "c"]}),
        Job("texts/benchmark-x-00000", {"long@reference": ["d"]}),
    ]
    prose, benchmark = sentence_jobs(jobs, params)
    assert (prose.name, prose.texts) == ("texts/00000-sentence", {"sentence": ["a", "b", "c"]})
    assert (benchmark.name, benchmark.of_benchmark) == ("texts/benchmark-x-00000-sentence", True)
    assert sentence_jobs(jobs, params.model_copy(update={"sentence": None})) == []
