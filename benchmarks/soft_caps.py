"""Wrong captions, and what scores do against them: the best samples only, soft cap sampling, or nothing; three seeds.

    python -m benchmarks.wrong_captions flickr8k 0.3 /where/it/is/flickr8k-train-00000.tar wrong
    cp /where/it/is/flickr8k-val-00000.tar wrong/
    python -m benchmarks.soft_caps --preset presets/flickr8k.yaml --set sources.flickr8k.path=$PWD/wrong \
        --data 'flickr8k, 30 % wrong' --processes 2
    python -m benchmarks.soft_caps --data 'flickr8k, 30 % wrong' --table    # only the table of existing results

The score is the cosine of picture and captions by the recipe flame, trained on all samples, wrong ones too. The arm
`right ones` knows which captions are right. All arms see as many pictures.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.comparison import Arm, compare
from benchmarks.trainings import Results
from flame_core.language_names import language_name
from flame_core.measuring.over_seeds import mean_and_deviation

RESULTS = Path(__file__).parent / "soft_caps.jsonl"
RATES = (1e-3,)  # one for all arms: a rate would be chosen on wrong captions
EPOCHS = 14  # of all samples
NEEDS = (
    "scores.scorers.own={kind: tower, recipe: flame}",
    "scores.selections.best-70={own: {top: 0.7}}",
    "train.batch_size=100",
    "train.compile=false",
)
_DONE = "scores=null"  # the stage has run: a training does not ask what made its scores


def _selected(name: str, file: str) -> Arm:
    """Of 1,000 samples 700, in as many steps: 20 times 7 batches instead of 14 times 10."""
    return Arm(name, "flame", (_DONE, f"train.epochs={EPOCHS * 10 // 7}", f"train.selection={file}"))


def _drawn(temperature: float, penalty: float) -> Arm:
    sampling = (
        f"{{name: soft_cap, scores: data/sidecars/score-own, temperature: {temperature:g}, penalty: {penalty:g}}}"
    )
    name = f"soft cap, T {temperature:g}, penalty {penalty:g}"
    return Arm(name, "flame", (_DONE, f"train.epochs={EPOCHS}", f"train.sampling={sampling}"))


ARMS = [
    Arm("all", "flame", (_DONE, f"train.epochs={EPOCHS}")),
    _selected("right ones", "wrong/right.parquet"),
    _selected("the best 70 %", "data/scores/best-70.parquet"),
    _drawn(0.05, 0.1),
    _drawn(0.05, 0.3),
]


def main() -> None:
    compare(__doc__, ARMS, RATES, "scores", RESULTS, table, NEEDS)


def table(data: str, results: Results) -> str:
    """Recall@10 in %: mean and deviation over the seeds, both directions."""
    rows = {
        arm.name: [row for row in results.rows if (row["data"], row["arm"], row["phase"]) == (data, arm.name, "final")]
        for arm in ARMS
    }
    languages = list(next((own[0]["scores"] for own in rows.values() if own), {}))
    lines = [f"| samples | seeds | {' | '.join(language_name(each) for each in languages)} |"]
    lines.append(f"|---|---|{'---|' * len(languages)}")
    for name, own in rows.items():
        cells = [
            mean_and_deviation([100 * row["scores"][each] for row in own]) if own else "not yet measured"
            for each in languages
        ]
        lines.append(f"| {name} | {len(own) or ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
