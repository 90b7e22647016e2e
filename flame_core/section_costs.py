"""What the stages of optional sections cost, for `flame plan` and `flame status`: {stage: {title: values}}."""

from __future__ import annotations

from flame_core.curation.cost import concept_section
from flame_core.layout import Layout
from flame_core.params import Params

CORE_HOURS = "core hours"
_PATCHES = 196  # of a picture whose tower is not there yet


def section_costs(params: Params, layout: Layout, images: int, tflops: float) -> dict[str, dict[str, dict[str, str]]]:
    """The costs of `concepts`, `codes`, `select`, `noise` and `tune`, if params have them, for so many pictures."""
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
    if params.tune is not None:
        from flame_core.curation.tower_shape import recipe_shape
        from flame_core.tuning.cost import tune_section

        shapes = {name: recipe_shape(params.train[name]) for name in (*params.tune.recipes, *params.tune.probed)}
        towers = {name: (shape.flops, shape.dims) for name, shape in shapes.items()}
        found["tune"] = tune_section(params.tune, images, towers, tflops)
    return found
