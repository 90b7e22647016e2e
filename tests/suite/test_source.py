"""Where the models of other projects lie: relative to the project, whatever the working directory is."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.layout import Layout
from flame_core.suite.models.source import in_project, local_place


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project with the folder `clip` and the weights `w.bin`, and the working directory elsewhere."""
    root = tmp_path / "project"
    (root / "clip").mkdir(parents=True)
    (root / "w.bin").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(root))
    return Layout(root, root)


@pytest.mark.parametrize("source", ["transformers:clip", "open_clip:ViT-B-32@w.bin", "timm:resnet10t@w.bin"])
def test_a_place_of_this_machine_is_relative_to_the_project(layout: Layout, source: str):
    file = source.rpartition("@")[2].rpartition(":")[2]
    before = source.removesuffix(file)
    place = layout.root / file
    for written in (file, f"~/{file}", str(place), f"../{layout.root.name}/{file}"):
        assert (found := local_place(before + written, layout)) is not None and found.samefile(place)
        assert in_project(before + written, layout) == f"{before}{found}" and found.is_absolute()


@pytest.mark.parametrize(
    "source",
    [
        "transformers:openai/clip-vit-base-patch16@0123abc",
        "transformers:w.bin",
        "open_clip:ViT-B-32@laion2b_s34b_b79k",
        "timm:clip",
        "timm:resnet10t",
        "open_clip:ViT-B-32",
    ],
)
def test_all_others_stay_as_they_are(layout: Layout, source: str):
    assert local_place(source, layout) is None and in_project(source, layout) == source
