"""The training loader against plain webdataset with PIL, on the same shards, each in one process.

    python -m benchmarks.loader --shards data/shards     # after `make demo`

plain: `webdataset` reads the tars in order with a shuffle buffer, PIL decodes, torchvision crops and normalises.
ours:  reads in any order by index, crops and resizes the file's pixels in one step, and reads texts from the store.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import webdataset
from torchvision import transforms

from benchmarks.measure import in_turns, record
from flame_core.data.shards import read_index
from flame_core.params import ModelParams, TrainParams
from flame_core.text.store import TrainStore
from flame_core.training.loader import EpochOrder, TrainingSamples, create_loader
from flame_core.vision.views import MEAN, STD

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, default=Path("data/shards"))
    parser.add_argument("--embeddings", type=Path, default=Path("data/embeddings"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    params = TrainParams(model=ModelParams(image_size=options.size), batch_size=BATCH, epochs=1, kinds=["raw"])
    rows = read_index(options.shards, "train")
    store = TrainStore(options.embeddings)
    samples = TrainingSamples(rows, options.shards, store, range(len(store.facets)), params)
    order = EpochOrder(len(rows), BATCH, 1, 0)
    view = transforms.Compose(
        [
            transforms.RandomResizedCrop(options.size, (0.9, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(MEAN.flatten().tolist(), STD.flatten().tolist()),
        ]
    )
    tars = [str(path) for path in sorted((options.shards / "train").glob("*.tar"))]

    def ours() -> None:
        for batch in create_loader(samples, order, 0, pin_memory=False):
            batch.on("cpu")

    def plain() -> None:
        pipeline = webdataset.WebDataset(tars, shardshuffle=False).shuffle(1000).decode("pilrgb")
        left = order.total_steps * BATCH
        for _ in webdataset.WebLoader(pipeline.to_tuple("jpg", "json").map_tuple(view), batch_size=None):
            left -= 1
            if not left:
                return

    measured = in_turns({"indexed": ours, "webdataset": plain}, options.turns)
    pictures = order.total_steps * BATCH
    record("loader", "webdataset and PIL", pictures / measured.median("webdataset"), "pictures/s")
    ratio = measured.ratio("indexed", "webdataset")
    record("loader", "indexed, with texts", pictures / measured.median("indexed"), "pictures/s", ratio, "webdataset")


if __name__ == "__main__":
    main()
