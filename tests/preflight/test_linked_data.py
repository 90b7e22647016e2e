"""What recipes are linked to is compared with the shards that are there, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from flame_core import gates
from flame_core.data.shards import read_index
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.params.initial_weights import InitParams
from flame_core.params.sampling import CappedSampling
from flame_core.preflight import check
from flame_core.preflight.linked_data import linked_data_faults
from flame_core.verification import write_digests
from flame_core.workspace import resolve_params
from tests.data.test_sidecars import store, values_of
from tests.preflight.test_data_fit import shards

SELECTION = "train.selection=keys.parquet"


def write_keys(layout: Layout, *keys: str) -> None:
    pq.write_table(pa.table({"key": list(keys)}), layout.root / "keys.parquet")


def test_keys_that_no_training_sample_has_are_found_before_anything_runs(layout: Layout):
    write_keys(layout, "train1", "val3", "trian2")
    assert check(layout, [SELECTION]).faults == []  # the shards are not there yet: any key may be in them
    shards(layout, 300, 200)
    (fault,) = check(layout, [SELECTION]).faults
    assert fault.startswith(f"--set {SELECTION}, train.selection: {layout.root / 'keys.parquet'}: names keys that are")
    assert "2 in all: 'val3', 'trian2'" in fault and "in the held-out split: 1 ('val3')" in fault
    write_keys(layout, "train1", "train2")
    assert check(layout, [SELECTION]).faults == []


def test_a_selection_that_a_stage_makes_is_only_warned_of(layout: Layout):
    """The stage may run again, and name other keys."""
    shards(layout, 300, 200)
    write_keys(layout, "trian2")
    stage = {"cmd": "select", "outs": ["keys.parquet"]}
    pipeline = yaml.safe_load((layout.root / "dvc.yaml").read_text())
    (layout.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {**pipeline["stages"], "select": stage}}))
    checked = check(layout, [SELECTION])
    assert checked.faults == [] and "names keys that are not in the training index" in checked.warnings[0]


def test_a_folder_without_a_model_is_no_teacher(layout: Layout):
    shards(layout, 300, 200)
    (layout.root / "other").mkdir()
    override = "train.teacher={path: other}"
    (fault,) = check(layout, [override]).faults
    assert fault.startswith(f"--set {override}, train.teacher")
    assert "config.json is missing, so there is no teacher" in fault


def test_a_sidecar_of_other_shards_is_found(layout: Layout, tmp_path: Path):
    """Terms that read sidecars are others' business here: the recipe only names them."""
    shards(layout, 8, 20)
    params = resolve_params(layout, [], None).params
    index = read_index(layout.shards, "train")
    folder = store(tmp_path / "a", values_of("int64", sizes={"train/00000.tar": 8}), index=index)
    recipe = params.train["flame"].model_copy(update={"sidecars": {"labels": str(folder)}})
    params = params.model_copy(update={"train": {"flame": recipe}})
    assert linked_data_faults(params, layout) == []
    embeddings = layout.train_embeddings
    embeddings.mkdir(parents=True)
    (embeddings / "manifest.json").write_text("{}")
    of_store = store(tmp_path / "b", values_of("int64", sizes={"train/00000.tar": 8}), index=index, embeddings="0" * 64)
    other = recipe.model_copy(update={"sidecars": {"labels": str(of_store)}})
    (found,) = linked_data_faults(params.model_copy(update={"train": {"flame": other}}), layout)
    assert found.may_change and "made from another store than" in found.fault.message
    assert linked_data_faults(params, layout) == []  # its origin names none
    shards(layout, 9, 20)
    (found,) = linked_data_faults(params, layout)
    assert found.fault.key == ("train", "flame", "sidecars", "labels") and not found.may_change
    assert "aligned with other shards; run `flame cluster` again" in found.fault.message
    (folder / "checks.json").unlink()
    (found,) = linked_data_faults(params, layout)
    assert "checks.json is missing" in found.fault.message


def test_weights_to_begin_with_and_counts_of_concepts_are_no_sidecars(layout: Layout, tmp_path: Path):
    """A file has no checks beside it, and counts of concepts are not aligned with shards."""
    shards(layout, 8, 20)
    params = resolve_params(layout, [], None).params
    weights = tmp_path / "tower.safetensors"
    weights.write_bytes(b"weights")
    counts = tmp_path / "concepts"
    (counts / "hits").mkdir(parents=True)
    (counts / "frequency.parquet").write_bytes(b"counts")
    (counts / gates.CHECKS).write_bytes(gates.to_bytes([]))
    write_digests(counts)
    recipe = params.train["flame"]
    model = recipe.model.model_copy(update={"init": InitParams(source=f"path:{weights}")})
    drawn = CappedSampling(name="capped", cap=2, concepts=str(counts))
    linked = recipe.model_copy(update={"model": model, "sampling": drawn})
    params = params.model_copy(update={"train": {"flame": linked}})
    assert set(links(layout, linked)) == {"init", "sampling"}
    assert linked_data_faults(params, layout) == []
    weights.unlink()
    weights.mkdir()
    (found,) = linked_data_faults(params, layout)
    assert (
        found.fault.key == ("train", "flame", "model", "init") and "correct `model.init.source`" in found.fault.message
    )
