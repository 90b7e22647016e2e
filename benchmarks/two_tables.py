"""A training on two tables of constants: memory and pictures a second from 10,000 to a million made-up rows.

    python -m benchmarks.two_tables                    # a line per size into results.jsonl
    python -m benchmarks.two_tables --rows 10000 --steps 5

The recipe `lit` of the demo's preset, with 1,280 numbers of each picture and 576 of each text, in batches of 1,024. The
files are sparse: they have the size that real ones would have, and hold zeros. Each size runs in a process of its own.
`--steps` bounds a training, so a small table is read several times and of a large one only a part.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import record
from flame_core.data.shards import INDEX, INDEX_SCHEMA, read_index
from flame_core.data.sidecars import MANIFEST, VALUES, Sidecar, SidecarManifest
from flame_core.digest import write_json
from flame_core.errors import Interrupted
from flame_core.params import TrainParams
from flame_core.text.store import EMBEDDINGS, TrainStore
from flame_core.training.loader import TrainingSamples
from flame_core.training.loop import train

SHARD, VIEWS, WIDTH, HIDDEN, BATCH = 10_000, 2, 1280, 576, 1024
FACETS = ["raw/1", "short/1", "short/2", "short/3"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # in the process of one size
    options = parser.parse_args()
    for rows in options.rows:
        if options.one:
            print(json.dumps(measured(rows, options.steps)))
            continue
        command = [sys.executable, "-m", "benchmarks.two_tables", "--one", "--rows", str(rows)]
        done = subprocess.run([*command, "--steps", str(options.steps)], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        record("two_tables", f"{rows} rows, peak memory", found["peak_mb"], "MB")
        record("two_tables", f"{rows} rows, speed", found["per_cpu_second"], "pictures per second of processor time")
        record("two_tables", f"{rows} rows, wall clock", found["per_second"], "pictures per second")


def measured(rows: int, steps: int) -> dict[str, float]:
    """Peak memory of a training, and its speed after the first five steps."""
    params = recipe(rows, steps)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_tables(folder, rows)
        index, store = read_index(folder, "train"), TrainStore(folder / "embeddings")
        sidecars = {"features": Sidecar(folder / "features")}
        samples = TrainingSamples(index, folder, store, range(len(FACETS)), params, sidecars)
        clock: list[tuple[float, float]] = []

        def note(row: dict[str, float]) -> None:
            clock.append((time.perf_counter(), time.process_time()))
            if len(clock) == steps:
                os.kill(os.getpid(), signal.SIGTERM)

        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: without the making of the files
        with suppress(Interrupted):
            train(samples, params, folder / "checkpoints", on_step=note)
        peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    (wall, cpu), (last_wall, last_cpu) = clock[4], clock[steps - 1]
    images = (steps - 5) * BATCH
    return {
        "peak_mb": peak / 1024,
        "per_cpu_second": images / (last_cpu - cpu),
        "per_second": images / (last_wall - wall),
    }


def recipe(rows: int, steps: int) -> TrainParams:
    """That of the preset, with so many epochs that there are steps enough."""
    model = {"backbone": "tf_efficientnet_lite0", "image_size": 224, "head": "pooled", "head_hidden": 1024}
    model |= {"pixels": "timm", "train": "none", "init": {"source": "path:weights.pth"}}  # not read: z needs none
    return TrainParams.model_validate(
        {
            "model": model,
            "sidecars": {"features": "features"},
            "augmentation": {"scale": [1, 1], "flip": 0.5},
            "kinds": ["raw", "short"],
            "texts_per_image": 4,
            "batch_size": BATCH,
            "epochs": (steps + 2) // (rows // BATCH) + 1,
            "warmup_steps": 20,
            "precision": "float32",
            "cpu_threads": 1,
        }
    )


def write_tables(folder: Path, rows: int) -> None:
    """An index, vectors of pictures and of texts."""
    place = np.arange(rows)
    shards = [f"train/{number:05}.tar" for number in place // SHARD]
    columns = {"key": [f"made/{row}" for row in place], "split": ["train"] * rows, "shard": shards}
    columns |= {"row": place % SHARD, "sha256": [""] * rows}
    columns |= {name: np.ones(rows, int) for name in INDEX_SCHEMA.names if name not in columns}
    table = pa.table({name: pa.array(columns[name]).cast(INDEX_SCHEMA.field(name).type) for name in INDEX_SCHEMA.names})
    pq.write_table(table.cast(INDEX_SCHEMA), folder / INDEX)
    for name in ("features", "embeddings/train"):
        (folder / name).mkdir(parents=True)
    files = {}
    for start in range(0, rows, SHARD):
        count, name = min(SHARD, rows - start), f"{start // SHARD:05}.safetensors"
        sparse(folder / "features" / name, VALUES, (count, VIEWS, WIDTH))
        sparse(folder / "embeddings/train" / name, EMBEDDINGS, (count, len(FACETS), HIDDEN))
        files[name] = ""
    manifest = SidecarManifest(
        name="features", stage="features", dtype="float16", shape=(VIEWS, WIDTH), index="", origin={}, files=files
    )
    write_json(folder / "features" / MANIFEST, manifest.model_dump(mode="json"))
    about = {"facets": FACETS, "hidden": HIDDEN, "center": "none"}
    write_json(folder / "embeddings/train/manifest.json", about)


def sparse(path: Path, name: str, shape: tuple[int, ...]) -> None:
    """A safetensors file of zeros in float16 that takes no room on the disk."""
    size = 2 * int(np.prod(shape))
    header = json.dumps({name: {"dtype": "F16", "shape": list(shape), "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)


if __name__ == "__main__":
    main()
