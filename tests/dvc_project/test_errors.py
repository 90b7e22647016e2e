"""A broken project is told by file and line."""

from __future__ import annotations

import pytest

from flame_core.dvc_project.errors import DvcProjectError
from flame_core.dvc_project.project import DvcProject
from tests.foreign_project import edit


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("outs: [total.txt]", "outs: [total.txt", r"dvc\.yaml:2\d: .*expected ',' or '\]'"),
        ("deps: [scaled]", "depz: [scaled]", r"dvc\.yaml:2\d: stages\.total\.depz: extra keys not allowed"),
        ("${item.by}.txt'", "${item.buy}.txt'", r"dvc\.yaml:2\d: .*Could not find 'item\.buy'"),
        ("outs: [total.txt]", "outs: [numbers]", r"dvc\.yaml: .*output 'numbers' is specified in"),
        ("params: [count]", "params: [counter]", r"params\.yaml does not have counter, which stage grow"),
    ],
)
def test_a_broken_file_is_named_with_its_line(foreign: DvcProject, old: str, new: str, message: str) -> None:
    edit(foreign.root / "dvc.yaml", old, new)
    with pytest.raises(DvcProjectError, match=message):
        foreign.stages()
