"""A data set of the hub becomes shards and captions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from flame_core.data.ledger import read_ledger
from flame_core.data.shards import read_index, read_shard, shard_names
from flame_core.layout import Layout
from flame_core.preflight.data_look import look
from flame_core.stages import caption, download, ingest
from tests.data.hub.stand_in import REPO
from tests.data.sources.test_hub import hub, table
from tests.stages.pipeline import pipeline_params

__all__ = ["hub"]  # the fixture


def test_a_data_set_of_the_hub_becomes_shards_and_captions(tmp_path: Path, hub):
    commit = hub.commit({"train-0.parquet": table([0, 1, 2, -3]), "val-0.parquet": table([3, 4])})
    layout = Layout.find(tmp_path)
    params = pipeline_params({"made": {"kind": "hub", "repo": REPO, "revision": commit, "val_files": "val-*"}})
    assert look(params, layout).train is None  # nobody asks the hub for an estimate
    assert hub.log == []
    for stage in (download, ingest, caption):
        stage.run(params, layout)
    assert Counter(row.split for row in read_index(layout.shards)) == {"train": 3, "val": 2}
    dropped = [row for row in read_ledger(layout.shards) if row.outcome == "dropped"]
    assert [(row.reason, row.key) for row in dropped] == [("image_missing", "made/train-0/00000004")]
    metas = [one.meta for name in shard_names(layout.shards, "val") for one in read_shard(layout.shards / name)]
    assert sorted(meta["captions"]["en"][0] for meta in metas) == ["Number 3.", "Number 4."]
    assert {meta["licence"] for meta in metas} == {"cc-by-4.0"}
