"""`ingest.filters`: each rule on pairs made for it; what is listed is kept, or has a reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flame_core import gates
from flame_core.data.ledger import read_ledger
from flame_core.data.pair_filters import filter_captions, language_of, pair_reason
from flame_core.data.shards import PictureReader, read_index
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import IngestParams, LanguageFilter, PairFilterParams
from flame_core.stages import download, ingest
from tests.data.addresses.web import running
from tests.data.drawings import png
from tests.stages.pipeline import folder_source, pipeline_params, tree, write_pairs


def reasons(layout: Layout) -> dict[str, int]:
    return dict(Counter(row.reason for row in read_ledger(layout.shards) if row.outcome == "dropped"))


def write_wide(folder: Path, number: int, size: tuple[int, int], caption: str = "a drawing of its own") -> None:
    (folder / f"{number:04d}.png").write_bytes(png(number, size))
    (folder / f"{number:04d}.txt").write_text(f"{caption}, number {number}")


def test_pictures_and_captions_are_counted_by_reason(tmp_path: Path):
    pairs = tmp_path / "pairs"
    write_pairs(pairs, range(20), "the drawing number {}")
    write_wide(pairs, 20, (300, 90))
    write_wide(pairs, 21, (60, 60))
    (pairs / "0022.png").write_bytes(png(22))
    (pairs / "0022.txt").write_text("two words")
    (pairs / "0023.png").write_bytes(png(23))
    (pairs / "0023.json").write_text(json.dumps({"captions": ["one", "this one has enough words"]}))
    layout = Layout.find(tmp_path)
    params = pipeline_params(
        {"pairs": folder_source(pairs)}, filters={"min_words": 3, "min_side": 70, "max_aspect": 3.0}
    )
    download.run(params, layout)
    ingest.run(params, layout)
    assert reasons(layout) == {"filter_words": 1, "filter_aspect": 1, "filter_side": 1}
    index = read_index(layout.shards)
    assert len(index) == 21 and sum(row.captions for row in index) == 21
    kept = next(check for check in gates.read(layout.shards) if check.name == "kept_fraction")
    assert kept.value == 1.0  # what is not wanted is not lost


def test_no_rule_moves_a_pair_to_the_other_split(tmp_path: Path):
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    for number in range(40):
        (pairs / f"{number:04d}.png").write_bytes(png(number))
        texts = [f"thing{number}", f"this is the drawing number {number}"]
        (pairs / f"{number:04d}.json").write_text(json.dumps({"captions": texts}))
    sides = []
    for name, filters in (("all", {}), ("long", {"min_words": 3})):
        (tmp_path / name).mkdir()
        layout = Layout.find(tmp_path / name)
        params = pipeline_params({"pairs": folder_source(pairs)}, filters=filters, val_fraction=0.3)
        download.run(params, layout)
        ingest.run(params, layout)
        sides.append({row.key: row.split for row in read_index(layout.shards)})
    assert sides[0] == sides[1] and set(sides[0].values()) == {"train", "val"}


def test_no_filter_changes_no_byte(tmp_path: Path):
    write_pairs(tmp_path / "pairs", range(9))
    layout = Layout.find(tmp_path)
    found = []
    for filters in ({}, {"preset": None, "min_words": None, "scores": []}, {"min_words": 1, "max_aspect": 100}):
        params = pipeline_params({"pairs": folder_source(tmp_path / "pairs")}, filters=filters)
        download.run(params, layout)
        ingest.run(params, layout)
        found.append(tree(layout.shards))
    assert found[0] == found[1] == found[2]  # nor one that leaves nothing out
    assert IngestParams().filters == PairFilterParams()


def test_a_preset_is_laid_under_what_is_written():
    rules = PairFilterParams.model_validate({"preset": "datacomp-basic", "min_side": 100, "language": None})
    assert (rules.min_words, rules.min_characters, rules.max_aspect) == (3, 6, 3.0)
    assert rules.min_side == 100 and rules.language is None
    cc12m = PairFilterParams.model_validate({"preset": "cc12m"})
    assert (cc12m.min_words, cc12m.max_words, cc12m.max_aspect) == (3, 256, 2.5)


@pytest.mark.parametrize(
    ("rules", "captions", "kept", "left_out"),
    [
        ({"min_words": 2}, {"en": ["one", "two words"], "de": ["eins"]}, {"en": ["two words"]}, {"filter_words": 2}),
        (
            {"min_words": 3, "max_words": 8},  # without spaces, two letters are a word
            {"zh": ["一只狗", "一只棕色的狗在跑"], "ja": ["犬が走っている草原の写真です、綺麗"], "th": ["สุนัขวิ่ง"]},
            {"zh": ["一只棕色的狗在跑"], "th": ["สุนัขวิ่ง"]},
            {"filter_words": 2},
        ),
        ({"min_words": 1}, {"zh": ["狗"]}, {"zh": ["狗"]}, {}),
        ({"max_words": 1}, {"en": ["one", "two words"]}, {"en": ["one"]}, {"filter_words": 1}),
        ({"min_characters": 4}, {"en": ["one", "four"]}, {"en": ["four"]}, {"filter_characters": 1}),
        ({"max_characters": 3}, {"en": ["one", "four"]}, {"en": ["one"]}, {"filter_characters": 1}),
        ({}, {"en": ["one"]}, {"en": ["one"]}, {}),
    ],
)
def test_captions(rules: dict[str, Any], captions: Any, kept: Any, left_out: Any):
    assert filter_captions(captions, PairFilterParams.model_validate(rules)) == (kept, left_out)


@pytest.mark.parametrize(
    ("licence", "columns", "reason"),
    [
        ("CC-BY", {"clip": "0.31"}, None),
        ("cc-by", {"clip": 0.3}, None),
        ("GPL", {"clip": 0.31}, "filter_licence"),
        (None, {"clip": 0.31}, "filter_licence"),
        ("CC0", {"clip": 0.29}, "filter_score_clip"),
        ("CC0", {"clip": "nan"}, "filter_score_clip"),
        ("CC0", {}, "filter_score_clip"),
        ("CC0", {"clip": 0.3, "nsfw": 0.9}, "filter_score_nsfw"),
        ("CC0", {"clip": 10**400}, None),
        ("CC0", {"clip": -(10**400)}, "filter_score_clip"),
        ("CC0", {"clip": 0.3, "nsfw": 10**400}, "filter_score_nsfw"),
    ],
)
def test_licences_and_scores(licence: str | None, columns: dict[str, Any], reason: str | None):
    rules = PairFilterParams.model_validate(
        {
            "licences": {"keep": ["CC-BY", "cc0"]},
            "scores": [{"column": "clip", "min": 0.3}, {"column": "nsfw", "max": 0.5, "missing": "keep"}],
        }
    )
    found = pair_reason(licence, columns, rules)
    assert (found and found[0]) == reason


def test_scores_of_a_list_of_addresses(tmp_path: Path):
    layout = Layout.find(tmp_path)
    with running() as web:
        rows = [{"url": web.url(f"/ok/{n}"), "caption": f"number {n}", "clip": n / 20} for n in range(20)]
        (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {
            "kind": "urls",
            "path": str(tmp_path / "list.jsonl"),
            "allow": [f"127.0.0.0/8:{web.port}"],
            "keep_columns": ["clip"],
            "per_host": 16,
        }
        params = pipeline_params({"web": source}, filters={"scores": [{"column": "clip", "min": 0.5}]})
        download.run(params, layout)
    ingest.run(params, layout)
    assert reasons(layout) == {"filter_score_clip": 10} and len(read_index(layout.shards)) == 10


def test_boxes_of_a_list_of_addresses_are_blurred(tmp_path: Path):
    layout = Layout.find(tmp_path)
    with running() as web:
        boxes = [[[0.0, 0.0, 0.9, 0.9]] if n < 10 else [] if n < 19 else [[5, 5, 60, 60]] for n in range(20)]
        rows = [{"url": web.url(f"/ok/{n}"), "caption": f"number {n}", "faces": boxes[n]} for n in range(20)]
        (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"kind": "urls", "path": str(tmp_path / "list.jsonl"), "keep_columns": ["faces"], "per_host": 16}
        source["allow"] = [f"127.0.0.0/8:{web.port}"]
        params = pipeline_params({"web": source}, blur={"column": "faces"})
        plain = pipeline_params({"web": source})
        download.run(params, layout)
    found = []
    for each in (plain, params):
        ingest.run(each, layout)
        reader = PictureReader(layout.shards)
        found.append({row.key: reader.jpeg(row) for row in read_index(layout.shards)})
    assert len(found[0]) == 20 and reasons(layout) == {"blur_boxes": 1}
    changed = {key for key, jpeg in found[1].items() if jpeg != found[0][key]}
    assert len(found[1]) == 19 and len(changed) == 10


def test_a_source_without_columns_has_no_scores(tmp_path: Path):
    write_pairs(tmp_path / "pairs", range(4))
    layout = Layout.find(tmp_path)
    params = pipeline_params(
        {"pairs": folder_source(tmp_path / "pairs")}, filters={"scores": [{"column": "clip", "min": 0.5}]}
    )
    download.run(params, layout)
    with pytest.raises(InputError, match="keep_columns"):
        ingest.run(params, layout)


def test_languages():
    pytest.importorskip("py3langid")
    rule = LanguageFilter(keep=["en"], among=["en", "de", "fr"])
    rules = PairFilterParams(language=rule)
    german, short = "ein Hund läuft über die Wiese und bellt laut", "ein Hund"
    english = "a dog runs across the meadow and barks loudly"
    assert (language_of(german, rule), language_of(english, rule)) == ("de", "en")
    kept, left_out = filter_captions({"en": [german, english, short]}, rules)
    assert kept == {"en": [english, short]} and left_out == {"filter_language": 1}
    variants = PairFilterParams(language=LanguageFilter(keep=["en-GB"], among=["de_AT", "sr@latin"]))
    assert filter_captions({"en": [german, english]}, variants) == ({"en": [english]}, {"filter_language": 1})
