from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from flame_core.captions.table import Caption
from flame_core.errors import InputError
from flame_core.measuring.measures import checks, evaluate, headline_k
from tests.measuring import world


def measure(tmp_path, z=None, captions=None, classes=None, lookup=world.lookup, ceilings=None, **options):
    captions = world.captions() if captions is None else captions
    z = world.pictures_that_know("en", captions) if z is None else z
    return evaluate(
        world.params(tmp_path, **options),
        z if z.ndim == 3 else z[:, None],
        world.KEYS,
        captions,
        world.classes() if classes is None else classes,
        lookup,
        ceilings or {},
    )


def test_a_model_that_knows_english_alone(tmp_path):
    found = measure(tmp_path, ceilings={"de": {"recall@10": 0.7}, "xx": {"recall@10": 0.1}}, recall_at=[1, 3])
    m = found.metrics
    assert m["retrieval/en/n"] == 12
    assert m["retrieval/de/n"] == 10
    assert m["retrieval/fr/n"] == 1
    # 12 pictures have one text each; of the 11 texts one has two pictures, and belongs to the first of them
    for direction, pictures in (("image_to_text", 12), ("text_to_image", 11)):
        assert m[f"retrieval/en/{direction}/recall@1"] == m[f"retrieval/en/{direction}/recall@1/high"] == 1
        assert m[f"retrieval/en/{direction}/recall@1/low"] == pytest.approx(0.025 ** (1 / pictures), abs=1e-6)
        assert m[f"retrieval/en/{direction}/median_rank"] == 1
        assert m[f"retrieval/de/{direction}/recall@1"] < 0.5
        assert m[f"retrieval/de/{direction}/chance/recall@3"] == pytest.approx(0.3)
        assert m[f"retrieval/fr/{direction}/recall@1"] == m[f"retrieval/fr/{direction}/chance/recall@1"] == 1
        german, french = (m[f"retrieval/{code}/{direction}/recall@3"] for code in ("de", "fr"))
        assert m[f"retrieval/other_languages/{direction}/recall@3"] == pytest.approx((german + french) / 2, abs=1e-6)
        assert m[f"retrieval/other_languages/{direction}/chance/recall@3"] == pytest.approx((0.3 + 1) / 2)
        low, high = (m[f"retrieval/de/{direction}/recall@3/{end}"] for end in ("low", "high"))
        assert low < german < high
    assert m["retrieval/de/ceiling/recall@10"] == 0.7
    assert "retrieval/xx/ceiling/recall@10" not in m
    # 11 texts of which each picture has one; 12 pictures of which one text has two
    assert m["retrieval/en/image_to_text/chance/recall@1"] == pytest.approx(1 / 11, abs=1e-6)
    assert m["retrieval/en/text_to_image/chance/recall@1"] == pytest.approx((10 / 12 + 2 / 12) / 11, abs=1e-6)
    assert m["retrieval/chance/recall@1"] == pytest.approx((1 / 11 + 1 / 11) / 2, abs=1e-6)


def test_keys_are_flat_sorted_numbers(tmp_path):
    m = measure(tmp_path).metrics
    assert list(m) == sorted(m)
    assert all(type(value) is float for value in m.values())
    assert {"retrieval/en/image_to_text/recall@10", "retrieval/chance/recall@10", "classification/top1"} <= m.keys()
    assert not [name for name in m if name.startswith("classification/class/")]


def test_facets_one_by_one_and_averaged(tmp_path):
    """Each picture lies at the second facet of its short caption: that facet is perfect, the first is not."""
    short = {c.key: c.text for c in world.captions() if c.kind == "short"}
    z = np.stack([world.vector("short", short[key], 1) for key in world.KEYS])
    m = measure(tmp_path, z, recall_at=[1]).metrics
    for direction in ("image_to_text", "text_to_image"):
        assert m[f"facets/short/2/{direction}/recall@1"] == 1
        assert m[f"facets/short/1/{direction}/recall@1"] < 0.5


def test_the_average_of_facets_is_the_mean_of_their_similarities(tmp_path):
    short = [c.text for c in world.captions() if c.kind == "short"]
    t = world.lookup("short", short)
    z = np.stack([world.vector("anywhere", key) for key in world.KEYS])
    found = measure(tmp_path, z, recall_at=[3])
    similarity = np.mean([z @ t[:, j].T for j in range(2)], axis=0)
    for direction, scores in (("image_to_text", similarity), ("text_to_image", similarity.T)):
        ranks = 1 + (scores > np.diag(scores)[:, None]).sum(axis=1)
        assert found.facets["mean"][direction].ranking.ranks().tolist() == ranks.tolist()
        assert found.metrics[f"facets/short/mean/{direction}/recall@3"] == pytest.approx((ranks <= 3).mean(), abs=1e-6)


