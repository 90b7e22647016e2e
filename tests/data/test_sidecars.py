from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import load_file, save_file

from flame_core.data.shards import INDEX_SCHEMA, Index
from flame_core.data.sidecars import Sidecar, gather_sidecar, open_sidecars, write_int8, write_values
from flame_core.digest import file_sha256
from flame_core.errors import ComputationError, GateError, InputError, ParamsError
from flame_core.gates import Check
from flame_core.verification import verify
from flame_core.work import Unit, UnitRecord, WorkCache

SIZES = {"train/00000.tar": 5, "train/00001.tar": 3}


@pytest.fixture(autouse=True)
def _version_of_a_stage(monkeypatch):
    monkeypatch.setattr("flame_core.work.stage_versions", lambda: {"cluster": 1})


def index_of(sizes: dict[str, int] = SIZES) -> Index:
    rows = [
        {"key": f"toys/{shard[6:11]}_{row}", "split": "train", "shard": shard, "row": row, "offset": 512, "size": 9}
        | {"width": 1, "height": 1, "sha256": "", "captions": 1}
        for shard, count in sizes.items()
        for row in range(count)
    ]
    return Index(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))


def values_of(dtype: str, *shape: int, sizes: dict[str, int] = SIZES) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {shard: (100 * draw.normal(size=(count, *shape))).astype(dtype) for shard, count in sizes.items()}


def units_of(folder: Path, name: str, values: dict[str, np.ndarray]) -> dict[str, Unit]:
    """Shard by shard in a work cache, as a stage does it."""
    cache, units = WorkCache(folder, "cluster"), {}
    for shard, own in values.items():

        def write(unit: Path, own: np.ndarray = own) -> UnitRecord:
            write_values(unit, name, own)
            return UnitRecord({"samples": len(own)})

        units[shard] = cache.get({"shard": shard, "values": own.tolist(), "dtype": own.dtype.name}, write)
    return units


def store(tmp_path: Path, values: dict[str, np.ndarray], name: str = "labels", checks=(), index=None, **origin) -> Path:
    """`<tmp_path>/data/sidecars/<name>`, written as a stage does."""
    out = tmp_path / "data/sidecars" / name
    units = units_of(tmp_path / "work", name, values)
    gather_sidecar(out, tmp_path / "state", units, index or index_of(), "cluster", {"clusters": 20, **origin}, checks)
    return out


@pytest.mark.parametrize(
    ("dtype", "shape"), [("int64", ()), ("float32", ()), ("float16", (7,)), ("float32", (7,)), ("float32", (2, 3))]
)
def test_values_are_read_back_by_place(tmp_path, dtype, shape):
    values = values_of(dtype, *shape)
    sidecar = Sidecar(store(tmp_path, values))
    sidecar.require_aligned(index_of())
    places = [("train/00001.tar", 2), ("train/00000.tar", 0), ("train/00000.tar", 4), ("train/00001.tar", 2)]
    read = sidecar.read(places)
    assert read.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(read.numpy(), np.stack([values[shard][row] for shard, row in places]))
    rows = Index(index_of({shard: SIZES[shard] for shard in sorted(SIZES, reverse=True)}).table[1:])  # in this order
    expected = np.concatenate([values["train/00001.tar"][1:], values["train/00000.tar"]])
    np.testing.assert_array_equal(sidecar.read_rows(rows).numpy(), expected)
    assert sidecar.read_rows(Index(rows.table[:0])).shape == (0, *shape)
    nothing = sidecar.read([])
    assert nothing.shape == (0, *shape) and nothing.dtype == read.dtype


def test_labels_beyond_the_integers_of_a_float_stay_exact(tmp_path):
    values = {shard: np.full(count, 2**62 + 1) for shard, count in SIZES.items()}
    assert Sidecar(store(tmp_path, values)).read([("train/00000.tar", 1)]).tolist() == [2**62 + 1]


