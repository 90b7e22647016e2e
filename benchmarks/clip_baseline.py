"""The crossed table: text side {frozen LLM, random LLM, trained} by loss {sigmoid, InfoNCE}, and FLAME's own.

    python -m benchmarks.clip_baseline                 # the project's params.yaml (the demo, after `make demo`)
    python -m benchmarks.clip_baseline --preset presets/flickr8k.yaml --set sources.flickr8k.path=/where/it/is
    python -m benchmarks.clip_baseline --table         # only the table of existing results

Pictures, tower, projector, augmentation, caption draws, batch and steps are the same in every arm. For each arm three
learning rates are tried with a fifth of the training pictures held out; the best one (by recall@10 in the training
language, both directions) is used to train on all pictures with three seeds. Each finished training is a line of the
results file, and a rerun does only what is missing. docs/decisions/clip-baseline.md has the reasons.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.measure import commit, machine
from benchmarks.trainings import Results, Store, embedded, held_out_scores, validation_scores
from flame_core.digest import value_digest
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.workspace import resolve_params

RESULTS = Path(__file__).parent / "clip_baseline.jsonl"
RATES = (5e-4, 1e-3, 2e-3)
SEEDS = (0, 1, 2)
# The demo's tower with 4 blocks instead of 6 and 16 patches of 12 px instead of 36 of 8 px; texts of the same width.
SMALL = [
    "train.model.backbone_options={img_size: 48, patch_size: 12, embed_dim: 192, depth: 4, num_heads: 3}",
    "train.model.image_size=48",
    "train.cpu_threads=1",
]
TUNING = 0.3  # fraction of the project's epochs to compare rates
# The last token, which benchmarks/sentence_reading.py found better than the mean on training captions of Flickr8k.
SENTENCE = "text.sentence={read: last}"
RANDOM = ("llm.name=random-llm", "llm.random_seed=0")


@dataclass(frozen=True)
class Arm:
    """A row of the table: a recipe, and overrides of its training and of its texts.

    `one_facet` keeps only the facet of the raw caption that describes the whole. `sentence` reads captions as sentences
    and keeps the minimum of facets that a store may have, since nothing is trained on them. `captions` is how many of a
    picture's stored captions are drawn from; None: all.
    """

    name: str
    recipe: str
    train: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    one_facet: bool = False
    sentence: bool = False
    captions: int | None = None

    def store(self, params: Params) -> tuple[str, ...]:
        """The overrides that make its store from the project's params."""
        if self.sentence:
            kinds = params.text.train_kinds
            return (SENTENCE, *(f"text.template.{kind}={{prefix: '{{caption}}', facets: [' .']}}" for kind in kinds))
        raw = params.text.template["raw"].facets
        less = self.one_facet and len(raw) > 1
        return (*self.texts, f"text.template.raw.facets={json.dumps(raw[:1])}") if less else self.texts


