"""Spectra of stored features: metrics, checks, every kind of store, and the command."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from flame_core.cli import app
from flame_core.data.shards import INDEX_SCHEMA, Index
from flame_core.data.sidecars import gather_sidecar, write_values
from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.measuring.spectra import Bounds, both, spectrum_checks, spectrum_metrics
from flame_core.measuring.spectrum import Gram, gram, spectrum
from flame_core.measuring.stored_features import gram_of
from flame_core.text.store import EMBEDDINGS
from flame_core.text.tensor_file import write_tensors
from flame_core.work import UnitRecord, WorkCache
from tests.bits import flip


@pytest.fixture
def features() -> np.ndarray:
    draw = np.random.default_rng(0)
    return (draw.normal(size=(60, 8)) * np.linspace(1, 0.1, 8) + 1).astype(np.float32)


def test_metrics_name_features_and_centring(features):
    metrics = spectrum_metrics({"pictures": both(gram(features))})
    assert metrics["spec/svde/pictures/none"] == round(spectrum(features, "none", unit=True).svde, 6)
    assert metrics["spec/lsvr/pictures/column"] == round(spectrum(features, "column", unit=True).lsvr, 6)
    assert (metrics["spec/n/pictures"], metrics["spec/d/pictures"]) == (60, 8) and len(metrics) == 10


def test_checks_fail_for_a_dominant_direction_and_rows_of_zeros(features):
    def failed(sums: Gram, share: float) -> list[str]:
        return [each.name for each in spectrum_checks({"x": both(sums)}, Bounds(share)) if not each.passed]

    assert failed(gram(features), 0.99) == []
    assert failed(gram(features), 0.2) == ["spectrum_direction/x"]
    assert failed(gram(features).add(np.zeros((1, 8))), 0.99) == ["spectrum_rows/x"]
    rows, bounds, direction = (
        next(spectrum_checks({"x": both(gram(features))}, Bounds(0.2))),
        *list(spectrum_checks({"x": both(gram(features))}, Bounds(0.2)))[1:],
    )
    assert (rows.blocking, bounds.blocking, direction.blocking) == (True, True, False)


def test_a_npy_file_gives_what_the_array_gives(tmp_path, features):
    np.save(tmp_path / "vectors.npy", features)
    (found,) = gram_of(tmp_path / "vectors.npy").values()
    assert np.array_equal(found.spectrum("none").sigma, gram(features).spectrum("none").sigma)
    np.save(tmp_path / "numbers.npy", np.arange(4))
    with pytest.raises(InputError, match=r"int64 \[4\], and features are floats"):
        gram_of(tmp_path / "numbers.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "vectors.npy").read_bytes()[:200])
    with pytest.raises(InputError, match=r"cut\.npy: not a readable \.npy file"):
        gram_of(tmp_path / "cut.npy")
    with pytest.raises(InputError, match="holds no stored features: name data/embeddings"):
        gram_of(tmp_path)


def test_a_store_has_one_spectrum_per_facet_over_all_shards(tmp_path, features):
    two = np.stack([features, features[:, ::-1] ** 3], axis=1)  # [N, K, D]
    folder = tmp_path / "embeddings" / "train"
    folder.mkdir(parents=True)
    for shard, rows in enumerate(np.split(two, [17, 30])):
        write_tensors(folder / f"{shard:05}.safetensors", {EMBEDDINGS: rows}, "float32")
    write_json(folder / "manifest.json", {"facets": ["raw/1", "short/1"], "center": "none"})
    for path in (tmp_path / "embeddings", folder):
        found = gram_of(path)
        assert list(found) == ["raw/1", "short/1"]
        for slot, sums in enumerate(found.values()):
            assert np.array_equal(sums.spectrum("none").sigma, gram(two[:, slot]).spectrum("none").sigma)


def test_a_sidecar_of_vectors_is_verified_before_it_is_read(tmp_path, features):
    import pyarrow as pa

    row = {name: 0 if field == pa.int32() or field == pa.int64() else "x" for name, field in
           zip(INDEX_SCHEMA.names, INDEX_SCHEMA.types, strict=True)}  # fmt: skip
    rows = [{**row, "key": f"k{i}", "shard": f"train/0000{i // 30}.tar", "row": i % 30} for i in range(60)]
    index = Index(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))
    cache, units = WorkCache(tmp_path / "work", "cluster"), {}
    for shard, part in zip(sorted(index.shard_sizes()), np.split(features, 2), strict=True):

        def write(folder, part=part) -> UnitRecord:
            write_values(folder, "taught", part)
            return UnitRecord({})

        units[shard] = cache.get({"shard": shard}, write)
    out = tmp_path / "taught"
    gather_sidecar(out, tmp_path / "state", units, index, "cluster", {})
    (found,) = gram_of(out).items()
    assert found[0] == "taught"
    assert np.array_equal(found[1].spectrum("column").sigma, gram(features).spectrum("column").sigma)
    flip(out / "00001.safetensors", 200, 3)
    with pytest.raises(InputError, match=r"00001\.safetensors is damaged"):
        gram_of(out)


def test_the_command_shows_both_centrings(tmp_path, features):
    np.save(tmp_path / "vectors.npy", features)
    done = CliRunner().invoke(app, ["spectrum", str(tmp_path / "vectors.npy")])
    assert done.exit_code == 0, done.output
    numbers = spectrum(features, "column", unit=True).numbers()
    lines = [line for line in done.output.splitlines() if "vectors" in line and "column" in line]
    assert f"{numbers['svde']:.3f}" in lines[0] and f"{numbers['lsvr']:.3f}" in lines[0]
