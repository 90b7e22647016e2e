"""Recipes on a frozen tower's stored vectors, on the demo's pictures and on photographs: recall and processor time.

    flame run embed features --preset demo-pretrained    # and demo-pretrained-gemma, for the arms with Gemma
    python -m benchmarks.pretrained                      # trains what is missing in pretrained.jsonl, then the tables
    python -m benchmarks.pretrained --table

    flame run embed features --preset flickr8k-pretrained --set sources.flickr8k.path=/where/it/is
    python -m benchmarks.pretrained --flickr8k /where/it/is

The rate, and at the best rate the number of epochs, are chosen by English recall@10 (the mean of both directions and of
two seeds) on a fifth of the training pictures, after a training on the others; the validation split has no part in it.
Three rates are tried, and others by factors of two as long as the best is the lowest or the highest of all.
Of the numbers of epochs, it is the least whose recall is within one standard error of the best. Then three seeds are
trained on all training pictures. The tower is frozen, so pictures are encoded once. The arms with Gemma and with int8
take what was chosen for `lit`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import mean, mode
from typing import Any

import numpy as np
import torch

from benchmarks.measure import commit, machine
from benchmarks.trainings import AT, Results, Store, is_held_out, train_model, validation_rows
from flame_core.data.shards import IndexRow, PictureReader, read_index
from flame_core.data.sidecars import Sidecar, gather_sidecar, write_int8
from flame_core.digest import value_digest
from flame_core.layout import Layout
from flame_core.measuring.measures import OTHERS, evaluate
from flame_core.measuring.over_seeds import mean_and_deviation
from flame_core.measuring.retrieval import DIRECTIONS, Pairing, both_ways
from flame_core.measuring.text_side import texts_of
from flame_core.measuring.texts import read_classes, read_validation_captions
from flame_core.model_files import TEXT_WEIGHTS
from flame_core.params import TrainParams
from flame_core.text.jobs import training_job
from flame_core.text.projection import TextProjection
from flame_core.text.store import Drawn, TextStore, TrainStore
from flame_core.vision.image_encoder import load_tower
from flame_core.vision.initial_weights import fetch_initial_weights, load_initial_weights
from flame_core.vision.stored_features import features_of
from flame_core.vision.tower import ImageTower
from flame_core.work import UnitRecord, WorkCache
from flame_core.workspace import open_workspace, resolve_params

RESULTS = Path(__file__).parent / "pretrained.jsonl"
DEMO, GEMMA = Path("presets/demo-pretrained.yaml"), Path("presets/demo-pretrained-gemma.yaml")
FLICKR8K = Path("presets/flickr8k-pretrained.yaml")
RATES, EPOCHS, SEEDS = (5e-4, 1e-3, 2e-3), (15, 30, 60), (0, 1, 2)
CHOICE_SEEDS = SEEDS[:2]
INT8 = "data/sidecars/features-int8"
Row = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """A row of a table: a recipe with a preset, and what its header overrides to run on so few pictures."""

    name: str
    recipe: str
    preset: Path = DEMO
    overrides: tuple[str, ...] = ()
    like: str | None = None  # the arm whose rate and epochs it takes; None: its own
    source: tuple[str, ...] = ()  # overrides that its stages ran with

    @cached_property
    def store(self) -> Store:
        resolved = resolve_params(Layout.find(), self._all(), self.preset)
        base = resolve_params(Layout.find(), self.source, self.preset)  # whose stages have run
        return Store(resolved.params, open_workspace(Layout.find(), base))

    def _all(self) -> list[str]:
        return [f"recipes=[{self.recipe}]", *self.source, *self.overrides]

    def recipe_with(self, rate: float, epochs: int, seed: int) -> TrainParams:
        values = [f"train.optimizer.learning_rate={rate}", f"train.epochs={epochs}", f"train.seed={seed}"]
        return resolve_params(Layout.find(), [*self._all(), *values], self.preset).params.train[self.recipe]


_SHARELOCK = (
    "train.model.head_hidden=null",
    "train.text_projection.dim=1280",
    "train.text_projection.hidden=1024",
)
_SAIL = ("train.text_projection.hidden=1024",)
ARMS = [
    Arm("lit", "lit"),
    Arm("sharelock", "sharelock", overrides=_SHARELOCK),
    Arm("sail", "sail", overrides=_SAIL),
    Arm("lit, Gemma", "lit", GEMMA, like="lit"),
    Arm("lit, int8", "lit", overrides=(f"train.sidecars.features={INT8}",), like="lit"),
]
PHOTOGRAPHS = [
    Arm("lit, Flickr8k", "lit", FLICKR8K),
    Arm("sharelock, Flickr8k", "sharelock", FLICKR8K, _SHARELOCK),
    Arm("sail, Flickr8k", "sail", FLICKR8K, _SAIL),
]


def trained(arm: Arm, phase: str, rate: float, epochs: int, seed: int, results: Results) -> Row:
    """The line of the results file of a training, which is done if it is not there."""
    recipe = arm.recipe_with(rate, epochs, seed)
    run = value_digest({"store": arm.store.digest, "phase": phase, "recipe": recipe.identity})
    if (found := results.find(run)) is not None:
        return found
    start, cpu = time.perf_counter(), time.process_time()
    row: Row = {"arm": arm.name, "phase": phase, "rate": rate, "epochs": epochs, "seed": seed}
    index = read_index(arm.store.layout.shards, "train")
    held = [each for each in index if is_held_out(each)]
    with tempfile.TemporaryDirectory() as name:
        keys = [each.key for each in index if not is_held_out(each)] if phase == "choice" else None
        model = train_model(arm.store, recipe, Path(name), keys)
        row["train_cpu_seconds"] = round(time.process_time() - cpu, 1)
        row["scores"] = held_out(arm.store, recipe, model, held) if keys else validation(arm.store, model, recipe)
    row |= {"seconds": round(time.perf_counter() - start, 1), "run": run, "machine": machine(), "commit": commit()}
    return results.add(row)


def held_out(store: Store, recipe: TrainParams, model: Path, held: Sequence[IndexRow]) -> dict[str, float]:
    """Recall@10 in the training language of held-out training pictures among their first raw captions."""
    params, layout = store.params, store.layout
    language = params.evaluate.train_language
    jobs = {name: training_job(layout.captions, name, params.text, language) for name in {row.shard for row in held}}
    raw = [jobs[row.shard].texts["raw"][row.row * params.text.captions_of("raw")] for row in held]
    texts = list(dict.fromkeys(raw))
    pairing = Pairing.of(((i, texts.index(text)) for i, text in enumerate(raw)), texts)
    facets = TrainStore(layout.embeddings)
    slot = [facets.facets.index("raw/1")]
    first = [held[raw.index(text)] for text in texts]
    t = facets.read([Drawn(row.shard, row.row, slot) for row in first])[:, 0].float()
    if recipe.text_projection is not None:
        from safetensors.torch import load_file

        layers = TextProjection(recipe.text_projection, facets.hidden)
        layers.load_state_dict(load_file(model / TEXT_WEIGHTS))
        with torch.inference_mode():
            t = layers.eval()(t)
    stored = Sidecar(layout.features).read([(row.shard, row.row) for row in held])[:, 0].float()
    z = seen(model, stored)[:, 0]
    return {language: round(mean(each.recall(AT) for each in both_ways(z, t.numpy(), pairing).values()), 5)}


def validation(store: Store, model: Path, recipe: TrainParams) -> dict[str, float]:
    """English, the mean of the other languages and zero-shot of the validation pictures, as in `flame evaluate`."""
    params, layout = store.params, store.layout
    rows = validation_rows(store)
    captions = read_validation_captions(layout.captions, params.evaluate)
    texts = texts_of(model, params, layout, TextStore.open(layout.embeddings))
    z = seen(model, encoded(store, recipe, rows))
    metrics = evaluate(
        params, z, [row.key for row in rows], captions, read_classes(layout.shards), texts.lookup, {}
    ).metrics
    names = (params.evaluate.train_language, OTHERS)
    found = {
        name: mean(metrics[f"retrieval/{name}/{direction}/recall@{AT}"] for direction in DIRECTIONS) for name in names
    }
    if "classification/top1" in metrics:  # a source with classes
        found["zero-shot"] = metrics["classification/top1"]
    return {name: round(value, 5) for name, value in found.items()}


def seen(model: Path, vectors: torch.Tensor) -> np.ndarray:
    """Z [N, 1, D] of pictures by a model, from the frozen backbone's vectors of them [N, C]."""
    tower, _ = load_tower(model)
    with torch.inference_mode():
        return tower(vectors)["z"].numpy()


