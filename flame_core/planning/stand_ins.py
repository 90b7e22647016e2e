"""What recipes read and stages have yet to make, in the right sizes: so a plan counts the recipes before a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flame_core.data.stand_in_sidecar import StandInSidecar
from flame_core.layout import Layout
from flame_core.params import Params, PromptsParams
from flame_core.text.cost import LLMShape
from flame_core.text.jobs import captions_a_sample
from flame_core.training.cost import PICTURES
from flame_core.training.linked_folders import LinkedFolders

if TYPE_CHECKING:
    from torch import Tensor

    from flame_core.soft_prompts.prompt_head import PromptHeadConfig

_SIDECARS = "sidecars."


@dataclass(frozen=True)
class StandIns:
    """In place of a recipe's links.

    Attributes:
        samples: at most so many are trained on.
        sidecars: by name; without those whose values no term reads.
        prompts: of the prompt head, if the recipe reads one.
    """

    samples: int
    sidecars: Mapping[str, StandInSidecar]
    prompts: PromptHeadConfig | None

    def write(self, folder: Path) -> tuple[dict[str, Tensor], LinkedFolders]:
        """Make them in a folder: the values by sidecar, and where all of them lie."""
        import torch

        from flame_core.soft_prompts.prompt_head import PromptHead

        values = {name: torch.from_numpy(each.values) for name, each in self.sidecars.items()}
        sidecars = {name: each.write(folder / name) for name, each in self.sidecars.items()}
        if self.prompts is not None:
            PromptHead(self.prompts).save(folder)
        return values, LinkedFolders(sidecars=sidecars, prompts=folder if self.prompts else None)


def stand_ins(
    params: Params, layout: Layout, shape: LLMShape, linked: Mapping[str, Path], images: int
) -> StandIns | None:
    """Stand-ins for all links of a recipe, or None if stages of these params do not make all of them."""
    samples, sidecars, prompts = images, {}, None
    for what, path in linked.items():
        if what == "selection":
            samples = _selected(params, layout, path, images)
            if samples is None:
                return None
        elif what == "init":
            continue  # whose values cost nothing
        elif what == "sampling" and path in _drawn_by(params, layout):
            continue  # which samples are drawn changes no size
        elif what == "prompts" and path == layout.prompts and params.prompts:
            prompts = _head(params.prompts, shape, params.llm.name)
        elif what.startswith(_SIDECARS) and path == layout.noise and params.noise:
            continue  # whose order is no term's
        elif what.startswith(_SIDECARS) and (made := _sidecar(params, layout, shape, path)):
            sidecars[what.removeprefix(_SIDECARS)] = made
        else:
            return None
    return StandIns(samples, sidecars, prompts)


def _drawn_by(params: Params, layout: Layout) -> list[Path]:
    """What stages of these params make that samples can be drawn by."""
    scores = [layout.score(name) for name in params.scores.scorers] if params.scores else []
    return [*scores, *([layout.concepts, layout.concept_weights] if params.concepts else [])]


def _selected(params: Params, layout: Layout, path: Path, images: int) -> int | None:
    """How many samples a selection has, at most; None if no stage of these params makes it."""
    if path.parent == layout.selections and params.select and path.stem in params.select.selections:
        return params.select.selections[path.stem].budget(images)
    if path.parent == layout.scores and params.scores and path.stem in params.scores.selections:
        tops = [rule.top for rule in params.scores.selections[path.stem].values() if rule.top is not None]
        return round(min(tops, default=1.0) * images)
    return images if path.parent == layout.semdedup and params.semdedup else None


def _sidecar(params: Params, layout: Layout, shape: LLMShape, path: Path) -> StandInSidecar | None:
    if path == layout.clusters and params.cluster:
        from flame_core.clustering.cost import clusters_stand_in

        return clusters_stand_in(params.cluster, shape.hidden, PICTURES)
    if path == layout.lexical and params.lexical:
        from flame_core.lexical.cost import words_stand_in

        captions = sum(captions_a_sample(kind, params.text) for kind in params.lexical.kinds)
        return words_stand_in(params.lexical, shape, captions, PICTURES)
    if path == layout.features and params.features:
        from flame_core.codes.tower_shape import model_shape
        from flame_core.scoring.picture_passes_cost import features_stand_in

        return features_stand_in(params.features, model_shape(params.features.model).dims, PICTURES)
    return None


def _head(chosen: PromptsParams, shape: LLMShape, llm: str) -> PromptHeadConfig:
    from flame_core.soft_prompts.prompt_head import PromptHeadConfig

    return PromptHeadConfig(
        prompts=chosen.count,
        vector=shape.hidden,
        hidden=shape.hidden,
        width=chosen.width,
        scale=1.0,
        llm="",
        llm_name=llm,
        template=chosen.template,
        max_tokens=chosen.max_tokens,
    )
