from __future__ import annotations

from flame_core.captions.table import Caption, write_captions
from flame_core.data.shards import Sample, write_shard
from flame_core.measuring.measures import evaluate
from flame_core.measuring.texts import (
    class_names,
    class_prompts,
    evaluated_languages,
    evaluation_texts,
    pair_up,
    read_classes,
    read_validation_captions,
    stored_texts,
)
from flame_core.params import EvaluateParams
from tests.measuring import world


def test_texts_that_differ_in_case_and_punctuation_alone_are_one():
    rows = [
        Caption(i, f"k{i}", "raw", text, "en", "x") for i, text in enumerate(["A cat.", "a CAT", "A cart.", "A cat!"])
    ]
    pairing = pair_up(rows, {f"k{i}": i for i in range(4)}, "raw", "en")
    assert pairing.texts == ["A cat.", "A cart."]
    assert pairing.edges.tolist() == [[0, 0], [1, 0], [2, 1], [3, 0]]


def test_pairing_by_identity_within_a_language():
    rows = {key: index for index, key in enumerate(world.KEYS)}
    pairing = pair_up(world.captions(), rows, "raw", "en")
    assert len(pairing.texts) == 11
    assert pairing.edges[:3].tolist() == [[0, 0], [1, 0], [2, 1]]
    german = pair_up(world.captions(), rows, "raw", "de")
    assert len(german.texts) == len(german.pictures) == 10
    assert pair_up(world.captions(), rows, "raw", "xx").texts == []


def test_languages(tmp_path):
    captions = world.captions()
    assert evaluated_languages(world.params(tmp_path).evaluate, captions) == ["en", "de", "fr"]
    assert evaluated_languages(world.params(tmp_path, languages="all").evaluate, captions) == ["en", "de", "fr"]
    listed = world.params(tmp_path, languages=["fr", "en", "xx", "fr"]).evaluate
    assert evaluated_languages(listed, captions) == ["en", "fr", "xx"]
    trained = world.params(tmp_path, languages=["en"], train_language="de").evaluate
    assert evaluated_languages(trained, captions) == ["de", "en"]


def test_what_is_embedded_is_exactly_what_is_looked_up(tmp_path):
    params, captions, classes = world.params(tmp_path), world.captions(), world.classes()
    used = set()

    def lookup(kind, texts):
        used.update((kind, text) for text in texts)
        return world.lookup(kind, texts)

    evaluate(params, world.pictures_that_know("en", captions)[:, None], world.KEYS, captions, classes, lookup, {})
    listed = evaluation_texts(params, captions, class_names(classes))
    assert set(listed) == used
    assert len(listed) == len(used) == 11 + 10 + 1 + 12 + 3 * 2
    assert listed == evaluation_texts(params, captions, class_names(classes))


def test_short_texts_only_where_they_are_trained_on(tmp_path):
    params = world.params(tmp_path)
    text = params.text.model_copy(update={"train_kinds": ["raw"]})
    params = params.model_copy(update={"text": text})
    assert {kind for kind, _ in evaluation_texts(params, world.captions(), [])} == {"raw"}


def test_equal_texts_are_listed_once(tmp_path):
    captions = [caption for caption in world.captions() if caption.kind == "raw"]
    doubled = [*captions, *captions]
    params = world.params(tmp_path)
    assert evaluation_texts(params, doubled, []) == evaluation_texts(params, captions, [])


def test_class_prompts_read_like_words(tmp_path):
    params = world.params(tmp_path).evaluate
    assert class_prompts(params, "natural_forces") == ["natural forces", "a drawing of natural forces"]


def test_classes_and_captions_are_read_from_the_validation_split(tmp_path):
    (tmp_path / "shards" / "val").mkdir(parents=True)
    metas = [{"category": "animals/birds"}, {"category": "animals"}, {"category": None}, {}, {"category": " /x"}]
    samples = [Sample(f"k{index}", world.jpeg(index), meta) for index, meta in enumerate(metas)]
    write_shard(tmp_path / "shards" / "val" / "00000.tar", samples[:3])
    write_shard(tmp_path / "shards" / "val" / "00001.tar", samples[3:])
    assert read_classes(tmp_path / "shards") == {"k0": "animals", "k1": "animals"}
    (tmp_path / "captions" / "val").mkdir(parents=True)
    rows = world.captions()
    write_captions(tmp_path / "captions" / "val" / "00001.parquet", rows[7:])
    write_captions(tmp_path / "captions" / "val" / "00000.parquet", rows[:7])
    assert read_validation_captions(tmp_path / "captions", EvaluateParams()) == rows


def test_one_class_is_nothing_to_tell_apart():
    assert class_names({"a": "toys", "b": "toys"}) == []
    assert class_names({}) == []
    assert class_names({"a": "toys", "b": "boats", "c": "toys"}) == ["boats", "toys"]


def test_each_picture_has_its_first_text_as_the_store_spells_it(tmp_path):
    rows = [("a", "A dog."), ("a", "A cat"), ("b", "a dog"), ("c", "a bird"), ("c", "A DOG!")]
    captions = [Caption(0, key, "raw", text, "en", "made") for key, text in rows]
    captions.append(Caption(0, "b", "raw", "Ein Hund", "de", "made"))
    found = stored_texts(captions, "raw", "en")
    assert found == {"a": "A dog.", "b": "A dog.", "c": "a bird"}
    listed = evaluation_texts(world.params(tmp_path), captions, [])
    assert {("raw", text) for text in found.values()} <= set(listed)
    assert stored_texts(captions, "raw", "fr") == {}
