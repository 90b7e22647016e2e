"""SugarCrepe's protocol on a trained LIFT model: the shipped recipe, tiny, through the real stages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from flame_core.layout import Layout
from flame_core.measuring.similarity import similarities
from flame_core.params import Params, TrainParams, read_yaml
from flame_core.params.evaluation import BenchmarksParams
from flame_core.params.overlay import merge
from flame_core.stages import embed, evaluate, train
from flame_core.suite.layouts.sugarcrepe import GROUPS
from flame_core.text.encoder import TextEncoder
from flame_core.text.llm import SOURCE
from flame_core.verification import write_digests
from flame_core.vision.image_encoder import load_encoder
from tests.stages.pipeline import ROOT, captioned_project
from tests.suite import datasets

TINY = {
    "model": {
        "backbone_options": {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
        "image_size": 16,
    },
    "batch_size": 8,
    "epochs": 2,
    "warmup_steps": 2,
    "precision": "float32",
    "cpu_threads": 1,
    "gates": {"max_loss_ratio": 100.0},
}


@pytest.fixture
def project(
    tmp_path: Path, byte_tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> tuple[Params, Layout]:
    """Pictures with captions, a tiny LLM, SugarCrepe with one question whose two texts are the same, the recipe."""
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    params, layout = captioned_project(tmp_path, byte_tokenizer, 30)
    (layout.llm / "tiny" / SOURCE).write_text(json.dumps({"name": "tiny", "source": "path:x", "files": {}}))
    write_digests(layout.llm)
    folder = layout.root / "datasets/sugarcrepe"
    datasets.sugarcrepe(folder)
    questions = json.loads((folder / "swap_att.json").read_text())
    questions["0"]["negative_caption"] = questions["0"]["caption"]
    (folder / "swap_att.json").write_text(json.dumps(questions))
    recipe = TrainParams.model_validate(merge(read_yaml(ROOT / "recipes/lift.yaml"), TINY))
    gates = params.evaluate.gates.model_copy(update={"min_recall_over_chance": 0.0})
    options = {"gates": gates, "benchmarks": BenchmarksParams(names=["sugarcrepe"])}
    changes = {
        "train": {"lift": recipe},
        "recipes": ["lift"],
        "evaluate": params.evaluate.model_copy(update=options),
        "text": type(params.text).model_validate({**params.text.model_dump(), "sentence": {"read": "last"}}),
    }
    return params.model_copy(update=changes), layout


def test_the_seven_tasks_of_sugarcrepe(project: tuple[Params, Layout]) -> None:
    params, layout = project
    embed.run(params, layout)
    train.run(params, layout, "lift")
    evaluate.run(params, layout, "lift")
    found = json.loads((layout.report("lift") / "benchmarks/sugarcrepe_en.json").read_text())["metrics"]
    assert {key.partition("/")[0] for key in found if "/" in key} == set(GROUPS)
    expected = by_hand(params, layout)
    assert {group: found[f"{group}/text_acc"] for group in GROUPS} == expected
    assert found["text_acc"] == pytest.approx(np.mean(list(expected.values())))
    assert expected["swap_att"] <= 0.5  # a tie is wrong
    page = (layout.report("lift") / evaluate.REPORT).read_text()
    assert all(group in page for group in GROUPS)


def by_hand(params: Params, layout: Layout) -> dict[str, float]:
    """Text accuracy of each task, from pictures encoded now and texts put to the LLM now."""
    folder = layout.root / "datasets/sugarcrepe"
    pictures, texts = load_encoder(layout.model("lift"), "cpu"), TextEncoder.open(params, layout)
    found = {}
    for group in GROUPS:
        right = []
        for row in json.loads((folder / f"{group}.json").read_text()).values():
            z = pictures.encode([(folder / "val2017" / row["filename"]).read_bytes()])
            t = texts.encode("sentence", [row["caption"], row["negative_caption"]])[:, 0]
            (scores,) = similarities(z, t)
            right.append(scores[0] > scores[1])
        found[group] = float(np.mean(right))
    return found