def test_the_folder_is_an_out_of_plain_files(tmp_path):
    values = values_of("float16", 7)
    out = store(tmp_path, values, checks=[Check("even", True, "clusters are of like size", value=1.5)])
    assert sorted(path.name for path in out.iterdir()) == [
        "00000.safetensors",
        "00001.safetensors",
        "checks.json",
        "digests.json",
        "manifest.json",
    ]
    np.testing.assert_array_equal(load_file(out / "00001.safetensors")["values"], values["train/00001.tar"])
    assert json.loads((out / "manifest.json").read_text()) == {
        "name": "labels",
        "stage": "cluster",
        "dtype": "float16",
        "shape": [7],
        "index": index_of().digest(),
        "origin": {"clusters": 20},
        "files": {name: file_sha256(out / name) for name in ("00000.safetensors", "00001.safetensors")},
    }
    assert verify({out: ["*"]}).files == 4


def test_equal_values_give_equal_bytes_and_one_digest(tmp_path):
    values = values_of("float32", 3)
    first, second = (store(tmp_path / name, values) for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    values["train/00001.tar"][2, 1] += 1
    other = store(tmp_path / "c", values)
    assert Sidecar(first).digest == Sidecar(second).digest != Sidecar(other).digest
    assert Sidecar(first).digest == file_sha256(first / "manifest.json")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_copy_for_a_worker_has_no_open_file(tmp_path):
    values = values_of("int64")
    sidecar = Sidecar(store(tmp_path, values))
    sidecar.read([("train/00000.tar", 1)])
    before = open_files()
    copy = pickle.loads(pickle.dumps(sidecar))
    assert open_files() == before
    assert copy.read([("train/00000.tar", 1)]).tolist() == [values["train/00000.tar"][1]]
    assert open_files() == before + 1
    del copy
    assert open_files() == before


@pytest.mark.parametrize(("dtype", "shape"), [("float16", (640,)), ("float32", (640,))])
def test_reading_takes_the_bytes_of_its_rows_and_little_else(tmp_path, dtype, shape):
    """Counted by the kernel: the bytes that this process read."""
    sizes = {"train/00000.tar": 512, "train/00001.tar": 512}
    sidecar = Sidecar(store(tmp_path, values_of(dtype, *shape, sizes=sizes), index=index_of(sizes)))
    sidecar.read([(shard, 0) for shard in sizes])  # opens the files and reads their headers

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])  # rchar

    own = bytes_read()
    own = bytes_read() - own  # what the count itself reads
    before = bytes_read()
    for rows in np.random.default_rng(0).permutation(512)[:256].reshape(4, 64):
        sidecar.read([(shard, int(row)) for row in rows for shard in sizes])
    found = bytes_read() - before - own
    wanted = 2 * 256 * 640 * np.dtype(dtype).itemsize
    assert wanted <= found <= 1.05 * wanted


def test_a_place_that_is_not_there_is_refused_by_name(tmp_path):
    sidecar = Sidecar(store(tmp_path, values_of("int64")))
    for row in (5, -1):
        with pytest.raises(IndexError, match=rf"00000\.safetensors: no row {row}"):
            sidecar.read([("train/00000.tar", row)])
    with pytest.raises(
        InputError, match=r"00007\.safetensors is missing, .* train/00007\.tar; run `flame cluster` again"
    ):
        sidecar.read([("train/00007.tar", 0)])


def test_a_file_that_is_cut_is_refused_by_name(tmp_path):
    out = store(tmp_path, values_of("float32", 7))
    opened = Sidecar(out)
    opened.read([("train/00000.tar", 0)])
    os.truncate(out / "00000.safetensors", 100)
    with pytest.raises(InputError, match=r"00000\.safetensors: ends before byte \d+; run `flame cluster` again"):
        opened.read([("train/00000.tar", 4)])
    with pytest.raises(InputError, match=r"00000\.safetensors: .*cut short; run `flame cluster` again"):
        Sidecar(out).require_aligned(index_of())


