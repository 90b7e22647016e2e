"""Whether a training fits a GPU's memory, and what to set if not."""

from __future__ import annotations

from pathlib import Path

from flame_core.errors import ResourceError
from flame_core.params import TrainParams
from flame_core.text.transformer import TextTower
from flame_core.training.cost import PICTURES, TrainingCost, training_cost
from flame_core.training.loader import TrainingSamples

_GB = 1e9
_SHARE = 0.92  # of the free memory; the rest is lost in the allocator


def require_training_memory(
    params: TrainParams, samples: TrainingSamples, processes: int, free: int, teacher: Path | None = None
) -> None:
    """Refuse, before the first step, a training that will not fit into `free` bytes of a GPU.

    Raises:
        ResourceError: says how much is missing and which setting of the recipe helps.
    """
    encoder = samples.texts.encoder()
    cost = training_cost(
        params,
        samples.texts.hidden,
        samples.slots,
        len(samples),
        processes,
        vocabulary=encoder.tokens.num_embeddings if isinstance(encoder, TextTower) else 1,
        extra=samples.stored(range(PICTURES)),
        teacher=teacher,
        sidecars=samples.sidecar_folders,
    )
    room = int(free * _SHARE)
    if cost.memory <= room:
        return
    parts = ", ".join(f"{name} {size / _GB:.1f}" for name, size in cost.memory_parts.items())
    missing = f"the training needs about {cost.memory / _GB:.1f} GB on a GPU ({parts}), {free / _GB:.1f} GB are free: "
    missing += f"{(cost.memory - room) / _GB:.1f} GB are missing"
    raise ResourceError(f"{missing}. {_advice(params, cost, room)}")


def _advice(params: TrainParams, cost: TrainingCost, room: int) -> str:
    for power in reversed(range(max(cost.held - 1, 1).bit_length())):
        needed = cost.with_micro_batch(1 << power).memory
        if needed <= room:
            size = f"{needed / _GB:.1f} GB; the loss stays that of the whole batch"
            return f"Set train.micro_batch_size to {1 << power} ({size})"
    if not params.model.checkpoint_activations:
        return "Set train.model.checkpoint_activations to true"
    return "Take a smaller train.model.backbone or train.batch_size, or more GPUs (FLAME_TRAIN_PROCESSES)"
