"""The edge from `opt_out.parquet` in `dvc.yaml`: written without touching anything else, and asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flame_core.errors import ParamsError
from flame_core.graph.links import linked_pipeline, require_links
from flame_core.graph.opt_out_edges import edited
from flame_core.layout import OPT_OUT, Layout
from flame_core.params import load_params

ROOT = Path(__file__).parents[2]


def test_the_projects_own_pipeline_gets_two_edges_and_keeps_all_else():
    text = (ROOT / "dvc.yaml").read_text()
    new = edited(text, ROOT / "dvc.yaml")
    added = [line for line in new.splitlines() if line not in text.splitlines()]
    assert added == [f"    deps: [{OPT_OUT}]", f"    deps: [data/raw, {OPT_OUT}]"]
    assert len(new.splitlines()) == len(text.splitlines()) + 1
    assert edited(new, ROOT / "dvc.yaml") == new


def test_a_list_in_lines():
    text = "stages:\n  download:\n    cmd: d\n  ingest:\n    cmd: i\n    deps:\n    - data/raw  # why\n    outs: [x]\n"
    stages = yaml.safe_load(edited(text, Path("dvc.yaml")))["stages"]
    assert stages["ingest"] == {"cmd": "i", "deps": ["data/raw", OPT_OUT], "outs": ["x"]}
    assert stages["download"] == {"cmd": "d", "deps": [OPT_OUT]}


def test_what_cannot_be_edited_is_told():
    with pytest.raises(ParamsError, match=f"add {OPT_OUT} to `deps` of the stage download"):
        edited("stages: {download: {cmd: d}}\n", Path("dvc.yaml"))


def test_a_project_without_the_edge_is_refused_and_a_workspace_gets_it(tmp_path: Path):
    import shutil

    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    layout = Layout.find(tmp_path)
    params = load_params(layout)
    pipeline = (tmp_path / "dvc.yaml").read_bytes()
    require_links(layout, params)
    assert linked_pipeline(pipeline, layout, params) == pipeline
    layout.opt_out.write_bytes(b"")
    with pytest.raises(ParamsError, match="or what was forgotten may come back"):
        require_links(layout, params)
    stages = yaml.safe_load(linked_pipeline(pipeline, layout, params))["stages"]
    assert stages["download"]["deps"] == [OPT_OUT] and OPT_OUT in stages["ingest"]["deps"]
