from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.text.diagnostics import anisotropy
from flame_core.text.manifest import MANIFEST
from flame_core.text.store import (
    CENTER,
    EMBEDDINGS,
    TRAIN,
    Drawn,
    TextStore,
    TrainStore,
    unit,
    write_texts,
)
from flame_core.text.tensor_file import TensorFile, write_tensors


def random_units(*shape: int) -> np.ndarray:
    return unit(np.random.default_rng(sum(shape)).normal(size=shape)).astype(np.float32)


def make_store(folder, t: np.ndarray, center: str = "none", dtype: str = "float32"):
    (folder / "train").mkdir(parents=True)
    (folder / "texts").mkdir()
    write_tensors(folder / "train/00000.safetensors", {EMBEDDINGS: t}, dtype)
    manifest = {
        "facets": ["raw/1", "short/1", "short/2"],
        "text_facets": ["raw/1", "short/1", "short/2"],
        "hidden": t.shape[-1],
        "center": center,
    }
    for each in (folder, folder / TRAIN):
        write_json(each / MANIFEST, manifest)
    return folder


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 0), ("float16", 5e-4), ("bfloat16", 4e-3), ("int8", 0.5 / 127)]
)
def test_rows_and_facets_are_read_back(tmp_path, dtype, tolerance):
    t = random_units(5, 3, 8)
    folder = make_store(tmp_path, t, dtype=dtype)
    store = TrainStore(folder)
    rows, facets = [3, 1, 3], [[2, 0], [1, 2], [1, 1]]
    read = store.read([Drawn("train/00000.tar", row, own) for row, own in zip(rows, facets, strict=True)])
    assert read.dtype == (torch.float32 if dtype == "int8" else getattr(torch, dtype))
    read = read.float().numpy()
    np.testing.assert_allclose(read, t[np.array(rows)[:, None], facets], atol=tolerance)
    assert store.rows("train/00000.tar") == 5
    whole = TensorFile(folder / "train/00000.safetensors").read(EMBEDDINGS, slice(None))
    np.testing.assert_array_equal(whole[np.array(rows)[:, None], facets], read)
    write_texts(folder / "texts/0.safetensors", {"raw": (["eins", "zwei", "drei", "vier", "fünf"], t[:, :1])}, dtype)
    np.testing.assert_array_equal(TextStore.open(folder).lookup("raw", ["zwei"]), whole[[1], :1])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_training_reads_the_drawn_rows_and_little_else(tmp_path, dtype):
    """The kernel counts the bytes that this process read, for 6 of 11 rows of 512 samples."""
    t = random_units(512, 11, 640)
    store = TrainStore(make_store(tmp_path, t, dtype=dtype))
    store.read([Drawn("train/00000.tar", 0, [0])])  # opens the file and reads its header

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])  # rchar

    own = bytes_read()
    own = bytes_read() - own  # what the count itself reads
    before = bytes_read()
    draw = np.random.default_rng(0)
    for rows in draw.permutation(512).reshape(8, 64):
        store.read([Drawn("train/00000.tar", int(row), draw.permutation(11)[:6].tolist()) for row in rows])
    found = bytes_read() - before - own
    wanted = 512 * 6 * 640 * {"float16": 2, "int8": 1}[dtype]
    assert wanted <= found <= 1.05 * wanted


def test_centring_subtracts_the_mean_at_reading(tmp_path):
    t = random_units(5, 3, 8)
    center = t.mean(axis=0)
    folder = make_store(tmp_path, t, center="per_facet")
    write_tensors(folder / TRAIN / CENTER, {EMBEDDINGS: center}, "float32")
    write_texts(folder / "texts/0.safetensors", {"short": (["a text"], t[:1, 1:])}, "float32")
    expected = t[2, [1]] - center[[1]]
    expected /= np.linalg.norm(expected)
    read = TrainStore(folder).read([Drawn("train/00000.tar", 2, [1])])
    np.testing.assert_allclose(read[0], expected, atol=1e-6)
    np.testing.assert_allclose(
        TextStore.open(folder).lookup("short", ["a text"]), unit(t[:1, 1:] - center[1:]), atol=1e-6
    )


