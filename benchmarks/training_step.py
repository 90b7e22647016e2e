"""A training step compared with the reference's, on random pictures: forward, loss, backward, AdamW.

    python -m benchmarks.training_step                               # a small tower on a CPU
    python -m benchmarks.training_step --tower vit_b16 --batch 384   # ViT-B/16 and FLAME's projector on a GPU

slow: eager, fp16 autocast (bf16 on a CPU) with a gradient scaler, activation checkpointing, the CLS token projected
as well, AdamW tensor by tensor. ours: bf16 autocast, fused AdamW, `torch.compile` as a separate case (`--compile`),
and a case in pieces (GradCache). open_clip: what users would use, if it is installed: its ViT-B/16 with its text tower
on 77 tokens and its loss, bf16 autocast, compiled too. A single process exchanges no texts; benchmarks/ddp_scaling.py
measures that.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.measure import in_turns, matmul_ceiling, record
from flame_core.objectives import create_objective
from flame_core.objectives.batch import Batch, Moment
from flame_core.objectives.term import Setup
from flame_core.params import ModelParams, TrainParams
from flame_core.ranks import ALONE
from flame_core.settings import settings
from flame_core.training.assembly import assemble
from flame_core.training.cost import training_cost
from flame_core.training.made_batch import MadeTexts, made_batch
from flame_core.training.step import Step
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", choices=list(TOWERS), default="small")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cases", default="slow way,ours,pieces,compiled,open_clip", type=lambda text: text.split(","))
    options = parser.parse_args()
    device = settings().torch_device()
    model, hidden = TOWERS[options.tower]
    precision = "bfloat16" if device == "cuda" else "float32"
    params = TrainParams(model=model, batch_size=options.batch, precision=precision, kinds=["raw"])
    texts = MadeTexts(params, hidden)
    batch = made_batch(params, texts, options.batch).to(device)

    def ours(**changes: object) -> Callable[[], object]:
        own = TrainParams.model_validate(params.model_dump() | changes)
        assembly = assemble(own, texts, facets=1, batch_size=options.batch, samples=options.batch).to(device)
        if own.compile:
            assembly.tower.compile()
        step = Step(assembly, assembly.optimizer(own), own, ALONE, device)
        return lambda: step(batch, Moment(0, 1, 1))

    made: dict[str, Callable[[], Callable[[], object]]] = {
        "slow way": lambda: slow_way(params, hidden, batch, device),
        "ours": lambda: ours(compile=False),
        "pieces": lambda: ours(compile=False, micro_batch_size=max(1, options.batch // 4)),
    }
    if options.compile:
        made["compiled"] = lambda: ours(compile=True)
        if importlib.util.find_spec("open_clip"):
            made["open_clip"] = lambda: open_clip_step(batch.pictures[:, 0], device)
    cases = {case: make() for case, make in made.items() if case in options.cases}
    measured = in_turns(cases, options.turns, warm=2)
    for case in cases:
        ratio = None if case == "slow way" or "slow way" not in cases else measured.ratio(case, "slow way")
        rate = options.batch / measured.median(case)
        record(f"training_step/{options.tower}", case, rate, "images/s", ratio, ratio and "slow way")
    cost = training_cost(params, hidden, ["raw/1"], options.batch)
    ceiling = matmul_ceiling(device, torch.bfloat16 if device == "cuda" else torch.float32)
    for case in {"ours", "compiled"} & cases.keys():
        achieved = 3 * cost.image.forward_flops * options.batch / measured.median(case)
        record(
            f"training_step/{options.tower}",
            f"{case}, achieved",
            achieved / 1e9,
            "GFLOP/s",
            achieved / ceiling,
            "matmul ceiling",
        )


def slow_way(params: TrainParams, hidden: int, batch: Batch, device: str) -> Callable[[], object]:
    """A step as the reference does it."""
    model = params.model.model_copy(update={"checkpoint_activations": True})
    tower = ImageTower(model, hidden, 1).to(device)
    objective = create_objective(params, Setup(tower, len(batch), len(batch), batch.texts.shape[-1])).to(device)
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


def open_clip_step(pictures: torch.Tensor, device: str) -> Callable[[], object]:
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
