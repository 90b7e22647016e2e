from __future__ import annotations

from pathlib import Path

import pytest

from flame_core import gates
from flame_core.data.sources.listing import read_source
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.stages import download
from tests.data.sources.test_webdataset import members_of, write_tar
from tests.stages.pipeline import folder_source, pipeline_params, tree, write_pairs


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "project").mkdir()
    return Layout.find(tmp_path / "project")


def test_every_source_has_its_folder(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(3))
    (tmp_path / "b").mkdir()
    write_tar(tmp_path / "b" / "0.tar", members_of(0, 1))
    sources = {"first": folder_source(tmp_path / "a"), "second": {"kind": "webdataset", "path": str(tmp_path / "b")}}
    download.run(pipeline_params(sources), layout)
    assert read_source(layout.raw / "first")["pairs"] == 3
    assert read_source(layout.raw / "second")["pairs"] == 2
    assert {check.name: check.passed for check in gates.read(layout.raw)} == {
        f"{name}/{check}": True for name in ("first", "second") for check in ("pairs", "readable")
    }
    gates.require(layout.raw)


def test_the_out_follows_from_the_source_alone(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(3))
    write_pairs(tmp_path / "elsewhere" / "b", range(3))
    download.run(pipeline_params({"s": folder_source(tmp_path / "a")}), layout)
    first = tree(layout.raw)
    download.run(pipeline_params({"s": folder_source(tmp_path / "elsewhere" / "b")}), layout)
    assert tree(layout.raw) == first


def test_a_forced_run_sees_new_data_and_repairs_damage(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(3))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    download.run(params, layout)
    first = tree(layout.raw)
    path = layout.raw / "s" / "pairs.parquet"
    path.write_bytes(first["s/pairs.parquet"][:-1] + b"x")  # the unit's file as well: it is the same file
    download.run(params, layout)
    assert tree(layout.raw) == first
    write_pairs(tmp_path / "a", range(3, 4))
    download.run(params, layout)
    assert read_source(layout.raw / "s")["pairs"] == 4


def test_an_empty_source_is_named(layout: Layout, tmp_path: Path):
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match=r"source nothing \(folder\) is empty"):
        download.run(pipeline_params({"nothing": folder_source(tmp_path / "a")}), layout)
    assert not layout.raw.exists()


def test_a_damaged_file_is_a_check_that_does_not_block(layout: Layout, tmp_path: Path):
    (tmp_path / "b").mkdir()
    write_tar(tmp_path / "b" / "0.tar", members_of(0, 1))
    write_tar(tmp_path / "b" / "1.tar", members_of(2, 3))
    content = (tmp_path / "b" / "1.tar").read_bytes()
    (tmp_path / "b" / "1.tar").write_bytes(content[:2000])
    download.run(pipeline_params({"s": {"kind": "webdataset", "path": str(tmp_path / "b")}}), layout)
    check = next(check for check in gates.read(layout.raw) if check.name == "s/readable")
    assert (check.passed, check.blocking, check.keys) == (False, False, ["1.tar"])
    gates.require(layout.raw)
