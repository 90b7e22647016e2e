"""Whether a training fits a GPU's memory, in how many pieces, and what to set if not."""

from __future__ import annotations

import logging

from flame_core.errors import ResourceError
from flame_core.params import TrainParams
from flame_core.processes.gpu import USABLE_SHARE
from flame_core.quantities import size_text
from flame_core.text.cost import LLMShape
from flame_core.text.transformer import TextTower
from flame_core.training.adapted_cost import ReadLLM
from flame_core.training.adapted_llm import AdaptedSamples
from flame_core.training.cost import PICTURES, training_cost
from flame_core.training.cost_figures import TrainingCost
from flame_core.training.linked_folders import UNLINKED, LinkedFolders
from flame_core.training.loader import TrainingSamples

log = logging.getLogger(__name__)


def fitted_training(
    params: TrainParams,
    samples: TrainingSamples,
    processes: int,
    free: int,
    linked: LinkedFolders = UNLINKED,
) -> tuple[TrainParams, TrainingCost]:
    """The recipe and its cost, in pieces that fit into `free` bytes of a GPU if the recipe sets none.

    Pieces change a result only by rounding, unless the towers draw at random; then the recipe itself must set them.

    Raises:
        ResourceError: it does not fit; says how much is missing and which setting of the recipe helps.
    """
    texts, llm = samples.texts, None
    if isinstance(texts, AdaptedSamples):
        llm = ReadLLM.of(texts.text, LLMShape.in_folder(texts.llm.folder))
    encoder = texts.encoder() if llm is None else None  # an LLM is not loaded only to count it
    cost = training_cost(
        params,
        samples.texts.hidden,
        samples.slots,
        len(samples),
        processes,
        vocabulary=encoder.tokens.num_embeddings if isinstance(encoder, TextTower) else 1,
        extra=samples.stored(range(PICTURES)),
        linked=linked,
        llm=llm,
    )
    room = int(free * USABLE_SHARE)
    if cost.memory <= room:
        return params, cost
    parts = ", ".join(f"{name} {size_text(held)}" for name, held in cost.memory_parts.items())
    missing = f"the training needs about {size_text(cost.memory)} on a GPU ({parts}), {size_text(free)} are free: "
    missing += f"{size_text(cost.memory - room)} are missing"
    micro = _micro_batch(cost, room)
    if micro is None:
        raise ResourceError(f"{missing}. {_advice(params)}")
    needed = f"{size_text(cost.with_micro_batch(micro).memory)}; the loss stays that of the whole batch"
    if params.micro_batch_size is not None or cost.draws:
        raise ResourceError(f"{missing}. Set train.micro_batch_size to {micro} ({needed})")
    log.info("gradients are computed in pieces of %d pictures: %s", micro, needed)
    return params.model_copy(update={"micro_batch_size": micro}), cost.with_micro_batch(micro)


def _micro_batch(cost: TrainingCost, room: int) -> int | None:
    """The largest power of two of pictures, fewer than now, whose graphs fit; None if one is too many."""
    powers = [1 << power for power in reversed(range(max(cost.held - 1, 1).bit_length()))]
    return next((size for size in powers if cost.with_micro_batch(size).memory <= room), None)


def _advice(params: TrainParams) -> str:
    if params.lora is not None and not params.lora.checkpoint_activations:
        return "Set train.lora.checkpoint_activations to true"
    if not params.model.checkpoint_activations:
        return "Set train.model.checkpoint_activations to true"
    return "Take a smaller train.model.backbone or train.batch_size, or more GPUs (FLAME_TRAIN_PROCESSES)"
