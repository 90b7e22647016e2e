"""A training step compared with the reference's, on random pictures: forward, loss, backward, AdamW.

    python -m benchmarks.training_step                               # a small tower on a CPU
    python -m benchmarks.training_step --tower vit_b16 --batch 384   # ViT-B/16 and FLAME's projector on a GPU
    python -m benchmarks.training_step --tower vit_b16 --batch 384 --cases compiled,flash --profile compiled

Cases:

    slow way     eager, fp16 autocast (bf16 on a CPU) with a gradient scaler, activation checkpointing, the CLS token
                 projected as well, AdamW tensor by tensor
    ours         bf16 autocast, fused AdamW, eager
    pieces       the same in four pieces (GradCache); pieces that fit into the GPU's memory keep their graphs
    compiled     the same with `torch.compile`, as trainings run on a GPU
    as written   compiled, without folded norms and with all three products of the projector's second layer
    flash        compiled, with flash attention instead of cuDNN's
    cuda graphs  compiled, its kernels launched as CUDA graphs
    autotuned    compiled, the code of matrix products chosen by trying (minutes)
    bf16 weights compiled, all weights in bf16: a bound for what keeping them in float32 costs, not a training
    open_clip    what users would use, if it is installed: its ViT-B/16 with its text tower on 77 tokens and its loss,
                 bf16 autocast, compiled

`--profile CASE` also records where the GPU's time goes in a step of that case, by class of kernel, and prints its
longest kernels. A single process exchanges no texts; benchmarks/ddp_scaling.py measures that.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.kernel_profile import by_class, longest, profile
from benchmarks.measure import in_turns, matmul_ceiling, record
from flame_core.objectives import create_objective
from flame_core.objectives.batch import Batch, Moment
from flame_core.objectives.term import Setup
from flame_core.params import ModelParams, TrainParams
from flame_core.processes.ranks import ALONE
from flame_core.settings import settings
from flame_core.training.assembly import assemble
from flame_core.training.cost import training_cost
from flame_core.training.made_batch import MadeTexts, made_batch
from flame_core.training.step import Step
from flame_core.vision.folded_norms import FoldedNorm, LinearAfterNorm
from flame_core.vision.projector import PatchProjector
from flame_core.vision.tower import ImageTower

TOWERS = {
    "vit_b16": (ModelParams(), 5120),
    "small": (
        ModelParams(
            backbone_options={"img_size": 48, "patch_size": 8, "embed_dim": 192, "depth": 6, "num_heads": 3},
            image_size=48,
        ),
        576,
    ),
}
PROFILED_STEPS = 3
Run = Callable[[], object]


@dataclass(frozen=True)
class Steps:
    """Steps of this project's own engine on a batch, in several ways."""

    params: TrainParams
    texts: MadeTexts
    batch: Batch
    device: str

    def ours(
        self,
        mode: str | None = None,
        *,
        pieces: int = 1,
        as_written: bool = False,
        attention: SDPBackend | None = None,
        low: bool = False,
    ) -> Run:
        """A step, compiled in this mode of `torch.compile`, or eager if there is none."""
        size = len(self.batch)
        micro = None if pieces == 1 else max(1, size // pieces)
        own = self.params.model_copy(update={"micro_batch_size": micro, "compile": False})  # only as `mode` says
        assembly = assemble(own, self.texts, facets=1, batch_size=size, samples=size).to(self.device)
        if as_written:
            write_out(assembly.tower)
        if low:
            assembly.tower.bfloat16()
        if mode is not None:
            assembly.tower.compile(mode=mode)
        step = Step(assembly, assembly.optimizer(own), own, ALONE, self.device)

        def run() -> None:
            with nullcontext() if attention is None else sdpa_kernel([attention, SDPBackend.MATH]):
                step(self.batch, Moment(0, 1, 1))

        return run

    def slow_way(self) -> Run:
        """A step as the reference does it."""
        batch, device = self.batch, self.device
        model = self.params.model.model_copy(update={"checkpoint_activations": True})
        tower = ImageTower(model, self.texts.hidden, 1)
        write_out(tower)
        tower.to(device)
        setup = Setup(tower, len(batch), len(batch), batch.texts.shape[-1])
        objective = create_objective(self.params, setup).to(device)
        optimizer = torch.optim.AdamW([*tower.parameters(), *objective.parameters()], foreach=False)
        scaler = torch.amp.GradScaler(device, enabled=device == "cuda")

        def step() -> None:
            optimizer.zero_grad()
            with torch.autocast(device, torch.float16, enabled=device == "cuda"):
                tokens = tower.projector.layers(tower.backbone.forward_features(batch.pictures[:, 0]))  # with CLS
                z = F.normalize(tokens[:, tower.backbone.num_prefix_tokens :].mean(dim=1).float(), dim=-1)
            (loss,) = objective({"z": z[:, None, None], "t": batch.texts}, batch, ALONE).values()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            loss.item()

        return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", choices=list(TOWERS), default="small")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--cases",
        type=lambda text: text.split(","),
        help="default: slow way,ours,pieces, and on a GPU compiled,open_clip",
    )
    parser.add_argument("--profile", help="a case whose kernels are recorded, on a GPU")
    options = parser.parse_args()
    device = settings().torch_device()
    model, hidden = TOWERS[options.tower]
    precision = "bfloat16" if device == "cuda" else "float32"
    params = TrainParams(model=model, batch_size=options.batch, precision=precision, kinds=["raw"])
    texts = MadeTexts(params, hidden)
    steps = Steps(params, texts, made_batch(params, texts, options.batch).to(device), device)
    made: dict[str, Callable[[], Run]] = {
        "slow way": steps.slow_way,
        "ours": steps.ours,
        "pieces": lambda: steps.ours(pieces=4),
        "compiled": lambda: steps.ours("default"),
        "as written": lambda: steps.ours("default", as_written=True),
        "flash": lambda: steps.ours("default", attention=SDPBackend.FLASH_ATTENTION),
        "cuda graphs": lambda: steps.ours("reduce-overhead"),
        "autotuned": lambda: steps.ours("max-autotune-no-cudagraphs"),
        "bf16 weights": lambda: steps.ours("default", low=True),
        "open_clip": lambda: open_clip_step(steps.batch.pictures[:, 0], device),
    }
    usual = ["slow way", "ours", "pieces"] + (["compiled", "open_clip"] if device == "cuda" else [])
    wanted = options.cases or usual
    if unknown := [case for case in [*wanted, *([options.profile] if options.profile else [])] if case not in made]:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(made)}")
    if options.profile and options.profile not in wanted:
        parser.error(f"--profile {options.profile} is not among the cases {', '.join(wanted)}")
    if "open_clip" in wanted and not importlib.util.find_spec("open_clip"):
        print("open_clip is left out: it is not installed", flush=True)
        wanted.remove("open_clip")
    cases = {case: warmed(case, made[case]()) for case in wanted}
    measured = in_turns(cases, options.turns)
    name = f"training_step/{options.tower}"
    for case in cases:
        ratio = None if case == "slow way" or "slow way" not in cases else measured.ratio(case, "slow way")
        rate = options.batch / measured.median(case)
        record(name, case, rate, "images/s", ratio, None if ratio is None else "slow way")
    cost = training_cost(params, hidden, ["raw/1"], options.batch)
    ceiling = matmul_ceiling(device, torch.bfloat16 if device == "cuda" else torch.float32)
    for case in [case for case in cases if case not in ("slow way", "open_clip")]:
        achieved = 3 * cost.image.forward_flops * options.batch / measured.median(case)
        record(name, f"{case}, achieved", achieved / 1e9, "GFLOP/s", achieved / ceiling, "matmul ceiling")
    if options.profile and device == "cuda":
        record_profile(name, options.profile, cases[options.profile], measured.median(options.profile))


