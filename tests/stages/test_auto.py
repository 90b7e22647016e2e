"""`auto` in params: the stages choose by the rules, record what they chose, and make what the written values make."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flame_core.data.shards import CHOSEN, read_chosen, read_index
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.pages.run_facts import read_run_facts
from flame_core.params import IngestParams, Params
from flame_core.stages import embed, ingest, train
from flame_core.text.llm import SOURCE
from flame_core.tracking.provenance import flat_params
from flame_core.tracking.recorded_run import recorded_models
from flame_core.verification import write_digests
from tests.stages.pipeline import captioned_project, tree
from tests.training.world import recipe

AUTO: dict[str, Any] = {"batch_size": "auto", "epochs": "auto", "warmup_steps": "auto"}
PAIRS = 24
SIZES = {"val_fraction": 0.3, "shard_samples": 16}  # the rules' values for so many pairs


@pytest.fixture(scope="module")
def project(tmp_path_factory, byte_tokenizer):
    """A project whose captions are embedded; all sizes of `ingest` and of its recipe are `auto`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        layout = Layout.find(tmp_path_factory.mktemp("auto"))
        params, _ = captioned_project(layout.root, byte_tokenizer, PAIRS, val_fraction="auto", shard_samples="auto")
        (layout.llm / "tiny" / SOURCE).write_text(json.dumps({"name": "tiny", "source": "path:x", "files": {}}))
        write_digests(layout.llm)
        embed.run(params, layout)
        small = recipe(gates={"max_loss_ratio": 100.0}, **AUTO)
        yield params.model_copy(update={"recipes": ["plain"], "train": {"plain": small}}), layout


def test_ingest_makes_what_the_written_values_make_and_records_them(project: tuple[Params, Layout]):
    params, layout = project
    assert read_chosen(layout.shards) == SIZES
    assert json.loads((layout.shards / CHOSEN).read_text()) == {"pairs": PAIRS, **SIZES}
    chosen = {name: content for name, content in tree(layout.shards).items() if "json" not in name}
    written = IngestParams.model_validate({**params.ingest.model_dump(), **SIZES})
    ingest.run(params.model_copy(update={"ingest": written}), layout)
    again = tree(layout.shards)
    assert {name: content for name, content in again.items() if "json" not in name} == chosen
    assert CHOSEN not in again and read_chosen(layout.shards) == {}
    ingest.run(params, layout)
    (layout.shards / CHOSEN).write_text("[")
    with pytest.raises(InputError, match="run `flame ingest` again"):
        read_chosen(layout.shards)
    ingest.run(params, layout)


def test_a_training_is_that_of_the_written_values(project: tuple[Params, Layout], capsys: pytest.CaptureFixture[str]):
    params, layout = project
    samples = len(read_index(layout.shards, "train"))
    assert samples == 19  # so an epoch is two steps of 8 pictures, and there are 100 epochs
    train.run(params, layout, "plain")
    said = capsys.readouterr().err
    assert "train.batch_size" in said and "8, chosen for them" in said
    config = json.loads((layout.model("plain") / "config.json").read_text())
    values = {"batch_size": 8, "epochs": 100, "warmup_steps": 20}
    assert {name: config["recipe"][name] for name in values} == values
    assert config["auto"] == list(values) and config["samples"] == samples
    weights = (layout.model("plain") / "model.safetensors").read_bytes()
    steps = [json.loads(line) for line in (layout.model("plain") / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 200
    peak = params.train["plain"].optimizer.learning_rate
    assert steps[19]["learning_rate"] == pytest.approx(peak) and steps[18]["learning_rate"] < peak

    written = params.train["plain"].model_copy(update=values)
    train.run(params.model_copy(update={"train": {"plain": written}}), layout, "plain")
    assert len(list((layout.work / "train").glob("[!.]*"))) == 1  # found, not trained again
    assert (layout.model("plain") / "model.safetensors").read_bytes() == weights
    assert "auto" not in json.loads((layout.model("plain") / "config.json").read_text())


def test_records_have_the_values(project: tuple[Params, Layout], monkeypatch: pytest.MonkeyPatch):
    params, layout = project
    train.run(params, layout, "plain")
    flat = flat_params(params, layout, params.train["plain"].fitted(19))
    assert flat["ingest.val_fraction"] == "0.3" and flat["ingest.shard_samples"] == "16"
    assert (flat["train.batch_size"], flat["train.epochs"], flat["train.warmup_steps"]) == ("8", "100", "20")
    facts = read_run_facts(params, layout, "plain", {})
    assert facts.trained == params.train["plain"].fitted(19) and not facts.trained.automatic
    monkeypatch.chdir(layout.root)
    (model,) = recorded_models(layout, str(layout.model("plain"))).values()
    assert model.params["train.batch_size"] == "8"
