"""What the stages of optional sections cost, for `flame plan` and `flame status`: {stage: {title: values}}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from flame_core.concepts.concept_cost import concept_section
from flame_core.errors import InputError
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.params import CaptionKind, CaptionLMParams, Params, SemDedupParams
from flame_core.planning.start import Given
from flame_core.text.cost import LLMShape
from flame_core.text.jobs import captions_a_sample

_TIMES = ("time of one core", "time of the tower", "time of the models", "time")
_PATCHES = 196  # of a picture whose tower is not there yet


def section_costs(params: Params, layout: Layout, images: int, tflops: float) -> dict[str, dict[str, dict[str, str]]]:
    """The costs of optional stages, as far as params have them and they are counted here, for so many pictures."""
    found = {}
    if params.concepts is not None:
        found["concepts"] = concept_section(params.concepts, images)
    if params.codes is not None:
        from flame_core.codes.tower_shape import codes_shape
        from flame_core.selections.selection_cost import codes_section, select_section

        tower = codes_shape(params, params.codes, layout)
        found["codes"] = codes_section(params.codes, images, tower, tflops)
        if params.select is not None:
            patches = _PATCHES if isinstance(tower, str) else tower.patches
            found["select"] = select_section(params.select, images, params.codes.codes, patches)
    if params.noise is not None:
        from flame_core.selections.selection_cost import noise_section

        found["noise"] = noise_section(params.noise, images)
    if params.features is not None:
        from flame_core.codes.tower_shape import model_shape
        from flame_core.scoring.picture_passes_cost import features_section

        found["features"] = features_section(params.features, images, model_shape(params.features.model), tflops)
    if params.semdedup is not None:
        from flame_core.selections.selection_cost import semdedup_section

        dims = _dims_of_vectors(params, params.semdedup, layout)
        found["semdedup"] = semdedup_section(params.semdedup, images, dims)
    if params.scores is not None:
        from flame_core.codes.tower_shape import scorer_shapes
        from flame_core.scoring.picture_passes_cost import scores_section

        found["scores"] = scores_section(params.scores, images, scorer_shapes(params, params.scores, layout), tflops)
    if params.tune is not None:
        from flame_core.codes.tower_shape import recipe_shape
        from flame_core.tuning.cost import tune_section

        shapes = {name: recipe_shape(params.train[name]) for name in (*params.tune.recipes, *params.tune.probed)}
        towers = {name: (shape.flops, shape.dims) for name, shape in shapes.items()}
        found["tune"] = tune_section(params.tune, images, towers, tflops)
    return found


def _dims_of_vectors(params: Params, chosen: SemDedupParams, layout: Layout) -> int | str:
    """How many numbers the vectors of `semdedup` have, or why that is not known yet."""
    from flame_core.data.sidecars import Sidecar

    folder = linked_place(layout, chosen.vectors)
    with suppress(InputError):
        return Sidecar(folder).manifest.shape[-1]
    if params.features is not None and folder == layout.features:
        from flame_core.codes.tower_shape import model_shape

        return model_shape(params.features.model).dims
    return f"the vectors {chosen.vectors} are not there yet"


def llm_section_costs(
    params: Params, layout: Layout, shape: LLMShape, start: Given, tflops: float
) -> dict[str, dict[str, dict[str, str]]]:
    """The costs of optional stages that use the LLM or its words, for what a plan starts from."""
    found = {}
    if (lexical := params.lexical) is not None:
        from flame_core.lexical.cost import lexical_section

        captions = sum(captions_a_sample(kind, params.text) for kind in lexical.kinds)
        found["lexical"] = lexical_section(lexical, shape, captions, start.images)
    if params.prompts is not None:
        from flame_core.soft_prompts.cost import prompts_section, template_tokens

        length, template = _mean_length(start, params.prompts.kinds), params.prompts.template
        found["prompts"] = prompts_section(
            params.prompts, shape, length, template_tokens(template, start.count), tflops
        )
    if params.caption_lm is not None:
        found["caption_lm"] = _captioner_section(params, params.caption_lm, layout, shape, start, tflops)
    if params.adapt_llm is not None:
        from flame_core.adapting.cost import adapting_section

        found["adapt_llm"] = adapting_section(params.adapt_llm, params.text, shape, start.lengths, start.count, tflops)
    return found


def _captioner_section(
    params: Params, chosen: CaptionLMParams, layout: Layout, shape: LLMShape, start: Given, tflops: float
) -> dict[str, dict[str, str]]:
    from flame_core.captioning.cost import caption_lm_section
    from flame_core.codes.tower_shape import recipe_in, recipe_shape
    from flame_core.soft_prompts.cost import template_tokens

    recipe = params.train[chosen.recipe] if chosen.recipe else recipe_in(linked_place(layout, chosen.path or ""))
    if recipe is None:
        return {"captioner": {"not counted": f"the model {chosen.path} is not there yet"}}
    connector = chosen.connector or recipe.model.connector
    if connector is None:
        return {"captioner": {"not counted": "the model has no connector"}}
    template = chosen.template or (params.prompts.template if params.prompts else "")
    return caption_lm_section(
        chosen,
        shape,
        prompts=connector.prompts,
        template=template_tokens(template, start.count),
        length=_mean_length(start, chosen.kinds),
        tower_flops=recipe_shape(recipe).flops,
        tflops=tflops,
    )


def _mean_length(start: Given, kinds: Sequence[CaptionKind]) -> float:
    return sum(start.lengths[kind] for kind in kinds) / len(kinds)


def time_of(values: Mapping[str, str]) -> str:
    """How long a section's stage takes, as text: cores, or else models."""
    return next((f"{name} {values[name]}" for name in _TIMES if name in values), "not counted")
