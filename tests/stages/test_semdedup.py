"""flame semdedup: planted duplicates go, the one to keep stays, recipes can name the selection, kills cost little."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flame_core import gates
from flame_core.data.key_selection import select
from flame_core.data.shards import read_index
from flame_core.data.sidecars import gather_sidecar, write_values
from flame_core.errors import InputError, ParamsError
from flame_core.graph.section_stages import section_stages
from flame_core.layout import Layout
from flame_core.params import Params, SemDedupParams
from flame_core.stages import download, ingest, semdedup
from flame_core.verification import verify
from flame_core.work import UnitRecord, WorkCache
from tests.bits import flip
from tests.stages.pipeline import folder_source, pipeline_params, tree, write_pairs
from tests.stages.units import computed_by, killed_after

GROUPS, PICTURES = 15, 60


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Params, Layout, dict[str, int]]:
    """Drawings whose stored vectors come in groups of about three; {key: its group}."""
    monkeypatch.setenv("FLAME_WORKERS", "1")
    write_pairs(tmp_path / "pairs", range(PICTURES))
    params = pipeline_params({"s": folder_source(tmp_path / "pairs")})
    layout = Layout.find(tmp_path)
    for stage in (download, ingest):
        stage.run(params, layout)
    index = read_index(layout.shards, "train")
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(GROUPS, 16))
    groups = {row.key: number % GROUPS for number, row in enumerate(index)}
    units = {}
    for shard in sorted(index.shard_sizes()):
        keys = [row.key for row in index if row.shard == shard]
        values = np.stack([[centres[groups[key]] + 0.02 * draw.normal(size=16)] for key in keys]).astype(np.float32)

        def write(folder: Path, values: np.ndarray = values) -> UnitRecord:
            write_values(folder, "features", values)
            return UnitRecord()

        units[shard] = WorkCache(layout.work, "features").get({"shard": shard}, write)
    gather_sidecar(layout.features, layout.state, units, index, "features", {}, [])
    chosen = SemDedupParams(clusters=4, dims=8, gates={"max_over_mean": 4.0})  # type: ignore[arg-type]
    return params.model_copy(update={"semdedup": chosen}), layout, groups


def keys_of(path: Path) -> list[str]:
    return pq.read_table(path).column("key").to_pylist()


def test_one_of_each_group_is_kept(world: tuple[Params, Layout, dict[str, int]]):
    params, layout, groups = world
    semdedup.run(params, layout)
    kept = keys_of(layout.semdedup / "kept.parquet")
    assert len(kept) == GROUPS and {groups[key] for key in kept} == set(range(GROUPS))
    removed = pq.read_table(layout.semdedup / "removed.parquet").to_pylist()
    assert len(removed) == len(groups) - GROUPS
    assert all(groups[row["key"]] == groups[row["twin"]] and row["cosine"] > 0.95 for row in removed)
    index = read_index(layout.shards, "train")
    assert len(select(index, layout.semdedup / "kept.parquet", layout.shards)) == GROUPS
    about = json.loads((layout.semdedup / "semdedup.json").read_text())
    assert about["kept"] == GROUPS and about["kept at"]["0.95"] == GROUPS
    assert {check.name for check in gates.read(layout.semdedup)} == {
        "semdedup_filled", "semdedup_balanced", "semdedup_kept"
    }  # fmt: skip
    nearest = params.semdedup.model_copy(update={"keep": "nearest"})  # type: ignore[union-attr]
    semdedup.run(params.model_copy(update={"semdedup": nearest}), layout)
    others = keys_of(layout.semdedup / "kept.parquet")
    assert len(others) == GROUPS and set(others) != set(kept)


def test_a_killed_run_ends_with_the_same_bytes(
    world: tuple[Params, Layout, dict[str, int]], monkeypatch: pytest.MonkeyPatch
):
    params, layout, _ = world
    monkeypatch.setattr(semdedup, "_NUMBERS", 300)  # a unit per cluster
    killed_after(4, lambda: semdedup.run(params, layout))
    assert not layout.semdedup.exists()
    semdedup.run(params, layout)
    first = tree(layout.semdedup)
    monkeypatch.setattr(semdedup, "_NUMBERS", 2**26)
    semdedup.run(params, layout)
    assert tree(layout.semdedup) == first


def test_a_flipped_bit_is_found_and_in_the_work_cache_costs_one_unit(
    world: tuple[Params, Layout, dict[str, int]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    params, layout, _ = world
    monkeypatch.setattr(semdedup, "_NUMBERS", 300)
    semdedup.run(params, layout)
    first = tree(layout.semdedup)
    assert computed_by(lambda: semdedup.run(params, layout)) == []
    for file in ("compared.safetensors", "label.safetensors"):
        path = next((layout.work / "semdedup").glob(f"*/{file}"))
        flip(path, path.stat().st_size - 3, 1)
        assert len(computed_by(lambda: semdedup.run(params, layout))) == 1
        assert "is damaged; computing it again" in caplog.text and tree(layout.semdedup) == first
        caplog.clear()
    flip(layout.semdedup / "kept.parquet", 60, 1)
    with pytest.raises(InputError, match=r"kept\.parquet is damaged.*\n?.*flame semdedup"):
        verify({layout.semdedup: ["*"]})
    semdedup.run(params, layout)
    assert tree(layout.semdedup) == first
    stored = next(layout.features.glob("[0-9]*.safetensors"))
    flip(stored, stored.stat().st_size - 3, 1)
    with pytest.raises(InputError, match=rf"{stored.name} is damaged"):
        semdedup.run(params, layout)


def test_the_stage_and_refusals(world: tuple[Params, Layout, dict[str, int]]):
    params, layout, _ = world
    stage = section_stages(layout, params)["semdedup"]
    assert stage["deps"] == ["data/shards", "data/sidecars/features"] and stage["outs"] == ["data/semdedup"]
    with pytest.raises(ParamsError, match="no section `semdedup`"):
        semdedup.run(params.model_copy(update={"semdedup": None}), layout)
    many = SemDedupParams(clusters=1000)
    with pytest.raises(InputError, match=r"semdedup\.clusters is 1000"):
        semdedup.run(params.model_copy(update={"semdedup": many}), layout)
    absent = SemDedupParams(clusters=2, vectors="data/sidecars/nothing")
    with pytest.raises(InputError, match="nothing does not exist"):
        semdedup.run(params.model_copy(update={"semdedup": absent}), layout)
