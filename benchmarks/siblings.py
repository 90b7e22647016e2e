"""ProtoCLIP, A-CLIP and TinyCLIP, each against its own baseline: retrieval, zero-shot, linear probe, three seeds.

    python -m benchmarks.siblings --processes 8                # with params.yaml: after `make demo`, the demo
    python -m benchmarks.siblings --preset presets/flickr8k.yaml --set sources.flickr8k.path=/where/it/is \
        --set cluster.clusters=120 --rate-epochs 3
    python -m benchmarks.siblings --table                      # only the table of existing results

A baseline has the same augmentation, batch, steps and image tokens (docs/siblings.md). All arms try the same rates.
TinyCLIP's teacher is the project's tower, trained as its baseline is; a student has two thirds of its width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks.comparison import Arm, Row, compare
from benchmarks.trainings import Results
from flame_core.measuring.over_seeds import compared

RESULTS = Path(__file__).parent / "siblings.jsonl"
RATES = (5e-4, 1e-3, 2e-3)
NEEDS = ("cluster.clusters=40", "train.compile=false")
# The recipes' moving average, 0.996, is for trainings of many thousand steps: here the first weights would never fade.
_MASK = "{name: attentive_mask, mode: attentive, score: cls, keep: 0.5, cell: 2, views: 2, momentum: 0.98}"
_SELF = "{name: simclr, weight: 1.0, temperature: 0.1}, {name: byol, weight: 2.0, momentum: 0.98}"
_TEACHER = "train.teacher={recipe: null, path: '{teacher}'}"
_INHERIT = "train.inherit={recipe: null, path: '{teacher}'}"
ARMS = [
    Arm("tinyclip-teacher", "tinyclip-baseline"),
    Arm("a-clip", "a-clip", (f"train.terms=[{_MASK}, {_SELF}]",)),
    Arm("a-clip-mask", "a-clip-mask", (f"train.terms=[{_MASK}]",)),
    Arm("random-mask", "random-mask"),
    Arm("a-clip-baseline", "a-clip-baseline"),
    Arm("protoclip", "protoclip"),
    Arm("protoclip-direct", "protoclip-direct"),
    Arm("protoclip-baseline", "protoclip-baseline"),
    Arm("tinyclip-manual", "tinyclip-manual", (_TEACHER, _INHERIT), teacher="tinyclip-teacher", student=True),
    Arm("tinyclip-inherit", "tinyclip-distil", (_TEACHER, _INHERIT), teacher="tinyclip-teacher", student=True),
    Arm("tinyclip-distil", "tinyclip-distil", (_TEACHER,), teacher="tinyclip-teacher", student=True),
    Arm("tinyclip-baseline", "tinyclip-baseline", student=True),
]
BASELINES = {
    "a-clip": "a-clip-baseline",
    "a-clip-mask": "a-clip-baseline",
    "random-mask": "a-clip-baseline",
    "protoclip": "protoclip-baseline",
    "protoclip-direct": "protoclip-baseline",
    "tinyclip-manual": "tinyclip-baseline",
    "tinyclip-inherit": "tinyclip-baseline",
    "tinyclip-distil": "tinyclip-baseline",
}


def main() -> None:
    compare(__doc__, ARMS, RATES, "cluster", RESULTS, table, NEEDS)


def table(data: str, results: Results) -> str:
    """In %: mean and deviation over the seeds, and the difference from the baseline in standard errors."""
    rows = {
        arm.name: [row for row in results.rows if (row["data"], row["arm"], row["phase"]) == (data, arm.name, "final")]
        for arm in ARMS
    }
    languages = sorted({language for own in rows.values() for row in own for language in row["scores"]})
    others = [language for language in languages if language != "en"]
    measures = [
        ("recall@10 en", _retrieval(["en"])),
        ("recall@10 others", _retrieval(others)),
        ("zero-shot", ["classification/top1"]),
        ("linear probe", ["probe/top1"]),
    ]
    names = " | ".join(name for name, _ in measures)
    lines = [
        f"| recipe | rate | seeds | {names} | pictures seen by the tower | weights | minutes of one core |",
        f"|---|---|---|{'---|' * len(measures)}---|---|---|",
    ]
    for arm, own in rows.items():
        base = rows.get(BASELINES.get(arm, ""), [])
        cells = [_cell(own, base, metrics) for _, metrics in measures]
        rates = ", ".join(sorted({f"{row['rate']:g}" for row in own}))
        facts = _facts(own) if own else ("", "", "")
        lines.append(f"| `{arm}` | {rates} | {len(own) or ''} | {' | '.join([*cells, *facts])} |")
    return "\n".join(lines)


def _facts(rows: Sequence[Row]) -> tuple[str, str, str]:
    minutes = mean(row["cpu_seconds"] for row in rows) / 60
    return f"{rows[0]['images']:,}", f"{rows[0]['weights']:,}", f"{minutes:.1f}"


def _retrieval(languages: Sequence[str]) -> list[str]:
    directions = ("image_to_text", "text_to_image")
    return [f"retrieval/{language}/{direction}/recall@10" for language in languages for direction in directions]


def _cell(rows: Sequence[Row], baseline: Sequence[Row], metrics: Sequence[str]) -> str:
    values = _values(rows, metrics)
    if not values:
        return "" if rows else "not yet measured"
    return compared(values, _values(baseline, metrics))


def _values(rows: Sequence[Row], metrics: Sequence[str]) -> list[float]:
    if not metrics or any(metric not in row["metrics"] for row in rows for metric in metrics):
        return []
    return [100 * mean(row["metrics"][metric] for metric in metrics) for row in rows]


if __name__ == "__main__":
    main()
