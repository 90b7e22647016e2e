"""The cost of a clustering and of a training that has no labels yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.clustering.cost import cluster_cost
from flame_core.layout import Layout
from flame_core.params import ClusterParams, parse_params, read_yaml
from flame_core.planning.plan import plan
from flame_core.planning.start import given

ROOT = Path(__file__).parents[2]


def test_flops_are_those_of_the_products():
    params = ClusterParams(clusters=20_000, fit_samples=1_000_000)
    cost = cluster_cost(params, samples=2_905_954, hidden=5120, vectors=1, number_bytes=2)
    assert cost.flops["iterations"] == pytest.approx(20 * 2 * 1e6 * 20_000 * 64)
    assert cost.flops["labels"] == pytest.approx(2 * 2_905_954 * 20_000 * 64)
    assert cost.flops["reduction"] == pytest.approx(2 * 2_905_954 * 5120 * 64)
    assert cost.read_bytes == 2 * 2_905_954 * 5120 * 2
    assert cost.memory < 2.5e9  # of three million samples
    assert cost.stored_bytes < 40e6


def test_a_plan_counts_clusters_and_tables_before_there_are_any(tmp_path):
    content = read_yaml(ROOT / "params.yaml") | {
        "recipes": ["protoclip", "protoclip-baseline"],
        "cluster": {"clusters": 50},
    }
    content["train"] |= {"kinds": ["raw"], "texts_per_image": 1}
    params = parse_params(content, Path("params.yaml"), ROOT / "recipes")
    layout = Layout.find(tmp_path)
    sections = plan(params, layout, given(params, layout, 1000, {}), 100, 1)
    assert "clusters: 50 of 1,000 samples" in sections
    with_it, without = (sections[f"training: {name}"] for name in ("protoclip", "protoclip-baseline"))
    assert "not counted" not in with_it
    weights = 192 * 2048 + 2048 + 2 * 2048 + 2048 * 128 + 128 + 1 + 1  # head and two scales
    assert f"{weights:,} weights" in with_it["objective"] and " 1 weights" in without["objective"]
