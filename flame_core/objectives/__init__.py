"""Training objectives, one a file; `objective.Objective` says what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flame_core.objectives.objective import Objective
    from flame_core.params import ObjectiveParams


def create_objective(params: ObjectiveParams, batch_size: int) -> Objective:
    """The objective that a recipe names, for batches of `batch_size` pictures over all ranks."""
    from flame_core.objectives.facet_sigmoid import FacetSigmoid
    from flame_core.objectives.infonce import InfoNCE
    from flame_core.objectives.multi_positive_sigmoid import MultiPositiveSigmoid
    from flame_core.params import FacetSigmoidParams, InfoNCEParams, MultiPositiveSigmoidParams

    match params:
        case MultiPositiveSigmoidParams():
            return MultiPositiveSigmoid(params, batch_size)
        case FacetSigmoidParams():
            return FacetSigmoid(params, batch_size)
        case InfoNCEParams():
            return InfoNCE(params)