def test_a_picture_s_own_facet_answers_where_it_has_one(tmp_path):
    """One facet token: facet 1 meets it, facet 2 meets the whole picture, the mean takes both."""
    short = [c.text for c in world.captions() if c.kind == "short"]
    t = world.lookup("short", short)
    z, z_1 = (np.stack([world.vector(place, key) for key in world.KEYS]) for place in ("whole", "facet"))
    found = measure(tmp_path, np.stack([z, z_1], axis=1), recall_at=[3])
    similarity = {"1": z_1 @ t[:, 0].T, "2": z @ t[:, 1].T}
    similarity["mean"] = (similarity["1"] + similarity["2"]) / 2
    for facet, scores in similarity.items():
        ranks = 1 + (scores > np.diag(scores)[:, None]).sum(axis=1)
        assert found.facets[facet]["image_to_text"].ranking.ranks().tolist() == ranks.tolist()


def test_classification_numbers(tmp_path):
    t = {name: world.lookup("raw", [name, f"a drawing of {name}"])[:, 0].mean(axis=0) for name in world.CLASSES}
    classes = world.classes()
    z = np.stack([t[classes.get(key, "toys")] for key in world.KEYS])
    z[:4] = t["boats"]  # of the pictures 0 to 3, number 1 is a boat; 0 and 3 are toys, 2 is a house
    m = measure(tmp_path, z).metrics
    assert m["classification/pictures"] == 11
    assert m["classification/classes"] == 3
    assert m["classification/top1"] == pytest.approx(8 / 11, abs=1e-6)
    assert m["classification/top1/low"] < 8 / 11 < m["classification/top1/high"]
    assert m["classification/top5"] == 1
    assert m["classification/mean_per_class"] == pytest.approx((2 / 4 + 4 / 4 + 2 / 3) / 3, abs=1e-6)
    assert m["classification/majority"] == pytest.approx(4 / 11, abs=1e-6)
    assert m["classification/chance/top1"] == pytest.approx(1 / 3, abs=1e-6)


def test_no_categories_no_classification(tmp_path):
    found = measure(tmp_path, classes={})
    assert found.classification is None
    assert found.metrics["classification/classes"] == 0
    assert "classification/top1" not in found.metrics
    assert "classification/top1" not in found.headline


def test_a_language_without_captions_is_named_and_left_out(tmp_path):
    found = measure(tmp_path, languages=["de", "xx"])
    assert found.missing_languages == ["xx"]
    assert not [name for name in found.metrics if "/xx/" in name]
    check = checks(found, world.params(tmp_path, languages=["de", "xx"]).evaluate)[-1]
    assert (check.name, check.passed, check.blocking, check.value) == ("languages_present", False, False, ["xx"])


def test_english_alone_has_no_mean_over_others(tmp_path):
    found = measure(tmp_path, languages=["en"])
    assert not [name for name in found.metrics if "other_languages" in name]
    assert set(found.headline) == {
        "retrieval/en/image_to_text/recall@10", "retrieval/en/text_to_image/recall@10", "classification/top1",
    }  # fmt: skip


def test_gates_compare_recall_with_chance(tmp_path):
    options = {"recall_at": [1], "gates": {"min_recall_over_chance": 4.0}}
    params = world.params(tmp_path, **options).evaluate
    good = checks(measure(tmp_path, **options), params)
    assert [check.passed for check in good] == [True, True, True]
    assert good[0].value == pytest.approx(11 * 0.025 ** (1 / 12), abs=1e-3)  # all of 12 were hit
    blind = np.ones((12, world.DIMENSIONS), np.float32)
    bad = checks(measure(tmp_path, blind, **options), params)
    assert [(check.passed, check.blocking) for check in bad[:2]] == [(False, True)] * 2
    assert all(check.value < 1 for check in bad[:2])  # constant scores are chance


