"""A step on 1, 2 and 4 gloo processes: exchanging images (ours) against exchanging texts (as the reference does).

    python -m benchmarks.ddp_scaling

Every process has one thread, and the batch per process stays the same, so with as many free cores as processes the time
per step would stay the same. `texts` gathers K = 6 text vectors per image, `images` one.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
from pathlib import Path

import torch
from torch import multiprocessing

from benchmarks.measure import in_turns, record
from flame_core.objectives.batch import Moment
from flame_core.params import TrainParams
from flame_core.processes.ranks import Ranks, join
from flame_core.training.assembly import assemble
from flame_core.training.made_batch import MadeTexts, made_batch
from flame_core.training.step import Step

OPTIONS = {"img_size": 48, "patch_size": 8, "embed_dim": 192, "depth": 2, "num_heads": 3}
HIDDEN, OWN = 2048, 32


def child(rank: int, world: int, port: int, turns: int, out: Path) -> None:
    """One process: time a step, and only the exchange in both ways."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    params = TrainParams.model_validate(
        {"model": {"backbone_options": OPTIONS, "image_size": 48}, "precision": "float32", "batch_size": OWN * world}
    )
    with join("cpu") as ranks:
        texts = MadeTexts(params, HIDDEN)
        assembly = assemble(params, texts, facets=1, batch_size=OWN * world, samples=OWN * world)
        step = Step(assembly, assembly.optimizer(params), params, ranks, "cpu")
        batch, at = made_batch(params, texts, OWN), Moment(0, 1, 1)
        z = batch.texts[:, 0].clone().requires_grad_()
        cases = {
            "step": lambda: step(batch, at),
            "images": lambda: exchange_images(ranks, z),
            "texts": lambda: ranks.gather(batch.texts),
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
