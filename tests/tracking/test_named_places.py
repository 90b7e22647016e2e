"""Relative paths in a run's params lead to the same places from the folder in which it is reproduced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.tracking.named_places import link_named, link_sources

PARAMS: dict[str, Any] = {
    "sources": {"s": {"kind": "folder", "path": "../pictures"}, "u": {"opt_out": {"lists": ["lists/no.txt"]}}},
    "llm": {"source": "path:../llms/small"},
    "recipes": ["flame"],
    "evaluate": {"benchmarks": {"names": ["mine/birds.yaml@single", "imagenet1k"]}},
    "text": {"template": {"raw": {"prefix": 'a picture : "{caption}" .' * 20, "facets": [".", "..", "../../..", ""]}}},
    "caption": {"long": {"prompt": "描述这张图片中最重要的物体、背景和颜色。" * 8}},
    "train": {"model": {"init": "timm:vit_tiny@weights/vit.safetensors"}, "selection": "data/selections/half.parquet"},
}
PLACES = (
    "lists/no.txt",
    "mine/birds.yaml",
    "weights/vit.safetensors",
    "datasets/birds",
    "../llms/small",
    "../pictures",
)


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    """A project with all that the params name, and recipes, outs and git's folder that are its own."""
    root = tmp_path / "work/project"
    for place in (*PLACES, "recipes/flame.yaml", "data/selections/half.parquet", ".git/x"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(place)
    return Layout.find(root)


def reproduction(project: Layout) -> Path:
    root = project.state / "reproduce/1"
    root.mkdir(parents=True)
    return root


def test_all_that_params_name_is_found(project: Layout) -> None:
    for _ in range(2):  # the second time, links outside of the folder are there already
        root = reproduction(project)
        link_sources(project, root, PARAMS)
        link_named(project, root, project.project, PARAMS)
        assert {place: (root / place).read_text() for place in PLACES} == {place: place for place in PLACES}
        linked = {path.name for path in root.iterdir()}
        assert linked == {"lists", "mine", "weights", "datasets"}
        for path in sorted(root.rglob("*"), reverse=True):
            path.unlink() if path.is_symlink() else path.rmdir()
        root.rmdir()


def test_files_of_the_commit_come_first(project: Layout, tmp_path: Path) -> None:
    code, root = tmp_path / "commit", reproduction(project)
    (code / "mine").mkdir(parents=True)
    (code / "mine/birds.yaml").write_text("as it was")
    link_named(project, root, code, PARAMS)
    assert (root / "mine/birds.yaml").read_text() == "as it was"
    assert (root / "lists/no.txt").read_text() == "lists/no.txt"


def test_what_would_lie_in_the_project_is_refused(project: Layout) -> None:
    for path in ("../../../mine", "../../work"):  # of the project's folder, and of its state
        (project.state / "work").mkdir(parents=True, exist_ok=True)
        root = project.state / "reproduce/1"
        root.mkdir(parents=True, exist_ok=True)
        with pytest.raises(InputError, match="far outside its project"):
            link_sources(project, root, {"sources": {"s": {"path": path}}})