def test_a_sidecar_of_other_shards_is_refused(tmp_path):
    out = store(tmp_path, values_of("int64"))
    others = index_of({"train/00000.tar": 3, "train/00001.tar": 5})
    with pytest.raises(InputError, match="labels: aligned with other shards; run `flame cluster` again"):
        open_sidecars({"prototypes": ["labels"]}, {"labels": out}, others)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (np.zeros(2, np.int64), "2 values for the 3 samples of train/00001.tar"),
        (np.zeros(3, np.float32), r"holds float32 \[rows\], and manifest.json says int64 \[rows\]"),
        (np.zeros((3, 4), np.int64), r"holds int64 \[rows, 4\]"),
        (np.zeros(3, np.int8), "holds int8"),
        (np.zeros((), np.int64), r"holds int64 \[\]"),
        (np.zeros(3, np.uint8), "not a readable safetensors file"),
        (None, "is missing, which holds the values of train/00001.tar"),
    ],
)
def test_a_file_of_other_values_is_refused(tmp_path, tensor, message):
    out = store(tmp_path, values_of("int64"))
    path = out / "00001.safetensors"
    path.unlink()
    if tensor is not None:
        save_file({"values": tensor}, path)
    with pytest.raises(InputError, match=rf"00001\.safetensors.*{message}.*; run `flame cluster` again"):
        Sidecar(out).require_aligned(index_of())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_when_read_and_when_written(tmp_path, value):
    out = store(tmp_path, values_of("float32", 4))
    damaged = values_of("float32", 4)["train/00000.tar"]
    damaged[3, 2] = value
    save_file({"values": damaged}, out / "00000.safetensors")
    sidecar = Sidecar(out)
    sidecar.read([("train/00000.tar", 2)])
    with pytest.raises(InputError, match=r"00000\.safetensors: the value of row 3 is not finite; run `flame cluster`"):
        sidecar.read([("train/00000.tar", 2), ("train/00001.tar", 1), ("train/00000.tar", 3)])
    with pytest.raises(ComputationError, match="labels: the value of row 3 is not finite"):
        write_values(tmp_path, "labels", damaged)
    assert not (tmp_path / "labels.safetensors").exists()


def test_there_is_no_such_sidecar(tmp_path):
    with pytest.raises(InputError, match=r"the sidecar .*nowhere is missing: run `flame run`"):
        Sidecar(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"manifest\.json is missing"):
        Sidecar(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"dtype": "uint8"}, {"shape": [0]}, {"shape": "7"}, {"stage": "../x"}, {"more": 1}, {"files": None}, {"index": 3}],
)
def test_a_manifest_that_says_anything_else_is_refused(tmp_path, change):
    out = store(tmp_path, values_of("int64"))
    path = out / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=rf"manifest\.json is damaged \({next(iter(change))}"):
        Sidecar(out)
    path.write_bytes(b"\xff{")
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        Sidecar(out)


def test_a_recipe_gives_the_sidecars_that_its_terms_read(tmp_path):
    labels = store(tmp_path, values_of("int64"))
    weights = store(tmp_path, values_of("float32"), "weights")
    needed = {"infonce": [], "prototypes": ["labels"], "weighted": ["weights", "labels"]}
    opened = open_sidecars(needed, {"weights": weights, "labels": labels}, index_of())
    assert {name: sidecar.manifest.dtype for name, sidecar in opened.items()} == {
        "labels": "int64",
        "weights": "float32",
    }
    assert open_sidecars({"infonce": []}, {}, index_of()) == {}


def test_a_sidecar_that_is_not_given_is_an_error_with_the_key_to_write():
    with pytest.raises(ParamsError) as error:
        open_sidecars({"infonce": [], "prototypes": ["labels"]}, {}, index_of())
    assert str(error.value) == (
        "prototypes reads the sidecar 'labels', which the recipe does not give: write "
        "`sidecars: {labels: data/sidecars/labels}` into the recipe"
    )


def test_a_sidecar_that_nothing_reads_is_an_error(tmp_path):
    with pytest.raises(ParamsError, match="no term of the recipe reads the sidecar 'weights'"):
        open_sidecars({"infonce": []}, {"weights": tmp_path}, index_of())


