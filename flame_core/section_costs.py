"""What the stages of optional sections cost, for `flame plan` and `flame status`: {stage: {title: values}}."""

from __future__ import annotations

from collections.abc import Mapping

from flame_core.curation.cost import concept_section
from flame_core.layout import Layout
from flame_core.params import Params

_OF_CORES, _OF_TOWERS = "core hours", ("hours of the tower", "hours of the models")
_PATCHES = 196  # of a picture whose tower is not there yet


def section_costs(params: Params, layout: Layout, images: int, tflops: float) -> dict[str, dict[str, dict[str, str]]]:
    """The costs of optional stages, as far as params have them and they are counted here, for so many pictures."""
    found = {}
    if params.concepts is not None:
        found["concepts"] = concept_section(params.concepts, images)
    if params.codes is not None:
        from flame_core.curation.selection_cost import codes_section, select_section
        from flame_core.curation.tower_shape import codes_shape

        tower = codes_shape(params, params.codes, layout)
        found["codes"] = codes_section(params.codes, images, tower, tflops)
        if params.select is not None:
            patches = _PATCHES if isinstance(tower, str) else tower.patches
            found["select"] = select_section(params.select, images, params.codes.codes, patches)
    if params.noise is not None:
        from flame_core.curation.selection_cost import noise_section

        found["noise"] = noise_section(params.noise, images)
    if params.features is not None:
        from flame_core.curation.picture_passes_cost import features_section
        from flame_core.curation.tower_shape import model_shape

        found["features"] = features_section(params.features, images, model_shape(params.features.model), tflops)
    if params.scores is not None:
        from flame_core.curation.picture_passes_cost import scores_section
        from flame_core.curation.tower_shape import scorer_shapes

        found["scores"] = scores_section(params.scores, images, scorer_shapes(params, params.scores, layout), tflops)
    if params.tune is not None:
        from flame_core.curation.tower_shape import recipe_shape
        from flame_core.tuning.cost import tune_section

        shapes = {name: recipe_shape(params.train[name]) for name in (*params.tune.recipes, *params.tune.probed)}
        towers = {name: (shape.flops, shape.dims) for name, shape in shapes.items()}
        found["tune"] = tune_section(params.tune, images, towers, tflops)
    return found


def hours_of(values: Mapping[str, str]) -> str:
    """The hours of a section, as text: those of cores, or else of towers."""
    if _OF_CORES in values:
        return f"{values[_OF_CORES]} {_OF_CORES}"
    return next((f"{name} {values[name]}" for name in _OF_TOWERS if name in values), "not counted")
