"""A quarter of the samples, selected and at random, against all of them, at as many samples seen, three seeds.

    python -m benchmarks.selections --processes 8              # with params.yaml: after `make demo`, the demo
    python -m benchmarks.selections --preset presets/flickr8k.yaml --set sources.flickr8k.path=/where/it/is \
        --set codes.codes=1024 --set select.clusters=64 --set train.batch_size=100 \
        --arms 'all (raw)' 'quarter (raw)' 'quarter-random (raw)'
    python -m benchmarks.selections --table                    # only the table of existing results

The tower whose patches are coded is the recipe flame, trained on all samples. A quarter is trained for four times the
epochs. Steps are equal if a quarter has a quarter of the batches: so with the demo's 735 samples in batches of 61, and
with 1,200 in batches of 100. Arms named (raw) draw from the original captions only, the others from generated ones too.
For those on Flickr8k, a copy of its preset with

    caption:
      short:
        captioner: rewrite
        model: path:/a/copy/of/data/llm/smollm2-135m-instruct
        prompt: 'Rewrite this description of a photo in other words: {caption}'
        max_new_tokens: 32

with [raw, short] as `text.train_kinds` and `train.kinds`, and raw's template for short captions too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks.comparison import Arm, compare
from benchmarks.trainings import Results
from flame_core.measuring.over_seeds import mean_and_deviation

RESULTS = Path(__file__).parent / "selections.jsonl"
RATES = (1e-3,)  # one for all arms: a rate is chosen on samples that a selection may not hold
EPOCHS = 12  # of all samples
SELECTIONS = {
    "quarter": "{share: 0.25}",
    "quarter-sqrt": "{share: 0.25, mode: sqrt}",
    "quarter-capped": "{share: 0.25, mode: capped}",
    "quarter-random": "{share: 0.25, mode: random}",
}
NEEDS = (
    "codes.tower.recipe=flame",
    "codes.codes=256",
    "select.clusters=24",
    *(f"select.selections.{name}={value}" for name, value in SELECTIONS.items()),
    "train.batch_size=61",
    "train.compile=false",
)
_DONE = ("codes=null", "select=null")  # these stages have run: a training does not ask what made its selection
MEASURES = {
    "recall@10 en": [f"retrieval/en/{way}/recall@10" for way in ("image_to_text", "text_to_image")],
    "zero-shot": ["classification/top1"],
    "linear probe": ["probe/top1"],
}


def _arms(kinds: str) -> list[Arm]:
    """All samples, and each selection, drawing from these kinds of captions."""
    own = (*_DONE, f"train.kinds={kinds}")
    said = "" if "," in kinds else " (raw)"
    parts = [
        Arm(
            f"{name}{said}",
            "flame",
            (*own, f"train.epochs={4 * EPOCHS}", f"train.selection=data/selections/{name}.parquet"),
        )
        for name in SELECTIONS
    ]
    return [Arm(f"all{said}", "flame", (*own, f"train.epochs={EPOCHS}")), *parts]


ARMS = [*_arms("[raw, short]"), *_arms("[raw]")]


def main() -> None:
    compare(__doc__, ARMS, RATES, "select", RESULTS, table, NEEDS)


def table(data: str, results: Results) -> str:
    """In %: mean and deviation over the seeds."""
    lines = [f"| samples | seeds | pictures seen | {' | '.join(MEASURES)} |", f"|---|---|---|{'---|' * len(MEASURES)}"]
    for arm in ARMS:
        own = [row for row in results.rows if (row["data"], row["arm"], row["phase"]) == (data, arm.name, "final")]
        cells = [_cell([row["metrics"] for row in own], names) for names in MEASURES.values()]
        seen = f"{own[0]['images']:,}" if own else ""
        lines.append(f"| {arm.name} | {len(own) or ''} | {seen} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: Sequence[dict[str, float]], names: Sequence[str]) -> str:
    values = [100 * mean(each[name] for name in names) for each in found if all(name in each for name in names)]
    return mean_and_deviation(values) if values else "not yet measured"


if __name__ == "__main__":
    main()
