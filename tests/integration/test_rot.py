"""Rot in the outs of a small project: one bit of a file is another, size and times stay, one consumer runs alone.

It must end with an error that names the file, or leave the bytes that it leaves in an undisturbed project; and what it
kept in the work cache meanwhile must be right once the file is.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from flame_core.errors import FlameError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.params.evaluation import BenchmarksParams
from flame_core.params.towers import TextTowerParams
from flame_core.stages import baselines, caption, compare, embed, embed_texts, evaluate, ingest, train
from flame_core.text.llm import SOURCE
from flame_core.training.job import TrainingJob
from flame_core.verification import write_digests
from tests.bits import flip
from tests.stages.pipeline import captioned_project, tree
from tests.suite import datasets, tiny_clip
from tests.training.world import recipe


class Consumer(NamedTuple):
    """A command that reads outs: what it reads, what it leaves, and the stages whose cached work it would find."""

    run: Callable[[], None]
    deps: list[Path]
    out: Path
    work: list[str]


@pytest.fixture(scope="module")
def consumers(tmp_path_factory, byte_tokenizer) -> tuple[dict[str, Consumer], Layout]:
    """Every consumer of a finished project, by name; two recipes, one with a text tower of its own."""
    root = tmp_path_factory.mktemp("rot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = captioned_project(root, byte_tokenizer, 20)
        llm = layout.llm / "tiny"
        (llm / SOURCE).write_text(json.dumps({"name": "tiny", "source": "path:x", "files": {}}))
        write_digests(layout.llm)
        clip = tiny_clip.save(root / "clip", byte_tokenizer)
        datasets.clip_benchmark_classes(root / "datasets/colours")
        datasets.definition_file(root / "colours.yaml", {"kind": "classification"}, "clip_benchmark", "colours")
        params = _widened(params, {"CLIP": f"transformers:{clip}"})
        with_benchmark = params.model_copy(
            update={
                "evaluate": params.evaluate.model_copy(update={"benchmarks": BenchmarksParams(names=["colours.yaml"])})
            }
        )
        shards, captions, store = layout.shards, layout.captions, layout.embeddings
        models = {name: layout.model(name) for name in params.recipes}
        made = {
            "ingest": Consumer(lambda: ingest.run(params, layout), [layout.raw], shards, ["ingest"]),
            "caption": Consumer(lambda: caption.run(params, layout), [shards], captions, ["caption"]),
            "embed": Consumer(lambda: embed.run(params, layout), [shards, captions, layout.llm], store, ["embed"]),
        }
        for name, model in models.items():
            made[f"train {name}"] = Consumer(
                lambda name=name: train.run(params, layout, name), [shards, captions, store], model, ["train"]
            )
            made[f"evaluate {name}"] = Consumer(
                lambda name=name: evaluate.run(params, layout, name),
                [shards, captions, store, layout.llm, model],
                layout.report(name),
                ["encode"],
            )
        made["baselines"] = Consumer(
            lambda: baselines.run(params, layout), [shards, captions, store], layout.baselines, ["encode"]
        )
        made["compare"] = Consumer(
            lambda: compare.run(params, layout),
            [layout.baselines, *map(layout.report, params.recipes)],
            layout.comparison,
            [],
        )
        for consumer in made.values():
            consumer.run()

        def add_texts() -> None:
            shutil.rmtree(store)
            shutil.copytree(root / "store", store)
            embed_texts.run(with_benchmark, layout)

        shutil.copytree(store, root / "store")
        # It replaces what it reads, so it reads a copy; the store is put back for the others.
        made["embed-texts"] = Consumer(add_texts, [root / "store", captions, layout.llm], store, ["embed"])
        yield made, layout


def _widened(params: Params, models: dict[str, str]) -> Params:
    """Recipes with and without a text tower, baselines, and gates that a toy passes."""
    plain = recipe(gates={"max_loss_ratio": 100.0}, epochs=2)
    own = plain.model_copy(update={"text_tower": TextTowerParams(width=16, depth=1, heads=2, max_tokens=32)})
    options = {
        "baselines": models,
        "gates": params.evaluate.gates.model_copy(update={"min_recall_over_chance": 0.0}),
    }
    return params.model_copy(
        update={
            "recipes": ["plain", "own"],
            "train": {"plain": plain, "own": own},
            "text": params.text.model_copy(update={"center": "per_facet"}),
            "evaluate": params.evaluate.model_copy(update=options),
        }
    )


def sweep(made: dict[str, Consumer], layout: Layout, places: int) -> Counter[str]:
    """Flip bits at seeded places of each file of each consumer's dependencies; returns how the consumers took them."""
    draw = random.Random(17)
    taken: Counter[str] = Counter()
    for name, consumer in made.items():
        _forget(consumer, layout)
        consumer.run()
        undisturbed = tree(consumer.out)
        files = [path for dep in consumer.deps for path in sorted(dep.rglob("*")) if path.is_file()]
        for path in files:
            for _ in range(places):
                place, bit = draw.randrange(path.stat().st_size), draw.randrange(8)
                _forget(consumer, layout)
                flip(path, place, bit)
                try:
                    consumer.run()
                except FlameError as error:
                    assert path.name in str(error), (name, path, place, bit, error)
                    assert tree(consumer.out) == undisturbed or name == "embed-texts"
                    assert not any(list((layout.work / stage).glob("[!.]*")) for stage in consumer.work), (name, path)
                    taken["refused"] += 1
                else:
                    assert _but_copies(tree(consumer.out), path) == _but_copies(undisturbed, path), (name, path, place)
                    taken["same bytes"] += 1
                finally:
                    flip(path, place, bit)
        consumer.run()
        assert tree(consumer.out) == undisturbed, name
        if name == "embed-texts":
            made["embed"].run()
    return taken


