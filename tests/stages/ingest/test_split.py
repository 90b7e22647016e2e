from __future__ import annotations

from collections import Counter
from pathlib import Path

from PIL import Image

from flame_core import gates
from flame_core.data.captions_text import same_text
from flame_core.data.ledger import LedgerEntry, read_ledger
from flame_core.layout import Layout
from tests.data.drawings import drawing, encoded, png
from tests.stages.ingest.shards import read_dropped, read_samples, run_ingest, write_pair
from tests.stages.pipeline import folder_source, pipeline_params, write_pairs


def test_equal_pictures_become_one_sample_across_sources(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(6))
    write_pairs(tmp_path / "b", range(100, 106))
    write_pair(tmp_path / "a", "one", png(700), caption="first", split="train", title="A")
    write_pair(
        tmp_path / "b", "two", png(700), captions={"en": ["second", "first"], "de": "zweite"}, split="train", title="B"
    )
    write_pair(tmp_path / "b", "three", png(701), caption="seen", split="train")
    write_pair(tmp_path / "b", "four", png(701), caption="measured", split="val")
    run_ingest(pipeline_params({"b": folder_source(tmp_path / "b"), "a": folder_source(tmp_path / "a")}), layout)
    samples = read_samples(layout)
    assert samples["train"]["a/one"]["captions"] == {"en": ["first", "second"], "de": ["zweite"]}
    assert samples["train"]["a/one"]["title"] == "A"
    assert samples["val"]["b/four"]["captions"] == {"en": ["measured"]}
    assert read_dropped(layout) == {"b/three": "duplicate_of_val"}
    merged = [entry for entry in read_ledger(layout.shards) if entry.outcome == "merged"]
    assert merged == [
        LedgerEntry("b", "b/two", "merged", "duplicate", "the same bytes as a/one, which has its captions now")
    ]
    gates.require(layout.shards)


def test_no_validation_caption_stands_in_training(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(6))
    write_pair(tmp_path / "a", "v", png(600), captions={"en": ["A frog", "A green one"], "de": "Frosch"}, split="val")
    write_pair(tmp_path / "a", "all", png(601), captions={"en": "a FROG!", "fr": "autre"}, split="train")
    write_pair(
        tmp_path / "a",
        "some",
        png(602),
        captions={"en": ["A pond", "a green one."], "de": ["Frosch", "Teich"]},
        split="train",
    )
    write_pair(tmp_path / "a", "other", png(603), captions={"en": "A toad", "sv": "frosch"}, split="train")
    write_pair(tmp_path / "a", "german", png(604), captions={"de": "Frosch", "fr": "x"}, split="train")
    run_ingest(pipeline_params({"s": folder_source(tmp_path / "a")}), layout)
    samples = read_samples(layout)
    assert read_dropped(layout) == {"s/all": "caption_of_val", "s/german": "not_in_training_language"}
    assert samples["train"]["s/some"]["captions"] == {"en": ["A pond"], "de": ["Teich"]}
    assert samples["train"]["s/other"]["captions"] == {"en": ["A toad"]}
    assert samples["val"]["s/v"]["captions"] == {"en": ["A frog", "A green one"], "de": ["Frosch"]}
    changed = {entry.key for entry in read_ledger(layout.shards) if entry.outcome == "changed"}
    assert changed == {"s/some", "s/other"}

    def texts(split: str) -> set[str]:
        return {same_text(t) for meta in samples[split].values() for some in meta["captions"].values() for t in some}

    assert not texts("train") & texts("val")


def test_a_training_sample_keeps_a_caption_in_the_language_of_training(layout: Layout, tmp_path: Path):
    """Whatever becomes of those in other languages, so that `embed` finds one of every sample."""
    write_pairs(tmp_path / "b", range(6))
    both = {"en": "A frog", "de": "Ein Frosch"}
    write_pair(tmp_path / "a", "v", png(600), captions=both, split="val")
    write_pair(tmp_path / "a", "english", png(601), captions={"en": "A pond"}, split="train")
    write_pair(tmp_path / "a", "repeated", png(602), captions={"en": "A pond", "de": "ein Frosch!"}, split="train")
    write_pair(tmp_path / "a", "kept", png(603), captions={"en": "a frog", "de": "Ein Teich"}, split="train")
    write_pair(tmp_path / "a", "one", png(604), captions={"en": "One picture"}, split="train")
    write_pair(tmp_path / "a", "two", png(604), captions={"de": "Ein Bild"}, split="train")
    params = pipeline_params({"s": folder_source(tmp_path / "a"), "g": folder_source(tmp_path / "b", language="de")})
    german = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"train_language": "de"})})
    run_ingest(german, layout)
    assert read_dropped(layout) == {"s/english": "not_in_training_language", "s/repeated": "caption_of_val"}
    train = read_samples(layout)["train"]
    assert train["s/kept"]["captions"] == {"de": ["Ein Teich"]}
    assert train["s/one"]["captions"] == {"de": ["Ein Bild"], "en": ["One picture"]}


