"""The card and the Croissant metadata of shards: one set of facts, and only what is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
import yaml

from flame_core.commands.data_card import data_card
from flame_core.data.shards import INDEX_SCHEMA
from flame_core.digest import file_sha256
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.serving.croissant import croissant
from flame_core.serving.dataset_card import dataset_card
from flame_core.serving.dataset_facts import dataset_facts
from flame_core.settings import settings
from flame_core.stages import download, ingest
from tests.data.drawings import png
from tests.stages.pipeline import folder_source, pipeline_params, write_pairs


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Params, Layout]:
    monkeypatch.setenv("FLAME_WORKERS", "1")
    settings.cache_clear()
    write_pairs(tmp_path / "a", range(20))
    (tmp_path / "b").mkdir()
    for number in range(20, 30):
        (tmp_path / f"b/{number}.png").write_bytes(png(number))
        captions = {"en": [f"number {number}"], "de": [f"Nummer {number}", "noch eine <Zahl>"]}
        (tmp_path / f"b/{number}.json").write_text(json.dumps({"captions": captions}))
    (tmp_path / "b/30.png").write_bytes(png(30))  # without a caption
    layout = Layout.find(tmp_path)
    sources = {"a": folder_source(tmp_path / "a", licence="CC0-1.0"), "b": folder_source(tmp_path / "b")}
    params = pipeline_params(sources)
    for stage in (download, ingest):
        stage.run(params, layout)
    return params, layout


def test_the_facts_and_the_card(world: tuple[Params, Layout]):
    facts = dataset_facts(*world)
    assert sum(facts.samples.values()) == 30 and facts.licence is None
    assert facts.licences == {"CC0-1.0": 20, "not stated": 10} and facts.languages == {"en": 30, "de": 20}
    assert facts.left_out == {"no_caption": 1}
    head, _, body = dataset_card("my_set", facts, None).removeprefix("---\n").partition("---\n")
    assert yaml.safe_load(head) == {
        "license": "other",
        "license_name": "see-below",
        "pretty_name": "my_set",
        "language": ["de", "en"],
        "size_categories": ["n<1K"],
        "task_categories": ["image-to-text", "zero-shot-image-classification"],
        "tags": ["webdataset", "croissant", "image-text"],
    }
    for line in ("| CC0-1.0 | 20 |", "| not stated | 10 |", "| German | 20 |", "| no_caption | 1 |"):
        assert line in body
    assert "license: cc0-1.0" in dataset_card("my_set", facts, "cc0-1.0")


def test_only_pairs_that_the_shards_have_count(world: tuple[Params, Layout], tmp_path: Path):
    """A dropped pair with the bytes of a sample does not count; one that was merged into a sample does."""
    for folder in ("merged", "dropped"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(png(0))
        (tmp_path / folder / "0.txt").write_text(f"{folder}, the same picture")
    licences = {"a": "CC0-1.0", "merged": "CC0-1.0", "dropped": "other"}
    sources = {name: folder_source(tmp_path / name, licence=licence) for name, licence in licences.items()}
    params = pipeline_params(sources, val_fraction=0.0, filters={"licences": {"keep": ["CC0-1.0"]}})
    for stage in (download, ingest):
        stage.run(params, world[1])
    facts = dataset_facts(params, world[1])
    assert facts.licences == {"CC0-1.0": 21} and facts.licence == "CC0-1.0" and facts.languages == {"en": 21}


def test_the_projects_own_readme_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "params.yaml").write_text("{}")
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    (tmp_path / "README.md").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.BadParameter, match="name another folder"):
        data_card(Path())
    assert (tmp_path / "README.md").read_text() == "mine"


def test_croissant(world: tuple[Params, Layout]):
    params, layout = world
    facts = dataset_facts(params, layout)
    found = croissant("my_set", facts, None)
    assert found["@type"] == "sc:Dataset" and found["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert "license" not in found and croissant("x", facts, "mit")["license"] == "mit"
    index, *sets = found["distribution"]
    assert index["sha256"] == file_sha256(layout.shards / "index.parquet") and index["contentUrl"] == "index.parquet"
    for each in sets:  # the patterns find the tars
        split = each["@id"].removesuffix("-shards")
        assert len(list(layout.shards.glob(each["includes"]))) == len(facts.shards[split]) > 0
    (records,) = found["recordSet"]
    assert [field["name"] for field in records["field"]] == INDEX_SCHEMA.names
    ids = {each["@id"] for each in found["distribution"]}
    assert {field["source"]["fileObject"]["@id"] for field in records["field"]} <= ids
    types = {field["name"]: field["dataType"] for field in records["field"]}
    assert types["key"] == "sc:Text" and types["offset"] == "sc:Integer"
    json.dumps(found, allow_nan=False)
