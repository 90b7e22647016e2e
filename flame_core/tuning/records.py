"""What `flame tune` writes of its heads: all numbers for programs and pages, and what a stored head is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flame_core.params import TuneParams
from flame_core.tuning.labelled import Within
from flame_core.tuning.protocol import TEST, VALIDATION, PresetResult, Study

_DIGITS = 6
_TERMS = ("ce", "mse_w", "cov_w", "svd_w")  # of an epoch


def heads_record(studies: Sequence[Study], within: Within, noise: Mapping[str, float]) -> dict[str, Any]:
    """The content of `heads.json`; `noise` is the share that a recipe was trained with."""
    counts = np.bincount(within.test.labels, minlength=len(within.classes))
    return {
        "within": {
            "classes": within.classes,
            "train": len(within.train),
            "validation": len(within.validation),
            TEST: len(within.test),
            "largest_class": round(float(counts.max() / len(within.test)), _DIGITS),
            "left_out": within.left_out,
        },
        "beyond": {
            name: {
                "pictures": len(part),
                "classes": [within.classes[label] for label in sorted(set(part.labels.tolist()))],
                "of_other_classes": within.strange.get(name, 0),
            }
            for name, part in within.beyond.items()
        },
        "models": {
            study.name: {
                "noise": noise.get(study.name),
                "best": study.best.preset,
                "features": study.features,
                "presets": {each.preset: _preset(each, list(within.beyond)) for each in study.presets},
            }
            for study in studies
        },
    }


def _preset(found: PresetResult, beyond: Sequence[str]) -> dict[str, Any]:
    def of_seeds(part: str, *keys: str) -> dict[str, float]:
        values = found.values(part, *keys)
        return {
            "mean": round(sum(values) / len(values), _DIGITS),
            "low": round(min(values), _DIGITS),
            "high": round(max(values), _DIGITS),
        }

    parts = (VALIDATION, TEST, *beyond)
    mean = found.beyond(beyond)
    return {
        "factor": found.factor,
        "factors": [_of_factor(found.at(factor), beyond) for factor in found.tried],
        "seeds": [run.seed for run in found.runs],
        "accuracy": {part: of_seeds(part, "accuracy") for part in parts},
        "beyond": None if mean is None else round(mean, _DIGITS),
        "cosine": {part: of_seeds(part, "cosine") for part in parts},
        "spectrum": {
            part: {
                centring: {
                    "n": found.runs[0].measured[part]["spectrum"][centring]["n"],
                    "d": found.runs[0].measured[part]["spectrum"][centring]["d"],
                    **{number: of_seeds(part, "spectrum", centring, number) for number in ("svde", "lsvr", "erank")},
                }
                for centring in ("none", "column")
            }
            for part in parts
        },
        "terms": {
            "first_epoch": found.runs[0].epochs[0],
            "last_epoch": found.runs[0].epochs[-1],
            "largest_share": found.largest_shares,
        },
    }


def _of_factor(found: PresetResult, beyond: Sequence[str]) -> dict[str, Any]:
    """What a factor does, means over seeds: accuracies, and on the validation part what the terms are for."""
    mean = found.beyond(beyond)
    return {
        "factor": found.factor,
        "validation": found.validated,
        TEST: round(found.mean(TEST, "accuracy"), _DIGITS),
        "beyond": None if mean is None else round(mean, _DIGITS),
        "svde": round(found.mean(VALIDATION, "spectrum", "column", "svde"), _DIGITS),
        "lsvr": round(found.mean(VALIDATION, "spectrum", "none", "lsvr"), _DIGITS),
        "cosine": round(found.mean(VALIDATION, "cosine"), _DIGITS),
        "largest_share": found.largest_shares,
    }


def head_config(study: Study, identity: Mapping[str, Any], chosen: TuneParams, within: Within) -> dict[str, Any]:
    """What a stored head is: all that `flame_core.tuning.classifier` needs, and where it came from."""
    best = study.best
    return {
        "model": study.name,
        "identity": dict(identity),  # of the tower whose features it reads
        "features": chosen.features,
        "classes": within.classes,
        "dims": int(best.runs[0].measured[TEST]["spectrum"]["none"]["d"]),
        "ratio": chosen.ratio,
        "preset": best.preset,
        "factor": best.factor,
        "seed": best.runs[0].seed,
        "validation_accuracy": round(best.mean(VALIDATION, "accuracy"), _DIGITS),
    }


def head_metrics(study: Study, beyond: Sequence[str]) -> list[dict[str, float]]:
    """What the run of a trained model in MLflow is told of its heads, a row per epoch.

    `nm/<term>/<preset>` are the cross entropy and the weighted terms of the first seed; the last row also has the
    accuracies `nm/within/<preset>` and `nm/beyond/<preset>`, means over seeds. A preset whose chosen factor is 0 shows
    the terms of its best factor above 0, since at 0 they are all 0.
    """
    epochs = {each.preset: (each.active or each).runs[0].epochs for each in study.presets}
    rows: list[dict[str, float]] = [{} for _ in range(max(map(len, epochs.values())))]
    for preset, own in epochs.items():
        for row, terms in zip(rows, own, strict=False):
            row |= {f"nm/{name}/{preset}": terms[name] for name in _TERMS if name in terms}
    for each in study.presets:
        rows[-1][f"nm/within/{each.preset}"] = each.mean(TEST, "accuracy")
        if (mean := each.beyond(beyond)) is not None:
            rows[-1][f"nm/beyond/{each.preset}"] = mean
    return rows
