"""The cost of a training step of LIFT, against CLIP's at 77 and 323 tokens: FLOPs, memory and time.

    python -m benchmarks.lift_cost                 # counted as `flame plan` counts, ViT-B/16 at 224 px
    python -m benchmarks.lift_cost --measure       # and measured: steps of ViT-B/16 on one thread of a CPU
    python -m benchmarks.lift_cost --measure --batch 256        # on a GPU: in bfloat16, image towers compiled

LIFT's claim (arXiv 2506.04209): 25.5 % fewer FLOPs and 6.8 % less memory than CLIP on short captions of 77 tokens,
35.7 % and 12.6 % on long ones of 323. Its count leaves out the LLM that embeds the captions once, and so does this one.

Both have a ViT-B/16, a pooled head, InfoNCE and one caption per picture. LIFT's head leads into the 4,096 dimensions of
its LLM; CLIP's into 512, and CLIP also trains its text tower: 12 blocks of width 512 with 8 heads, its vocabulary of
49,408 tokens, every caption at its full length. Nothing is recomputed in backward.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks.measure import PROCESSOR, WALL, in_turns, record
from flame_core.objectives.batch import Moment
from flame_core.params import TrainParams
from flame_core.processes.ranks import ALONE
from flame_core.settings import settings
from flame_core.training.assembly import assemble
from flame_core.training.cost import training_cost
from flame_core.training.cost_figures import TrainingCost
from flame_core.training.made_batch import MadeTexts, made_batch
from flame_core.training.step import Step

LIFT = "LIFT"
LENGTHS = (77, 323)
CASES = (LIFT, *(f"CLIP at {length} tokens" for length in LENGTHS))
VOCABULARY = 49_408
BATCH, PROCESSES = 16_384, 16  # LIFT's batch; on how many GPUs it ran is not known
SLOTS = ["raw/1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--batch", type=int, default=4, help="pictures per measured step")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(peak_of_steps(options.child, options.batch))
        return
    device = settings().torch_device()
    costs = {case: count(case, BATCH, PROCESSES) for case in CASES}
    flops = {case: sum(cost.step_flops.values()) / BATCH for case, cost in costs.items()}
    report("FLOPs per picture, counted", "GFLOP", flops)
    memory = {case: cost.memory for case, cost in costs.items()}
    report(f"memory at {BATCH // PROCESSES:,} pictures a process, counted", "GB", memory)
    if options.measure:
        torch.set_num_threads(1)
        few = f"memory at {options.batch} pictures"
        report(f"{few}, counted", "GB", {case: count(case, options.batch, 1).memory for case in CASES})
        report(few, "GB", {case: in_child(case, options.batch) for case in CASES})
        time = "processor time" if device == "cpu" else "time"
        report(f"{time} of a step of {options.batch}", "s", seconds(options.batch, options.turns, device))


def recipe(case: str, batch: int) -> tuple[TrainParams, int]:
    """The recipe of a case, and the dimensions of its texts' space."""
    values = {
        "model": {"head": "pooled"},
        "objective": {"name": "infonce"},
        "texts_per_image": 1,
        "batch_size": batch,
        "compile": False,  # only where `step_of` says so
        "precision": "bfloat16" if batch == BATCH or settings().torch_device() == "cuda" else "float32",
    }
    if case == LIFT:
        return TrainParams.model_validate(values), 4096
    length = int(re.sub(r"\D", "", case))
    return TrainParams.model_validate(values | {"text_tower": {"max_tokens": length}}), 512


def count(case: str, batch: int, processes: int) -> TrainingCost:
    """The cost of a case, as `flame plan` counts it."""
    params, hidden = recipe(case, batch)
    return training_cost(params, hidden, SLOTS, batch, processes, VOCABULARY)


def step_of(case: str, batch: int, device: str, *, compiled: bool = False) -> Callable[[], object]:
    """A real step of a case on random pictures and captions."""
    params, hidden = recipe(case, batch)
    texts = MadeTexts(params, hidden, VOCABULARY)
    assembly = assemble(params, texts, facets=1, batch_size=batch, samples=batch).to(device)
    if compiled:
        assembly.tower.compile()
    step, made = Step(assembly, assembly.optimizer(params), params, ALONE, device), made_batch(params, texts, batch)
    made = made.to(device)
    return lambda: step(made, Moment(0, 2, 2))


def seconds(batch: int, turns: int, device: str) -> dict[str, float]:
    """Seconds per step, on a CPU of its processor; the cases run in turns in one process."""
    cases = {case: step_of(case, batch, device, compiled=device == "cuda") for case in CASES}
    measured = in_turns(cases, turns, warm=1 if device == "cpu" else 3, clock=PROCESSOR if device == "cpu" else WALL)
    return {case: measured.median(case) for case in CASES}


def in_child(case: str, batch: int) -> int:
    """Bytes that two steps need in a separate process, beyond what any process needs."""
    command = [sys.executable, "-m", "benchmarks.lift_cost", "--child", case, "--batch", str(batch)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def peak_of_steps(case: str, batch: int) -> int:
    """The peak memory of two steps: on a GPU its allocated memory, else that of this process minus what it held."""
    device = settings().torch_device()
    torch.set_num_threads(1)
    torch.mm(torch.rand(64, 64), torch.rand(64, 64))
    before = status("VmRSS")
    step = step_of(case, batch, device)
    for _ in range(2):
        step()
    return torch.cuda.max_memory_allocated() if device == "cuda" else status("VmHWM") - before


def status(name: str) -> int:
    """Bytes of an entry in this process's `/proc` status."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def report(what: str, unit: str, figures: Mapping[str, float]) -> None:
    """Record one line per case; LIFT's once against each length of CLIP."""
    for case, figure in figures.items():
        if case != LIFT:
            scale = 1e9 if unit.startswith("G") else 1
            record("lift_cost", f"{case}: {what}", figure / scale, unit)
            record("lift_cost", f"{LIFT}: {what}", figures[LIFT] / scale, unit, figures[LIFT] / figure, case)


if __name__ == "__main__":
    main()
