"""Which definitions `flame ui` shows: ours, or those of a module of the project's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.project.creation import PYPROJECT
from orchestration.ui.servers import definitions_module, servers

OWN = '[tool.dagster]\nmodule_name = "mine.definitions"\n'


def project(folder: Path, pyproject: str | None) -> Layout:
    if pyproject is not None:
        (folder / "pyproject.toml").write_text(pyproject, "utf-8")
    return Layout(folder, folder)


@pytest.mark.parametrize("pyproject", [None, "", "[tool.ruff]\n", PYPROJECT])
def test_they_are_ours_unless_the_project_names_others(tmp_path, pyproject):
    assert definitions_module(project(tmp_path, pyproject)) == "orchestration.definitions"


def test_the_code_server_loads_the_module_that_the_project_names(tmp_path):
    code = servers(project(tmp_path, OWN), tmp_path)[0].command
    assert code[code.index("-m", 2) + 1] == "mine.definitions"


@pytest.mark.parametrize("pyproject", ["[tool", '[tool.dagster]\nmodule_name = "a/b.py"\n'])
def test_what_names_no_module_is_refused_with_the_file(tmp_path, pyproject):
    with pytest.raises(ParamsError, match=r"pyproject\.toml"):
        definitions_module(project(tmp_path, pyproject))
