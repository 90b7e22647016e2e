"""A wrong key in a stage's `meta:` is named with those that are accepted."""

from __future__ import annotations

import pytest

from orchestration.dvc_errors import DvcProjectError
from orchestration.dvc_project import DvcProject
from orchestration.stage_meta import Retries
from tests.orchestration.conftest import assets, edit


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
    assert [Retries(max=2, exit_codes=(5, 75)).may_help(code) for code in (1, 5, 75)] == [False, True, True]
    assert Retries(max=2).may_help(1)