_ENCODED: dict[str, torch.Tensor] = {}


def encoded(store: Store, recipe: TrainParams, rows: Sequence[IndexRow]) -> torch.Tensor:
    """The frozen backbone's vectors [N, C] of pictures, computed once."""
    weights = fetch_initial_weights(recipe.model, store.layout)
    kept = value_digest({"weights": weights.sha256, "keys": [row.key for row in rows]})
    if kept not in _ENCODED:
        model = recipe.model.model_copy(update={"head": "pooled", "head_hidden": None})
        tower = ImageTower(model, hidden=1, facets=1)
        load_initial_weights(tower.backbone, weights.folder)
        reader = PictureReader(store.layout.shards)
        found = features_of(tower.eval(), [reader.jpeg(row) for row in rows], model, ["plain"], "cpu")
        _ENCODED[kept] = torch.from_numpy(found[:, 0])
    return _ENCODED[kept]


def compared(arm: Arm, results: Results) -> None:
    """Choose the rate and the epochs of an arm, then train it with all seeds."""
    if INT8 in " ".join(arm.overrides):
        write_coarse(arm.store)
    rate, epochs = chosen(next(each for each in ARMS if each.name == arm.like) if arm.like else arm, results)
    for seed in SEEDS:
        trained(arm, "final", rate, epochs, seed, results)


