"""The arms of benchmarks/selections.py: equal samples seen, and the table of what is measured so far."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.selections import ARMS, EPOCHS, NEEDS, SELECTIONS, table
from benchmarks.trainings import Results
from flame_core.layout import Layout
from flame_core.workspace import resolve_params

ROOT = Path(__file__).parents[2]


def test_every_arm_sees_as_many_samples_of_the_demo():
    seen = {}
    for arm in ARMS:
        params = resolve_params(Layout.find(ROOT), [*NEEDS, f"recipes=[{arm.recipe}]", *arm.train], None).params
        recipe = params.train[arm.recipe]
        samples = 735 if recipe.selection is None else 184
        seen[arm.name] = recipe.schedule(samples).steps * 61
    assert len(seen) == 2 * (1 + len(SELECTIONS)) and set(seen.values()) == {EPOCHS * (735 // 61) * 61}


def test_the_table_has_means_and_deviations(tmp_path):
    ways = ("image_to_text", "text_to_image")
    rows = [
        {"data": "demo", "arm": "quarter", "phase": "final", "images": 8784, "run": str(seed)}
        | {"metrics": {f"retrieval/en/{way}/recall@10": value for way in ways} | {"classification/top1": 0.1}}
        for seed, value in enumerate((0.2, 0.22, 0.24))
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = table("demo", Results(tmp_path / "r.jsonl")).splitlines()
    assert "| quarter | 3 | 8,784 | 22.0 ± 2.0 | 10.0 ± 0.0 | not yet measured |" in lines
    assert len(lines) == 2 + len(ARMS)