def test_texts_are_found_by_kind_and_content(tmp_path):
    t = random_units(3, 3, 8)
    folder = make_store(tmp_path, t)
    write_texts(folder / "texts/0.safetensors", {"raw": (["eins", "zwei"], t[:2, :1])}, "float32")
    write_texts(
        folder / "texts/1.safetensors", {"raw": (["drei"], t[2:, :1]), "short": (["eins"], t[:1, 1:])}, "float32"
    )
    store = TextStore.open(folder)
    np.testing.assert_array_equal(store.lookup("raw", ["drei", "eins"]), t[[2, 0], :1])
    np.testing.assert_array_equal(store.lookup("short", ["eins"]), t[:1, 1:])
    with pytest.raises(InputError, match="no embedding of the short text 'zwei'; run `flame embed`"):
        store.lookup("short", ["zwei"])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_many_texts_are_read_together_in_the_order_in_which_they_are_asked_for(tmp_path, monkeypatch, dtype):
    t = random_units(60, 3, 8)
    folder = make_store(tmp_path, t, dtype=dtype)
    names = [f"text {i}" for i in range(60)]
    for start in range(0, 60, 20):
        part = slice(start, start + 20)
        write_texts(folder / f"texts/{start}.safetensors", {"short": (names[part], t[part, 1:])}, dtype)
    asked = np.random.default_rng(0).permutation(60).tolist() * 2
    read, calls = TensorFile.read, []
    monkeypatch.setattr(TensorFile, "read", lambda *given: calls.append(given[1]) or read(*given))
    found = TextStore.open(folder).lookup("short", [names[i] for i in asked])
    assert len(calls) <= 3  # what all rows of a file share
    np.testing.assert_allclose(found, t[asked, 1:], atol=0.5 / 127 if dtype == "int8" else 0)


def test_no_texts_are_no_vectors(tmp_path):
    folder = make_store(tmp_path, random_units(5, 3, 8))
    assert TextStore.open(folder).lookup("short", []).shape == (0, 2, 8)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_what_the_kernel_no_longer_holds_is_read_from_the_disk(tmp_path, dtype):
    folder = make_store(tmp_path, random_units(300, 11, 640), dtype=dtype)
    store = TrainStore(folder)
    drawn = [Drawn("train/00000.tar", row, [7, 1, 2, 3]) for row in range(0, 300, 7)]
    held = store.read(drawn)
    with (folder / "train/00000.safetensors").open("rb+") as file:
        os.fsync(file)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert torch.equal(store.read(drawn), held)


def test_a_file_cut_after_it_was_opened_is_said_by_name(tmp_path):
    folder = make_store(tmp_path, random_units(5, 3, 8))
    store = TrainStore(folder)
    store.read([Drawn("train/00000.tar", 0, [0])])
    os.truncate(folder / "train/00000.safetensors", 200)
    with pytest.raises(InputError, match=r"train/00000\.safetensors: ends before byte"):
        store.read([Drawn("train/00000.tar", 4, [2])])


def test_files_of_another_type_beside_each_other_are_refused_by_name(tmp_path):
    folder = make_store(tmp_path, random_units(5, 3, 8))
    write_tensors(folder / "train/00001.safetensors", {EMBEDDINGS: random_units(5, 3, 8)}, "float16")
    with pytest.raises(InputError, match=r"train/00001\.safetensors: .* F16"):
        TrainStore(folder).read([Drawn("train/00000.tar", 0, [0, 1]), Drawn("train/00001.tar", 0, [0, 1])])


def test_a_row_beyond_the_file_is_refused_by_name(tmp_path):
    store = TrainStore(make_store(tmp_path, random_units(5, 3, 8)))
    for row, facet in ((5, 0), (-1, 0), (0, 3), (0, -1)):
        with pytest.raises(IndexError, match=r"train/00000\.safetensors: (no row|columns)"):
            store.read([Drawn("train/00000.tar", row, [facet])])


def test_anisotropy_does_not_depend_on_the_order_of_sums():
    t = random_units(300, 3, 64)
    assert anisotropy(t) == anisotropy(t[::-1]) == anisotropy(t[:, :, ::-1])


def test_anisotropy_of_a_hand_made_store():
    """Two captions, two facets, in 4-d: caption, facet and interaction directions of known size."""
    common, caption, facet, both = np.eye(4) * np.array([[2.0], [1.0], [0.5], [0.25]])
    signs = np.array([1.0, -1.0])
    t = common + signs[:, None, None] * caption + signs[None, :, None] * facet
    t = t + (signs[:, None] * signs[None, :])[..., None] * both
    report = anisotropy(t.astype(np.float32))
    total = 1.0 + 0.25 + 0.0625
    assert report["caption_share"] == pytest.approx(1.0 / total)
    assert report["facet_share"] == pytest.approx(0.25 / total)
    assert report["interaction_share"] == pytest.approx(0.0625 / total, abs=1e-6)
    assert report["mean_cosine"] == pytest.approx(4 - 1 + 0.25 - 0.0625)
    assert report["facet_cosine"] == pytest.approx(4 + 1 - 0.25 - 0.0625)
    assert report["top_direction_energy"] == pytest.approx(4 / (4 + total))
