"""Whether a training step waits for its batch: steps on loaded batches against steps on one that stays on the device.

    python -m benchmarks.loaded_steps                                        # a small tower on a CPU
    python -m benchmarks.loaded_steps --tower vit_b16 --batch 384 --steps 12    # half a minute on an H100 with 16 cores

Pictures are made (384 x 288 pixels), texts are random: 6 of 11 per picture. A ratio of 1 says that no step waits. What
the loader prepared before its turn does not count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from pathlib import Path

from benchmarks.made_pictures import write_made_data
from benchmarks.measure import record, synchronize, timing_themselves
from benchmarks.training_step import TOWERS
from flame_core.data.shards import read_index
from flame_core.objectives.batch import Batch, Moment
from flame_core.params import TrainParams
from flame_core.processes.ranks import ALONE
from flame_core.settings import settings
from flame_core.text.store import TrainStore
from flame_core.training.assembly import assemble
from flame_core.training.loader import EpochOrder, TrainingSamples, create_loader
from flame_core.training.prefetch import batches_on
from flame_core.training.step import Step
from flame_core.training.told import Told

ENDLESS = 1_000_000  # epochs
RESIDENT = "one batch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", choices=list(TOWERS), default="small")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4, help="per case and turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--decoders", default="pil,torchvision", type=lambda text: text.split(","))
    parser.add_argument("--compile", action="store_true", help="takes most of a minute")
    options = parser.parse_args()
    device = settings().torch_device()
    workers = settings().decoding_processes(1)
    model, hidden = TOWERS[options.tower]
    recipe = {"model": model.model_dump(), "batch_size": options.batch, "compile": options.compile}
    recipe["precision"] = "bfloat16" if device == "cuda" else "float32"
    params = TrainParams.model_validate(recipe)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_made_data(folder, max(1024, 2 * options.batch), hidden)
        store = TrainStore(folder / "embeddings")
        cases = {
            f"loaded, {decoder}": loaded(params.model_copy(update={"decoder": decoder}), folder, store, workers, device)
            for decoder in options.decoders
        }
        cases = {RESIDENT: repeat(next(next(iter(cases.values())))), **cases}
        assembly = assemble(params, store, 7, options.batch, options.batch).to(device)
        step = Step(assembly, assembly.optimizer(params), params, ALONE, device)

        def timed(case: str, counts: bool) -> float:
            for _ in range(0 if case == RESIDENT else 2 * workers + 2):
                next(cases[case])
            return steps(step, cases[case], options.steps)

        measured = timing_themselves({case: partial(timed, case) for case in cases}, options.turns)
    for case in cases:
        rate = options.steps * options.batch / measured.median(case)
        ratio = (None, None) if case == RESIDENT else (measured.ratio(case, RESIDENT), RESIDENT)
        told = case if case == RESIDENT else f"{case}, {workers} processes"
        record(f"loaded_steps/{options.tower}", told, rate, "images/s", *ratio)


def loaded(params: TrainParams, folder: Path, store: TrainStore, workers: int, device: str) -> Iterator[Batch]:
    """Batches of the training loader on the device, without end."""
    rows = read_index(folder / "shards", "train")
    samples = TrainingSamples(rows, folder / "shards", store, range(len(store.facets)), params)
    assert isinstance(params.batch_size, int)
    order = EpochOrder(len(rows), params.batch_size, ENDLESS, 0)
    return batches_on(device, create_loader(samples, order, workers, pin_memory=device == "cuda"))


def steps(step: Step, batches: Iterator[Batch], count: int) -> float:
    """Seconds of so many steps; the loss of each is read, as in a training, when the next one has been asked for."""
    synchronize()
    start = time.perf_counter()
    before: Told | None = None
    for _ in range(count):
        batch, at = next(batches), Moment(0, 1, 1)
        told = Told(at, 0.0, batch.keys, step(batch, at), {}, ALONE, stop=False, save=False)
        if before is not None:
            before.read()
        before = told
    synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
