from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from safetensors.torch import save_model

from flame_core.captions.table import write_captions
from flame_core.data.ledger import LedgerEntry, ledger_table
from flame_core.pages.run_facts import TowerShape, captions_by_origin, count_parameters, ledger_by_reason, tower_shape
from flame_core.vision.tower import ImageTower
from tests.measuring import world


def test_parameters_are_counted_from_the_header(tmp_path):
    tensors = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float16), "c": np.zeros((), np.float32)}
    save_file(tensors, tmp_path / "w.safetensors", metadata={"x": "y"})
    assert count_parameters(tmp_path / "w.safetensors") == 12 + 5 + 1


def test_captions_by_origin_over_all_files(tmp_path):
    rows = world.captions()
    for split, name, part in (("val", "00000", rows[:9]), ("val", "00001", rows[9:]), ("train", "00000", rows[:2])):
        (tmp_path / split).mkdir(exist_ok=True)
        write_captions(tmp_path / split / f"{name}.parquet", part)
    assert captions_by_origin(tmp_path) == [("raw", "made", 2, 23), ("short", "metadata", 0, 12)]
    assert captions_by_origin(tmp_path / "nothing") == []


def test_ledger_by_reason_most_frequent_first(tmp_path):
    entries = [
        LedgerEntry("made", "a", "dropped", "truncated", "x"),
        LedgerEntry("made", "b", "dropped", "no_caption", ""),
        LedgerEntry("made", "c", "changed", "caption_cut", ""),
        LedgerEntry("made", "d", "dropped", "no_caption", ""),
    ]
    pq.write_table(ledger_table(entries), tmp_path / "ledger.parquet")
    assert ledger_by_reason(tmp_path) == [
        ("dropped", "no_caption", 2),
        ("changed", "caption_cut", 1),
        ("dropped", "truncated", 1),
    ]


@pytest.mark.parametrize("options", [{"patch_size": 8, "embed_dim": 48, "depth": 3}, {"embed_dim": 24, "depth": 12}])
def test_the_tower_is_read_from_its_weights(tmp_path, options):
    params = world.params(tmp_path).train["plain"].model
    chosen = {**params.backbone_options, **options}
    tower = ImageTower(params.model_copy(update={"backbone_options": chosen}), hidden=8, facets=0)
    save_model(tower, str(tmp_path / "w.safetensors"))
    shape = tower_shape(tmp_path / "w.safetensors")
    assert shape == TowerShape(chosen.get("patch_size", 16), chosen["embed_dim"], chosen["depth"])


def test_another_kind_of_tower_has_no_shape(tmp_path):
    save_file({"backbone.stem.weight": np.zeros((8, 3, 4, 4), np.float32)}, tmp_path / "w.safetensors")
    assert tower_shape(tmp_path / "w.safetensors") is None
