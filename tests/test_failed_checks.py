"""The checks that have not passed, at the end of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flame_core import gates
from flame_core.failed_checks import failed_checks, show_failed_checks
from flame_core.gates import Check
from flame_core.layout import Layout


def put(out: Path, *checks: Check, time: float = 100.0) -> None:
    out.mkdir(parents=True)
    (out / gates.CHECKS).write_bytes(gates.to_bytes(checks))
    os.utime(out / gates.CHECKS, (time, time))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout.find(tmp_path)
    put(made.raw, Check("pets/readable", False, "files can be read", 1, 0, blocking=False), time=50.0)
    put(made.shards, Check("keys_unique", True, "no key twice", 0, 0))
    put(made.report("flame"), Check("recall_over_chance/en/image_to_text", False, "recall", 0.9, 1.0))
    put(made.report("old"), Check("recall_over_chance/en/image_to_text", False, "recall", 0.1, 1.0))
    put(made.comparison)
    (made.comparison / gates.CHECKS).write_text("{")  # damaged
    return made


def test_all_of_the_run_and_none_of_others(layout: Layout):
    found = [(out.name, check.name) for out, check in failed_checks(layout, ["flame"])]
    assert found == [("raw", "pets/readable"), ("flame", "recall_over_chance/en/image_to_text")]
    assert [out.name for out, _ in failed_checks(layout, ["flame"], since=60.0)] == ["flame"]


def test_stages_of_the_sections_that_params_have_are_of_the_run(layout: Layout, capsys: pytest.CaptureFixture[str]):
    heads, old = layout.root / "data/heads", layout.root / "data/codes"
    put(heads, Check("tune_learned/flame", False, "accuracy", 0.5, 0.7, blocking=False))
    put(old, Check("codes_used", False, "perplexity", 1, 2))
    found = [(out.name, check.name) for out, check in failed_checks(layout, ["flame"], 60.0, [heads])]
    assert ("heads", "tune_learned/flame") in found and ("codes", "codes_used") not in found
    show_failed_checks(layout, ["flame"], optional=[heads], advised=False)
    assert "  data/heads (does not block): tune_learned/flame" in capsys.readouterr().err


def test_they_are_shown_with_what_to_do(layout: Layout, capsys: pytest.CaptureFixture[str]):
    show_failed_checks(layout, ["flame"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "checks that have not passed:",
        "  data/raw (does not block): pets/readable: files can be read (measured 1, threshold 0)",
        "      threshold: fixed, no param changes it",
    ]
    assert "  data/reports/flame: recall_over_chance/en/image_to_text: recall (measured 0.9, threshold 1)" in lines
    assert lines[-1].endswith("then go on with `flame run`")
    show_failed_checks(layout, ["flame"], advised=False)
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_nothing_is_said_if_all_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    layout = Layout.find(tmp_path)
    put(layout.shards, Check("keys_unique", True, "no key twice", 0, 0))
    show_failed_checks(layout, ["flame"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ([Check("a", True, "x"), Check("b", True, "y", blocking=False)], "passed"),
        ([Check("a", True, "x"), Check("b", False, "y", blocking=False)], "1 not passed: b"),
        ([Check("a", False, "x"), Check("b", False, "y", blocking=False)], "failed"),
    ],
)
def test_only_what_passed_is_said_to_have_passed(checks: list[Check], said: str):
    assert gates.verdict(checks) == said
