"""Training pictures that look like benchmark pictures are named, per benchmark."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flame_core.data.shards import read_index
from flame_core.layout import Layout
from flame_core.params import LooksDisjointParams
from flame_core.params.evaluation import BenchmarksParams
from flame_core.stages import download, ingest
from flame_core.suite.contamination import find_twins, twins_checks, twins_file
from tests.data.drawings import drawing, encoded
from tests.stages.pipeline import folder_source, pipeline_params, tree, write_pairs
from tests.suite.datasets import definition_file, put

pytestmark = pytest.mark.usefixtures("one_worker")


def test_twins_are_named(tmp_path: Path):
    write_pairs(tmp_path / "pairs", range(30))
    layout = Layout.find(tmp_path)
    params = pipeline_params({"s": folder_source(tmp_path / "pairs")}, max_side=96)
    for stage in (download, ingest):
        stage.run(params, layout)
    keys = [row.key for row in read_index(layout.shards, "train")]
    numbers = [int(key.rpartition("/")[2]) for key in keys[:2]]
    for name, copied in (("has", numbers), ("clean", [])):
        for number in [*copied, *range(100, 105)]:  # of another size, quality and format
            content = encoded(drawing(number).resize((144, 120)), "JPEG", quality=80)
            kind = "other" if number == 104 else "thing"
            put(tmp_path / f"datasets/{name}/{kind}/{number}.jpg", content)
        put(tmp_path / f"datasets/{name}/thing/broken.jpg", b"\xff\xd8\xff no picture")
        definition_file(tmp_path / f"sets/{name}.yaml", {"kind": "classification"}, "image_folder", name)
    definition_file(tmp_path / "sets/away.yaml", {"kind": "classification"}, "image_folder", "away")
    benchmarks = BenchmarksParams(names=[f"sets/{name}.yaml" for name in ("has", "clean", "away")])
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"benchmarks": benchmarks})})
    found = find_twins(params, layout, LooksDisjointParams())
    assert {each.benchmark: [key for _, key in each.pairs] for each in found} == {"has": sorted(keys[:2]), "clean": []}
    assert all(name.endswith(f"{int(key[-4:])}.jpg") for name, key in found[0].pairs)
    checks = twins_checks(found, LooksDisjointParams(refuse=True))
    assert [(check.name, check.passed, check.blocking, check.value) for check in checks] == [
        ("benchmarks_disjoint/has", False, True, 2), ("benchmarks_disjoint/clean", True, True, 0)
    ]  # fmt: skip
    assert not twins_checks(found, LooksDisjointParams())[0].blocking
    table = pq.read_table(io.BytesIO(twins_file(found))).to_pylist()
    assert sorted(row["key"] for row in table) == sorted(keys[:2]) and {row["benchmark"] for row in table} == {"has"}
    units = tree(layout.work / "looks")
    assert find_twins(params, layout, LooksDisjointParams()) == found and tree(layout.work / "looks") == units
