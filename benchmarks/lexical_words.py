"""LexVLA's words on the demo beside FLAME's projector: recall, and what the penalties of used words do, three seeds.

    python -m benchmarks.lexical_words --seeds 0 1 2
    python -m benchmarks.lexical_words --table        # only the table of existing results

`flame run --preset demo-words` for every arm and seed: the same pictures, captions, tower, batch and steps. An arm of
words differs in its penalty only. Each measured model is a line of a results file, and a rerun does only what is
missing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.measure import commit, machine
from benchmarks.trainings import Results, embedded
from flame_core.digest import value_digest
from flame_core.measuring.over_seeds import mean_and_deviation

RESULTS = Path(__file__).parent / "lexical_words.jsonl"
PRESET = Path("presets/demo-words.yaml")
# Two threads wait for each other on a machine that does other work as well.
THREADS = ("train.cpu_threads=1", "text.cpu_threads=1")
WORDS = "lexvla-frozen"
ARMS: dict[str, tuple[str, str]] = {  # {arm: (recipe, its terms)}
    "FLAME, raw captions": ("flame", ""),
    "projector with InfoNCE": ("flame-infonce", ""),
    "words, no penalty": (WORDS, "[]"),
    "words, flops": (WORDS, "[{name: flops, weight: 0.01, ramp: 0.1}]"),
    "words, overuse": (WORDS, "[{name: overuse, weight: 0.01, ramp: 0.1}]"),
    "words, overuse, detached": (WORDS, "[{name: overuse, weight: 0.01, ramp: 0.1, detach: true}]"),
    "words, overuse, five times": (WORDS, "[{name: overuse, weight: 0.05, ramp: 0.1}]"),
}
MEASURES = {  # {column: (metrics whose mean it is, factor)}
    "recall@10 en, %": (["retrieval/en/image_to_text/recall@10", "retrieval/en/text_to_image/recall@10"], 100.0),
    "recall@10 de, %": (["retrieval/de/image_to_text/recall@10", "retrieval/de/text_to_image/recall@10"], 100.0),
    "zero-shot, %": (["classification/top1"], 100.0),
    "active words": (["words/active"], 1.0),
    "largest use, %": (["words/largest_use"], 100.0),
    "never active, %": (["words/never_active"], 100.0),
    "recall@10 en of active words, %": (["words/active/recall@10"], 100.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    results = Results(RESULTS)
    for seed in () if options.table else options.seeds:
        for arm in options.arms:
            measured(arm, seed, results)
    print(table(results))


def measured(arm: str, seed: int, results: Results) -> None:
    """Train and measure an arm with a seed, unless its line is there."""
    recipe, terms = ARMS[arm]
    own = [f"recipes=[{recipe}]", f"train.seed={seed}", *([f"train.terms={terms}"] if terms else [])]
    run = value_digest({"preset": PRESET.read_text("utf-8"), "overrides": own})
    if results.find(run) is not None:
        return
    layout = embedded([*THREADS, *own], PRESET, f"evaluate@{recipe}").layout
    metrics: dict[str, Any] = json.loads((layout.report(recipe) / "metrics.json").read_text("utf-8"))
    kept = {name: metrics[name] for names, _ in MEASURES.values() for name in names if name in metrics}
    row = {"arm": arm, "phase": "final", "rate": 0.001, "seed": seed, "scores": kept, "run": run}
    results.add({**row, "machine": machine(), "commit": commit()})


def table(results: Results) -> str:
    """Mean and deviation over the seeds."""
    lines = [f"| arm | seeds | {' | '.join(MEASURES)} |", f"|---|---|{'---|' * len(MEASURES)}"]
    for arm in ARMS:
        rows = [row["scores"] for row in results.rows if row["arm"] == arm]
        cells = [_cell(rows, names, factor) for names, factor in MEASURES.values()]
        lines.append(f"| {arm} | {len(rows) or ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rows: Sequence[dict[str, float]], names: Sequence[str], factor: float) -> str:
    if not rows:
        return "not yet measured"
    values = [factor * mean(row[name] for name in names) for row in rows if all(name in row for name in names)]
    if not values:
        return ""
    return mean_and_deviation(values)


if __name__ == "__main__":
    main()
