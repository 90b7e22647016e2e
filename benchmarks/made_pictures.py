"""JPEGs that cost a decoder as much as photographs, and shards of them with random texts, to measure without data.

Only `DISTINCT` pictures are drawn: smooth colours with grain. A number after the end mark makes files different.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from flame_core.data.shards import INDEX, INDEX_SCHEMA, Sample, write_shard
from flame_core.digest import write_json
from flame_core.text.manifest import MANIFEST
from flame_core.text.store import EMBEDDINGS, TRAIN
from flame_core.text.tensor_file import write_tensors

DISTINCT = 48
SLOTS = ["raw/1", *(f"short/{facet}" for facet in (1, 2, 3)), *(f"long/{facet}" for facet in range(1, 8))]
_SHARD = 512  # samples


def made_jpegs(count: int, width: int, height: int) -> list[bytes]:
    """JPEGs of different bytes; 90 KB at 500 x 375 pixels; ImageNet's have 110."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(min(count, DISTINCT)):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) + rng.normal(
            0, 16, (height, width, 3)
        )
        buffer = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        drawn.append(buffer.getvalue())
    return [drawn[number % DISTINCT] + number.to_bytes(4, "big") for number in range(count)]


def write_made_data(folder: Path, count: int, hidden: int) -> None:
    """`shards/` with pictures of 384 x 288 pixels, and `embeddings/` with 11 random texts of each in float16."""
    rng = np.random.default_rng(0)
    (folder / "shards/train").mkdir(parents=True)
    (folder / "embeddings" / TRAIN).mkdir(parents=True)
    jpegs = made_jpegs(count, 384, 288)
    rows = []
    for start in range(0, count, _SHARD):
        samples = [Sample(f"made/{start + at:06}", jpeg, {}) for at, jpeg in enumerate(jpegs[start : start + _SHARD])]
        name = f"{start // _SHARD:05}"
        for row, (offset, size) in enumerate(write_shard(folder / f"shards/train/{name}.tar", samples)):
            place = {"key": samples[row].key, "split": "train", "shard": f"train/{name}.tar", "row": row}
            about = {"offset": offset, "size": size, "width": 384, "height": 288, "sha256": "", "captions": 1}
            rows.append(place | about)
        vectors = rng.standard_normal((len(samples), len(SLOTS), hidden), np.float32) / hidden**0.5
        write_tensors(folder / "embeddings" / TRAIN / f"{name}.safetensors", {EMBEDDINGS: vectors}, "float16")
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), folder / "shards" / INDEX)
    about = {"facets": SLOTS, "hidden": hidden, "center": "none"}
    write_json(folder / "embeddings" / TRAIN / MANIFEST, about)
