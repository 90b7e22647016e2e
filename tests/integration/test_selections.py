"""Selections in the real pipeline: `flame params check` says what to write, and DVC runs only what changed."""

from __future__ import annotations

import re

import pytest
import yaml

from flame_core.layout import Layout
from flame_core.params import changed_values, read_yaml
from flame_core.workspace import dvc
from tests.integration.linked_student import command, write_missing_stages, write_project
from tests.selections.coded_project import CODES, SELECT, coded_project, small_recipe

pytestmark = pytest.mark.slow
CHAIN = ["codes", "select", "link-student", "train@student"]
LOOSE = {"min_perplexity": 0.0, "max_dead_fraction": 1.0}


@pytest.fixture
def layout(tmp_path, byte_tokenizer, monkeypatch) -> Layout:
    params, layout = coded_project(tmp_path, byte_tokenizer)
    layout.model("small").rename(tmp_path / "tower")
    content = {**changed_values(params)}
    content["evaluate"] = {**content["evaluate"], "train_language": "en"}  # a stage depends on it
    content["codes"] = {**CODES, "tower": {"path": "tower"}, "gates": LOOSE}
    content["select"] = {**SELECT, "gates": {"max_empty_fraction": 1.0, "max_over_mean": 100.0}}
    student = changed_values(small_recipe(gates={"max_loss_ratio": 100.0}, epochs=2, kinds=["raw"]))
    student |= {"selection": "data/selections/half.parquet"}
    write_project(tmp_path, content, student, monkeypatch)
    return layout


def test_dvc_codes_selects_and_trains_and_again_only_what_changed(layout):
    write_missing_stages(layout)

    def repro() -> list[str]:
        return re.findall(r"Running stage '(.*?)'", command(layout, *dvc(), "repro", "train@student"))

    assert repro() == CHAIN
    assert repro() == []
    params = read_yaml(layout.params)
    params["select"]["selections"]["tenth"] = {"share": 0.1}  # no recipe reads it
    layout.params.write_text(yaml.safe_dump(params))
    assert repro() == ["select"]
    params["select"]["selections"]["half"]["seed"] = 3
    layout.params.write_text(yaml.safe_dump(params))
    assert repro() == CHAIN[1:]
