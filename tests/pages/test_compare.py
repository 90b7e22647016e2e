from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flame_core.errors import InputError
from flame_core.measuring.measures import evaluate
from flame_core.measuring.results import METRICS, OUTCOMES, read_results, result_files
from flame_core.pages.compare import chance_of, check, compare, metric_title, render_comparison
from tests.measuring import world

CONFIDENCE = 0.95


def results(tmp_path, recipe, noise, keys=world.KEYS, **options):
    """Results of a made-up model: the right embeddings with some noise."""
    captions = world.captions()
    z = world.pictures_that_know("en", captions)
    z = z + noise * np.stack([world.vector(recipe, key) for key in world.KEYS])
    found = evaluate(world.params(tmp_path, **options), z[:, None], keys, captions, world.classes(), world.lookup, {})
    folder = tmp_path / recipe
    folder.mkdir(exist_ok=True)
    for name, content in result_files(found, recipe).items():
        (folder / name).write_bytes(content)
    return read_results(folder)


def test_files_are_the_same_bytes_and_read_back(tmp_path):
    first = results(tmp_path, "plain", 0.5)
    bytes_of = {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()}
    again = results(tmp_path, "plain", 0.5)
    assert {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()} == bytes_of
    assert again.outcomes.equals(first.outcomes)
    assert next(iter(first.headline)) == "retrieval/en/image_to_text/recall@10"
    assert first.pictures == 12


def test_a_recipe_does_not_differ_from_itself(tmp_path):
    same = results(tmp_path, "plain", 0.7, recall_at=[1])
    twin = results(tmp_path, "plain", 0.7, recall_at=[1])
    twin = type(twin)(**{**twin.__dict__, "recipe": "twin"})
    rows = compare([same, twin], CONFIDENCE)["recipes"]["twin"]
    for row in rows.values():
        assert row["difference"] == 0
        assert row["difference_low"] == -row["difference_high"]
        assert row["within_interval"]


def test_a_clear_difference_is_told_from_a_small_one(tmp_path):
    good = results(tmp_path, "good", 0.0, recall_at=[1])
    close = results(tmp_path, "close", 0.4, recall_at=[1])
    broken = results(tmp_path, "broken", 30.0, recall_at=[1])
    comparison = compare([good, close, broken], CONFIDENCE)
    metric = "retrieval/en/text_to_image/recall@1"
    assert comparison["baseline"] == "good"
    assert "difference" not in comparison["recipes"]["good"][metric]
    row = comparison["recipes"]["broken"][metric]
    assert row["difference_low"] <= row["difference"] <= row["difference_high"] < 0
    assert not row["within_interval"]
    assert comparison["recipes"]["close"][metric]["within_interval"]
    assert row["value"] == broken.metrics[metric]
    assert f"broken: {metric}" in check(comparison).value
    assert not check(comparison).blocking


def test_the_difference_is_of_pairs(tmp_path):
    """Two models that fail on the same pictures: the difference is known better than either value."""
    first = results(tmp_path, "plain", 5.0, recall_at=[1])
    second = results(tmp_path, "plain", 4.5, recall_at=[1])
    metric = "retrieval/en/image_to_text/recall@1"
    second = replace(second, recipe="second")
    row = compare([first, second], CONFIDENCE)["recipes"]["second"][metric]
    assert row["difference_high"] - row["difference_low"] <= row["high"] - row["low"] + 1e-6
    exact = second.metrics[metric] - first.metrics[metric]
    assert row["difference"] == pytest.approx(exact, abs=1e-6)


def test_other_pictures_or_languages_are_refused(tmp_path):
    one = results(tmp_path, "one", 0.1)
    renamed = results(tmp_path, "renamed", 0.1, languages=["de"])
    with pytest.raises(InputError, match="one and renamed"):
        compare([one, renamed], CONFIDENCE)
    moved = type(one)(**{**one.__dict__, "recipe": "moved", "split": "0" * 64})
    with pytest.raises(InputError, match="moved"):
        compare([one, moved], CONFIDENCE)


@pytest.mark.parametrize("name", [METRICS, OUTCOMES])
def test_damaged_results_are_refused(tmp_path, name):
    results(tmp_path, "plain", 0.1)
    (tmp_path / "plain" / name).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="flame evaluate plain"):
        read_results(tmp_path / "plain")
    (tmp_path / "plain" / name).unlink()
    with pytest.raises(InputError, match="flame evaluate plain"):
        read_results(tmp_path / "plain")


def test_the_page_says_what_differs(tmp_path):
    found = [results(tmp_path, name, noise, recall_at=[1]) for name, noise in [("good", 0.0), ("broken", 30.0)]]
    comparison = compare(found, CONFIDENCE)
    page = render_comparison(comparison, found, CONFIDENCE, {})
    assert page == render_comparison(comparison, found, CONFIDENCE, {})
    assert "worse" in page
    assert "English, picture → text, recall@1" in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_one_recipe_alone(tmp_path):
    only = results(tmp_path, "only", 0.1)
    comparison = compare([only], CONFIDENCE)
    assert check(comparison).passed
    page = render_comparison(comparison, [only], CONFIDENCE, {})
    assert "1 model," in page
    assert "nothing to be compared with" in page


def test_names_for_readers():
    assert metric_title("retrieval/other_languages/image_to_text/recall@5") == (
        "Unseen languages, picture → text, recall@5"
    )
    assert metric_title("classification/top1") == "Zero-shot class, top-1"
    assert chance_of("retrieval/en/image_to_text/recall@10") == "retrieval/en/image_to_text/chance/recall@10"
    assert chance_of("classification/top1") == "classification/chance/top1"
