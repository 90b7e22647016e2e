"""Checks of `flame tune`: that spectra are sound, classes large enough, and NMTune's terms do what they are for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import gt, lt

import numpy as np

from flame_core.errors import InputError
from flame_core.gates import Check
from flame_core.measuring.spectrum import require_comparable
from flame_core.params import NMTUNE_TERMS, HeadPreset
from flame_core.tuning.labelled import Within
from flame_core.tuning.protocol import TEST, VALIDATION, PresetResult, Study

_ACTIVE = 0.01  # share of the cross entropy that a weighted term must have in some step
_TUNED: tuple[HeadPreset, ...] = ("paper", "code")
_NAMED = 20
_DIGITS = 6


def tune_checks(studies: Sequence[Study], within: Within) -> Iterator[Check]:
    """All checks; those of a model are named `<check>/<model>` or `<check>/<model>/<preset>`."""
    yield Check(
        "tune_classes",
        not within.left_out,
        "classes that were left out, because they have too few pictures",
        value=len(within.left_out),
        threshold=0,
        blocking=False,
        keys=[f"{name} ({why})" for name, why in within.left_out.items()][:_NAMED],
    )
    majority = float(np.bincount(within.test.labels).max() / len(within.test))
    for study in studies:
        yield Check(
            f"tune_spectra/{study.name}",
            all(map(_is_sound, _spectra(study))),
            "0 <= LSVR <= SVDE <= ln(rank) of the features and of every head",
        )
        probe = study.presets[0]
        accuracy = round(probe.mean(TEST, "accuracy"), _DIGITS)
        yield Check(
            f"tune_learned/{study.name}",
            accuracy > majority,
            f"accuracy of {probe.preset} on the test pictures, which must exceed the share of the largest class",
            value=accuracy,
            threshold=round(majority, _DIGITS),
            blocking=False,
        )
        mlp = study.of("mlp")
        for preset in _TUNED:
            if (found := study.of(preset)) is not None and (active := found.active) is not None:
                yield from _of_preset(study.name, active, mlp)


def _of_preset(model: str, found: PresetResult, mlp: PresetResult | None) -> Iterator[Check]:
    """The acceptance of NMTune at its best factor above 0: its terms count, and do what they are for."""
    shares = found.largest_shares
    quiet = [term for term in NMTUNE_TERMS if shares[term] < _ACTIVE]
    yield Check(
        f"tune_terms_active/{model}/{found.preset}",
        not quiet,
        f"largest share of the cross entropy that each weighted term had in a step, at the factor {found.factor:g}",
        value=[f"{term} {shares[term]:g}" for term in NMTUNE_TERMS],
        threshold=_ACTIVE,
        blocking=False,
        keys=quiet,
    )
    if mlp is None:
        return
    compare: list[tuple[str, tuple[str, ...], str, Callable[[float, float], bool]]] = [
        ("svde_raised", ("spectrum", "column", "svde"), "SVDE, column-centred, above that of mlp", gt),
        ("lsvr_lowered", ("spectrum", "none", "lsvr"), "LSVR, uncentred, below that of mlp", lt),
        ("features_kept", ("cosine",), "cosine of z to f above that of mlp", gt),
    ]
    for name, keys, what, better in compare:
        value, threshold = found.mean(VALIDATION, *keys), mlp.mean(VALIDATION, *keys)
        why_not = _incomparable(keys[1], found, mlp) if keys[0] == "spectrum" else None
        measured, few = why_not is None, f" ({why_not})" if why_not else ""
        yield Check(
            f"tune_{name}/{model}/{found.preset}",
            measured and better(value, threshold),
            f"on the validation pictures, at the factor {found.factor:g}, {what}{few}",
            value=round(value, _DIGITS) if measured else None,
            threshold=round(threshold, _DIGITS),
            blocking=False,
        )


def _incomparable(centring: str, found: PresetResult, mlp: PresetResult) -> str | None:
    """Why the spectra of two presets cannot be compared; None if they can."""
    try:
        require_comparable(*(each.runs[0].measured[VALIDATION]["spectrum"][centring] for each in (found, mlp)))
    except InputError as error:
        return str(error)
    return None


def _spectra(study: Study) -> Iterator[dict[str, float]]:
    for pair in study.features.values():
        yield from pair.values()
    for preset in study.presets:
        for run in preset.runs:
            for part in run.measured.values():
                yield from part["spectrum"].values()


def _is_sound(numbers: dict[str, float]) -> bool:
    top = np.log(min(numbers["n"], numbers["d"]))
    return -1e-5 <= numbers["lsvr"] <= numbers["svde"] + 1e-5 <= top + 2e-5
