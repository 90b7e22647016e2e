"""What brings an out that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core import gates
from flame_core.absent_outs import absent, bringing, dvc_command, making
from flame_core.errors import InputError
from flame_core.graph.section_stages import SECTIONS, section_stages
from flame_core.layout import Layout
from flame_core.workspace import resolve_params

LOCK = """\
schema: '2.0'
stages:
  ingest: {cmd: flame ingest, outs: [{path: data/shards, hash: md5, md5: 0a1b.dir}]}
  train@flame: {cmd: flame train flame, outs: [{path: data/models/flame, hash: md5, md5: 2c3d.dir}]}
"""
REMOTE = "[core]\n    analytics = false\n    remote = store\n['remote \"store\"']\n    url = /mnt/store\n"


ROOT = Path(__file__).parents[1]
SECTIONS_OF = (  # optional sections besides those of the preset; not all of them go together
    (
        "cluster.clusters=4",
        "semdedup={clusters: 10, vectors: my/vectors}",
        "scores.scorers.own={kind: table, path: s.parquet, column: own}",
        "concepts.weights={cap: 20}",
        "codes.similarity=true",
        "prompts.count=16",
        "features={model: {backbone: resnet10t, head: pooled, init: {source: 'timm:resnet10t'}}}",
        "caption_lm={recipe: flame, start: scratch, connector: {prompts: 4, width: 16, heads: 2}}",
        "adapt_llm={}",
    ),
    ("lexical={}", "text.sentence={read: last, final_norm: true}", "text.layer=30"),
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(REMOTE)
    (tmp_path / "dvc.lock").write_text(LOCK)
    return tmp_path


def test_in_a_clone_dvc_brings_what_the_lock_records(project: Path):
    assert dvc_command(project / "data/models/flame") == "dvc pull data/models/flame"
    assert dvc_command(project / "data/shards/train") == "dvc pull data/shards"
    assert "`dvc pull data/models/flame` brings" in absent(project / "data/models/flame/model.safetensors")
    with pytest.raises(InputError, match=r"shards/checks.json is missing: run `dvc pull data/shards`.*`flame ingest`"):
        gates.read(project / "data/shards")


def test_every_out_of_an_optional_stage_names_the_command_that_makes_it():
    layout, seen = Layout.find(ROOT), set()
    for overrides in SECTIONS_OF:
        params = resolve_params(layout, overrides, ROOT / "presets/demo-curation.yaml").params
        for name, stage in section_stages(layout, params).items():
            seen.add(name)
            assert {making(ROOT / out) for out in stage["outs"]} == {stage["cmd"]}, name
    assert seen == set(SECTIONS)


def test_what_the_lock_does_not_record_is_made(project: Path):
    assert bringing(project / "data/captions") == "run `flame caption` first (`flame run` runs all)"
    (project / "dvc.lock").write_text("stages: [")
    assert bringing(project / "data/shards") == "run `flame ingest` first (`flame run` runs all)"


def test_a_remote_that_is_not_the_default_is_named(project: Path):
    (project / ".dvc/config").write_text(REMOTE.replace("    remote = store\n", ""))
    assert dvc_command(project / "data/shards") == "dvc pull -r store data/shards"


def test_without_a_remote_only_the_cache_has_outs(project: Path):
    (project / ".dvc/config").write_text("[cache]\n    dir = ../kept\n")
    assert dvc_command(project / "data/shards") == ""
    (project / "kept/files/md5/0a").mkdir(parents=True)
    (project / "kept/files/md5/0a/1b.dir").touch()
    assert dvc_command(project / "data/shards") == "dvc checkout data/shards"


def test_a_folder_in_an_out_is_made_with_it():
    assert making(Path("/raw/data/embeddings/train/sentence")) == "flame embed"
    assert making(Path("/raw/data/sidecars/mine")) == "flame run"
    assert making(Path("/raw/data/reports/flame/plots")) == "flame evaluate flame"
    assert making(Path("/home/ada/prompts/exported/tower")) == "flame run"  # no project
