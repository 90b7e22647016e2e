"""How the loader's processes start: seconds to the first batch, and memory, against processes that each import torch.

    python -m benchmarks.loader_start --workers 4

Memory is the sum of the proportional set sizes of all processes that the loader starts, after the first batch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver, get_context
from pathlib import Path

import psutil

from benchmarks.made_pictures import write_made_data
from benchmarks.measure import record
from flame_core.data.shards import read_index
from flame_core.params import ModelParams, TrainParams
from flame_core.text.store import TrainStore
from flame_core.training.loader import EpochOrder, TrainingSamples, create_loader

BATCH = 16
ALONE, SHARED = "each imports torch", "one import for all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {ALONE: [], SHARED: []}
    with tempfile.TemporaryDirectory() as folder:
        write_made_data(Path(folder), 8 * BATCH, 64)
        for _ in range(options.turns):
            for case, own in found.items():
                with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                    own.append(fresh.submit(start, Path(folder), options.workers, case == SHARED).result())
    for number, unit in enumerate(("s to the first batch", "GB")):
        best = {case: min(each[number] for each in own) for case, own in found.items()}
        for case, figure in best.items():
            ratio = (None, None) if case == ALONE else (best[ALONE] / figure, ALONE)
            record("loader_start", f"{case}, {options.workers} processes", figure, unit, *ratio)


def start(folder: Path, workers: int, shared: bool) -> tuple[float, float]:
    """Seconds to the first batch, and GB of the processes then; in a process that has started none before."""
    if not shared:
        forkserver.set_forkserver_preload = lambda names: None
    store = TrainStore(folder / "embeddings")
    params = TrainParams(model=ModelParams(image_size=224)).model_copy(update={"batch_size": BATCH, "kinds": ["raw"]})
    rows = read_index(folder / "shards", "train")
    samples = TrainingSamples(rows, folder / "shards", store, range(len(store.facets)), params)
    begun = time.perf_counter()
    batches = iter(create_loader(samples, EpochOrder(len(rows), BATCH, 4, 0), workers, pin_memory=False))
    next(batches)
    seconds = time.perf_counter() - begun
    children = psutil.Process().children(recursive=True)
    return seconds, sum(child.memory_full_info().pss for child in children) / 1e9


if __name__ == "__main__":
    main()
