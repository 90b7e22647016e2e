"""How long a model takes to encode ImageNet's 50,000 pictures for an evaluation, from some made pictures.

    python -m benchmarks.evaluation_speed                    # a small tower on a CPU
    python -m benchmarks.evaluation_speed --tower vit_b16    # ViT-B/16 into 5,120 dimensions; half a minute on an H100

The pictures are JPEGs of 500 x 375 pixels with smooth colours and grain, 90 KB each (ImageNet's have 110), in files
that are in the page cache. The whole way is measured: hashing, header checks, decoding, the tower, writing the vectors.

one thread:  decoding and the tower take turns in one thread (FLAME_LOADER_WORKERS=0), in float32
float32, bfloat16:  threads decode while the tower computes (`evaluate.precision`)
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.made_pictures import made_jpegs
from benchmarks.measure import record, synchronize, timing_themselves
from benchmarks.training_step import TOWERS
from flame_core.digest import write_json
from flame_core.files.weights import save_weights
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.params import Precision, TrainParams
from flame_core.settings import settings
from flame_core.suite.content import Picture
from flame_core.suite.encoding import encoded
from flame_core.suite.models.trained import TrainedModel
from flame_core.vision.image_encoder import ImageEncoder
from flame_core.vision.tower import ImageTower

IMAGENET = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", choices=list(TOWERS), default="small")
    parser.add_argument("--pictures", type=int, help="per case and turn; by default 256 on a CPU, 6,144 on a GPU")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--cases", default="one thread,float32,bfloat16", type=lambda text: text.split(","))
    options = parser.parse_args()
    device = settings().torch_device()
    count = options.pictures or (6144 if device == "cuda" else 256)
    threads = settings().decoding_processes(1) or torch.get_num_threads()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pictures = made_pictures(folder / "pictures", count)
        models = made_models(folder / "model", options.tower, device)

        def timed(case: str, counts: bool) -> float:
            some = pictures[: (count // 4 if case == "one thread" else count) if counts else 256]
            model = models["bfloat16" if case == "bfloat16" else "float32"]
            return run(case, threads, model, folder / "work", some) * IMAGENET / len(some)

        measured = timing_themselves({case: partial(timed, case) for case in options.cases}, options.turns)
    for case in options.cases:
        ratio = (None, None)
        if case != "one thread" and "one thread" in options.cases:
            ratio = measured.ratio(case, "one thread"), "one thread"
        told = case if case == "one thread" else f"{case}, {threads} threads"
        record(f"evaluation_speed/{options.tower}", told, measured.median(case), "s per 50,000 pictures", *ratio)


def run(case: str, threads: int, model: TrainedModel, folder: Path, pictures: list[Picture]) -> float:
    """Seconds that `encoded` takes with an empty work cache."""
    os.environ["FLAME_LOADER_WORKERS"] = "0" if case == "one thread" else str(threads)
    settings.cache_clear()
    synchronize()
    start = time.perf_counter()
    encoded(model, "views", [Picture(each.name, each.path) for each in pictures], folder)
    took = time.perf_counter() - start
    shutil.rmtree(folder)
    return took


def made_pictures(folder: Path, count: int) -> list[Picture]:
    """Files of different bytes."""
    folder.mkdir()
    jpegs = made_jpegs(count, 500, 375)
    for number, jpeg in enumerate(jpegs):
        (folder / f"{number}.jpg").write_bytes(jpeg)
    print(f"{count:,} pictures of {sum(map(len, jpegs)) / count / 1e3:.0f} KB on average")
    return [Picture(f"{number}", folder / f"{number}.jpg") for number in range(count)]


def made_models(folder: Path, tower: str, device: str) -> dict[str, TrainedModel]:
    """By precision, a model with random weights."""
    model, hidden = TOWERS[tower]
    recipe = TrainParams(model=model, kinds=["raw"], cpu_threads=torch.get_num_threads())
    folder.mkdir()
    made = ImageTower(model, hidden, 1)
    save_weights(made, folder / WEIGHTS)
    config = {"recipe": recipe.dump(), "hidden": hidden, "facets": ["raw/1"]}
    write_json(folder / CONFIG, config)
    kinds: tuple[Precision, ...] = ("float32", "bfloat16")
    encoders = {precision: ImageEncoder(made, config, device, precision) for precision in kinds}
    return {
        precision: TrainedModel("made", encoder, folder, lambda kind, texts: np.zeros((len(texts), 1, hidden)))
        for precision, encoder in encoders.items()
    }


if __name__ == "__main__":
    main()
