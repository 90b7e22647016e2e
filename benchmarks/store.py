"""The embedding store against one `.pth` a sample, on random access: 6 of 11 vectors of 5,120 numbers.

    python -m benchmarks.store [--samples 2000]

Both sides end with float32 vectors in memory. `pth` is the reference's layout: one pickled tensor [11, D] in fp16 a
sample, read whole and then indexed. Files are in the page cache for both (they were just written).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import in_turns, record
from flame_core.digest import write_json
from flame_core.text.store import EMBEDDINGS, TrainStore, write_tensors

HIDDEN, VECTORS, DRAWN, SHARD = 5120, 11, 6, 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stores = {dtype: folder / dtype for dtype in ("float16", "int8")}
        (folder / "pth").mkdir()
        for start in range(0, options.samples, SHARD):
            t = draw.normal(size=(min(SHARD, options.samples - start), VECTORS, HIDDEN)).astype(np.float32)
            t /= np.linalg.norm(t, axis=-1, keepdims=True)
            for dtype, store in stores.items():
                (store / "train").mkdir(parents=True, exist_ok=True)
                write_tensors(store / f"train/{start // SHARD:05}.safetensors", {EMBEDDINGS: t}, dtype)
            for i, each in enumerate(torch.from_numpy(t).half()):
                torch.save(each.clone(), folder / "pth" / f"{start + i}.pth")
        for store in stores.values():
            names = [f"raw/{i + 1}" for i in range(VECTORS)]
            write_json(store / "manifest.json", {"facets": names, "hidden": HIDDEN, "center": "none"})
        opened = {dtype: TrainStore(store) for dtype, store in stores.items()}
        places = [(int(i), draw.permutation(VECTORS)[:DRAWN]) for i in draw.permutation(options.samples)]

        def from_store(dtype: str) -> None:
            for i, facets in places:
                opened[dtype].read(f"train/{i // SHARD:05}.tar", i % SHARD, facets)

        def from_files() -> None:
            for i, facets in places:
                torch.load(folder / "pth" / f"{i}.pth", weights_only=True)[facets].float()

        cases = {dtype: lambda dtype=dtype: from_store(dtype) for dtype in stores} | {"pth": from_files}
        measured = in_turns(cases, options.turns)
    for case in cases:
        ratio = None if case == "pth" else measured.ratio(case, "pth")
        record(
            "store", case, options.samples / measured.median(case), "samples/s", ratio, ratio and "one .pth a sample"
        )


if __name__ == "__main__":
    main()
