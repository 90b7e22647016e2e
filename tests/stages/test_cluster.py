"""flame cluster: labels of all samples from stored or given vectors, the same after a kill, and clear refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flame_core import gates
from flame_core.clustering import pipeline as steps
from flame_core.clustering.centroids import read_centroids
from flame_core.clustering.pipeline import chosen_rows
from flame_core.data.shards import read_index
from flame_core.data.sidecars import Sidecar, gather_sidecar, write_values
from flame_core.digest import write_json
from flame_core.errors import GateError, InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import ClusterParams, Params
from flame_core.planning.plan import stage_costs
from flame_core.stages import cluster, embed, train
from flame_core.stages.cluster import cluster_checks
from flame_core.text.store import TrainStore, unit
from flame_core.verification import verify, write_digests
from flame_core.work import UnitRecord, WorkCache
from tests.bits import flip
from tests.stages.pipeline import captioned_project, tree
from tests.stages.units import computed_by, killed_after
from tests.training.world import recipe

CHOSEN = {"clusters": 4, "dims": 3, "gates": {"min_samples": 1}}


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """Shards and embeddings of 40 drawings in several shards."""
    root = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = captioned_project(root, byte_tokenizer, 40)
        params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"languages": []})})
        embed.run(params, layout)
        yield params, layout


def choosing(params: Params, **values) -> Params:
    return params.model_copy(update={"cluster": ClusterParams.model_validate(CHOSEN | values)})


def labels_of(layout: Layout) -> np.ndarray:
    index = read_index(layout.shards, "train")
    return Sidecar(layout.clusters).read([(row.shard, row.row) for row in index]).numpy()


def stored_vectors(layout: Layout) -> np.ndarray:
    """The mean of each sample's vectors, [N, D]."""
    store = TrainStore(layout.embeddings)
    files = sorted(layout.train_embeddings.glob("[0-9]*.safetensors"))
    return np.concatenate([load_file(file)["embeddings"].astype(np.float64).mean(axis=1) for file in files]).reshape(
        -1, store.hidden
    )


def test_each_sample_has_the_label_of_its_nearest_centroid(world):
    params, layout = world
    cluster.run(choosing(params), layout)
    found = read_centroids(layout.clusters)
    reduced = unit((stored_vectors(layout) - found.mean) @ found.basis)
    similar = reduced @ found.centroids.T
    labels = labels_of(layout)
    assert similar[np.arange(len(labels)), labels] == pytest.approx(similar.max(axis=1), abs=2e-3)
    assert found.counts.tolist() == np.bincount(labels, minlength=4).tolist()
    assert found.centroids.dtype == np.float32 and found.centroids.shape == (4, 3)
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-6)
    verify({layout.clusters: ["*"]})
    page = (layout.clusters / "clusters.html").read_text("utf-8")
    assert page.count("<article") == (found.counts > 0).sum() and "drawing number" in page


def test_a_second_run_computes_nothing_and_a_fresh_one_gives_the_same_bytes(world):
    params, layout = world
    cluster.run(choosing(params), layout)
    first = tree(layout.clusters)
    assert computed_by(lambda: cluster.run(choosing(params), layout)) == []
    shutil.rmtree(layout.work / "cluster")
    cluster.run(choosing(params), layout)
    assert tree(layout.clusters) == first


@pytest.mark.parametrize("after", range(0, 14, 2))
def test_killed_after_any_unit_it_continues_and_ends_with_the_same_bytes(world, after):
    params, layout = world
    cluster.run(choosing(params), layout)
    first = tree(layout.clusters)
    shutil.rmtree(layout.work / "cluster")
    shutil.rmtree(layout.clusters)
    done = killed_after(after, lambda: cluster.run(choosing(params), layout))
    assert not layout.clusters.exists()
    again = computed_by(lambda: cluster.run(choosing(params), layout))
    assert not set(again) & set(done)  # what was finished is not computed again
    assert tree(layout.clusters) == first


def test_vectors_are_read_in_blocks_and_fitted_to_a_sample_with_the_same_rows_for_a_seed(world, monkeypatch):
    params, layout = world
    cluster.run(choosing(params), layout)
    whole = labels_of(layout)
    monkeypatch.setattr("flame_core.clustering.sources.BLOCK", 1)
    shutil.rmtree(layout.work / "cluster")
    cluster.run(choosing(params), layout)
    assert np.array_equal(labels_of(layout), whole)
    monkeypatch.setattr(steps, "PCA_SAMPLES", 12)
    cluster.run(choosing(params, fit_samples=16), layout)
    assert len(labels_of(layout)) == len(whole)  # all samples have one
    sizes = {"a": 5, "b": 7}
    chosen = chosen_rows(sizes, 6, seed=3)
    assert sum(map(len, chosen.values())) == 6 and all(rows.max() < sizes[name] for name, rows in chosen.items())
    assert [rows.tolist() for rows in chosen_rows(sizes, 12, 3).values()] == [list(range(5)), list(range(7))]