def chosen(arm: Arm, results: Results) -> tuple[float, int]:
    """The rate with the best held-out recall, and at it the fewest epochs within one standard error of the best."""
    language = arm.store.params.evaluate.train_language

    def score(rate: float, epochs: int) -> float:
        return mean(trained(arm, "choice", rate, epochs, seed, results)["scores"][language] for seed in CHOICE_SEEDS)

    rates = list(RATES)
    while (rate := max(rates, key=lambda each: score(each, EPOCHS[1]))) in (rates[0], rates[-1]):
        rates = [rate / 2, *rates] if rate == rates[0] else [*rates, rate * 2]
    held = sum(is_held_out(row) for row in read_index(arm.store.layout.shards, "train"))
    best = max(score(rate, epochs) for epochs in EPOCHS)
    enough = best - (best * (1 - best) / held) ** 0.5
    return rate, min(epochs for epochs in EPOCHS if score(rate, epochs) >= enough)


def write_coarse(store: Store) -> None:
    """The stored vectors once more, in int8."""
    layout, index = store.layout, read_index(store.layout.shards, "train")
    out = layout.root / INT8
    if out.is_dir():
        return
    exact, units = Sidecar(layout.features), {}
    for shard in index.shard_sizes():
        places = [(shard, row.row) for row in index if row.shard == shard]

        def write(folder: Path, places: list[tuple[str, int]] = places) -> UnitRecord:
            write_int8(folder, out.name, exact.read(places).float().numpy())
            return UnitRecord({"pictures": len(places)})

        units[shard] = WorkCache(layout.work, "features").get({"int8 of": exact.digest, "shard": shard}, write)
    gather_sidecar(out, layout.state, units, index, "features", exact.manifest.origin)


def table(arms: Sequence[Arm], results: Results) -> str:
    """Markdown: the mean over the seeds, and their deviation."""
    lines = ["| | rate, epochs | English | other languages | zero-shot | training, s |", "|---|---|---|---|---|---|"]
    for arm in arms:
        finals = [row for row in results.rows if row["arm"] == arm.name and row["phase"] == "final"]
        if not finals:
            continue
        kind = mode((row["rate"], row["epochs"]) for row in finals)  # an earlier choice may have left others
        rows = [row for row in finals if (row["rate"], row["epochs"]) == kind]
        cells = []
        for name in ("en", OTHERS, "zero-shot"):
            values = [100 * row["scores"][name] for row in rows if name in row["scores"]]
            cells.append(mean_and_deviation(values) if values else "")
        seconds = mean(row["train_cpu_seconds"] for row in rows)
        lines.append(f"| {arm.name} | {rows[0]['rate']:g}, {rows[0]['epochs']} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS], help="only these of the demo")
    parser.add_argument("--flickr8k", metavar="PATH", help="train the arms on Flickr8k, not those on the demo")
    parser.add_argument("--table", action="store_true", help="only the tables of existing results")
    options = parser.parse_args()
    results = Results(options.results)
    arms = [arm for arm in ARMS if not options.arms or arm.name in options.arms]
    if options.flickr8k:
        source = f"sources.flickr8k.path={options.flickr8k}"
        arms = [replace(arm, source=(source,)) for arm in PHOTOGRAPHS]
    for arm in arms if not options.table else ():
        compared(arm, results)
    for each in (ARMS, PHOTOGRAPHS):
        print(table(each, results), end="\n\n")


if __name__ == "__main__":
    main()
