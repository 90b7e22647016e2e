"""The training loader against plain webdataset with PIL, on the same shards, and how many cores a GPU needs.

    python -m benchmarks.loader --shards data/shards                # one process each; after `make demo`
    python -m benchmarks.loader --workers 14 --made 4096            # half a minute on 16 cores

webdataset:  reads the tars in order with a shuffle buffer; PIL decodes, torchvision crops and normalises.
ours:        reads in any order by index, decodes and cuts as `train.decoder` says, and reads texts from the store.

Without workers, a figure is in processor seconds of one thread, and webdataset does not have to make batches. With
workers, it is in wall seconds; the loaders of all cases stand by, and what they prepared before their turn does not
count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import webdataset
from torchvision import transforms

from benchmarks.made_pictures import write_made_data
from benchmarks.measure import PROCESSOR, WALL, Timed, record, synchronize, timing_themselves
from flame_core.data.shards import Index, read_index
from flame_core.params import ModelParams, TrainParams
from flame_core.text.store import TrainStore
from flame_core.training.loader import EpochOrder, TrainingSamples, create_loader
from flame_core.training.prefetch import batches_on
from flame_core.vision.views import MEAN, STD

BATCH = 64
ENDLESS = 1_000_000  # epochs
PLAIN = "webdataset and PIL"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, default=Path("data/shards"))
    parser.add_argument("--embeddings", type=Path, default=Path("data/embeddings"))
    parser.add_argument("--made", type=int, help="instead, so many made pictures with texts of 5,120 dimensions")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--decoders", default="pil,torchvision", type=lambda text: text.split(","))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="processes per case")
    parser.add_argument("--batches", type=int, default=8, help="per turn and process")
    parser.add_argument("--images-per-second", type=float, default=3205, help="what a GPU trains on: H100, ViT-B/16")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if options.made:
            write_made_data(Path(scratch), options.made, 5120)
            options.shards, options.embeddings = Path(scratch, "shards"), Path(scratch, "embeddings")
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Record all cases."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = read_index(options.shards, "train")
    cases = {PLAIN: plain(options.shards, options.size, options.workers, device)}
    for decoder in options.decoders:
        cases[f"indexed, with texts, {decoder}"] = ours(decoder, rows, options, device)
    batches = options.batches * max(1, options.workers)
    measured = in_turns(cases, batches, options.turns, options.workers)
    for case in cases:
        rate = batches * BATCH / measured.median(case)
        ratio = (None, None) if case == PLAIN else (measured.ratio(case, PLAIN), PLAIN)
        processes = f", {options.workers} processes" if options.workers else ""
        record("loader", f"{case}, {options.size} px{processes}", rate, "pictures/s", *ratio)
        needed = options.images_per_second * max(1, options.workers) / rate
        record("loader", f"{case}: for {options.images_per_second:,.0f} images/s", needed, "cores")


def ours(decoder: str, rows: Index, options: argparse.Namespace, device: str) -> Iterator[Any]:
    """Batches of this project's loader on the device, without end."""
    recipe = {"batch_size": BATCH, "kinds": ["raw"], "decoder": decoder}
    params = TrainParams(model=ModelParams(image_size=options.size)).model_copy(update=recipe)
    store = TrainStore(options.embeddings)
    samples = TrainingSamples(rows, options.shards, store, range(len(store.facets)), params)
    order = EpochOrder(len(rows), BATCH, ENDLESS, 0)
    yield from batches_on(device, create_loader(samples, order, options.workers, pin_memory=device == "cuda"))


def plain(shards: Path, size: int, workers: int, device: str) -> Iterator[Any]:
    """Batches of normalised pictures of webdataset on the device, without end."""
    view = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, (0.9, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(MEAN.flatten().tolist(), STD.flatten().tolist()),
        ]
    )
    tars = [str(path) for path in sorted((shards / "train").glob("*.tar"))]
    tars = [tar for tar, _ in zip(cycle(tars), range(max(len(tars), workers)), strict=False)]  # each process needs one
    pipeline = webdataset.WebDataset(tars, shardshuffle=False).repeat().shuffle(1000).decode("pilrgb")
    pictures = pipeline.to_tuple("jpg", "json").map_tuple(view)
    if workers:
        pictures = pictures.batched(BATCH, partial=False)
    loader = webdataset.WebLoader(pictures, batch_size=None, num_workers=workers, pin_memory=device == "cuda")
    loaded = (each[0].to(device, non_blocking=True) for each in loader)
    while True:
        yield [next(loaded) for _ in range(1 if workers else BATCH)]


def in_turns(cases: dict[str, Iterator[Any]], batches: int, turns: int, workers: int) -> Timed:
    """Seconds that each case takes for so many batches, in each turn after the first, which does not count."""
    clock = WALL if workers else PROCESSOR

    def timed(loaded: Iterator[Any], counts: bool) -> float:
        time.sleep(0.5 if workers else 0)  # processes of the others fill their queues and rest
        for _ in range(2 * workers + 2 if workers else 0):  # prepared while others had their turn
            next(loaded)
        synchronize()
        start = clock()
        for _ in range(batches):
            next(loaded)
        synchronize()
        return clock() - start

    return timing_themselves({case: partial(timed, loaded) for case, loaded in cases.items()}, turns)


if __name__ == "__main__":
    main()
