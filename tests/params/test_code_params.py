"""Which params fetch models or run code: those of optional sections and of teachers are among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flame_core.layout import Layout
from flame_core.params import load_params, parse_params, read_yaml
from flame_core.params.code_params import changed_code
from flame_core.params.validation import merge

ROOT = Path(__file__).parents[2]
SOURCE = "transformers:evil/model"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"scores": {"scorers": {"a": {"kind": "model", "source": SOURCE}}}}, "scores.scorers.a.source"),
        (
            {"concepts": {"file": "x", "images": {"tagger": {"kind": "model", "source": SOURCE}, "threshold": 0.3}}},
            "concepts.images.tagger.source",
        ),
        ({"codes": {"tower": {"timm": "hf-hub:evil/model"}}}, "codes.tower.timm"),
        (
            {"features": {"model": {"backbone": "hf-hub:evil/model", "init": {"source": "timm:x"}, "head": "none"}}},
            "features.model.backbone",
        ),
        ({"train": {"model": {"init": {"source": "pypi:evil==1.0#weights.pth"}}}}, "train.model.init.source"),
        ({"train": {"teacher": {"model": SOURCE}}}, "train.teacher.model"),
    ],
)
def test_a_model_from_elsewhere_is_named(change: dict[str, Any], key: str) -> None:
    layout = Layout.find(ROOT)
    base = load_params(layout)
    changed = parse_params(merge(read_yaml(layout.params), change), layout.params, layout.recipes)
    assert key in changed_code(changed, base) and changed_code(base, base) == []


def test_scores_from_a_table_or_an_own_tower_fetch_nothing() -> None:
    layout = Layout.find(ROOT)
    scorers = {"a": {"kind": "tower", "recipe": "flame"}, "b": {"kind": "table", "path": "x", "column": "y"}}
    changed = parse_params(
        merge(read_yaml(layout.params), {"scores": {"scorers": scorers}}), layout.params, layout.recipes
    )
    assert changed_code(changed, load_params(layout)) == []
