"""The root of a run is found from any folder below it."""

from __future__ import annotations

import pytest

from flame_core.layout import Layout, outside_projects


@pytest.fixture
def project(tmp_path):
    for root in (tmp_path, tmp_path / ".flame" / "runs" / "abc"):
        root.mkdir(parents=True, exist_ok=True)
        for name in ("dvc.yaml", "params.yaml"):
            (root / name).touch()
        (root / "data" / "models").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("inside", ["", "data", "data/models"])
def test_the_project_is_found_upwards(project, monkeypatch, inside):
    monkeypatch.chdir(project / inside)
    assert Layout.find() == Layout(project, project)


def test_within_a_workspace_the_workspace_is_found(project, monkeypatch):
    workspace = project / ".flame" / "runs" / "abc"
    monkeypatch.chdir(workspace / "data" / "models")
    assert Layout.find() == Layout(workspace, project)


def test_the_state_of_a_project_belongs_to_the_project(project, monkeypatch):
    monkeypatch.chdir(project / ".flame" / "runs")
    assert Layout.find() == Layout(project, project)


def test_a_folder_that_is_named_is_taken_as_it_is(project):
    assert Layout.find(project / "data").root == project / "data"


def test_without_a_project_it_is_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").touch()  # params.yaml alone is no project
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert Layout.find().root == tmp_path / "deep"


def test_a_pattern_meets_no_project_that_it_does_not_name(project):
    files = [project / name for name in ("a/0.tar", ".flame/runs/abc/data/1.tar")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    assert [*outside_projects(project, "**/*.tar")] == files[:1]
    assert [*outside_projects(project, ".flame/*/*/data/*.tar")] == []
    assert [*outside_projects(project, ".flame/runs/abc/data/*.tar")] == files[1:]
