"""`promote`: when a challenger becomes champion (`flame_core/tracking/gate.py` has the rule)."""

from __future__ import annotations

from pydantic import Field

from flame_core.params.section import Positive, Section


class PromoteParams(Section):
    """When a challenger becomes champion."""

    min_pictures: Positive = Field(
        default=100,
        description="a measure on fewer held-out pictures is not judged; if none is left, no model is promoted",
    )
    tolerance: float = Field(
        default=0.02, ge=0, description="a measure may fall by this much, as an absolute difference"
    )
    min_gain: float = Field(default=0.0, description="the mean over the held-out measures must rise by this much")
