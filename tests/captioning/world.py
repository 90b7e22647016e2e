"""A project of coloured pictures with a whole tiny LLM, embeddings, a prompt head, and an aligned recipe."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flame_core.digest import write_json
from flame_core.layout import Layout
from flame_core.params import LLMParams, Params, TrainParams
from flame_core.soft_prompts.frozen_llm import llm_digest
from flame_core.stages import caption, download, embed, ingest
from flame_core.text.llm import SOURCE
from flame_core.verification import write_digests
from tests.captioning.heads import write_head
from tests.conftest import text_params
from tests.soft_prompts.toy import toy_model
from tests.stages.pipeline import folder_source, pipeline_params

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "gold": (220, 200, 30)}
CONNECTOR = {"prompts": 4, "width": 16, "layers": 1, "heads": 2}
OPTIONS = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "drop_path_rate": 0.2}
ALIGNED: dict[str, Any] = {
    "model": {"backbone_options": OPTIONS, "image_size": 16, "connector": CONNECTOR},
    "objective": {"name": "multi_positive_sigmoid", "logit_bias": "auto"},
    "terms": [{"name": "prompts"}],
    "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.1},
    "kinds": ["raw"],
    "texts_per_image": 1,
    "batch_size": 8,
    "epochs": 6,
    "warmup_steps": 2,
    "precision": "float32",
    "cpu_threads": 1,
    "prompts": "data/prompts",
    "gates": {"max_loss_ratio": 100.0},
}


def write_pictures(folder: Path, count: int) -> None:
    """Noisy pictures of a colour and a size; the caption says which."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        name = list(COLOURS)[number % 4]
        pixels = np.clip(np.array(COLOURS[name]) + rng.normal(scale=25, size=(24, 24, 3)), 0, 255).astype(np.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        (folder / f"{number:04d}.png").write_bytes(content.getvalue())
        (folder / f"{number:04d}.txt").write_text(f"{name} {number}")


def described_project(root: Path, tokenizer: Any, pictures: int = 32, **changes: Any) -> tuple[Params, Layout]:
    """All that a recipe with the term `prompts` reads; the recipe is called `aligned`."""
    write_pictures(root / "pairs", pictures)
    ingested = {"near_duplicate_distance": -1}
    params = pipeline_params({"pairs": folder_source(root / "pairs")}, **ingested)
    params = params.model_copy(
        update={
            "text": text_params(layer=2, train_kinds=["raw"]),
            "llm": LLMParams(name="tiny", source="path:x"),
            "recipes": ["aligned"],
            "train": {"aligned": TrainParams.model_validate(ALIGNED | changes)},
            "evaluate": params.evaluate.model_copy(update={"languages": []}),
        }
    )
    layout = Layout.find(root)
    folder = layout.llm / "tiny"
    toy_model(hidden=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / SOURCE, {"name": "tiny", "source": "path:x", "files": {"model.safetensors": "0"}})
    write_digests(layout.llm)
    for stage in (download, ingest, caption, embed):
        stage.run(params, layout)
    write_head(layout.data / "prompts", llm_digest(folder))
    return params, layout
