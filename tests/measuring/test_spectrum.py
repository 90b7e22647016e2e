"""Spectra: known values, invariances, the singular value decomposition as oracle, and exact sums over blocks."""

from __future__ import annotations

import numpy as np
import pytest

from flame_core.errors import InputError
from flame_core.measuring.spectrum import CENTRINGS, Gram, Spectrum, gram, require_comparable, spectrum


def made(n: int = 300, d: int = 24, seed: int = 0) -> np.ndarray:
    """Features with a common offset and unequal directions."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, d)) * np.linspace(3, 0.01, d) + draw.normal(size=d)


def test_known_values():
    two = spectrum(np.diag([3.0, 1.0]), "none")
    assert two.svde == pytest.approx(0.562335, abs=1e-6) and two.lsvr == pytest.approx(0.287682, abs=1e-6)
    assert two.p1 == pytest.approx(0.75) and two.erank == pytest.approx(np.exp(0.5623351446))
    flat, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 16)))
    found = spectrum(flat, "none")
    assert found.svde == pytest.approx(2.772589, abs=1e-6) and found.lsvr == pytest.approx(2.772589, abs=1e-6)
    line = spectrum(np.outer(np.arange(1.0, 51), np.random.default_rng(1).normal(size=12)), "none")
    assert (line.svde, line.lsvr) == (0.0, 0.0) and line.erank == 1.0


@pytest.mark.parametrize("centring", CENTRINGS)
@pytest.mark.parametrize("unit", [False, True])
def test_equals_the_singular_value_decomposition(centring, unit):
    features = made()
    rows = features / np.linalg.norm(features, axis=1, keepdims=True) if unit else features
    wanted = np.linalg.svd(rows - rows.mean(axis=0) * (centring == "column"), compute_uv=False)
    found = spectrum(features, centring, unit=unit)
    np.testing.assert_allclose(found.sigma, wanted, rtol=1e-5)
    p = wanted / wanted.sum()
    assert found.svde == pytest.approx(-(p * np.log(p)).sum(), abs=1e-6)
    assert found.lsvr == pytest.approx(-np.log(p[0]), abs=1e-6)
    assert found.is_bounded and (found.n, found.d, found.centring) == (300, 24, centring)


def test_scale_rotation_and_order_of_rows_change_nothing():
    features = made()
    draw = np.random.default_rng(3)
    turn, _ = np.linalg.qr(draw.normal(size=(24, 24)))
    for centring in CENTRINGS:
        first = spectrum(features, centring)
        for same in (features * 7.3e4, features * 1e-7, features @ turn, draw.permutation(features)):
            other = spectrum(same, centring)
            assert (other.svde, other.lsvr) == (
                pytest.approx(first.svde, abs=1e-5),
                pytest.approx(first.lsvr, abs=1e-6),
            )
    assert spectrum(features, "none").lsvr < spectrum(features, "column").lsvr  # the offset is one direction


def test_sums_over_blocks_shards_and_orders_are_the_same_bits():
    features = made(501).astype(np.float32)
    whole = gram(features).spectrum("column").sigma
    for cuts in ([1, 2, 77], [250], list(range(0, 501, 7))):
        sums = Gram(24)
        for part in np.split(features, cuts):
            sums.add(part)
        assert np.array_equal(sums.spectrum("column").sigma, whole)
    shards = [gram(part) for part in np.split(np.random.default_rng(0).permutation(features), 3)]
    merged = shards[2].merge(shards[0]).merge(shards[1])
    assert merged.rows == 501 and np.array_equal(merged.spectrum("column").sigma, whole)


def test_features_that_are_all_the_same_have_no_spectrum_once_centred():
    found = spectrum(np.ones((30, 5)), "column")
    assert (found.svde, found.lsvr, found.erank) == (0.0, 0.0, 0.0) and found.is_bounded
    assert spectrum(np.ones((30, 5)), "none").erank == 1.0


def test_few_rows_bound_the_entropy_and_are_not_compared():
    few = spectrum(made(n=6), "none", unit=True)
    assert len(few.sigma) == 6 and few.svde <= np.log(6)
    with pytest.raises(InputError, match=r"6 rows in 24 dimensions cannot be compared.*at least 24"):
        require_comparable(few.numbers(), few.numbers())
    enough = made()
    with pytest.raises(InputError, match="centring column and none"):
        require_comparable(*(spectrum(enough, centring).numbers() for centring in CENTRINGS))
    with pytest.raises(InputError, match="rows as stored and unit"):
        require_comparable(*(spectrum(enough, "none", unit=unit).numbers() for unit in (False, True)))
    require_comparable(*(spectrum(each, "none").numbers() for each in (enough, enough + 1)))


def test_bad_features_are_refused_and_rows_of_zeros_counted():
    sums = Gram(3).add(np.eye(3)).add(np.zeros((2, 3)))
    assert (sums.rows, sums.zeros) == (5, 2) and sums.spectrum("none").zeros == 2
    with pytest.raises(InputError, match="row 6 holds a value that is not finite"):
        sums.add(np.array([[1.0, 0, 0], [np.nan, 0, 0]]))
    with pytest.raises(InputError, match=r"shape \[1, 2\], and those before had 3"):
        sums.add(np.ones((1, 2)))
    with pytest.raises(InputError, match="do not add up"):
        sums.merge(Gram(3, unit=False))
    with pytest.raises(InputError, match="a value of 9 is above the largest, 2"):
        Gram(1, unit=False, largest=2.0).add(np.array([[9.0]]))
    with pytest.raises(InputError, match="no features"):
        Gram(3).spectrum("none")


def test_a_spectrum_out_of_its_bounds_is_seen():
    assert not Spectrum(np.array([np.nan, 1.0]), 2, 2, "none").is_bounded