def _but_copies(files: dict[str, bytes], path: Path) -> dict[str, bytes]:
    """Without a file that `embed-texts` takes over unread (its recorded digest stays that of the sound one)."""
    return {name: content for name, content in files.items() if not path.as_posix().endswith(f"/store/{name}")}


def _forget(consumer: Consumer, layout: Layout) -> None:
    for stage in consumer.work:
        shutil.rmtree(layout.work / stage, ignore_errors=True)


# One file of each kind that a consumer reads, so that each flip must end in an error.
KINDS = {
    "ingest": ["pairs.parquet", "source.json"],
    "caption": ["index.parquet", "train/00000.tar"],
    "embed": ["val/00000.parquet", "val/00000.tar", "tiny/model.safetensors", "tiny/tokenizer.json"],
    "train plain": ["index.parquet", "train/00000.tar", "embeddings/train/manifest.json", "train/center.safetensors"],
    "train own": ["embeddings/train/00000.safetensors", "captions/train/00000.parquet", "train/tokenizer.json"],
    "evaluate plain": ["ledger.parquet", "texts/00000.parquet", "texts/00000.safetensors", "plain/model.safetensors"],
    "evaluate own": ["own/text.safetensors", "own/config.json", "own/tokenizer.json"],
    "baselines": ["val/00000.tar", "val/00000.parquet"],
    "compare": ["CLIP/metrics.json", "own/outcomes.parquet", "plain/benchmarks.json"],
    "embed-texts": ["store/manifest.json", "tiny/config.json"],
}


def test_a_flipped_bit_of_each_kind_of_file_ends_in_an_error_that_names_it(consumers):
    made, layout = consumers
    assert made.keys() == KINDS.keys()
    for name, endings in KINDS.items():
        deps = made[name].deps
        for ending in endings:
            (path, *_) = [path for dep in deps for path in sorted(dep.rglob("*")) if str(path).endswith(ending)]
            place = path.stat().st_size // 2
            _forget(made[name], layout)
            flip(path, place, 2)
            with pytest.raises(FlameError, match=path.name) as caught:
                made[name].run()
            flip(path, place, 2)
            assert caught.value.exit_code == 3


@pytest.mark.slow
def test_no_flipped_bit_passes_unseen(consumers, record_property):
    made, layout = consumers
    taken = sweep(made, layout, places=2)
    for how, count in taken.items():
        record_property(f"flipped bits in outs, {how}", count)
    assert taken["refused"] > 100


def test_data_that_rot_while_a_training_reads_them_leave_no_model(consumers, monkeypatch):
    made, layout = consumers
    consumer, shard = made["train plain"], layout.shards / "train/00000.tar"
    _forget(consumer, layout)
    run = TrainingJob.run

    def rotting(self, *arguments) -> None:
        run(self, *arguments)
        flip(shard, 2000, 1)

    monkeypatch.setattr(TrainingJob, "run", rotting)
    with pytest.raises(FlameError, match=r"train/00000\.tar is damaged"):
        consumer.run()
    monkeypatch.undo()
    flip(shard, 2000, 1)
    assert not list((layout.work / "train").glob("[!.]*"))
