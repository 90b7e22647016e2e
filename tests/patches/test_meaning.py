from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from PIL import Image

from flame_core.captions.table import Caption, write_captions
from flame_core.inline_pictures import square_view
from flame_core.pages.patch_overlays import likeness_overlay, weight_overlay, word_overlay
from flame_core.patches import meaning
from flame_core.patches.meaning import caption_words, frequent, nearest, read_meaning
from tests.data.drawings import png
from tests.suite.datasets import vectors


def cells(svg):
    root = ET.fromstring(svg)
    return root, [cell for cell in root if cell.tag.endswith("rect")]


def test_frequent_words_with_their_share():
    assert frequent([["sea", "sky"], ["sky", "boat"]]) == [("sky", 0.5), ("boat", 0.25), ("sea", 0.25)]


def test_words_of_the_training_captions_of_a_language(tmp_path, monkeypatch):
    rows = [("A red Fire-truck of 1950", "en"), ("Ein rotes Auto", "de"), ("Trees", "en")]
    (tmp_path / "train").mkdir()
    for shard, (text, language) in enumerate(rows):
        caption = Caption(0, f"k{shard}", "raw", text, language, "made")
        write_captions(tmp_path / f"train/{shard:05}.parquet", [caption])
    assert caption_words(tmp_path, "en") == {"red", "fire", "truck", "trees"}
    monkeypatch.setattr(meaning, "_CAPTIONS", 1)
    assert caption_words(tmp_path, "en") == {"red", "fire", "truck"}


def test_neighbours_leave_the_picture_itself_out():
    z = vectors(9, 4)
    found = nearest(z, 3, 4)
    scores = z @ z[3]
    assert [row for row, _ in found] == [int(i) for i in np.argsort(-scores) if i != 3][:4]
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_the_view_is_the_centre_square():
    picture = Image.new("RGB", (60, 20), "red")
    picture.paste("blue", (20, 0, 40, 20))
    file = io.BytesIO()
    picture.save(file, "PNG")
    uri = square_view(file.getvalue())
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as view:
        assert view.size[0] == view.size[1]
        colours = np.asarray(view.convert("RGB"))[20:-20:20, 20:-20:20].reshape(-1, 3)
    assert (colours[:, 2] > 200).all()
    assert (colours[:, 0] < 80).all()


def test_words_are_laid_over_their_patches():
    root, found = cells(word_overlay([["sky", "<b>"], ["sea", "sky"]], ["sky", "sea"], "words"))
    assert root.get("viewBox") == "0 0 2 2"
    assert [(cell.get("x"), cell.get("y"), cell.get("class")) for cell in found] == [
        ("0", "0", "cell series-0"), ("1", "0", "cell clear"), ("0", "1", "cell series-1"), ("1", "1", "cell series-0"),
    ]  # fmt: skip
    assert [cell[0].text for cell in found] == ["sky", "<b>", "sea", "sky"]


def test_likeness_is_darkest_where_it_is_highest():
    _, found = cells(likeness_overlay(np.array([[0.1, 0.3], [0.2, 0.1]]), "facet 1"))
    assert [cell.get("fill-opacity") for cell in found] == ["0.00", "0.65", "0.33", "0.00"]
    _, flat = cells(likeness_overlay(np.full((2, 2), 0.4), "facet 1"))
    assert {cell.get("fill-opacity") for cell in flat} == {"0.00"}


def test_the_patch_with_most_of_a_word_has_a_frame():
    _, found = cells(weight_overlay(np.array([[0.1, 0.3], [0.2, 0.3]]), "patches of dog"))
    assert [cell.get("class") for cell in found] == ["heat"] * 4 + ["largest"]
    assert (found[-1].get("x"), found[-1].get("y")) == ("1", "0")  # of equals the first
    assert [cell[0].text for cell in found[:4]] == ["0.100", "0.300", "0.200", "0.300"]


def test_a_caption_is_mapped_as_the_store_spells_it():
    spelled = ["The letter M", "the letter m.", "A boat"]
    captions = [Caption(row, f"k{row}", "short", text, "en", "made") for row, text in enumerate(spelled)]
    stored = {"The letter M": [[1.0, 0.0], [0.0, 1.0]], "A boat": [[0.6, 0.8], [0.8, 0.6]]}  # each text once
    texts = SimpleNamespace(in_words=False, lookup=lambda kind, asked: np.array([stored[text] for text in asked]))
    patches = np.arange(3 * 2 * 2 * 2, dtype=float).reshape(3, 2, 2, 2)
    encoder = SimpleNamespace(encode_with=lambda read, jpegs: patches[: len(jpegs)])
    evaluation = SimpleNamespace(facets={"1": {}}, keys=["k0", "k1", "k2"], z=vectors(3, 4))
    held_out = SimpleNamespace(evaluation=evaluation, captions=captions, encoder=encoder, texts=texts)
    params = SimpleNamespace(evaluate=SimpleNamespace(train_language="en"))
    found = read_meaning(*cast(Any, (params, None, held_out, lambda row: png(row))))
    assert {each.picture: each.text for each in found} == {0: "The letter M", 1: "The letter M", 2: "A boat"}
    for place, each in enumerate(found):
        for facet, own in zip(each.maps, np.array(stored[each.text]), strict=True):
            assert np.array_equal(facet.cosine, patches[place] @ own)
