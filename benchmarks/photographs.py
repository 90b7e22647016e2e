"""FLAME, CLIP and LIFT on real photographs, on a GPU: recall at 1, 5 and 10 in every language, three seeds.

    python -m benchmarks.photographs --preset presets/flickr8k.yaml --set sources.flickr8k.path=/where/it/is \
        --set sources.flickr8k.max_samples=null --processes 6
    python -m benchmarks.photographs --preset presets/flickr8k.yaml --table    # only the table of existing results

ViT-S/16 at 224 px from scratch. Pictures, tower, augmentation, batch and steps are the same in every arm
(benchmarks/comparison.py has the rest). The arms with one caption train on the first of each picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks.comparison import Arm, Row, compare
from benchmarks.trainings import Results
from flame_core.language_names import language_name
from flame_core.measuring.over_seeds import mean_and_deviation
from flame_core.measuring.retrieval import DIRECTIONS

RESULTS = Path(__file__).parent / "photographs.jsonl"
RATES = (5e-4, 1e-3, 2e-3)
PHOTOGRAPHS = [
    "train.model.backbone_options={img_size: 224, patch_size: 16, embed_dim: 384, depth: 12, num_heads: 6}",
    "train.model.image_size=224",
    "train.precision=bfloat16",
    "train.compile=false",  # takes as long as one of these trainings
    "train.epochs=20",
    "train.warmup_steps=40",
    "text.captions_per_image=5",
    "text.sentence={read: last}",
    "text.batch_tokens=16384",
    "evaluate.max_pictures=null",
]
# As wide as the ViT-S that it trains with; captions of Flickr8k are shorter.
TEXT = "train.by_recipe.clip.text_tower={width: 384, depth: 6, heads: 6, max_tokens: 40}"
ARMS = [
    Arm("CLIP", "clip", (TEXT,), captions=1),
    Arm("FLAME", "flame", captions=1),
    Arm("LIFT", "lift", ("train.model.checkpoint_activations=false",), captions=1),
    Arm("FLAME, five captions", "flame"),
    Arm("CLIP, five captions", "clip", (TEXT,)),
    Arm("LIFT, five captions", "lift", ("train.model.checkpoint_activations=false",)),
]
_SHOWN = {"image_to_text": "picture → text", "text_to_image": "text → picture"}
CUTS = (1, 5, 10)


def main() -> None:
    compare(__doc__, ARMS, RATES, "embed", RESULTS, table, PHOTOGRAPHS)


def table(data: str, results: Results) -> str:
    """Recall in %: mean and deviation over the seeds, and the mean of their intervals over the pictures."""
    rows = {arm.name: _finals(data, arm.name, results) for arm in ARMS}
    some = next((own[0]["metrics"] for own in rows.values() if own), None)
    if some is None:
        return "not yet measured"
    lines = [f"| | chance | {' | '.join(rows)} |", f"|---|---|{'---|' * len(rows)}"]
    facts = {
        "rate": lambda own: ", ".join(sorted({f"{row['rate']:g}" for row in own})),
        "seeds": lambda own: str(len(own)),
        "epochs": lambda own: ", ".join(sorted({str(row["epochs"]) for row in own})),
    }
    for fact, tell in facts.items():
        cells = [tell(own) if own else "" for own in rows.values()]
        lines.append(f"| {fact} | | {' | '.join(cells)} |")
    for language in [key.split("/")[1] for key in some if key.endswith("/n")]:
        for direction in DIRECTIONS:
            for k in CUTS:
                name = f"retrieval/{language}/{direction}/recall@{k}"
                chance = 100 * some[f"retrieval/{language}/{direction}/chance/recall@{k}"]
                cells = [_cell(own, name) if own else "not yet measured" for own in rows.values()]
                what = f"{language_name(language)}, {_SHOWN[direction]}, @{k}"
                lines.append(f"| {what} | {chance:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _finals(data: str, arm: str, results: Results) -> list[Row]:
    return [row for row in results.rows if (row["data"], row["arm"], row["phase"]) == (data, arm, "final")]


def _cell(rows: Sequence[Row], name: str) -> str:
    values, low, high = ([100 * row["metrics"][name + end] for row in rows] for end in ("", "/low", "/high"))
    return f"{mean_and_deviation(values)} ({mean(low):.1f} to {mean(high):.1f})"


if __name__ == "__main__":
    main()
