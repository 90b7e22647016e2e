"""The parts of a training, made from a recipe: towers, objective, optimiser."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from flame_core.errors import ParamsError
from flame_core.lexical.lexicon import Lexicon, read_lexicon
from flame_core.objectives import create_objective, recipe_needs, term_faults, term_needs
from flame_core.objectives.batch import Moment
from flame_core.objectives.objective import Objective
from flame_core.objectives.term import Setup
from flame_core.params import LexicalLossParams, TrainParams
from flame_core.soft_prompts.prompt_head import PromptHead
from flame_core.training.adapted_llm import AdaptedLLM
from flame_core.training.linked_folders import UNLINKED, LinkedFolders
from flame_core.training.texts import TrainingTexts
from flame_core.training.weight_groups import create_optimizer, freeze
from flame_core.vision.frozen_backbone import freeze_backbone, require_statistics
from flame_core.vision.image_encoder import load_tower
from flame_core.vision.inheritance import begun_with, inherit
from flame_core.vision.initial_weights import load_initial_weights
from flame_core.vision.lexical_head import LexicalHead
from flame_core.vision.masked_tower import fit, prune
from flame_core.vision.tower import ImageTower, require_features

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assembly:
    """Everything that a training changes.

    Attributes:
        tower: the image tower.
        text_tower: None if texts are stored vectors.
        objective: the terms, with their heads and tables.
    """

    tower: ImageTower
    text_tower: nn.Module | None
    objective: Objective

    def towers(self) -> nn.ModuleDict:
        """The modules that become the model: the image tower, then the text tower."""
        towers: dict[str, nn.Module] = {"image": self.tower}
        if self.text_tower is not None:
            towers["text"] = self.text_tower
        return nn.ModuleDict(towers)

    def optimizer(self, params: TrainParams) -> torch.optim.AdamW:
        """AdamW over all trained parameters."""
        return create_optimizer(self.towers(), self.objective, params)

    def prune(self, at: Moment) -> bool:
        """Prune the image tower if it is time to; its weights are new parameters then, which need a new optimiser."""
        masks = self.objective.pruning(at)
        if masks is not None:
            prune(self.tower, masks)
        return masks is not None

    def to(self, device: str) -> Assembly:
        """Move everything to a device; returns itself."""
        for module in (self.towers(), self.objective):
            module.to(device)
        return self

    def state(self) -> dict[str, Tensor]:
        """Weights, buffers and the objective's state for a checkpoint, by name."""
        frozen = self._frozen_names()
        towers = {name: value for name, value in self._tower_state().items() if name not in frozen}
        objective = self.objective.state()
        return {**towers, **{f"objective.{name}": value for name, value in objective.items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state` returned."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        fit(self.tower, part("towers.image."))
        own = self._tower_state()
        kept = {name.removeprefix("towers."): own[name] for name in self._frozen_names()}
        self.towers().load_state_dict({**kept, **part("towers.")})
        self.objective.load_state(part("objective."))

    def _tower_state(self) -> dict[str, Tensor]:
        return self.towers().state_dict(prefix="towers.")

    def _frozen_names(self) -> set[str]:
        """Names of weights that no checkpoint holds: those of an LLM with adapters."""
        if not isinstance(self.text_tower, AdaptedLLM):
            return set()
        return {f"towers.text.{name}" for name in self.text_tower.frozen_names()}


def assemble(
    params: TrainParams,
    texts: TrainingTexts,
    facets: int,
    batch_size: int,
    samples: int,
    linked: LinkedFolders = UNLINKED,
) -> Assembly:
    """A recipe's towers and objective, initialised from its seed and from the model that it inherits from.

    Args:
        params: the recipe.
        texts: determine the dimensions of the texts' space and whether a text tower is trained.
        facets: F, how many facets a picture may have.
        batch_size: pictures per step, over all ranks.
        samples: how many are trained on.
        linked: what the recipe is linked to.

    Raises:
        ParamsError: the terms read what the backbone does not have or do not suit the recipe,
            `optimizer.multipliers` names no weight, or the tower cannot inherit from that model.
        InputError: a term cannot use what lies beside the values of a sidecar.
    """
    inherited = linked.inherited
    source = None if params.inherit is None or inherited is None else load_tower(inherited)[0]
    model = begun_with(params.model, source) if source is not None and params.learns_masks else params.model
    torch.manual_seed(params.seed)
    lexicon = _lexicon(params, linked.sidecars)
    head = None if linked.prompts is None else PromptHead.load(linked.prompts).config
    words, dims = 0 if lexicon is None else len(lexicon.vocabulary), None if head is None else head.hidden
    tower = ImageTower(model, texts.hidden, facets, words, dims)
    require_statistics(tower.backbone, params)
    if params.model.head == "none" and (width := tower.backbone.num_features) != texts.hidden:
        raise ParamsError(
            f"model.head none keeps the backbone's vectors: set it to {width}", key="train.text_projection.dim"
        )
    if head is not None and tower.connector is not None:
        tower.connector.start_at(head.scale)
    if lexicon is not None and isinstance(tower.projector, LexicalHead):
        tower.projector.start_from(lexicon.rows)
    for name, needs in term_needs(params).items():
        require_features(tower.backbone, needs.reads, f"train: the term {name}")
    for _, fault in term_faults(params, tower):
        raise ParamsError(f"train: {fault}")
    if params.inherit is not None and source is not None:
        inherit(tower, source, params.inherit)
    if params.model.init is not None and inherited is not None:
        own = tower.projector.layers
        load_initial_weights(tower.backbone, inherited, own if isinstance(own, nn.Linear) else None)
    text_tower = texts.encoder()
    needs = recipe_needs(params)
    if "z" not in needs.reads:  # nothing reaches the head, and ranks would wait for its gradients
        tower.head_parts().requires_grad_(False)
        if params.inherit is None and params.model.head != "none":
            log.warning(
                "no term compares pictures with texts or a teacher's, so the head keeps its first weights: retrieval "
                "and zero-shot say nothing of this model; another recipe may begin with its backbone (inherit)"
            )
    if params.teacher is not None and not (needs.taught or "text_distillation" in term_needs(params)):
        log.warning("no term of the recipe learns from the teacher: add one, or remove teacher")
    setup = Setup(
        tower,
        batch_size,
        samples,
        texts.hidden,
        teacher=linked.teacher,
        micro_batch_size=params.micro_batch_size,
        sidecars=linked.sidecars,
        steps=params.schedule(samples).steps,
        trained_words=params.lora is not None,
        prompts=linked.prompts,
        reading=params.reading,
    )
    assembly = Assembly(tower, text_tower, create_objective(params, setup))
    freeze(assembly.towers(), params.optimizer.multipliers)
    freeze_backbone(tower.backbone, params.model.train)
    return assembly


def _lexicon(params: TrainParams, sidecars: Mapping[str, Path]) -> Lexicon | None:
    """The words that a recipe's pictures are mapped to; None for a head without words."""
    loss = params.objective
    return read_lexicon(sidecars[loss.words]) if isinstance(loss, LexicalLossParams) else None
