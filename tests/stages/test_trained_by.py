"""A model is known by what trained it: what is only evaluated changes no training's digest, and retrains nothing."""

from __future__ import annotations

import json
import shutil

import pytest

from flame_core.data.shards import INDEX, read_index
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.params.evaluation import BenchmarksParams
from flame_core.params.towers import TextTowerParams
from flame_core.stages import embed, embed_texts, train
from flame_core.text.manifest import read_manifest
from flame_core.text.store import TextStore
from flame_core.training.job import TrainingJob
from flame_core.verification import read_digests, verify, write_digests
from tests.bits import flip
from tests.stages.pipeline import captioned_project, tree, write_pairs
from tests.suite import datasets
from tests.training.world import recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory, byte_tokenizer) -> tuple[Params, Layout]:
    """Two trained recipes, one with a text tower; pictures of two classes, captions in two languages, one evaluated."""
    root = tmp_path_factory.mktemp("trained")
    for place, numbers in (("boats", range(100, 110)), ("houses", range(110, 120))):
        write_pairs(root / "pairs" / place, numbers)
        for number in numbers:
            captions = {"en": [f"drawing number {number}"], "de": [f"Zeichnung Nummer {number}"]}
            content = {"captions": captions, "category": place}
            (root / f"pairs/{place}/{number:04d}.json").write_text(json.dumps(content))
    datasets.clip_benchmark_classes(root / "datasets/colours")
    datasets.definition_file(root / "colours.yaml", {"kind": "classification"}, "clip_benchmark", "colours")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = captioned_project(root, byte_tokenizer, 4)
        plain = recipe(gates={"max_loss_ratio": 100.0}, epochs=2)
        own = plain.model_copy(update={"text_tower": TextTowerParams(width=16, depth=1, heads=2, max_tokens=32)})
        params = params.model_copy(
            update={
                "recipes": ["plain", "own"],
                "train": {"plain": plain, "own": own},
                "text": params.text.model_copy(update={"center": "per_facet"}),
                "evaluate": params.evaluate.model_copy(update={"languages": []}),
            }
        )
        embed.run(params, layout)
        for name in params.recipes:
            train.run(params, layout, name)
        yield params, layout


def trainings(layout: Layout) -> set[str]:
    return {path.name for path in (layout.work / "train").glob("[!.]*")}


EVALUATED = {
    "a language": {"languages": ["de"]},
    "a class prompt": {"class_prompts": ["{class}", "a drawing of {class}"]},
    "a recall_at": {"recall_at": [1, 2, 3]},
    "a benchmark": {"benchmarks": BenchmarksParams(names=["colours.yaml"])},
    "fewer pictures": {"max_pictures": 2},
}


@pytest.mark.parametrize("change", EVALUATED.values(), ids=EVALUATED)
def test_what_is_only_evaluated_retrains_nothing(trained, monkeypatch, change):
    params, layout = trained
    before, models, store = trainings(layout), tree(layout.data / "models"), tree(layout.embeddings)
    monkeypatch.setattr(TrainingJob, "run", lambda *_: pytest.fail("it was trained again"))
    changed = params.model_copy(update={"evaluate": params.evaluate.model_copy(update=change)})
    embed.run(changed, layout)
    embedded = tree(layout.embeddings)
    assert (embedded == store) == ("recall_at" in change)  # of which the store knows nothing
    assert {name: embedded[name] for name in store if name.startswith("train/")} == tree_of_training(store)
    for name in params.recipes:
        train.run(changed, layout, name)
    assert trainings(layout) == before
    assert tree(layout.data / "models") == models
    embed.run(params, layout)
    assert tree(layout.embeddings) == store


def tree_of_training(store: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in store.items() if name.startswith("train/")}


def test_a_training_needs_nothing_else_of_the_store_and_no_validation_captions(trained):
    """Not even that they are there: DVC is told of the two folders `train` only."""
    params, layout = trained
    before, models = trainings(layout), tree(layout.data / "models")
    away = layout.root / "away"
    for folder in (layout.embeddings, layout.captions):
        shutil.copytree(folder, away / folder.name)
    try:
        for path in [*layout.embeddings.iterdir(), layout.captions / "val"]:
            if path.name != "train":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(layout.work / "train")
        for name in params.recipes:
            train.run(params, layout, name)
        assert trainings(layout) == before
        assert tree(layout.data / "models") == models
    finally:
        for folder in (layout.embeddings, layout.captions):
            shutil.rmtree(folder)
            (away / folder.name).rename(folder)


def test_other_training_captions_embeddings_or_pictures_are_other_data(trained):
    params, layout = trained
    index = layout.shards / INDEX
    digest = read_index(layout.shards, "train").digest()
    assert json.loads((layout.model("plain") / "config.json").read_text())["data"]["shards"] == digest
    assert read_index(layout.shards, "val").digest() != digest != read_index(layout.shards).digest()
    assert index.is_file()

    path = next((layout.captions / "train").glob("*.parquet"))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b" ")
    write_digests(layout.captions)
    with pytest.raises(InputError, match=r"embeddings/train does not fit .*\n.*captions: the store has"):
        train.run(params, layout, "plain")
    path.write_bytes(content)
    write_digests(layout.captions)

    moved = params.model_copy(update={"text": params.text.model_copy(update={"layer": 1})})
    embed.run(moved, layout)
    before = trainings(layout)
    train.run(moved, layout, "plain")
    assert len(trainings(layout) - before) == 1
    embed.run(params, layout)
    train.run(params, layout, "plain")
    assert len(trainings(layout) - before) == 1


def test_the_training_part_holds_its_own_manifest_digests_and_checks(trained):
    _, layout = trained
    part, whole = layout.train_embeddings, read_digests(layout.embeddings)
    assert read_digests(part) == {
        name.removeprefix("train/"): digest
        for name, digest in whole.items()
        if name.startswith("train/") and name != "train/digests.json"
    }
    assert verify({part: ["*"]}).files == len(read_digests(part)) and verify({layout.embeddings: ["*"]})
    own, all_of_it = read_manifest(part), read_manifest(layout.embeddings)
    assert own.keys() >= {"llm", "layer", "template", "facets", "hidden", "center", "captions", "files"}
    assert not own.keys() & {"benchmarks", "report", "text_facets"}
    files = {f"train/{name}": digest for name, digest in own["files"].items()}
    assert files.items() <= all_of_it["files"].items()
    assert (part / "checks.json").read_bytes() == (layout.embeddings / "checks.json").read_bytes()

    shard = part / "00000.safetensors"
    flip(shard, shard.stat().st_size // 2, 3)
    try:
        with pytest.raises(InputError, match=r"00000\.safetensors is damaged(?s:.*)Run `flame embed`"):
            verify({part: ["*"]})
    finally:
        flip(shard, shard.stat().st_size // 2, 3)


def test_embed_texts_leaves_the_training_part(trained):
    params, layout = trained
    store = tree(layout.embeddings)
    wanted = params.model_copy(update={"evaluate": params.evaluate.model_copy(update=EVALUATED["a benchmark"])})
    embed_texts.run(wanted, layout)
    quick = tree(layout.embeddings)
    assert tree_of_training(quick) == tree_of_training(store)
    assert ("raw", "a red thing") in TextStore(layout.embeddings)
    embed.run(wanted, layout)
    assert tree(layout.embeddings) == quick
    embed.run(params, layout)
