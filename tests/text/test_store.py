from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flame_core.digest import write_json
from flame_core.errors import ComputationError, InputError
from flame_core.text.diagnostics import anisotropy
from flame_core.text.store import (
    CENTER,
    EMBEDDINGS,
    OFFSET,
    SCALE,
    TensorFile,
    TextStore,
    TrainStore,
    unit,
    write_tensors,
    write_texts,
)


def random_units(*shape: int) -> np.ndarray:
    return unit(np.random.default_rng(sum(shape)).normal(size=shape)).astype(np.float32)


def make_store(folder, t: np.ndarray, center: str = "none", dtype: str = "float32"):
    (folder / "train").mkdir(parents=True)
    (folder / "texts").mkdir()
    write_tensors(folder / "train/00000.safetensors", {EMBEDDINGS: t}, dtype)
    write_json(
        folder / "manifest.json",
        {
            "facets": ["raw/1", "short/1", "short/2"],
            "text_facets": ["raw/1", "short/1", "short/2"],
            "hidden": t.shape[-1],
            "center": center,
        },
    )
    return folder


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 0), ("float16", 5e-4), ("bfloat16", 4e-3), ("int8", 0.5 / 127)]
)
def test_rows_and_facets_are_read_back(tmp_path, dtype, tolerance):
    t = random_units(5, 3, 8)
    folder = make_store(tmp_path, t, dtype=dtype)
    store = TrainStore(folder)
    read = store.read("train/00000.tar", 3, [2, 0])
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, t[3, [2, 0]], atol=tolerance)
    assert store.rows("train/00000.tar") == 5
    whole = TensorFile(folder / "train/00000.safetensors").read(EMBEDDINGS, slice(None))
    np.testing.assert_array_equal(whole[3, [2, 0]], read)
    write_texts(folder / "texts/0.safetensors", {"raw": (["eins", "zwei", "drei", "vier", "fünf"], t[:, :1])}, dtype)
    np.testing.assert_array_equal(TextStore.open(folder).lookup("raw", ["zwei"]), whole[[1], :1])


def test_int8_is_the_nearest_of_127_steps_beyond_the_mean(tmp_path):
    beyond = np.array([[0.5, -1.0, 0.25, 0.1], [1e-3, 0.0, 0.0, -2e-3], [0.0, 0.0, 0.0, 0.0]], np.float32)
    vectors = np.concatenate([beyond, -beyond])[:, None] + np.float32(8)  # their mean is 8
    write_tensors(tmp_path / "x.safetensors", {EMBEDDINGS: vectors}, "int8")
    stored = load_file(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(stored[EMBEDDINGS + OFFSET], [[8, 8, 8, 8]])
    np.testing.assert_array_equal(stored[EMBEDDINGS][[0, 2, 3], 0], [[64, -127, 32, 13], [0] * 4, [-64, 127, -32, -13]])
    # 63.5 and 31.75 round to even and up
    np.testing.assert_allclose(stored[EMBEDDINGS + SCALE][:3, 0], [1 / 127, 2e-3 / 127, 0.0], rtol=1e-3)
    read = TensorFile(tmp_path / "x.safetensors").read(EMBEDDINGS, slice(None))
    np.testing.assert_allclose(read[0, 0], 8 + np.array([64, -127, 32, 13]) / 127, rtol=1e-6)


def test_int8_keeps_what_tells_vectors_apart_beside_a_huge_shared_component(tmp_path):
    """As LLMs have it: one component holds most of the length of every vector."""
    t = 0.16 * random_units(50, 2, 64)
    t[..., 7] += 0.85
    write_tensors(tmp_path / "x.safetensors", {EMBEDDINGS: t}, "int8")
    error = TensorFile(tmp_path / "x.safetensors").read(EMBEDDINGS, slice(None)) - t
    own = t - t.mean(axis=0)
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(own)


def test_an_int8_file_may_be_empty(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {EMBEDDINGS: np.empty((0, 2, 4), np.float32)}, "int8")
    assert TensorFile(tmp_path / "x.safetensors").read(EMBEDDINGS, slice(None)).shape == (0, 2, 4)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_training_reads_the_drawn_rows_and_little_else(tmp_path, dtype):
    """Counted by the kernel: the bytes that this process read, for 6 of 11 rows of 512 samples."""
    t = random_units(512, 11, 640)
    store = TrainStore(make_store(tmp_path, t, dtype=dtype))
    store.read("train/00000.tar", 0, [0])  # opens the file and reads its header

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])  # rchar

    own = bytes_read()
    own = bytes_read() - own  # what the count itself reads
    before = bytes_read()
    draw = np.random.default_rng(0)
    for row in draw.permutation(512):
        store.read("train/00000.tar", row, draw.permutation(11)[:6])
    found = bytes_read() - before - own
    wanted = 512 * 6 * 640 * {"float16": 2, "int8": 1}[dtype]
    assert wanted <= found <= 1.05 * wanted


def test_the_file_is_plain_safetensors_and_its_bytes_repeat(tmp_path):
    t = random_units(4, 2, 6)
    write_tensors(tmp_path / "a.safetensors", {EMBEDDINGS: t}, "float16")
    write_tensors(tmp_path / "b.safetensors", {EMBEDDINGS: t}, "float16")
    np.testing.assert_array_equal(load_file(tmp_path / "a.safetensors")[EMBEDDINGS], t.astype(np.float16))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_centring_subtracts_the_mean_at_reading(tmp_path):
    t = random_units(5, 3, 8)
    center = t.mean(axis=0)
    folder = make_store(tmp_path, t, center="per_facet")
    write_tensors(folder / CENTER, {EMBEDDINGS: center}, "float32")
    write_texts(folder / "texts/0.safetensors", {"short": (["a text"], t[:1, 1:])}, "float32")
    expected = t[2, [1]] - center[[1]]
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(TrainStore(folder).read("train/00000.tar", 2, [1]), expected, atol=1e-6)
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


@pytest.mark.parametrize("length", [4, 40, 200])
def test_a_cut_file_is_refused_by_name(tmp_path, length):
    path = tmp_path / "00000.safetensors"
    write_tensors(path, {EMBEDDINGS: random_units(9, 3, 8)}, "float32")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"00000\.safetensors"):
        TensorFile(path).read(EMBEDDINGS, 0)


@pytest.mark.parametrize(
    ("dtype", "value"), [("float16", 1e6), ("float16", np.nan), ("int8", np.inf), ("int8", np.nan)]
)
def test_values_beyond_the_stored_type_are_refused(tmp_path, dtype, value):
    with pytest.raises(ComputationError, match=f"not all finite in {dtype}"):
        write_tensors(tmp_path / "x.safetensors", {EMBEDDINGS: np.full((1, 1, 2), value, np.float32)}, dtype)
    assert not (tmp_path / "x.safetensors").exists()


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
