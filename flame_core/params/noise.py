"""`noise`: one order of the training samples, by which recipes with `noise` give samples each other's texts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from flame_core.params.section import Fraction, Section

Share = Annotated[float, Field(gt=0, le=1)]


class NoiseGates(Section):
    """Thresholds of the checks of `flame noise`."""

    max_same_fraction: Fraction = Field(
        default=0.1, description="of moved samples whose new caption is the same as their own; only warns"
    )


class NoiseParams(Section):
    """An order drawn from a seed; the samples of a smaller share are among those of a larger one."""

    seed: int = Field(default=0, ge=0, lt=2**32, description="of the order")
    shares: list[Share] = Field(
        default=[0.05, 0.1, 0.2, 0.3], min_length=1, description="shares that the page shows; a recipe may have any"
    )
    gates: NoiseGates = NoiseGates()
