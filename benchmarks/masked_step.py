"""The time that masking saves: steps of ViT-B/16 on half the patches, and of all of A-CLIP, against whole pictures.

    python -m benchmarks.masked_step                        # two threads of a CPU, small batches
    python -m benchmarks.masked_step --threads 1            # one thread, in processor seconds, beside other load
    python -m benchmarks.masked_step --batch 256 --turns 20 # a GPU, where towers are compiled as in a training

Cases, each a real step (towers, loss, backward, AdamW) on random pictures, with the head on the CLS token into the
512 dimensions of CLIP and one text vector per picture; no text tower runs in any of them:

    whole picture     one view, all 196 patches: CLIP's step without its text tower
    half of one view  one view, 100 of 196 patches, drawn at random
    a-clip-mask       two such views, chosen by the moving average at half resolution
    a-clip            the same with SimCLR and BYOL at full width

The cases run in turns, and a ratio is the median of the ratios within a turn, since other load varies; processor
seconds of one thread hardly depend on it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.measure import PROCESSOR, WALL, in_turns, record
from flame_core.objectives.batch import Moment
from flame_core.params import TrainParams, read_yaml
from flame_core.processes.ranks import ALONE
from flame_core.settings import settings
from flame_core.training.assembly import assemble
from flame_core.training.made_batch import MadeTexts, made_batch
from flame_core.training.step import Step

RECIPES = Path(__file__).parents[1] / "recipes"
HIDDEN = 512
WHOLE = "whole picture"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    parser.add_argument("--cases", type=lambda text: text.split(","), help="default: all")
    options = parser.parse_args()
    device = settings().torch_device()
    if device == "cpu":
        torch.set_num_threads(options.threads)
    one_view = [{"name": "attentive_mask", "mode": "random", "views": 1}]
    made = {
        WHOLE: lambda: step_of("a-clip-baseline", options.batch, device),
        "half of one view": lambda: step_of("a-clip-baseline", options.batch, device, terms=one_view),
        "a-clip-mask": lambda: step_of("a-clip-mask", options.batch, device),
        "a-clip": lambda: step_of("a-clip", options.batch, device),
    }
    cases = {case: make() for case, make in made.items() if case in (options.cases or made)}
    clock = PROCESSOR if device == "cpu" and options.threads == 1 else WALL
    measured = in_turns(cases, options.turns, warm=1 if device == "cpu" else 3, clock=clock)
    for case in cases:
        factor = 1 / measured.ratio(case, WHOLE) if WHOLE in cases else None
        record(
            f"masked_step/{options.batch}",
            case,
            measured.median(case),
            "s a step",
            factor,
            None if factor is None else WHOLE,
        )


def step_of(recipe: str, batch: int, device: str, **changes: object) -> Callable[[], object]:
    """A step of a recipe in this batch size, with one text per picture."""
    few = {"batch_size": batch, "texts_per_image": 1, "precision": "bfloat16" if device == "cuda" else "float32"}
    params = TrainParams.model_validate(read_yaml(RECIPES / f"{recipe}.yaml") | few | changes)
    texts = MadeTexts(params, HIDDEN)
    assembly = assemble(params, texts, facets=1, batch_size=batch, samples=batch).to(device)
    if device == "cuda":
        assembly.tower.compile()
    step, made = Step(assembly, assembly.optimizer(params), params, ALONE, device), made_batch(params, texts, batch)
    made = made.to(device)
    return lambda: step(made, Moment(0, 1, 1))


if __name__ == "__main__":
    main()