@pytest.mark.parametrize(("k", "blocking"), [(6, True), (7, False), (12, False)])
@pytest.mark.parametrize("floor", [0.0, 1.0])
def test_a_gate_that_everything_passes_has_not_passed_and_does_not_block(tmp_path, k, blocking, floor):
    """Of 12 pictures, a random order has half of the right ones among its first 6."""
    options = {"recall_at": [k], "gates": {"min_recall_over_chance": floor}}
    found = checks(measure(tmp_path, **options), world.params(tmp_path, **options).evaluate)[:2]
    assert [(check.passed, check.blocking) for check in found] == [(blocking, blocking)] * 2  # the model is perfect
    told = f"12 pictures in en are too few: a random order has a recall@{k} of "
    assert [check.description.startswith(told) for check in found] == [not blocking] * 2


def test_without_a_floor_a_model_at_chance_has_not_passed_and_does_not_block(tmp_path):
    options = {"recall_at": [1], "gates": {"min_recall_over_chance": 0.0}}
    params = world.params(tmp_path, **options).evaluate
    blind = np.ones((12, world.DIMENSIONS), np.float32)
    found = checks(measure(tmp_path, blind, **options), params)[:2]
    assert [(check.passed, check.blocking) for check in found] == [(False, False)] * 2
    assert all("does not exceed 1, and no floor is set" in check.description for check in found)
    assert all(check.threshold == 1 for check in found)  # not 0, which it does exceed
    found = checks(measure(tmp_path, **options), params)[:2]
    assert [(check.passed, check.blocking) for check in found] == [(True, True)] * 2


def test_a_floor_that_recall_cannot_reach_blocks(tmp_path):
    options = {"recall_at": [1], "gates": {"min_recall_over_chance": 12.0}}
    found = checks(measure(tmp_path, **options), world.params(tmp_path, **options).evaluate)
    assert [(check.passed, check.blocking) for check in found[:2]] == [(False, True)] * 2


def test_a_constant_model_gets_exactly_chance(tmp_path):
    found = measure(tmp_path, np.ones((12, world.DIMENSIONS), np.float32), recall_at=[1, 3]).metrics
    for language in ("en", "de", "fr"):
        for direction, at in product(("image_to_text", "text_to_image"), ("recall@1", "recall@3")):
            prefix = f"retrieval/{language}/{direction}"
            if direction == "text_to_image":  # every picture is the same; texts differ
                assert found[f"{prefix}/{at}"] == found[f"{prefix}/chance/{at}"]


def test_a_language_has_a_floor_of_its_own(tmp_path):
    options = {"recall_at": [1], "gates": {"language_floors": {"de": 0.0, "fr": 4.0, "eo": 0.0}}}
    params = world.params(tmp_path, **options).evaluate
    found = checks(measure(tmp_path, **options), params)[:-1]
    assert {check.name: (check.passed, check.blocking) for check in found} == {
        f"recall_over_chance/{language}/{direction}": verdict
        for language, verdict in {
            "en": (True, True),
            "de": (False, False),  # at chance, and without a floor
            "fr": (False, False),  # too few pictures have a caption in it
            "eo": (False, True),  # no caption at all
        }.items()
        for direction in ("image_to_text", "text_to_image")
    }


def test_headline_k(tmp_path):
    assert headline_k(world.params(tmp_path, recall_at=[1, 10, 50]).evaluate) == 10
    assert headline_k(world.params(tmp_path, recall_at=[1, 5]).evaluate) == 5


def test_captions_of_unknown_pictures_are_refused(tmp_path):
    stray = [*world.captions(), Caption(0, "nobody", "raw", "A ghost.", "en", "made")]
    with pytest.raises(InputError, match="nobody"):
        measure(tmp_path, np.ones((12, world.DIMENSIONS)), stray)


def test_no_caption_in_the_training_language_is_refused(tmp_path):
    german = [caption for caption in world.captions() if caption.language != "en"]
    with pytest.raises(InputError, match="'en'"):
        measure(tmp_path, np.ones((12, world.DIMENSIONS)), german)


def test_outcomes_hold_what_the_headline_is_made_of(tmp_path):
    found = measure(tmp_path, recall_at=[3])
    table = found.outcomes.to_pydict()
    for metric, members in found.headline.items():
        means = []
        for member in members:
            at = [i for i, name in enumerate(table["measure"]) if name == member]
            means.append(sum(table["sum"][i] for i in at) / sum(table["queries"][i] for i in at))
        assert np.mean(means) == pytest.approx(found.metrics[metric], abs=1e-6)