def test_a_sidecar_whose_blocking_check_failed_is_refused(tmp_path):
    out = store(tmp_path, values_of("int64"), checks=[Check("even", False, "clusters are of like size")])
    with pytest.raises(GateError, match="even"):
        open_sidecars({"prototypes": ["labels"]}, {"labels": out}, index_of())
    shutil.rmtree(out)
    with pytest.raises(InputError, match="labels is missing"):
        open_sidecars({"prototypes": ["labels"]}, {"labels": out}, index_of())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train/00000.tar": np.zeros(5, np.int64)}, "values of 1 shards for 2; train/00001.tar"),
        (values_of("int64", sizes=SIZES | {"train/00001.tar": 4}), "4 values for the 3 samples of train/00001.tar"),
        (
            {"train/00000.tar": np.zeros(5, np.int64), "train/00001.tar": np.zeros(3, np.float32)},
            r"these are int64 \[rows\] in train/00000.tar and float32 \[rows\] in train/00001.tar",
        ),
    ],
)
def test_units_that_make_no_sidecar_are_refused(tmp_path, values, message):
    with pytest.raises(ComputationError, match=message):
        store(tmp_path, values)
    assert not (tmp_path / "data/sidecars/labels").exists()


@pytest.mark.parametrize("values", [np.zeros(3, np.int16), np.zeros((3, 0), np.float32), np.array(1), np.array(["a"])])
def test_values_of_other_types_are_not_written(tmp_path, values):
    with pytest.raises(ComputationError, match=r"labels: values of type .* and shape"):
        write_values(tmp_path, "labels", values)


def test_foreign_byte_order_and_strides_are_stored_plainly(tmp_path):
    values = np.arange(12, dtype=">f4").reshape(3, 4)
    write_values(tmp_path, "a", values[:, ::2])
    write_values(tmp_path, "b", np.array([[0, 2], [4, 6], [8, 10]], np.float32))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_one_unit_may_hold_several_sidecars(tmp_path):
    def write(folder: Path) -> UnitRecord:
        write_values(folder, "labels", np.arange(4))
        write_values(folder, "weights", np.ones(4, np.float32))
        return UnitRecord({"samples": 4})

    index = index_of({"train/00000.tar": 4})
    units = {"train/00000.tar": WorkCache(tmp_path / "work", "cluster").get({}, write)}
    for name in ("labels", "weights"):
        gather_sidecar(tmp_path / name, tmp_path / "state", units, index, "cluster", {})
    assert Sidecar(tmp_path / "labels").read([("train/00000.tar", 3)]).tolist() == [3]
    assert Sidecar(tmp_path / "weights").read([("train/00000.tar", 3)]).tolist() == [1.0]


def test_vectors_in_int8_are_read_as_the_nearest_of_127_steps(tmp_path):
    draw, units = np.random.default_rng(0), {}
    vectors = {shard: (draw.normal(size=(n, 2, 6)) + 50).astype(np.float32) for shard, n in SIZES.items()}
    cache = WorkCache(tmp_path / "work", "cluster")
    for shard, own in vectors.items():

        def write(unit: Path, own: np.ndarray = own) -> UnitRecord:
            write_int8(unit, "features", own)
            return UnitRecord({"samples": len(own)})

        units[shard] = cache.get({"shard": shard}, write)
    folder = tmp_path / "data/sidecars/features"
    gather_sidecar(folder, tmp_path / "state", units, index_of(), "cluster", {})
    sidecar = pickle.loads(pickle.dumps(Sidecar(folder)))
    sidecar.require_aligned(index_of())
    assert sidecar.manifest.dtype == "int8" and sidecar.manifest.shape == (2, 6)
    places = [("train/00001.tar", 2), ("train/00000.tar", 4), ("train/00001.tar", 0)]
    found = sidecar.read(places)
    assert found.dtype == torch.float32
    for each, (shard, row) in zip(found.numpy(), places, strict=True):
        own = vectors[shard] - vectors[shard].mean(axis=0)
        step = np.abs(own[row]).max(axis=-1, keepdims=True) / 127
        assert (np.abs(each - vectors[shard][row]) <= 0.51 * step + 1e-5).all()
        assert np.abs(each - vectors[shard][row]).max() > 0
    assert sidecar.read([]).dtype == torch.float32
    with pytest.raises(ComputationError, match="row 1 is not finite"):
        write_int8(tmp_path, "features", np.array([[1.0], [np.inf]], np.float32))
    with pytest.raises(ComputationError, match="values of type int8"):
        write_values(tmp_path, "features", np.zeros((2, 3), np.int8))