def test_training_pictures_that_look_like_validation_ones_are_dropped(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(6))
    original = drawing(500, (160, 120))
    recoloured = original.point(lambda value: 255 - value)
    write_pair(tmp_path / "a", "v", encoded(original), caption="measured", split="val")
    write_pair(
        tmp_path / "a", "copy", encoded(original.resize((80, 60), Image.Resampling.BICUBIC)), caption="b", split="train"
    )
    write_pair(tmp_path / "a", "jpeg", encoded(original, "JPEG", quality=60), caption="c", split="train")
    write_pair(tmp_path / "a", "colours", encoded(recoloured), caption="d", split="train")
    source = {"s": folder_source(tmp_path / "a")}
    run_ingest(pipeline_params(source), layout)
    assert read_dropped(layout) == {"s/copy": "near_duplicate_of_val", "s/jpeg": "near_duplicate_of_val"}
    assert "looks like s/v" in {entry.detail for entry in read_ledger(layout.shards)}
    run_ingest(pipeline_params(source, near_duplicate_distance=-1), layout)
    assert read_dropped(layout) == {}


def test_the_split_is_the_source_s_or_a_group_s_and_stays(layout: Layout, tmp_path: Path):
    for number in range(60):
        write_pair(
            tmp_path / "a", f"{number:03d}", png(number), caption=f"caption {number}", album=f"album {number // 6}"
        )
    source = {"s": folder_source(tmp_path / "a", group_field="album")}
    run_ingest(pipeline_params(source, val_fraction=0.4), layout)
    before = {split: set(metas) for split, metas in read_samples(layout).items()}
    sides = {key: split for split, keys in before.items() for key in keys}
    albums = [{sides[f"s/{number:03d}"] for number in range(6 * album, 6 * album + 6)} for album in range(10)]
    assert all(len(album) == 1 for album in albums) and set.union(*albums) == {"train", "val"}
    for number in range(60, 90):
        write_pair(
            tmp_path / "a", f"{number:03d}", png(number), caption=f"caption {number}", album=f"album {number // 6}"
        )
    run_ingest(pipeline_params(source, val_fraction=0.4), layout)
    after = {split: set(metas) for split, metas in read_samples(layout).items()}
    assert before["train"] <= after["train"] and before["val"] <= after["val"]


def test_one_caption_is_on_one_side(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(60), captions="caption {}")
    for number in range(60):
        write_pair(tmp_path / "a", f"again{number}", png(1000 + number), caption=f"CAPTION  {number}!")
    run_ingest(pipeline_params({"s": folder_source(tmp_path / "a")}), layout)
    side = {key: split for split, metas in read_samples(layout).items() for key in metas}
    assert Counter(side.values())["val"] > 10
    assert all(side[f"s/{number:04d}"] == side[f"s/again{number}"] for number in range(60))
    assert read_dropped(layout) == {}


def test_a_pair_that_was_merged_into_a_dropped_one_is_dropped_for_the_same_reason(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(6))
    original = drawing(500, (160, 120))
    write_pair(tmp_path / "a", "v", encoded(original), caption="measured", split="val")
    copy = encoded(original, "JPEG", quality=60)
    write_pair(tmp_path / "a", "one", copy, caption="b", split="train")
    write_pair(tmp_path / "a", "two", copy, caption="c", split="train")
    write_pair(tmp_path / "a", "kept", png(700), caption="d", split="train")
    write_pair(tmp_path / "a", "kept-again", png(700), caption="e", split="train")
    run_ingest(pipeline_params({"s": folder_source(tmp_path / "a")}), layout)
    assert read_dropped(layout) == {"s/one": "near_duplicate_of_val", "s/two": "near_duplicate_of_val"}
    merged = [entry for entry in read_ledger(layout.shards) if entry.outcome == "merged"]
    assert merged == [
        LedgerEntry("s", "s/kept-again", "merged", "duplicate", "the same bytes as s/kept, which has its captions now")
    ]
