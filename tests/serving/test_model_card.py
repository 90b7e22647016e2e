"""The model card says what a model is, what it was trained on, how it scores, and nothing that was not measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flame_core.serving.model_card import model_card
from tests.measuring import world

CONFIG = {"hidden": 64, "samples": 1200, "facets": ["raw/1", "short/1", "short/2"]}
SOURCES: dict[str, Any] = {
    "stamps": {
        "kind": "debian",
        "packages": [
            {"package": "tuxpaint-stamps-default", "version": "2022.06.04-1", "licence": "GPL-2+"},
            {"package": "openclipart-png", "version": "1:0.18", "licence": "CC0"},
            {"package": "another", "version": "1", "licence": "GPL-2+"},
        ],
    },
    "mine": {"kind": "folder", "pairs": 40, "licence": "CC BY 4.0"},
    "found": {"kind": "webdataset"},
}
METRICS = {
    "retrieval/en/image_to_text/recall@10": 0.391,
    "retrieval/en/image_to_text/chance/recall@10": 0.0857,
    "retrieval/en/text_to_image/recall@10": 0.37949,
    "retrieval/en/image_to_text/recall@5": 0.2,
    "retrieval/de/image_to_text/recall@10": 0.219,
    "retrieval/de/text_to_image/recall@10": 0.0,
    "classification/top1": 0.297,
}
HEADLINE = ["retrieval/en/image_to_text/recall@10", "classification/top1"]


def card(tmp_path: Path, sources: dict[str, Any] = SOURCES, languages: tuple[str, ...] = ("en", "de"), **evaluate: Any):
    params = world.params(tmp_path, **evaluate)
    pictures = {"train": 1200, "val": 209}
    return model_card("plain", params, CONFIG, sources, pictures, METRICS, HEADLINE, list(languages))


def table(text: str, heading: str) -> list[list[str]]:
    """The body of the table under a heading: its rows, split at every bar that is not escaped."""
    lines = text.split(heading)[1].split("|\n|---")[1].splitlines()[1:]
    rows = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_every_source_has_its_contents_and_its_licences_once(tmp_path: Path):
    assert table(card(tmp_path), "## Data") == [
        ["stamps", "tuxpaint-stamps-default 2022.06.04-1, openclipart-png 1:0.18, another 1", "GPL-2+, CC0"],
        ["mine", "folder, 40 pairs", "CC BY 4.0"],
        ["found", "webdataset, unknown number of pairs", "not stated"],
    ]


def test_a_package_without_a_licence_is_shown_as_such(tmp_path: Path):
    packages = [{"package": "a", "version": "1", "licence": None}, {"package": "b", "version": "2", "licence": "MIT"}]
    [[_, what, licences]] = table(card(tmp_path, {"made": {"packages": packages}}), "## Data")
    assert (what, licences) == ("a 1, b 2", "not stated, MIT")
    [[_, what, licences]] = table(card(tmp_path, {"named": {"packages": ["tuxpaint-stamps-default"]}}), "## Data")
    assert (what, licences) == ("tuxpaint-stamps-default", "not stated")  # params of a source that has no record


def test_scores_stand_beside_chance_and_only_what_was_measured_is_a_number(tmp_path: Path):
    assert table(card(tmp_path), "## Scores") == [
        ["English, picture → text, recall@10", "39.1 %", "8.6 %"],
        ["Zero-shot class, top-1", "29.7 %", "not measured"],
    ]


def test_languages_come_in_their_order_with_both_directions(tmp_path: Path):
    text = card(tmp_path, languages=("de", "en", "fr", "xx"))
    assert "| language | picture to text, recall@10 | text to picture, recall@10 |" in text
    assert table(text, "| language") == [
        ["German", "21.9 %", "0.0 %"],
        ["English", "39.1 %", "37.9 %"],
        ["French", "not measured", "not measured"],
        ["xx", "not measured", "not measured"],  # a code that has no name here
    ]


def test_without_recall_at_10_the_largest_k_is_shown(tmp_path: Path):
    text = card(tmp_path, languages=("en",), recall_at=[1, 5])
    assert "| language | picture to text, recall@5 | text to picture, recall@5 |" in text
    assert table(text, "| language") == [["English", "20.0 %", "not measured"]]


def test_the_model_and_its_training_are_those_of_params_and_config(tmp_path: Path):
    text = card(tmp_path)
    recipe = world.params(tmp_path).train["plain"]
    assert text.startswith("# plain\n")
    assert "timm `vit_tiny_patch16_224`" in text and "at 32 px, projector into 64 dimensions" in text
    assert "text side: `path:nowhere`, hidden states of layer 2, frozen, not included" in text
    trained = f"trained on 1200 pictures, {recipe.epochs} epochs, batch {recipe.batch_size}, texts: raw/1, short/1"
    assert trained in text
    assert "1200 pictures for training, 209 held out." in text


def test_names_of_sources_and_licences_mark_nothing_up(tmp_path: Path):
    """They are foreign: no cell more, no line more, no link and no element."""
    hostile = "a | b\n# heading [link](http://evil.example) <script>"
    sources = {hostile: {"kind": "folder", "pairs": 1, "licence": hostile}}
    text = card(tmp_path, sources)
    [row] = table(text, "## Data")
    assert len(row) == 3
    escaped = r"a \| b # heading \[link\](http://evil.example) \<script\>"
    assert row[0] == row[2] == escaped
    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# plain"]


def test_the_card_does_not_depend_on_where_it_was_made(tmp_path: Path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert card(tmp_path / "one") == card(tmp_path / "two")
    assert str(tmp_path) not in card(tmp_path / "one")


def test_weights_of_another_project_and_the_llm_are_named_with_their_licences(tmp_path: Path):
    init = {"source": "pypi:net==1.0#net.pth", "sha256": "ab12", "licence": "apache-2.0"}
    config = {**CONFIG, "init": init, "llm": {"name": "gemma", "source": "hub:google/gemma"}}
    params, pictures = world.params(tmp_path), {"train": 1200, "val": 209}
    text = model_card("plain", params, config, SOURCES, pictures, METRICS, HEADLINE, ["en"], "Gemma Terms of Use")
    assert "- the tower began with the weights `pypi:net==1.0#net.pth` (sha256 `ab12`, licence: apache-2.0)" in text
    assert "- LLM: `gemma` from `hub:google/gemma` (licence: Gemma Terms of Use)" in text
    config["init"] = {"source": "timm:x", "sha256": None, "licence": None}
    text = model_card("plain", params, config, SOURCES, pictures, METRICS, HEADLINE, ["en"])
    assert "`timm:x` (licence: not stated)" in text and "(licence: not stated in its files)" in text