KEEP_ACTIVATIONS = "train.model.checkpoint_activations=false"  # the recipe's is for batches of 16,384
ONE_TEXT = ("train.kinds=[raw]", "train.texts_per_image=1")
ARMS = [
    Arm("frozen LLM, sigmoid (FLAME)", "flame"),
    Arm("frozen LLM, InfoNCE", "flame-infonce"),
    Arm("random LLM, sigmoid", "flame", texts=RANDOM),
    Arm("random LLM, InfoNCE", "flame-infonce", texts=RANDOM),
    Arm("trained text, sigmoid", "clip-sigmoid"),
    Arm("trained text, InfoNCE (CLIP)", "clip"),
    Arm("FLAME, raw caption alone", "flame-raw", ONE_TEXT, one_facet=True),
    Arm("FLAME, first raw caption alone", "flame-raw", ONE_TEXT, one_facet=True, captions=1),
    Arm("FLAME with facet tokens", "flame-facets"),
    Arm("FLAME with facet tokens, weight 1", "flame-facets", ("train.objective.facet_weight=1.0",)),
    Arm("LIFT", "lift", (KEEP_ACTIVATIONS,), sentence=True),
    Arm("LIFT, cosine", "lift-cosine", (KEEP_ACTIVATIONS,), sentence=True),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--data", help="name of these pictures in the results; by default that of the preset")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS], help="run only these")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    results = Results(options.results)
    name = options.data or (options.preset.stem if options.preset else "demo")
    if not options.table:
        stores: dict[tuple[str, ...], Store] = {}
        params = resolve_params(Layout.find(), options.overrides, options.preset).params
        for rate_or_seed in ("rates", *SEEDS):  # one seed after the other, so that a table exists early
            for arm in ARMS:
                if options.arms and arm.name not in options.arms:
                    continue
                if arm.captions and arm.captions >= params.text.captions_of("raw"):
                    continue  # the arm before it
                overrides = (*options.overrides, *arm.store(params))
                if overrides not in stores:
                    stores[overrides] = embedded(list(overrides), options.preset)
                bench = Bench(name, stores[overrides], overrides, options.preset, results)
                if rate_or_seed == "rates":
                    bench.best_rate(arm)
                else:
                    bench.final(arm, bench.best_rate(arm), int(rate_or_seed))
    print(table(name, results))


@dataclass(frozen=True)
class Bench:
    """Trainings of arms with one store."""

    name: str
    store: Store
    overrides: tuple[str, ...]
    preset: Path | None
    results: Results

    def best_rate(self, arm: Arm) -> float:
        """The rate with the best recall on held-out training pictures, after a shorter schedule."""
        found = [self._measured(arm, "rate", rate, 0) for rate in RATES]
        language = self.store.params.evaluate.train_language
        return max(found, key=lambda row: row["scores"][language])["rate"]

    def final(self, arm: Arm, rate: float, seed: int) -> None:
        """A training on all pictures, measured on the validation split."""
        self._measured(arm, "final", rate, seed)

    def _measured(self, arm: Arm, phase: str, rate: float, seed: int) -> dict[str, Any]:
        own = [*SMALL, *arm.train, f"train.optimizer.learning_rate={rate}", f"train.seed={seed}"]
        params = resolve_params(Layout.find(), [*self.overrides, f"recipes=[{arm.recipe}]", *own], self.preset).params
        recipe = params.train[arm.recipe]
        if phase == "rate" and recipe.epochs != "auto":
            recipe = recipe.model_copy(update={"epochs": round(TUNING * recipe.epochs)})
        identity = {"store": self.store.digest, "phase": phase, "recipe": recipe.identity}
        run = value_digest(identity | ({"captions": arm.captions} if arm.captions else {}))
        if found := self.results.find(run):
            return found
        start = time.process_time()
        measure = held_out_scores if phase == "rate" else validation_scores
        scores = measure(self.store, recipe, arm.captions)
        return self.results.add(
            {
                "data": self.name,
                "arm": arm.name,
                "phase": phase,
                "rate": rate,
                "seed": seed,
                "scores": {language: round(score, 5) for language, score in scores.items()},
                "cpu_seconds": round(time.process_time() - start),
                "run": run,
                "machine": machine(),
                "commit": commit(),
            }
        )


def table(data: str, results: Results) -> str:
    """The table of the final trainings, in per cent, with the standard deviation over the seeds."""
    lines = ["| arm | rate | seeds | English | other languages | CPU minutes |", "|---|---|---|---|---|---|"]
    for arm in ARMS:
        rows = [row for row in results.rows if (row["data"], row["arm"], row["phase"]) == (data, arm.name, "final")]
        if not rows:
            continue
        english = [row["scores"]["en"] for row in rows]
        others = [mean(score for language, score in row["scores"].items() if language != "en") for row in rows]
        shown = [f"{100 * mean(each):.1f} ± {_deviation(each):.1f}" for each in (english, others)]
        minutes = mean(row["cpu_seconds"] for row in rows) / 60
        rates = ", ".join(sorted({f"{row['rate']:g}" for row in rows}))
        lines.append(f"| {arm.name} | {rates} | {len(rows)} | {shown[0]} | {shown[1]} | {minutes:.1f} |")
    return "\n".join(lines)


def _deviation(values: list[float]) -> float:
    return 100 * stdev(values) if len(values) > 1 else float("nan")


if __name__ == "__main__":
    main()
