"""The acceptance of NMTune on made results: what passes, what warns, and what too few pictures leave open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flame_core.params import HeadPreset
from flame_core.tuning.checks import tune_checks
from flame_core.tuning.labelled import Part, Within
from flame_core.tuning.protocol import TEST, VALIDATION, PresetResult, Run, Study


def result(
    preset: HeadPreset, svde: float = 2.0, lsvr: float = 1.0, cosine: float = 0.5, n: int = 50, **shares: float
) -> PresetResult:
    own: dict[str, Any] = {"svde": svde, "lsvr": lsvr, "erank": 1.0, "p1": 0.3, "n": n, "d": 20, "rows": "unit"}
    spectrum = {centring: {**own, "centring": centring} for centring in ("none", "column")}
    measured = {part: {"accuracy": 0.7, "cosine": cosine, "spectrum": spectrum} for part in (VALIDATION, TEST)}
    run = Run(0, Path("x"), measured, [], {"mse": 0.0, "cov": 0.0, "svd": 0.0} | shares)
    still = Run(0, Path("x"), measured, [], {"mse": 0.0, "cov": 0.0, "svd": 0.0})
    return PresetResult(preset, 0.0, {0.0: [still], 1.0: [run]})


def failed(*presets: PresetResult) -> list[str]:
    part = Part([], np.array([0, 0, 1]))
    study = Study("flame", list(presets), {TEST: result("lp").runs[0].measured[TEST]["spectrum"]})
    checks = list(tune_checks([study], Within(["a", "b"], part, part, part)))
    assert all(check.blocking == check.name.startswith("tune_spectra") for check in checks)
    return [check.name for check in checks if not check.passed]


def test_a_head_that_does_all_three_passes():
    good = result("paper", svde=2.5, lsvr=0.8, cosine=0.9, mse=0.02, cov=0.5, svd=0.011)
    assert failed(result("lp"), result("mlp"), good) == []


@pytest.mark.parametrize(
    ("values", "missed"),
    [({"svde": 2.0}, "svde_raised"), ({"lsvr": 1.0}, "lsvr_lowered"), ({"cosine": 0.5}, "features_kept")],
)
def test_each_promise_is_checked_against_the_plain_head(values, missed):
    good = {"svde": 2.5, "lsvr": 0.8, "cosine": 0.9, "mse": 1.0, "cov": 1.0, "svd": 1.0}
    assert failed(result("mlp"), result("code", **(good | values))) == [f"tune_{missed}/flame/code"]


def test_a_quiet_term_warns_and_few_pictures_leave_spectra_open():
    good = {"svde": 2.5, "lsvr": 0.8, "cosine": 0.9, "mse": 1.0, "cov": 1.0}
    assert failed(result("mlp"), result("code", **good, svd=0.009)) == ["tune_terms_active/flame/code"]
    few = failed(result("mlp", n=15), result("code", **good, svd=1.0, n=15))
    assert few == ["tune_svde_raised/flame/code", "tune_lsvr_lowered/flame/code"]


def test_terms_that_were_never_on_promise_nothing():
    off = PresetResult("paper", 0.0, {0.0: result("paper").runs})
    assert failed(result("mlp"), off) == [] and off.active is None


def test_impossible_spectra_block():
    assert failed(result("lp", svde=1.0, lsvr=1.5)) == ["tune_spectra/flame"]
    assert failed(result("lp", svde=3.5)) == ["tune_spectra/flame"]  # above ln 20
