"""A tiny ProCLIP in the world of `world.py`: made texts of a CLIP as a sidecar, and trainings with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch

from flame_core.data.shards import read_index
from flame_core.data.sidecars import Sidecar, gather_sidecar, write_values
from flame_core.layout import Layout
from flame_core.objectives.clip_teacher import TEACHER_TEXTS
from flame_core.params import TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.text.projection import ProjectedSamples
from flame_core.text.store import TrainStore, unit
from flame_core.training.linked_folders import LinkedFolders
from flame_core.training.loader import TrainingSamples
from flame_core.training.loop import Trained, train
from flame_core.vision.initial_weights import fetch_initial_weights
from flame_core.work import UnitRecord, WorkCache
from tests.training.world import FACETS, recipe, write_world

DIM = 12  # of the CLIP
TOWER = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def write_proclip(folder: Path) -> None:
    """A world, a checkpoint `clip.pth` of a ViT with a head, and its made texts, a mixture of the LLM's."""
    write_world(folder)
    torch.manual_seed(5)
    made = timm.create_model("vit_base_patch16_clip_224", num_classes=DIM, **TOWER)
    torch.save(made.state_dict(), folder / "clip.pth")
    index = read_index(folder / "shards", "train")
    layout, texts = Layout(folder, folder), TrainStore(folder / "embeddings")
    slots = list(range(len(FACETS)))
    t = texts.read([(row.shard, row.row, slots) for row in index]).float().mean(dim=1).numpy()
    mixed = unit(t @ np.random.default_rng(1).normal(size=(t.shape[1], DIM)))

    def write(unit_folder: Path) -> UnitRecord:
        write_values(unit_folder, TEACHER_TEXTS, mixed.astype(np.float16))
        return UnitRecord({"samples": len(index)})

    units = {"train/00000.tar": WorkCache(layout.work, "train").get({"made": 1}, write)}
    gather_sidecar(folder / TEACHER_TEXTS, layout.state, units, index, "train", {})


def proclip_recipe(**changes) -> TrainParams:
    """Two epochs of texts, two with pictures; eps keeps gradients that are rounding errors from becoming steps."""
    base = {
        "model": {
            "backbone": "vit_base_patch16_clip_224",
            "backbone_options": TOWER,
            "image_size": 16,
            "head": "linear",
            "init": {"source": "path:clip.pth"},
        },
        "teacher": {"model": "transformers:clip"},
        "text_projection": {"layers": 2, "hidden": 20, "dim": DIM},
        "objective": {"name": "infonce", "during": [0.5, 1.0]},
        "terms": [
            {"name": "text_distillation", "during": [0.0, 0.5], "structure": 2.0},
            {"name": "self_distillation", "during": [0.5, 1.0], "weight": 0.2, "structure": 2.0, "momentum": 0.9},
        ],
        "optimizer": {"learning_rate": 1e-2, "eps": 1e-3, "weight_decay": 0.1},
        "epochs": 4,
        "warmup_steps": 1,
    }
    return recipe(**base | changes)


def train_proclip(ranks: Ranks, folder: Path, checkpoints: Path, params: TrainParams, *recorders) -> Trained:
    texts = ProjectedSamples(TrainStore(folder / "embeddings"), params.text_projection)
    index = read_index(folder / "shards", "train")
    sidecars = {TEACHER_TEXTS: Sidecar(folder / TEACHER_TEXTS)}
    samples = TrainingSamples(index, folder / "shards", texts, range(len(FACETS)), params, sidecars)
    initial = fetch_initial_weights(params.model, Layout(folder, folder)).folder
    return train(samples, params, checkpoints, ranks, *recorders, linked=LinkedFolders(inherited=initial))
