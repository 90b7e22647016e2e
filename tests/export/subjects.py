"""Trained models of every kind of tower, as `flame train` leaves them: random weights in a folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from flame_core.digest import write_json
from flame_core.export.subject import Subject
from flame_core.export.zero_shot import ZeroShot
from flame_core.model_files import CONFIG, TEXT_WEIGHTS, WEIGHTS
from flame_core.params import IngestParams, SizesParams, TextTowerParams, TrainParams
from flame_core.text import transformer
from flame_core.text.store import TOKENIZER
from flame_core.vision.image_encoder import load_tower
from flame_core.vision.tower import ImageTower

DIM, SIZE = 20, 32
SMALL = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
NO_CLASS_TOKEN = {**SMALL, "class_token": False}
NAFLEX = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8, "pos_embed_grid_size": [4, 4]}
SIZES = {"width": 19, "heads": [2, 1, 1], "intermediate": [96, 31, 7]}  # of a tower that was pruned
TEXT_TOWER = TextTowerParams(width=16, depth=2, heads=2, max_tokens=12)
CLIP, REGISTERS = "vit_base_patch16_clip_224", "vit_small_patch14_reg4_dinov2"
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"model": {"backbone": CLIP, "backbone_options": SMALL}},
    "tagged": {"model": {"backbone": CLIP + ".openai", "backbone_options": NO_CLASS_TOKEN}},
    "registers": {"model": {"backbone": REGISTERS, "backbone_options": SMALL}},
    "map": {"model": {"backbone": "vit_base_patch16_siglip_224", "backbone_options": SMALL}},
    "naflex": {"model": {"backbone": "naflexvit_base_patch16_gap", "backbone_options": NAFLEX}},
    "lift": {
        "model": {"backbone": CLIP, "backbone_options": SMALL, "head": "pooled"},
        "objective": {"name": "infonce"},
        "reading": "sentence",
    },
    "class-token": {"model": {"backbone": CLIP, "backbone_options": SMALL, "head": "cls"}},
    "attention": {"model": {"backbone": CLIP, "backbone_options": SMALL, "head": "attention"}},
    "facets": {
        "model": {"backbone": CLIP, "backbone_options": SMALL, "facet_blocks": 2},
        "objective": {"name": "facet_sigmoid"},
    },
    "facets-all": {
        "model": {"backbone": REGISTERS, "backbone_options": SMALL, "facet_blocks": "all"},
        "objective": {"name": "facet_sigmoid"},
    },
    "feature-map": {
        "model": {
            "backbone": "test_efficientnet",
            "head": "pooled",
            "pixels": "timm",
            "init": {"source": "path:net.pth"},
            "train": "none",
        }
    },
    "pruned": {"model": {"backbone": REGISTERS, "backbone_options": SMALL}},
    "clip": {"model": {"backbone": CLIP, "backbone_options": SMALL}, "text_tower": TEXT_TOWER.model_dump()},
}
CLASSES = ["birds", "boats & ships", "Häuser"]


def trained(root: Path, name: str, tokenizer: Any) -> Path:
    """The folder of a model."""
    recipe = TrainParams.model_validate(RECIPES[name])
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"image_size": SIZE}), "cpu_threads": 1})
    folder = root / name
    folder.mkdir(parents=True)
    torch.manual_seed(sum(map(ord, name)))
    sizes = {"sizes": SIZES} if name == "pruned" else {}
    model = recipe.model.model_copy(update={name: SizesParams(**given) for name, given in sizes.items()})
    save_file(_moved(ImageTower(model, DIM, facets=3)), folder / WEIGHTS)
    config = {
        "recipe": recipe.dump(),
        "recipe_name": name,
        **sizes,
        "hidden": DIM,
        "samples": 12,
        "facets": ["raw/1", "short/1", "short/2", "short/3"],
        "text_facets": {"raw": 1, "short": 3},
        "data": {"shards": "5a" * 32},
        "llm": {"name": "tiny", "source": "hub:someone/tiny@main", "digest": "e7" * 32},
    }
    if recipe.text_tower is not None:
        tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
        vocabulary = transformer.Captions(folder / TOKENIZER, TEXT_TOWER).end + 1
        save_file(_moved(transformer.TextTower(TEXT_TOWER, vocabulary, DIM)), folder / TEXT_WEIGHTS)
    write_json(folder / CONFIG, config)
    return folder


def subject(folder: Path, zero_shot: ZeroShot | None = None) -> Subject:
    """It, ready for export."""
    tower, config = load_tower(folder)
    return Subject(config["recipe_name"], config["recipe_name"], folder, tower, config, IngestParams(), zero_shot)


def head() -> ZeroShot:
    """Three classes with made-up texts."""
    drawn = np.random.default_rng(0).normal(size=(3, DIM))
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return ZeroShot(CLASSES, vectors, ["a picture of birds"])


def pictures() -> np.ndarray:
    """Normalised pictures [5, 3, H, W]."""
    return np.random.default_rng(1).normal(size=(5, 3, SIZE, SIZE)).astype(np.float32)


def _moved(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its weights, each away from where it was initialised: a norm's bias is not zero after a training."""
    moved = {}
    for name, value in module.state_dict().items():
        moved[name] = value + 0.1 * torch.randn_like(value) if value.is_floating_point() else value  # a count
    return moved
