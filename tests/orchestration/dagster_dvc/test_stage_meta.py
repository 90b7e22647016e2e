"""A wrong key in a stage's `meta:` is named with those that are accepted."""

from __future__ import annotations

import pytest

from flame_core.dvc_project.errors import DvcProjectError
from flame_core.dvc_project.project import DvcProject
from orchestration.dagster_dvc.stage_meta import Retries
from tests.foreign_project import edit
from tests.orchestration.conftest import assets


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pool: field", "pol: field", r"stages\.grow\.meta\.dagster: pol: Extra inputs.*accepted: group, kinds"),
        ("max: 1", "max: none", r"stages\.grow\.meta\.dagster: retries\.max: .*valid integer"),
    ],
)
def test_a_wrong_meta_is_named(foreign: DvcProject, old: str, new: str, message: str) -> None:
    edit(foreign.root / "dvc.yaml", old, new)
    with pytest.raises(DvcProjectError, match=message):
        assets(foreign)


def test_only_listed_exit_codes_are_worth_a_retry() -> None:
    assert [Retries(max=2, exit_codes=(5, 7)).may_help(code) for code in (1, 5, 7)] == [False, True, True]
    assert [Retries(max=2).may_help(code) for code in (1, 128, 255)] == [True, True, True]


def test_what_was_stopped_is_not_run_again() -> None:
    stopped = (75, -15, -2, -9, 128 + 15, 128 + 2, 128 + 9)
    assert not any(Retries(max=2).may_help(code) for code in stopped)
    assert not any(Retries(max=2, exit_codes=stopped).may_help(code) for code in stopped)


def test_each_retry_waits_twice_as_long() -> None:
    assert [Retries(max=3, delay_seconds=30).delay(retry) for retry in (1, 2, 3)] == [30, 60, 120]


def test_a_crash_is_no_stop() -> None:
    assert all(Retries(max=2).may_help(code) for code in (-11, -7, -6, 128 + 11, 1, 5))