def warmed(case: str, run: Run) -> Run:
    """The same after two steps, of which the first compiles."""
    start = time.perf_counter()
    for _ in range(2):
        run()
    print(f"{case}: the first two steps took {time.perf_counter() - start:.0f} s", flush=True)
    return run


def record_profile(name: str, case: str, run: Run, seconds: float) -> None:
    """Record where the time of a step of `seconds` goes, and print its longest kernels as one line of JSON."""
    events = profile(run, PROFILED_STEPS)
    for kind, milliseconds in by_class(events, PROFILED_STEPS).items():
        record(name, f"{case}, {kind}", milliseconds, "ms a step", milliseconds / 1e3 / seconds, "the step")
    print(json.dumps({"case": case, "kernels": longest(events, PROFILED_STEPS)}), flush=True)


def write_out(tower: ImageTower) -> None:
    """Undo in a tower what only saves time on a GPU: folded norms, and fewer products in the projector."""
    usual = {FoldedNorm: nn.LayerNorm, LinearAfterNorm: nn.Linear, PatchProjector: TokenByToken}
    modules: list[Any] = list(tower.modules())
    for module in modules:
        module.__class__ = usual.get(type(module), type(module))


class TokenByToken(PatchProjector):
    """A projector that computes every token to its end."""

    def _mean(self, patches: torch.Tensor) -> torch.Tensor:
        return self._project(patches).mean(dim=1, keepdim=True)


def open_clip_step(pictures: torch.Tensor, device: str) -> Run:
    """A step of open_clip's ViT-B/16 CLIP on the same pictures, with captions of 77 tokens."""
    import open_clip

    model = open_clip.create_model("ViT-B-16").to(device)
    loss_of = open_clip.ClipLoss()
    optimizer = torch.optim.AdamW(model.parameters(), fused=device == "cuda")
    texts = torch.randint(1, 40_000, (len(pictures), 77), device=device)
    compiled = torch.compile(model)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            z, t, scale = compiled(pictures, texts)
            loss = loss_of(z, t, scale)
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
