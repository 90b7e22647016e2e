"""Whether a GPU has room for a training, and what to set if it has not."""

from __future__ import annotations

from flame_core.errors import ResourceError
from flame_core.params import TrainParams
from flame_core.training.cost import ImageCost, image_cost

_GB = 1e9
_SHARE = 0.92  # of the free memory: the allocator's own losses


def require_training_memory(
    params: TrainParams, hidden: int, facets: int, samples: int, processes: int, free: int
) -> None:
    """Refuse, before the first step, a training that will not fit `free` bytes of a GPU.

    Raises:
        ResourceError: says how much is missing and which setting of the recipe helps.
    """
    cost = image_cost(params, hidden, facets, samples, processes)
    room = int(free * _SHARE)
    if cost.memory <= room:
        return
    missing = f"the training needs about {cost.memory / _GB:.1f} GB on a GPU, {free / _GB:.1f} GB are free: "
    missing += f"{(cost.memory - room) / _GB:.1f} GB are missing"
    raise ResourceError(f"{missing}. {_advice(params, cost, room)}")


def _advice(params: TrainParams, cost: ImageCost, room: int) -> str:
    fits = (room - cost.fixed_bytes - cost.loss_bytes) // max(1, cost.activation_bytes)
    if fits >= 1:
        micro = 1 << (int(fits).bit_length() - 1)
        now = cost.with_micro_batch(micro).memory
        return f"Set train.micro_batch_size to {micro} ({now / _GB:.1f} GB; the loss stays that of the whole batch)"
    if not params.model.checkpoint_activations:
        return "Set train.model.checkpoint_activations to true"
    return "Take a smaller train.model.backbone or train.batch_size, or more GPUs (FLAME_TRAIN_PROCESSES)"
