"""Deps that follow from params, in DVC's own graph: a captioner's LLM, and the captioner that a report shows."""

from __future__ import annotations

import json

import pytest
import yaml

from flame_core.errors import ParamsError
from flame_core.graph.added_deps import added_dep_faults
from flame_core.graph.links import require_links
from flame_core.graph.own_tables import unmade_tables
from flame_core.layout import Layout
from flame_core.params import load_params
from flame_core.workspace import open_workspace, resolve_params
from tests.graph.test_links import edges, lists
from tests.graph.test_links import layout as layout  # the real pipeline and params, as a fixture

TRAINED = "caption.short={captioner: trained, model: captioners/mine}"
LEXICAL = [
    "recipes=[lexvla]",
    "lexical={}",
    "text.sentence={read: last, final_norm: true, prompt: 'say {caption} :', layer: 29}",
]
ALIGNED = ["recipes=[flame, p-former-align]", "prompts={}", "train.kinds=[raw]", "caption_lm={recipe: p-former-align}"]


def opened(layout: Layout, *overrides: str) -> Layout:
    return open_workspace(layout, resolve_params(layout, ["train.seed=1", *overrides], None))


def deps(layout: Layout, stage: str) -> list[str]:
    return yaml.safe_load((layout.root / "dvc.yaml").read_text())["stages"][stage]["deps"]


@pytest.fixture
def project(layout) -> Layout:
    lists(layout, "flame")
    return layout


def test_a_trained_captioner_waits_for_its_llm_and_reads_its_folder(project):
    (project.root / "captioners/mine").mkdir(parents=True)
    run = opened(project, TRAINED)
    require_links(run, load_params(run))
    assert deps(run, "caption") == ["data/shards", "../../../captioners/mine", "data/llm"]
    assert (run.root / deps(run, "caption")[1]).resolve() == project.root / "captioners/mine"
    assert ("caption", "fetch_llm") in edges(run.root)
    assert deps(opened(project), "caption") == ["data/shards"]


def test_a_version_in_mlflow_has_no_folder_and_a_given_llm_is_the_dep(project):
    other = "caption.long={captioner: trained, model: 'models:/mine@champion', llm: llms/tiny}"
    assert deps(opened(project, other), "caption") == ["data/shards", "../../../llms/tiny"]
    inside = "caption.long={captioner: trained, model: 'models:/mine/1', llm: data/llm/tiny}"
    assert deps(opened(project, inside), "caption") == ["data/shards", "data/llm"]


def test_adapters_wait_for_the_llm(project):
    run = opened(project, *LEXICAL)
    assert ("link-lexvla", "fetch_llm") in edges(run.root)
    assert ("train@lexvla", "link-lexvla") in edges(run.root)
    frozen = opened(project, "recipes=[lexvla-frozen]", *LEXICAL[1:])
    assert ("link-lexvla-frozen", "fetch_llm") not in edges(frozen.root)


def test_a_table_of_captions_that_a_stage_makes_is_a_dep(project):
    table = "caption.long={captioner: table, path: %s}"
    for path in ("data/recaptions/", "./data/../data/recaptions", project.data / "recaptions"):
        assert deps(opened(project, table % path), "caption") == ["data/shards", "data/recaptions"]
    assert deps(opened(project, table % "mine/recaptions.csv"), "caption") == ["data/shards"]


def test_captions_in_columns_of_the_sources_wait_for_the_download(project):
    source = {"kind": "webdataset", "path": "tars", "keep_columns": ["re_caption"]}
    chosen = [f"sources.mine={json.dumps(source)}", "caption.long={captioner: column, column: re_caption}"]
    assert deps(opened(project, *chosen), "caption") == ["data/shards", "data/raw"]
    stages = yaml.safe_load((project.root / "dvc.yaml").read_text())["stages"]
    params = resolve_params(project, chosen, None).params
    (said,) = added_dep_faults(project, params, stages, project.root / "dvc.yaml")
    assert said.endswith("Add to the `deps` of the stage caption: data/raw")


