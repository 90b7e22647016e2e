"""The singular values of features [N, D], from sums that are merged over blocks, shards and machines.

    p_i = sigma_i / sum_j sigma_j
    SVDE = -sum_i p_i ln p_i    entropy of the singular values; higher: the features fill more directions
    LSVR = -ln p_1              higher: the largest direction holds less
    effective rank = e^SVDE     of at most r = min(N, D); always 0 <= LSVR <= SVDE <= ln r

`Gram` reads each row once and keeps three D x D matrices, 24 D^2 bytes. A coordinate is rounded to 2^-24 of the largest
one and split into two whole numbers, h 2^-12 + l 2^-24. Sums of products of these are exact in float64 up to 2^29 rows,
so they depend neither on how rows are cut into blocks nor on their order, the processor or its threads.

Singular values below about 1e-6 of the largest one are lost, because they are roots of eigenvalues; they count as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from flame_core.errors import InputError

Centring = Literal["none", "column"]  # column: the mean of all rows is subtracted from each
CENTRINGS: tuple[Centring, ...] = get_args(Centring)
_STEP = 2.0**12
_DIGITS = 6


class Gram:
    """Sums over rows of features, from which their spectrum follows.

    Attributes:
        dims: D.
        rows: how many were added.
        zeros: how many of these were 0 in every coordinate.
    """

    def __init__(self, dims: int, *, unit: bool = True, largest: float = 1.0) -> None:
        """Take D, whether rows are divided by their length, and for rows that are not, the largest coordinate."""
        self.dims, self.unit = dims, unit
        self.rows = self.zeros = 0
        self.scale = 1.0 if unit else 2.0 ** np.ceil(np.log2(largest if largest > 0 else 1.0))
        self._hh, self._hl, self._ll = (np.zeros((dims, dims)) for _ in range(3))
        self._sum = np.zeros(dims)  # of h 2^12 + l

    def add(self, block: np.ndarray) -> Gram:
        """Add rows [n, D]; returns itself.

        Raises:
            InputError: they have other dimensions, a value is not finite, or larger than `largest`.
        """
        x = np.ascontiguousarray(block, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.dims:
            raise InputError(f"features of shape {list(x.shape)}, and those before had {self.dims} dimensions")
        finite = np.isfinite(x).all(axis=1)
        if not finite.all():
            raise InputError(f"features: row {self.rows + int(finite.argmin())} holds a value that is not finite")
        length = np.sqrt((x * x).sum(axis=1))
        if self.unit:
            x = x / np.maximum(length, 1e-300)[:, None]
        else:
            x = x / self.scale
            if (over := np.abs(x).max(initial=0.0)) > 1:
                raise InputError(f"features: a value of {over * self.scale:g} is above the largest, {self.scale:g}")
        high = np.rint(x * _STEP)
        low = np.rint((x * _STEP - high) * _STEP)
        cross = high.T @ low
        self._hh += high.T @ high
        self._hl += cross + cross.T
        self._ll += low.T @ low
        self._sum += high.sum(axis=0) * _STEP + low.sum(axis=0)
        self.rows += len(x)
        self.zeros += int((length == 0).sum())
        return self

    def merge(self, other: Gram) -> Gram:
        """Add the rows of another; returns itself.

        Raises:
            InputError: its rows have other dimensions or were prepared differently.
        """
        if (self.dims, self.unit, self.scale) != (other.dims, other.unit, other.scale):
            raise InputError(
                f"features of {self.dims} dimensions (unit rows: {self.unit}, scale {self.scale:g}) and of "
                f"{other.dims} (unit rows: {other.unit}, scale {other.scale:g}) do not add up"
            )
        self._hh += other._hh
        self._hl += other._hl
        self._ll += other._ll
        self._sum += other._sum
        self.rows += other.rows
        self.zeros += other.zeros
        return self

    def spectrum(self, centring: Centring) -> Spectrum:
        """The spectrum of all rows.

        Raises:
            InputError: there are none.
        """
        if not self.rows:
            raise InputError("no features: there is no row to take a spectrum of")
        whole = self._hh + (self._hl + self._ll / _STEP) / _STEP  # times 2^24
        lost = float(np.linalg.norm(whole)) * self.dims * 2.0**-50  # what rounding leaves of an eigenvalue of 0
        if centring == "column":
            mean = self._sum / _STEP / self.rows
            whole = whole - self.rows * np.outer(mean, mean)
        values = np.linalg.eigvalsh(whole)[::-1]
        values = np.where(values > lost, values, 0.0)[: min(self.rows, self.dims)]
        sigma = np.sqrt(values) / _STEP * self.scale
        return Spectrum(sigma, self.rows, self.dims, centring, "unit" if self.unit else "as stored", self.zeros)


@dataclass(frozen=True)
class Spectrum:
    """Singular values of features, and what they were taken of.

    Attributes:
        sigma: [r], the largest first.
        n: N rows.
        d: D dimensions.
        centring: `none`, or `column` if the mean row was subtracted.
        rows: `unit` if each row was divided by its length before.
        zeros: rows of length 0.
    """

    sigma: np.ndarray
    n: int
    d: int
    centring: Centring
    rows: Literal["unit", "as stored"] = "unit"
    zeros: int = 0

    @property
    def p(self) -> np.ndarray:
        """[r], the share of each singular value in their sum; 0 if all are 0."""
        total = self.sigma.sum()
        return self.sigma / total if total > 0 else np.zeros_like(self.sigma)

    @property
    def svde(self) -> float:
        p = self.p[self.p > 0]
        return float(-(p * np.log(p)).sum()) + 0.0

    @property
    def p1(self) -> float:
        """Share of the largest singular value; 0 if all are 0."""
        return float(self.p[0])

    @property
    def lsvr(self) -> float:
        return float(-np.log(self.p1)) + 0.0 if self.p1 > 0 else 0.0

    @property
    def erank(self) -> float:
        """Effective rank; 0 if all singular values are 0."""
        return float(np.exp(self.svde)) if self.p1 > 0 else 0.0

    @property
    def largest_svde(self) -> float:
        """Ln r, which SVDE reaches if all singular values are equal."""
        return float(np.log(len(self.sigma)))

    @property
    def is_bounded(self) -> bool:
        """Whether 0 <= LSVR <= SVDE <= ln r, to rounding."""
        finite = bool(np.isfinite(self.sigma).all())
        return finite and -1e-9 <= self.lsvr <= self.svde + 1e-9 <= self.largest_svde + 2e-9

    def numbers(self) -> dict[str, Any]:
        """All numbers but the singular values, rounded for a file."""
        values = {name: round(getattr(self, name), _DIGITS) for name in ("svde", "lsvr", "erank", "p1")}
        return {**values, "n": self.n, "d": self.d, "centring": self.centring, "rows": self.rows}


def spectrum(features: np.ndarray, centring: Centring, *, unit: bool = False) -> Spectrum:
    """The spectrum of features [N, D] in memory.

    Raises:
        InputError: there are none, or a value is not finite.
    """
    largest = float(np.abs(features).max(initial=0.0))
    return gram(features, unit=unit, largest=largest if np.isfinite(largest) else 1.0).spectrum(centring)


def gram(features: np.ndarray, *, unit: bool = True, largest: float = 1.0) -> Gram:
    """The sums over features [N, D] in memory, for several spectra of them."""
    sums = Gram(features.shape[1], unit=unit, largest=largest)
    for start in range(0, len(features), 4096):  # bounds the copies in float64
        sums.add(features[start : start + 4096])
    return sums


def require_comparable(*spectra: Mapping[str, Any]) -> None:
    """Refuse spectra, given by their `numbers`, whose SVDE and LSVR say nothing of each other.

    Raises:
        InputError: they are centred or prepared differently, or one has fewer rows than dimensions.
    """
    for what in ("centring", "rows"):
        if len(kinds := {each[what] for each in spectra}) > 1:
            raise InputError(f"spectra with {what} {' and '.join(sorted(kinds))} cannot be compared: take one of them")
    for each in spectra:
        if each["n"] < each["d"]:
            raise InputError(
                f"a spectrum of {each['n']:,} rows in {each['d']:,} dimensions cannot be compared: it measures the "
                f"number of rows; take at least {each['d']:,}"
            )
