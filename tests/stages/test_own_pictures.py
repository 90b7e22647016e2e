"""A folder of 64 pictures and a CSV, with only `sources` changed: every size is `auto`, and no stage is a dead end."""

from __future__ import annotations

import csv
import json

import pytest
import yaml
from transformers import PreTrainedTokenizerBase

from flame_core import gates
from flame_core.digest import write_json
from flame_core.failed_checks import failed_checks
from flame_core.layout import Layout
from flame_core.params import Params, load_params
from flame_core.preflight import check
from flame_core.stages import baselines, caption, compare, download, embed, evaluate, ingest, train
from flame_core.text.llm import SOURCE
from flame_core.verification import write_digests
from tests.conftest import text_params, tiny_llm
from tests.data.drawings import png
from tests.training.world import recipe

PICTURES = 64


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerBase) -> Layout:
    """The project: params, a recipe, a tiny LLM, and the user's folder."""
    root = tmp_path_factory.mktemp("own")
    folder = root / "pictures"
    folder.mkdir()
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for number in range(PICTURES):
            (folder / f"{number:02}.png").write_bytes(png(number))
            rows.writerow([f"{number:02}.png", f"a drawing of thing {number}"])
        rows.writerow(["bird.jpg", "a bird"])
        rows.writerow(["00.png", "a drawing", "and a field too many"])
    small = recipe().model_dump(mode="json")
    auto = {"batch_size": "auto", "epochs": "auto", "warmup_steps": "auto"}
    (root / "recipes").mkdir()
    (root / "recipes/small.yaml").write_text(yaml.safe_dump(small | auto))
    content = {
        "sources": {"mine": {"kind": "folder", "path": "pictures", "table": "captions.csv"}},
        "ingest": {"val_fraction": "auto", "shard_samples": "auto", "max_side": 64},
        "llm": {"name": "tiny", "source": "path:x"},
        "text": text_params(layer=2, train_kinds=["raw", "short"]).model_dump(mode="json", exclude_defaults=True),
        "recipes": ["small"],
        "evaluate": {"languages": ["en", "de"]},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    (root / "x").mkdir()  # where the LLM is said to come from; it is there already
    made = Layout.find(root)
    llm = made.llm / "tiny"
    tiny_llm("llama").save_pretrained(llm)
    byte_tokenizer.save_pretrained(llm)
    write_json(llm / SOURCE, {"name": "tiny", "source": "path:x", "files": {"model.safetensors": "0"}})
    write_digests(made.llm)
    return made


@pytest.fixture(scope="module")
def done(layout: Layout) -> Params:
    """The params of the run, once every stage has run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params = load_params(layout)
        for stage in (download, ingest, caption, embed):
            stage.run(params, layout)
        train.run(params, layout, "small")
        evaluate.run(params, layout, "small")
        baselines.run(params, layout)
        compare.run(params, layout)
    return params


def test_the_check_warns_and_says_what_auto_stands_for(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(layout.root)
    checked = check(layout)
    assert checked.faults == []
    warnings = {line.split(": ")[0].split(", ")[-1]: line.split(": ", 1)[1] for line in checked.warnings}
    assert warnings.keys() == {"sources.mine.table", "evaluate.languages.1", "ingest.val_fraction"}
    of_table = [line for line in checked.warnings if "sources.mine.table: " in line]
    assert "1 of 65 pairs have a caption and no picture" in of_table[0]
    assert "1 file or row cannot be read, and is left out: captions.csv: row 66 (line 67) has 3 fields" in of_table[1]
    assert "no caption is in 'de', so it is not measured" in warnings["evaluate.languages.1"]
    few = "about 15 held-out pictures are too few to tell a model from chance: recall@10 of a random order is 67%"
    assert warnings["ingest.val_fraction"].startswith(few)
    assert checked.chosen["ingest.val_fraction"] == "0.3, for 65 pairs"
    assert checked.chosen["batch_size of small"].startswith("8, for about ")
    assert checked.chosen["epochs of small"].startswith("100, for about ")
    fixed = "\n".join(check(layout, ["train.batch_size=128", "train.warmup_steps=2000"]).warnings)
    assert "--set train.batch_size=128, train.batch_size: 128, and there are about" in fixed
    assert "the learning rate would never reach its peak" in fixed


def test_every_stage_goes_through_and_what_has_not_passed_is_said(done: Params, layout: Layout):
    config = json.loads((layout.model("small") / "config.json").read_text())
    assert config["auto"] == ["batch_size", "epochs", "warmup_steps"]
    assert (config["recipe"]["batch_size"], config["recipe"]["epochs"]) == (8, 100)
    assert all(check.passed for check in gates.read(layout.model("small")))  # the loss went down
    failed = {found.name: found.blocking for _, found in failed_checks(layout, done.recipes)}
    ways = ("image_to_text", "text_to_image")
    damaged = {"mine/readable": False, "sources_readable": False}
    of_evaluation = {"languages_present": False, **{f"recall_over_chance/en/{way}": False for way in ways}}
    assert failed == damaged | of_evaluation
    page = (layout.report("small") / "report.html").read_text()
    assert "100 epochs, batch 8" in page and "batch_size, epochs, warmup_steps)" in page
    assert "not passed: every language of evaluate.languages has a validation caption: <b>de</b>" in page
    assert (
        "not passed: every file of the sources can be read: <b>1</b> (threshold 0) (for example captions.csv)" in page
    )
    assert "15 pictures in en are too few: a random order has a recall@10 of" in page and "✓ lower end" not in page


def test_after_ingest_the_numbers_are_those_of_the_shards(
    done: Params, layout: Layout, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(layout.root)
    samples = json.loads((layout.model("small") / "config.json").read_text())["samples"]
    chosen = check(layout).chosen
    assert chosen["batch_size of small"] == f"8, for {samples} samples"
    assert chosen["ingest.shard_samples"] == "16, for 65 pairs"
