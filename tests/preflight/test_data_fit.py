"""Warnings about params that do not fit the data."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.captions.table import Caption, write_captions
from flame_core.data.ledger import LEDGER, ledger_table
from flame_core.data.shards import INDEX_SCHEMA
from flame_core.layout import Layout
from flame_core.preflight import check
from flame_core.settings import settings


def shards(layout: Layout, train: int, val: int) -> None:
    rows = [
        {"key": f"{split}{n}", "split": split, "shard": f"{split}/00000.tar", "row": n, "offset": 0, "size": 1,
         "width": 1, "height": 1, "sha256": "", "captions": 1}
        for split, count in (("train", train), ("val", val))
        for n in range(count)
    ]  # fmt: skip
    layout.shards.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), layout.shards / "index.parquet")
    pq.write_table(ledger_table([]), layout.shards / LEDGER)


def captions(layout: Layout, *languages: str) -> None:
    (layout.captions / "val").mkdir(parents=True, exist_ok=True)
    rows = [Caption(0, "a", "raw", "text", language, "source:x") for language in languages]
    write_captions(layout.captions / "val/00000.parquet", [*rows, Caption(0, "a", "short", "x", "xx", "metadata")])


def warned(layout: Layout, *overrides: str) -> dict[str, str]:
    checked = check(layout, overrides)
    assert checked.faults == []
    return {place.split(", ")[-1]: text for place, text in (each.split(": ", 1) for each in checked.warnings)}


def test_without_data_nothing_is_warned_of(layout):
    assert warned(layout) == {}


def test_the_demos_own_size_fits(layout):
    shards(layout, 830, 200)
    captions(layout, "en", "de", "es", "fr", "it", "nl", "pl", "pt", "tr", "cs", "sv", "da")
    assert warned(layout) == {}


def test_a_batch_and_a_warm_up_larger_than_the_training(layout):
    shards(layout, 51, 13)
    found = warned(layout, "train.warmup_steps=40")
    assert found.keys() == {"train.batch_size", "train.warmup_steps", "ingest.val_fraction"}
    assert found["train.batch_size"].startswith("128, and there are 51 training pictures: each step would take all")
    assert found["train.batch_size"].endswith("; 8 fits, and auto chooses it")
    assert "40, and the whole training has 20 steps (20 epochs of 51" in found["train.warmup_steps"]
    assert "fits, 2, and auto chooses it; or take more epochs" in found["train.warmup_steps"]
    assert "train.warmup_steps" not in warned(layout, "train.batch_size=8", "train.warmup_steps=40")  # 120 steps


def test_a_training_of_too_few_steps_is_told_before_its_teacher_is_trained(layout):
    """830 pictures in batches of 128 and 20 epochs are 120 steps, of which a share of 0.17 are 20."""
    shards(layout, 830, 200)
    student = "train.by_recipe.tinyclip-auto.model.backbone_options.embed_dim=192"
    own = ["recipes=[flame,tinyclip-auto]", student]
    found = warned(layout, *own)
    assert "refuse it with 830 training pictures: the term learned_masks: 20 steps" in found["terms"]
    assert "too few to learn masks" in found["terms"]
    assert "terms" not in warned(layout, *own, "train.by_recipe.tinyclip-auto.epochs=100")
    (layout.root / "tower.safetensors").write_bytes(b"")
    init, held = "train.model.init.source=path:tower.safetensors", "train.optimizer.head_first.epochs"
    assert "120 steps, and the training has 120" in warned(layout, init, f"{held}=20")["train.optimizer.head_first"]
    assert warned(layout, init, f"{held}=19") == {}


@pytest.mark.parametrize(
    ("section", "own"),
    [
        ("cluster", []),
        ("semdedup", ["semdedup.vectors=vectors"]),
        ("select", ["codes.tower.recipe=flame", "select.selections.quarter.share=0.25"]),
    ],
)
def test_more_clusters_than_samples_are_told_before_the_stages_in_front(layout, section, own):
    shards(layout, 735, 200)
    (layout.root / "vectors").mkdir()
    found = warned(layout, *own, f"{section}.clusters=3000")
    assert found[f"{section}.clusters"] == (
        f"`flame {section}` will refuse it: 3,000 clusters of 735 training samples; for 10 samples per cluster, set 73"
    )
    assert warned(layout, *own, f"{section}.clusters=735") == {}


def test_more_codes_than_patches_are_told_before_the_tower_is_trained(layout):
    """The demo's tower has 6 x 6 patches."""
    shards(layout, 20, 200)
    own = ["train.batch_size=16", "train.warmup_steps=1", "codes.tower.recipe=flame"]
    found = warned(layout, *own, "codes.codes=721")
    assert found["codes.codes"].startswith("`flame codes` will refuse it: 721 codes of 720 patches (36 of each of 20")
    assert warned(layout, *own, "codes.codes=720") == {}
    fewer = warned(layout, *own, "codes.codes=300", "codes.fit_tokens=300")  # 16 of each of 18 pictures
    assert "300 codes of 288 patches (16 of each of 18 pictures)" in fewer["codes.codes"]
    assert check(layout, ["codes.tower.recipe=flame", "codes.fit_tokens=1000"]).faults == [
        "--set codes.fit_tokens=1000, codes.fit_tokens: 1,000 patch tokens make no 1,024 codes: raise it to 10 times "
        "as many or more"
    ]