def of_teacher(layout: Layout, folder: Path) -> tuple[np.ndarray, list[str]]:
    """Vectors of another model: three directions by the key, and the keys."""
    keys = [row.key for row in read_index(layout.shards, "train")]
    draw = np.random.default_rng(0)
    truth = np.array([int(key[-1], 36) % 3 for key in keys])
    vectors = 5 * draw.normal(size=(3, 7))[truth] + 0.01 * draw.normal(size=(len(keys), 7))
    folder.mkdir(exist_ok=True)
    return vectors.astype(np.float32), keys


def same_partition(found: np.ndarray, truth: np.ndarray) -> bool:
    return len(set(zip(found.tolist(), truth.tolist(), strict=True))) == len(set(truth.tolist()))


def test_a_teachers_vectors_are_found_by_key(world, tmp_path):
    params, layout = world
    vectors, keys = of_teacher(layout, tmp_path)
    order = np.random.default_rng(1).permutation(len(keys))
    np.save(tmp_path / "t.npy", vectors[order])
    (tmp_path / "t.txt").write_text("\n".join(keys[i] for i in order) + "\n")
    given = {"npy": str(tmp_path / "t.npy"), "keys": str(tmp_path / "t.txt")}
    cluster.run(choosing(params, clusters=3, dims=2, vectors=given), layout)
    assert same_partition(labels_of(layout), np.array([int(key[-1], 36) % 3 for key in keys]))
    assert Sidecar(layout.clusters).manifest.origin["vectors"] == "npy"

    (tmp_path / "t.txt").write_text("\n".join(["other", *(keys[i] for i in order[1:])]) + "\n")
    with pytest.raises(InputError, match=r"t\.txt: no vector of the training sample"):
        cluster.run(choosing(params, clusters=3, dims=2, vectors=given), layout)
    (tmp_path / "t.txt").write_text(keys[0] + "\n")
    with pytest.raises(InputError, match=r"1 keys, 1 different, for the \d+ vectors"):
        cluster.run(choosing(params, clusters=3, dims=2, vectors=given), layout)
    np.save(tmp_path / "t.npy", vectors.astype(np.float64))
    with pytest.raises(InputError, match=r"holds float64 .*, and not float32 or float16 \[N, D\]"):
        cluster.run(choosing(params, clusters=3, dims=2, vectors=given), layout)


def test_a_teachers_vectors_may_be_a_sidecar(world, tmp_path):
    params, layout = world
    vectors, keys = of_teacher(layout, tmp_path)
    index = read_index(layout.shards, "train")
    cache, units, start = WorkCache(tmp_path / "work", "cluster"), {}, 0
    for shard, rows in sorted(index.shard_sizes().items()):

        def write(folder: Path, own: np.ndarray = vectors[start : start + rows]) -> UnitRecord:
            write_values(folder, "teacher", own)
            return UnitRecord({"samples": len(own)})

        units[shard] = cache.get({"shard": shard}, write)
        start += rows
    gather_sidecar(layout.data / "sidecars/teacher", layout.state, units, index, "cluster", {})
    cluster.run(choosing(params, clusters=3, dims=2, vectors={"sidecar": "data/sidecars/teacher"}), layout)
    assert same_partition(labels_of(layout), np.array([int(key[-1], 36) % 3 for key in keys]))


def test_bad_input_is_refused_before_anything_is_computed(world, tmp_path):
    params, layout = world
    with pytest.raises(InputError, match=r"cluster\.clusters is 500, and the training split has \d+ samples"):
        cluster.run(choosing(params, clusters=500), layout)
    with pytest.raises(ParamsError, match=r"cluster\.dims 64: .* have at most"):
        cluster.run(choosing(params, dims=64), layout)
    with pytest.raises(ParamsError, match="has no section `cluster`"):
        cluster.run(params, layout)
    with pytest.raises(InputError, match=r"cluster\.vectors: .*nowhere does not exist"):
        cluster.run(choosing(params, vectors={"sidecar": str(tmp_path / "nowhere")}), layout)
    with pytest.raises(ValueError, match="name a sidecar, or npy and keys"):
        choosing(params, vectors={"npy": "x.npy"})


