"""Clusters in the real pipeline: `flame params check` says what to write, and DVC runs only what changed."""

from __future__ import annotations

import re

import pytest
import yaml

from flame_core.layout import Layout
from flame_core.params import changed_values, read_yaml
from flame_core.stages import embed
from flame_core.workspace import dvc
from tests.integration.linked_student import FLAME, command, write_missing_stages, write_project
from tests.stages.pipeline import captioned_project
from tests.training.world import recipe

pytestmark = pytest.mark.slow
CHAIN = ["cluster", "link-student", "train@student"]


@pytest.fixture
def layout(tmp_path, byte_tokenizer, monkeypatch) -> Layout:
    params, layout = captioned_project(tmp_path, byte_tokenizer, 40)
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"languages": []})})
    embed.run(params, layout)
    section = {"clusters": 4, "dims": 3, "gates": {"min_samples": 1}}
    content = {**changed_values(params), "cluster": section}
    terms = [{"name": "prototypes", "hidden": 12, "dim": 6}]
    student = {**changed_values(recipe(gates={"max_loss_ratio": 100.0}, epochs=2)), "terms": terms}
    student |= {"sidecars": {"clusters": "data/sidecars/clusters"}}
    write_project(tmp_path, content, student, monkeypatch)
    return layout


def test_dvc_clusters_links_and_trains_and_again_only_if_something_changed(layout):
    write_missing_stages(layout)

    def repro() -> list[str]:
        return re.findall(r"Running stage '(.*?)'", command(layout, *dvc(), "repro", "train@student"))

    assert repro() == CHAIN
    assert repro() == []
    params = read_yaml(layout.params)
    params["cluster"]["seed"] = 5
    layout.params.write_text(yaml.safe_dump(params))
    assert repro() == CHAIN
    shown = command(layout, FLAME, "plan", "--images", "40")
    assert "clusters: 4" in shown