def test_stages_of_ones_own_make_tables_in_data_also_part_by_part(project):
    params = resolve_params(project, ["caption.long={captioner: table, path: data/recaptions}"], None).params
    made = {"cmd": "python mine.py ${item}", "outs": ["data/recaptions/${item}.csv", "${item}.txt"]}

    def faults(**stages) -> list[str]:
        return [said for _, said in unmade_tables(project, params, stages)]

    assert faults(mine={"foreach": [1, 2], "do": made}) == faults(mine={"matrix": {"item": [1]}, **made}) == []
    assert faults(mine={"cmd": "python mine.py", "outs": [{"data/recaptions": {"cache": False}}]}) == []
    (said,) = faults(mine={"cmd": "python mine.py", "outs": ["data/other/x.csv"]}, caption={"cmd": "flame caption"})
    assert said.startswith("no stage of dvc.yaml makes data/recaptions: let a stage of your own make it, or move it")


def test_an_evaluation_waits_for_the_captioner_that_its_report_shows(project):
    run = opened(project, *ALIGNED)
    require_links(run, load_params(run))
    found = edges(run.root)
    assert {("caption_lm", "train@p-former-align"), ("evaluate@p-former-align", "caption_lm")} <= found
    elsewhere = opened(project, *ALIGNED[:3], "caption_lm={path: captioners/mine}")
    assert "data/captioner" not in deps(elsewhere, "evaluate")


def test_the_project_is_told_what_to_write_and_what_to_remove(project):
    (project.root / "captioners/mine").mkdir(parents=True)
    content = yaml.safe_load(project.params.read_text())
    content["caption"]["short"] = {"captioner": "trained", "model": "captioners/mine"}
    project.params.write_text(yaml.safe_dump({**content, "cluster": {"clusters": 8}}, sort_keys=False))
    pipeline = project.root / "dvc.yaml"
    with pytest.raises(ParamsError, match=r"(?s)captioners/mine, data/llm\n.*section `cluster`.*Write under"):
        require_links(project, load_params(project))  # all that is missing at once
    project.params.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ParamsError, match="`deps` of the stage caption: captioners/mine, data/llm"):
        require_links(project, load_params(project))
    stages = yaml.safe_load(pipeline.read_text())
    stages["stages"]["caption"]["deps"] += ["captioners/mine", "data/llm"]
    pipeline.write_text(yaml.safe_dump(stages, sort_keys=False))
    require_links(project, load_params(project))
    stages["stages"]["evaluate"]["deps"].append("data/captioner")
    pipeline.write_text(yaml.safe_dump(stages, sort_keys=False))
    with pytest.raises(ParamsError, match=r"has the dep data/captioner, and .* has no section `caption_lm`"):
        require_links(project, load_params(project))


def test_embed_waits_for_the_adapters_of_the_llm(project):
    run = opened(project, "adapt_llm={steps: 3}")
    require_links(run, load_params(run))
    assert deps(run, "embed") == ["data/shards", "data/captions", "data/llm", "data/llm-adapter"]
    assert {("embed", "adapt_llm"), ("adapt_llm", "fetch_llm"), ("adapt_llm", "caption")} <= edges(run.root)
    assert deps(opened(project), "embed") == ["data/shards", "data/captions", "data/llm"]
    content = yaml.safe_load((project.root / "dvc.yaml").read_text())
    plain = project.params.read_text()
    project.params.write_text(plain + "\nadapt_llm: {steps: 3}\n")
    with pytest.raises(ParamsError, match="Add to the `deps` of the stage embed: data/llm-adapter"):
        require_links(project, load_params(project))
    content["stages"]["embed"]["deps"].append("data/llm-adapter")
    (project.root / "dvc.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=r"has a section `adapt_llm`(.|\n)*outs:\n *- data/llm-adapter|adapt_llm:"):
        require_links(project, load_params(project))
    project.params.write_text(plain)
    with pytest.raises(ParamsError, match="has no section `adapt_llm`: remove the dep"):
        require_links(project, load_params(project))