def test_a_damaged_store_is_refused(world):
    params, layout = world
    file = sorted(layout.train_embeddings.glob("[0-9]*.safetensors"))[0]
    before = file.read_bytes()
    file.unlink()
    file.write_bytes(before)
    flip(file, 300, 3)
    try:
        with pytest.raises(InputError, match=r"is damaged"):
            cluster.run(choosing(params), layout)
    finally:
        file.write_bytes(before)


def test_checks_tell_empty_and_huge_clusters():
    chosen = ClusterParams(clusters=30)
    fine = cluster_checks(np.full(30, 12), chosen)
    assert all(check.passed for check in fine)
    empty, huge, small = cluster_checks(np.array([100] + [0] * 29), chosen)
    assert not empty.passed and empty.value == pytest.approx(29 / 30) and empty.keys[0] == "cluster 1"
    assert not huge.passed and huge.value == pytest.approx(30) and huge.keys == ["cluster 0"]
    assert not small.passed and not small.blocking


def test_a_training_refuses_labels_with_a_failed_check(world):
    params, layout = world
    cluster.run(choosing(params, gates={"max_over_mean": 1.001}), layout)
    with pytest.raises(GateError, match="clusters_balanced"):
        gates.require(layout.clusters)


def learning(params: Params, **term) -> Params:
    """Params with a recipe that learns from the labels."""
    own = {"name": "prototypes", "hidden": 12, "dim": 6, **term}
    links = {"terms": [own], "sidecars": {"clusters": "data/sidecars/clusters"}}
    student = recipe(gates={"max_loss_ratio": 100.0}, epochs=2, **links)
    return params.model_copy(update={"recipes": ["student"], "train": {"student": student}})


def test_a_recipe_learns_from_the_labels_and_is_trained_again_if_they_change(world):
    params, layout = world
    clustered, trained = choosing(params), []
    for values in ({}, {"seed": 5}, {}):
        cluster.run(choosing(params, **values), layout)
        train.run(learning(clustered), layout, "student")
        config = json.loads((layout.model("student") / "config.json").read_text())
        assert config["data"]["sidecars.clusters"] == Sidecar(layout.clusters).digest
        trained.append(config["data"])
    assert trained[0] == trained[2] != trained[1]
    rows = [json.loads(line) for line in (layout.model("student") / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss/prototypes"] == 0 < rows[-1]["loss/prototypes"]


def test_a_training_refuses_labels_of_another_store_and_of_other_shards(world):
    params, layout = world
    cluster.run(choosing(params), layout)
    other = layout.train_embeddings / "manifest.json"
    before, digests = other.read_bytes(), (layout.train_embeddings / "digests.json").read_bytes()
    content = json.loads(before)
    try:
        other.unlink()
        write_json(other, content | {"tokens": content["tokens"] + 1})
        write_digests(layout.train_embeddings)
        with pytest.raises(InputError, match=r"clusters: made from another store than .*run `flame cluster` again"):
            train.run(learning(choosing(params)), layout, "student")
    finally:
        other.write_bytes(before)
        (layout.train_embeddings / "digests.json").write_bytes(digests)
    manifest = layout.clusters / "manifest.json"
    found = json.loads(manifest.read_text())
    manifest.unlink()
    write_json(manifest, found | {"index": "0" * 64})
    write_digests(layout.clusters)
    with pytest.raises(InputError, match=r"clusters: aligned with other shards; run `flame cluster` again"):
        train.run(learning(choosing(params)), layout, "student")


def test_a_training_refuses_a_sidecar_that_no_stage_made(world):
    params, layout = world
    shutil.rmtree(layout.clusters, ignore_errors=True)
    with pytest.raises(InputError, match=r"clusters.*is missing: run"):
        train.run(learning(choosing(params)), layout, "student")
    unknown = learning(choosing(params), labels="topics")
    with pytest.raises(ParamsError, match="reads the sidecar 'topics', which the recipe does not give"):
        train.run(unknown, layout, "student")


def test_flame_status_tells_its_cost(world):
    params, layout = world
    cluster.run(choosing(params), layout)
    costs = stage_costs(learning(choosing(params)), layout, None)
    samples = len(read_index(layout.shards, "train"))
    assert costs["cluster"].startswith(f"clusters: 4 of {samples} samples, ")
    assert "not counted" not in costs["train@student"]
    assert "cluster" not in stage_costs(learning(params), layout, None)
