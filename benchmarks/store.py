"""The embedding store against one `.pth` per sample, for random reads of 6 of 11 vectors of 5,120 numbers.

    python -m benchmarks.store [--samples 2000] [--folder /a/disk]

Both read batches of 64 into memory: float16 stays float16, int8 becomes float32. `pth` is the reference's layout: one
pickled tensor [11, D] in float16 per sample, which is read completely and then indexed. Measured once with the files in
the page cache, and once after telling the kernel to drop them before every turn (caches of the disk or its host
remain).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import in_turns, record
from flame_core.digest import write_json
from flame_core.text.store import EMBEDDINGS, Drawn, TrainStore
from flame_core.text.tensor_file import write_tensors

HIDDEN, VECTORS, DRAWN, SHARD, BATCH = 5120, 11, 6, 500, 64
PTH = "pth"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write the files (default: a temporary folder)")
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        stores = {dtype: TrainStore(store) for dtype, store in _write(folder, options.samples, draw).items()}
        drawn = [
            Drawn(f"train/{i // SHARD:05}.tar", i % SHARD, sorted(draw.permutation(VECTORS)[:DRAWN].tolist()))
            for i in draw.permutation(options.samples).tolist()
        ]
        batches = [drawn[start : start + BATCH] for start in range(0, len(drawn), BATCH)]
        cases: dict[str, Callable[[], None]] = {dtype: partial(_from_store, stores[dtype], batches) for dtype in stores}
        cases[PTH] = partial(_from_files, folder / PTH, batches)
        os.sync()  # only pages that are written to disk can be dropped
        cached = in_turns(cases, options.turns)
        cold = in_turns({"drop": partial(_drop, folder), **cases}, options.turns)
    for state, measured in (("", cached), (", cold", cold)):
        for case in cases:
            ratio = None if case == PTH else measured.ratio(case, PTH)
            baseline = None if ratio is None else f"one .pth a sample{state}"
            record("store", case + state, options.samples / measured.median(case), "samples/s", ratio, baseline)


def _write(folder: Path, samples: int, draw: np.random.Generator) -> dict[str, Path]:
    """The same vectors as one store per type, and as one file per sample."""
    stores = {dtype: folder / dtype for dtype in ("float16", "int8")}
    (folder / PTH / "train").mkdir(parents=True)
    for start in range(0, samples, SHARD):
        t = draw.normal(size=(min(SHARD, samples - start), VECTORS, HIDDEN)).astype(np.float32)
        t /= np.linalg.norm(t, axis=-1, keepdims=True)
        shard = f"train/{start // SHARD:05}"
        for dtype, store in stores.items():
            (store / "train").mkdir(parents=True, exist_ok=True)
            write_tensors(store / f"{shard}.safetensors", {EMBEDDINGS: t}, dtype)
        for i, each in enumerate(torch.from_numpy(t).half()):
            torch.save(each.clone(), folder / PTH / f"{shard}-{i}.pth")
    for store in stores.values():
        names = [f"raw/{i + 1}" for i in range(VECTORS)]
        write_json(store / "train/manifest.json", {"facets": names, "hidden": HIDDEN, "center": "none"})
    return stores


def _from_store(store: TrainStore, batches: list[list[Drawn]]) -> None:
    for batch in batches:
        store.read(batch)


def _from_files(folder: Path, batches: list[list[Drawn]]) -> None:
    for batch in batches:
        torch.stack([torch.load(_file(folder, each), weights_only=True)[each.facets] for each in batch])


def _file(folder: Path, sample: Drawn) -> Path:
    return folder / f"{sample.shard.removesuffix('.tar')}-{sample.row}.pth"


def _drop(folder: Path) -> None:
    """Ask the kernel to forget the files' contents."""
    for path in folder.rglob("*.*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


if __name__ == "__main__":
    main()
