"""A step over 1, 2 and 4 gloo processes: images exchanged (ours) against texts exchanged (the reference's way).

    python -m benchmarks.ddp_scaling

Every process has one thread, and the batch a process holds stays the same; so with as many free cores as processes
the time of a step would stay the same. `texts` gathers K = 6 text vectors an image, `images` one.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
from pathlib import Path

import torch
from torch import multiprocessing
from torch.nn import functional as F

from benchmarks.measure import in_turns, record
from flame_core.objectives import create_objective
from flame_core.params import MultiPositiveSigmoidParams, TrainParams
from flame_core.ranks import Ranks, join
from flame_core.training.schedule import create_optimizer
from flame_core.training.step import Step
from flame_core.vision.tower import ImageTower

OPTIONS = {"img_size": 48, "patch_size": 8, "embed_dim": 192, "depth": 2, "num_heads": 3}
HIDDEN, TEXTS, OWN = 2048, 6, 32


def child(rank: int, world: int, port: int, turns: int, out: Path) -> None:
    """One process: time a step, and the exchange alone both ways."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    params = TrainParams.model_validate(
        {"model": {"backbone_options": OPTIONS, "image_size": 48}, "precision": "float32", "batch_size": OWN * world}
    )
    with join("cpu") as ranks:
        tower = ImageTower(params.model, HIDDEN, 1)
        objective = create_objective(MultiPositiveSigmoidParams(), OWN * world)
        step = Step(
            ranks.wrap(tower), None, objective, create_optimizer(tower, objective, params), params, ranks, "cpu"
        )
        t = F.normalize(torch.randn(OWN, TEXTS, HIDDEN), dim=-1)
        z = t[:, 0].clone().requires_grad_()
        batch = torch.randn(OWN, 3, 48, 48), t, torch.ones(OWN, TEXTS)
        cases = {
            "step": lambda: step(*batch),
            "images": lambda: exchange_images(ranks, z),
            "texts": lambda: ranks.gather(t),
        }
        measured = in_turns(cases, turns)
    if rank == 0:
        torch.save(measured, out)


def exchange_images(ranks: Ranks, z: torch.Tensor) -> None:
    """Forward and backward of the exchange of images."""
    ranks.gather(z).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    alone = 0.0
    for world in (1, 2, 4):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with tempfile.TemporaryDirectory() as name:
            out = Path(name) / "measured.pt"
            multiprocessing.spawn(child, (world, port, options.turns, out), nprocs=world)
            measured = torch.load(out, weights_only=False)
        rate = world * OWN / measured.median("step")
        alone = alone or rate
        record("ddp_scaling", f"{world} processes", rate, "images/s", rate / alone, "one process")
        if world > 1:
            record(
                "ddp_scaling", f"{world} processes, images", measured.median("images") * 1e3, "ms",
                measured.ratio("images", "texts"), "texts exchanged",
            )  # fmt: skip


if __name__ == "__main__":
    main()
