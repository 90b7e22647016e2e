"""Spectra of several features, each uncentred and column-centred, as metrics and as checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flame_core.gates import Check
from flame_core.measuring.spectrum import CENTRINGS, Centring, Gram, Spectrum

Spectra = Mapping[str, Mapping[Centring, Spectrum]]  # by name of the features
NUMBERS = ("svde", "lsvr", "erank", "p1")


def both(sums: Gram) -> dict[Centring, Spectrum]:
    """The spectra of features, uncentred and column-centred; neither says anything of the other."""
    return {centring: sums.spectrum(centring) for centring in CENTRINGS}


def spectrum_metrics(spectra: Spectra) -> dict[str, float]:
    """`spec/<number>/<features>/<centring>`; the number of rows and dimensions is `spec/n/<features>`, `spec/d/...`."""
    found: dict[str, float] = {}
    for name, pair in spectra.items():
        for centring, each in pair.items():
            numbers = each.numbers()
            found |= {f"spec/{number}/{name}/{centring}": numbers[number] for number in NUMBERS}
            found |= {f"spec/n/{name}": float(each.n), f"spec/d/{name}": float(each.d)}
    return found


@dataclass(frozen=True)
class Bounds:
    """What is expected of a spectrum: the share of the largest singular value, uncentred."""

    max_top_share: float


def spectrum_checks(spectra: Spectra, bounds: Bounds) -> Iterator[Check]:
    """Three checks per features; `<check>/<features>`."""
    for name, pair in spectra.items():
        raw = pair["none"]
        yield Check(
            f"spectrum_bounds/{name}",
            all(each.is_bounded for each in pair.values()),
            "0 <= LSVR <= SVDE <= ln(rank), uncentred and centred",
            value=[round(number, 4) for each in pair.values() for number in (each.lsvr, each.svde)],
        )
        yield Check(
            f"spectrum_rows/{name}", raw.zeros == 0, "features whose values are all 0", value=raw.zeros, threshold=0
        )
        yield Check(
            f"spectrum_direction/{name}",
            raw.p1 <= bounds.max_top_share,
            "share of the largest singular value in the sum of all, uncentred",
            value=round(raw.p1, 4),
            threshold=bounds.max_top_share,
            blocking=False,
        )
