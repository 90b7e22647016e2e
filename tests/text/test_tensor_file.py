from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from flame_core.errors import ComputationError, InputError
from flame_core.text.store import EMBEDDINGS
from flame_core.text.tensor_file import OFFSET, SCALE, TensorFile, write_tensors
from tests.text.test_store import random_units


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
    """As in LLMs, one component has most of the length of every vector."""
    t = 0.16 * random_units(50, 2, 64)
    t[..., 7] += 0.85
    write_tensors(tmp_path / "x.safetensors", {EMBEDDINGS: t}, "int8")
    error = TensorFile(tmp_path / "x.safetensors").read(EMBEDDINGS, slice(None)) - t
    own = t - t.mean(axis=0)
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(own)


def test_an_int8_file_may_be_empty(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {EMBEDDINGS: np.empty((0, 2, 4), np.float32)}, "int8")
    assert TensorFile(tmp_path / "x.safetensors").read(EMBEDDINGS, slice(None)).shape == (0, 2, 4)


def test_the_file_is_plain_safetensors_and_its_bytes_repeat(tmp_path):
    t = random_units(4, 2, 6)
    write_tensors(tmp_path / "a.safetensors", {EMBEDDINGS: t}, "float16")
    write_tensors(tmp_path / "b.safetensors", {EMBEDDINGS: t}, "float16")
    np.testing.assert_array_equal(load_file(tmp_path / "a.safetensors")[EMBEDDINGS], t.astype(np.float16))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


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
