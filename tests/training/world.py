"""Two dozen coloured pictures with texts near their colour's vector: shards, a store, and a recipe that learns them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from flame_core.data.shards import INDEX_SCHEMA, Sample, read_index, write_shard
from flame_core.digest import write_json
from flame_core.params import TrainParams
from flame_core.text.store import EMBEDDINGS, TrainStore, unit
from flame_core.text.tensor_file import write_tensors
from flame_core.training.loader import TrainingSamples

HIDDEN = 16
FACETS = ["raw/1", "short/1", "short/2"]


def recipe(**changes) -> TrainParams:
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "drop_path_rate": 0.2}
    base = {
        "model": {"backbone_options": options, "image_size": 16},
        "objective": {"name": "multi_positive_sigmoid", "logit_bias": "auto"},
        "texts_per_image": 2,
        "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.1},
        "kinds": ["raw", "short"],
        "batch_size": 8,
        "epochs": 6,
        "warmup_steps": 2,
        "precision": "float32",
        "cpu_threads": 1,
    }
    return TrainParams.model_validate(base | changes)


def write_world(folder: Path) -> None:
    """24 pictures of one of four colours, with texts near their colour's vector."""
    rng = np.random.default_rng(0)
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]
    vectors = rng.normal(size=(4, HIDDEN))
    samples, rows, texts = [], [], []
    for i in range(24):
        pixels = np.clip(np.array(colours[i % 4]) + rng.normal(scale=20, size=(24, 24, 3)), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        samples.append(Sample(f"toys/{i:02}", buffer.getvalue(), {}))
        texts.append(unit(vectors[i % 4] + 0.3 * rng.normal(size=(len(FACETS), HIDDEN))))
    (folder / "shards/train").mkdir(parents=True)
    (folder / "embeddings/train").mkdir(parents=True)
    for i, (offset, size) in enumerate(write_shard(folder / "shards/train/00000.tar", samples)):
        place = {"key": samples[i].key, "split": "train", "shard": "train/00000.tar", "row": i, "offset": offset}
        rows.append(place | {"size": size, "width": 24, "height": 24, "sha256": "", "captions": 1})
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), folder / "shards/index.parquet")
    t = np.stack(texts).astype(np.float32)
    write_tensors(folder / "embeddings/train/00000.safetensors", {EMBEDDINGS: t}, "float16")
    write_json(folder / "embeddings/train/manifest.json", {"facets": FACETS, "hidden": HIDDEN, "center": "none"})


def samples_of(folder: Path, params: TrainParams) -> TrainingSamples:
    store = TrainStore(folder / "embeddings")
    index = read_index(folder / "shards", "train")
    return TrainingSamples(index, folder / "shards", store, range(len(FACETS)), params)