def test_the_place_is_that_of_the_value(layout):
    shards(layout, 51, 200)
    (batch, warmup) = check(layout).warnings
    line = (layout.root / "params.yaml").read_text().splitlines().index("  batch_size: 128") + 1
    assert batch.startswith(f"params.yaml, line {line}, train.batch_size: ")
    assert warmup.startswith(f"params.yaml, line {line + 2}, train.warmup_steps: ")
    assert (
        check(layout, ["train.batch_size=64"]).warnings[0].startswith("--set train.batch_size=64, train.batch_size: ")
    )


def test_too_few_held_out_pictures(layout):
    shards(layout, 830, 20)
    few = warned(layout)["ingest.val_fraction"]
    assert few == "20 held-out pictures are few: 97 give a 95% interval of +- 10%, 385 one of +- 5%"
    shards(layout, 830, 10)
    none = warned(layout)["ingest.val_fraction"]
    assert none.startswith("10 held-out pictures are too few to tell a model from chance: recall@10 of a random order")
    assert "is 100%, so the gate on it measures nothing; take 20 or more; 97 give a 95% interval" in none
    assert "evaluate.max_pictures" in warned(layout, "evaluate.max_pictures=8")
    shards(layout, 830, 97)
    assert warned(layout) == {}


def test_languages_that_no_caption_has(layout):
    shards(layout, 830, 200)
    captions(layout, "en", "fr")
    found = warned(layout, "evaluate.languages=[fr, de]")
    assert found == {
        "evaluate.languages.1": "no held-out caption is in 'de', so it is not measured; the captions are in en, fr, "
        "and `languages: all` takes those"
    }
    several = warned(layout, "evaluate.languages=[de, fr, it]")["evaluate.languages"]
    assert several.startswith("no held-out caption is in 'de', 'it', so they are not measured; the captions are in en")
    captions(layout, "fr")
    assert "no held-out caption is in 'en'" in warned(layout, "evaluate.languages=all")["evaluate.train_language"]


def test_what_auto_stands_for_is_told_and_never_warned_of(layout):
    shards(layout, 51, 200)
    auto = [f"train.{name}=auto" for name in ("batch_size", "epochs", "warmup_steps")]
    checked = check(layout, auto)
    assert checked.warnings == []
    assert checked.chosen == {
        "batch_size of flame": "8, for 51 samples",
        "epochs of flame": "100, for 51 samples",
        "warmup_steps of flame": "60, for 51 samples",
    }
    assert check(layout).chosen == {}
    (layout.shards / "index.parquet").unlink()
    assert set(check(layout, auto).chosen.values()) == {"known after `flame ingest`"}
    of_ingest = check(layout, ["ingest.val_fraction=auto"]).chosen
    assert of_ingest == {"ingest.val_fraction": "known after `flame download`"}  # a package is not there yet


def test_generated_captions_without_the_original_ones(layout):
    found = warned(layout, "train.kinds=[short]")
    assert found == {
        "train.kinds": "only generated captions (short), which may say the same of different pictures: keep raw beside "
        "them"
    }
    assert warned(layout, "train.kinds=[raw, short]") == {}


def test_written_captions_that_no_training_would_read(layout):
    found = warned(layout, "evaluate.train_language=de", "text.train_kinds=[raw, short]")
    assert found["text.train_kinds"].startswith("captioners write English, and the language of training is 'de'")
    assert "text.train_kinds" not in warned(
        layout, "evaluate.train_language=de", "text.train_kinds=[raw]", "train.kinds=[raw]"
    )
    (layout.root / "mine.csv").write_text("key,caption\na,ein Bild\n")
    table = "caption.long={captioner: table, path: mine.csv, language: de}"
    found = warned(layout, table, "text.train_kinds=[raw, short, long]", "evaluate.train_language=de")
    assert "instead of short captions the raw ones are read; set it to [raw, long]" in found["text.train_kinds"]
    found = warned(layout, table, "text.train_kinds=[raw, short, long]")
    assert found["text.train_kinds"].startswith(
        "these captions are in 'de', and the language of training is 'en': instead"
    )


def test_more_captions_than_a_captioner_writes(layout):
    found = warned(layout, "text.captions_per_image={long: 2}", "text.train_kinds=[raw, long]", "train.kinds=[raw]")
    (said,) = found.values()
    assert said.endswith(
        ": a captioner writes one long caption, which would be embedded 2 times; a table or a column may have more"
    )


def test_a_selection_counts_instead_of_the_split(layout):
    shards(layout, 830, 200)
    keys = [f"train{n}" for n in range(40)]
    pq.write_table(pa.table({"key": keys}), layout.root / "keys.parquet")
    found = warned(layout, "train.selection=keys.parquet")
    assert found["train.batch_size"].startswith("128, and there are 40 training pictures")
    chosen = check(layout, ["train.selection=keys.parquet", "train.batch_size=auto"]).chosen
    assert chosen == {"batch_size of flame": "8, for 40 samples"}


def test_a_workspace_of_the_same_data_is_warned_by_the_projects(layout):
    shards(layout, 51, 200)
    assert "train.batch_size" in warned(layout, "train.batch_size=64")
    assert warned(layout, "train.batch_size=64", "ingest.max_side=128") == {}  # other shards, which are not there


def test_a_server_of_captions_that_nothing_names_is_warned_of(layout, monkeypatch):
    server = "caption.long={captioner: server, model: m, prompt: Say.}"
    settings.cache_clear()
    assert warned(layout, server)["caption.long"].startswith("no server is named: set FLAME_CAPTION_SERVER")
    monkeypatch.setenv("FLAME_CAPTION_SERVER", "http://127.0.0.1:8000/v1")
    settings.cache_clear()
    assert warned(layout, server) == {}
