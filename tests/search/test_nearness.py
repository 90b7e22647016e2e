"""Whether a best score means anything, against scores of pairs that do not belong together."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from flame_core.measuring.texts import evaluated_languages, read_validation_captions
from flame_core.model.locate import model_of_run
from flame_core.search import nearness
from flame_core.search.galleries import HELD_OUT, gallery_of
from flame_core.search.nearness import Nearness, chance
from flame_core.vision.image_encoder import load_encoder
from tests.measuring import world
from tests.search.runs import ask_text, run_here


def test_the_chance_is_that_of_drawing_so_many_wrong_pictures():
    """Against all draws with replacement, counted."""
    wrong = np.array([[0.1, 0.4, 0.3, np.nan], [0.2, 0.2, 0.5, 0.9]])
    for best, count in itertools.product((0.0, 0.3, 0.35, 0.9, 1.0), (1, 2, 3)):
        shares = []
        for line in ([0.1, 0.4, 0.3], [0.2, 0.2, 0.5, 0.9]):
            draws = list(itertools.product(line, repeat=count))
            shares.append(sum(max(draw) >= best for draw in draws) / len(draws))
        assert chance(wrong, best, count) == pytest.approx(np.mean(shares))


def test_only_wrong_pairs_of_the_held_out_split_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    params, layout = run_here(tmp_path, monkeypatch)
    model = model_of_run(params, layout, "plain")
    held_out = gallery_of(layout, model, HELD_OUT)
    captions = read_validation_captions(layout.captions, params.evaluate)
    z = load_encoder(model.folder, "cpu").encode([world.jpeg(index) for index in range(12)])
    expected = []
    for language in evaluated_languages(params.evaluate, captions):
        own: dict[str, set[str]] = {}
        for each in captions:
            if each.kind == "raw" and each.language == language:
                own.setdefault(each.text, set()).add(each.key)
        for text, keys in own.items():
            t = world.vector("raw", text, 0)
            expected.append(sorted(float(z[i] @ t) for i, key in enumerate(world.KEYS) if key not in keys))
    for best, count in ((0.0, 12), (0.1, 5), (0.3, 12)):
        shares = [1 - np.mean(np.array(line) < best) ** count for line in expected]
        found = nearness.of_text(params, layout, model, held_out, best, count)
        assert found.chance == pytest.approx(np.mean(shares), abs=1e-6)
        assert found.near == (np.mean(shares) <= 0.5)
        assert f"measured with {len(expected)} texts" in str(found)
    pairs = z @ z.T
    shares = [1 - np.mean(np.delete(pairs[i], i) < 0.5) ** 12 for i in range(12)]
    assert nearness.of_picture(layout, model, held_out, 0.5, 12).chance == pytest.approx(np.mean(shares), abs=1e-6)


def test_what_could_not_be_measured_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    params, layout = run_here(tmp_path, monkeypatch)
    model = model_of_run(params, layout, "plain")
    found = ask_text(params, layout, model, "Eine grüne Sache.")
    assert found.nearness.chance is not None

    for scores in list((layout.work / "query").rglob("wrong.npy")):
        shutil.rmtree(scores.parent)
    for path in (layout.embeddings / "texts").iterdir():
        path.unlink()
    said = ask_text(params, layout, model, "Eine grüne Sache.").nearness  # the text's own vector is kept
    assert str(said).startswith("Whether anything is near was not measured: ") and "no embedding" in str(said)
    assert said.near


def test_it_is_said_plainly():
    assert str(Nearness(0.7, "measured")).startswith("Nothing is near. A search with nothing to find")
    assert str(Nearness(0.5, "measured")).startswith("A search")
    assert "less than 1 % of cases" in str(Nearness(0.0, "measured"))
    assert "50 % of cases" in str(Nearness(0.5, "measured"))
