"""Every picture of a folder has a vector or a reason, and only what is new is computed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.model.loaded import Model
from flame_core.model.locate import model_of_run
from flame_core.search.folder_index import embed_folder, index_file, read_index_file, write_npy, write_parquet
from flame_core.search.stored_vectors import StoredVectors
from tests.data.drawings import drawing, encoded, png
from tests.measuring import world
from tests.search.runs import run_here


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    params, layout = run_here(tmp_path, monkeypatch)
    return model_of_run(params, layout, "plain")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures in two folders, two of them equal, one of another format; two damaged ones, and other files."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number in range(8):
        (folder / ("more" if number % 2 else ".") / f"{number}.png").write_bytes(png(number))
    (folder / "copy.png").write_bytes(png(3))
    (folder / "b.webp").write_bytes(encoded(drawing(9, (60, 50)), "WEBP"))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (folder / "more" / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    (folder / "photo.heic").write_bytes(b"x")
    return folder


PATHS = ["0.png", "2.png", "4.png", "6.png", "b.webp", "copy.png", *(f"more/{number}.png" for number in (1, 3, 5, 7))]


def test_every_picture_has_a_vector_or_a_reason(model: Model, layout: Layout, folder: Path):
    done = embed_folder(layout, model, folder)
    assert list(done.index.paths) == PATHS
    assert done.encoded == 9  # equal ones are computed once
    refused = {each.path: each.reason for each in done.index.refused}
    assert refused == {"broken.jpg": "image_unreadable", "more/empty.png": "image_empty"}
    assert {"notes.txt", "photo.heic"} <= {name for line in done.unused for name in line.split()}
    expected = model.encode_image([folder / path for path in PATHS])
    np.testing.assert_allclose(done.index.views[:, 0], expected, atol=1e-6)
    assert done.index.views.shape == (10, 1, world.DIMENSIONS)

    table = pq.read_table(done.file).to_pandas()
    assert list(table.path) == sorted([*PATHS, *refused], key=lambda path: path.split("/"))
    assert list(table[table.reason != ""].path) == ["broken.jpg", "more/empty.png"]
    np.testing.assert_array_equal(np.stack(table.dropna(subset="vector").vector), done.index.views[:, 0])
    again = read_index_file(done.file)
    np.testing.assert_array_equal(again.views, done.index.views)
    assert (again.paths, again.refused, again.folder) == (list(PATHS), done.index.refused, folder)


def test_only_what_is_new_is_computed_and_the_bytes_are_those_of_a_first_run(
    model: Model, layout: Layout, folder: Path, tmp_path: Path
):
    first = embed_folder(layout, model, folder)
    before = first.file.read_bytes()
    assert embed_folder(layout, model, folder).encoded == 0
    assert first.file.read_bytes() == before
    (folder / "0.png").write_bytes(png(20))
    (folder / "2.png").unlink()
    (folder / "moved.png").write_bytes(png(2))
    (folder / "new.png").write_bytes(png(21))
    changed = embed_folder(layout, model, folder)
    assert changed.encoded == 2
    other = Layout(tmp_path / "elsewhere", tmp_path / "elsewhere")
    fresh = embed_folder(other, model, folder)
    assert fresh.encoded == 10
    assert fresh.file.read_bytes() == changed.file.read_bytes()


def test_a_killed_run_keeps_what_was_finished(
    model: Model, layout: Layout, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    from flame_core.search import folder_index

    monkeypatch.setattr(folder_index, "_CHUNK", 4)
    add, parts = StoredVectors.add, []

    def killed(self: StoredVectors, *given) -> None:
        if parts:
            raise KeyboardInterrupt
        parts.append(add(self, *given))

    monkeypatch.setattr(StoredVectors, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        embed_folder(layout, model, folder)
    assert not index_file(layout, model, folder).exists()
    monkeypatch.setattr(StoredVectors, "add", add)
    kept = len(StoredVectors(layout.state / "search" / "vectors" / model.of_pictures[:32], model.dim)._rows)
    assert 0 < kept <= 4
    assert embed_folder(layout, model, folder).encoded == 9 - kept


def test_a_flipped_bit_in_what_is_stored_is_computed_again(
    model: Model, layout: Layout, folder: Path, caplog: pytest.LogCaptureFixture
):
    before = embed_folder(layout, model, folder).file.read_bytes()
    (part,) = (layout.state / "search" / "vectors").rglob("*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    again = embed_folder(layout, model, folder)
    assert again.encoded == 9 and again.file.read_bytes() == before
    assert "damaged" in caplog.text


def test_a_flipped_bit_in_an_index_is_noticed(model: Model, layout: Layout, folder: Path):
    file = embed_folder(layout, model, folder).file
    at = file.read_bytes().find(embed_folder(layout, model, folder).index.views[0, 0].tobytes()[:12])
    content = bytearray(file.read_bytes())
    content[at if at > 0 else len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="is not an index of pictures"):
        read_index_file(file)


def test_a_file_that_is_no_plain_file_or_leads_out_is_named(model: Model, layout: Layout, tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(1))
    (tmp_path / "outside.png").write_bytes(png(2))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    os.mkfifo(folder / "pipe.png")
    done = embed_folder(layout, model, folder)
    assert list(done.index.paths) == ["a.png"]
    assert {each.path: each.reason for each in done.index.refused} == {
        "link.png": "link_outside",
        "pipe.png": "not_a_file",
    }


def test_npy_has_its_paths_beside_it_and_an_empty_folder_is_no_crash(
    model: Model, layout: Layout, folder: Path, tmp_path: Path
):
    done = embed_folder(layout, model, folder)
    write_npy(done.index, tmp_path / "out" / "v.npy")
    about = json.loads((tmp_path / "out" / "v.json").read_text())
    assert about["paths"] == PATHS and set(about["refused"]) == {"broken.jpg", "more/empty.png"}
    assert np.load(tmp_path / "out" / "v.npy").shape == (10, world.DIMENSIONS)
    (tmp_path / "nothing").mkdir()
    empty = embed_folder(layout, model, tmp_path / "nothing")
    write_parquet(empty.index, tmp_path / "empty.parquet")
    assert read_index_file(tmp_path / "empty.parquet").views.shape == (0, 1, world.DIMENSIONS)
    with pytest.raises(InputError, match="is not a folder"):
        embed_folder(layout, model, tmp_path / "none")
    with pytest.raises(InputError, match="is not an index of pictures"):
        read_index_file(folder / "0.png")


def test_a_kill_between_npy_and_its_paths_leaves_no_paths_of_other_vectors(
    model: Model, layout: Layout, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done = embed_folder(layout, model, folder)
    write_npy(done.index, tmp_path / "v.npy")
    replaced = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.name == "v.json":
            raise KeyboardInterrupt
        return replaced(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_npy(done.index, tmp_path / "v.npy")
    assert (tmp_path / "v.npy").exists() and not (tmp_path / "v.json").exists()
