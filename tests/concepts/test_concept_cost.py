"""What counting concepts will take, in `flame plan` and `flame status`."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.concepts.concept_cost import CAPTIONS_PER_SECOND, concept_section
from flame_core.layout import Layout
from flame_core.params import ConceptParams, parse_params, read_yaml
from flame_core.planning.plan import plan
from flame_core.planning.start import given
from tests.planning.quantities import hours

ROOT = Path(__file__).parents[2]


def test_the_paper_s_data_sets_take_what_the_rate_says():
    params = ConceptParams(file="names.txt")
    ((title, values),) = concept_section(params, 414_080_000).items()
    assert title == "concepts: 414,080,000 captions"
    assert hours(values["time of one core"]) == pytest.approx(414_080_000 / CAPTIONS_PER_SECOND / 3600, abs=0.02)
    assert values["the paper's code"] == "6,766 h on 48 cores"  # 17 captions per second; it reports 7,200
    ((_, values),) = concept_section(params, 3_318_333).items()
    assert values["the paper's code"] == "54 h on 48 cores"
    both = ConceptParams(file="names.txt", kinds=["raw", "long"])
    assert "concepts: 2,000 captions" in concept_section(both, 1000)


def test_a_plan_says_so_if_params_have_the_section(tmp_path):
    content = read_yaml(ROOT / "params.yaml")
    layout = Layout.find(tmp_path)
    plain = parse_params(content, Path("params.yaml"), ROOT / "recipes")
    images = {"tagger": {"kind": "tower", "recipe": "flame"}, "threshold": 0.1}
    counted = parse_params(
        content | {"concepts": {"nouns": {}, "images": images}}, Path("params.yaml"), ROOT / "recipes"
    )
    before = plan(plain, layout, given(plain, layout, 1000, {}), 100, 1)
    sections = plan(counted, layout, given(counted, layout, 1000, {}), 100, 1)
    assert set(sections) - set(before) == {"concepts: 1,000 captions"}
    assert sections["concepts: 1,000 captions"]["pictures seen by the tagger"] == "1,000, once"
