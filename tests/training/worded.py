"""The world of `world.py` with words per caption and a lexicon, as `flame lexical` stores them; trainings on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from flame_core.data.shards import read_index
from flame_core.data.sidecars import Sidecar, gather_sidecar, write_values
from flame_core.lexical.lexicon import Lexicon
from flame_core.lexical.values import pack
from flame_core.lexical.vocabulary import Vocabulary, Word
from flame_core.params import TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.text.store import TrainStore
from flame_core.training.loader import TrainingSamples
from flame_core.training.loop import Trained, train
from flame_core.work import UnitRecord, WorkCache
from tests.training.world import FACETS, HIDDEN, recipe, write_world

PLAIN = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
COLOURS = np.arange(24) % 4  # of the world's samples
V, TOP = 12, 3


def lexicon() -> Lexicon:
    torch.manual_seed(0)
    words = tuple(Word(i, f"word{'abcdefghijkl'[i]}", True) for i in range(V))
    return Lexicon(Vocabulary(words), torch.randn(V, HIDDEN), np.zeros(V), 4.0)


def caption_words() -> np.ndarray:
    """[24, 1, TOP]: word 0 in every caption, and two of its colour's own."""
    logits = np.full((24, V), -4.0)
    logits[:, 0] = 1
    for own in (1, 2):
        logits[np.arange(24), 2 * COLOURS + own] = 2.0
    return pack(logits, TOP)[:, None]


def write_worded(folder: Path) -> None:
    write_world(folder)
    index = read_index(folder / "shards", "train")

    def write(unit: Path) -> UnitRecord:
        write_values(unit, "lexical", caption_words())
        return UnitRecord({})

    units = {"train/00000.tar": WorkCache(folder / "work", "lexical").get({}, write)}
    out = folder / "data/sidecars/lexical"
    gather_sidecar(out, folder / "state", units, index, "lexical", {}, beside=lexicon().files())


def worded_recipe(drop: float = 0.0, terms: list[dict] | None = None, **changes) -> TrainParams:
    model = {"backbone_options": PLAIN | {"drop_path_rate": drop}, "image_size": 16, "head": "lexical"}
    optimizer = {"learning_rate": 3e-3, "eps": 1e-3, "weight_decay": 0.1}
    own = [{"name": "overuse", "weight": 0.05, "ramp": 0.5}] if terms is None else terms
    base = {"model": model, "optimizer": optimizer, "epochs": 3, "objective": {"name": "lexical"}, "terms": own}
    return recipe(**base | changes)


def train_worded(ranks: Ranks, folder: Path, checkpoints: Path, params: TrainParams, *recorders) -> Trained:
    store, index = TrainStore(folder / "embeddings"), read_index(folder / "shards", "train")
    sidecars = {"lexical": Sidecar(folder / "data/sidecars/lexical")}
    samples = TrainingSamples(index, folder / "shards", store, range(len(FACETS)), params, sidecars)
    return train(samples, params, checkpoints, ranks, *recorders)
