"""How a recipe changes the pictures that it trains on."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from flame_core.params.section import Fraction, Section


def _range(span: tuple[float, float]) -> tuple[float, float]:
    """`span`, if it goes from a lowest to a highest value."""
    if span[0] > span[1] or span[1] == 0:
        raise ValueError(f"{list(span)} is no range: write [lowest, highest], the highest above 0")
    return span


_Ratio = Annotated[float, Field(gt=0)]
CropScale = Annotated[tuple[Fraction, Fraction], AfterValidator(_range)]  # share of a picture that a crop has
CropRatio = Annotated[tuple[_Ratio, _Ratio], AfterValidator(_range)]  # width over height of a crop


class PhotometricParams(Section):
    """Changes of a crop's colours, those of A-CLIP by default: with the probability `jitter`, of all four values."""

    jitter: Fraction = Field(default=0.8, description="probability that a crop's colours change")
    brightness: Fraction = Field(default=0.4, description="a factor of 1 - x to 1 + x, as of the next two")
    contrast: Fraction = Field(default=0.4, description="as brightness")
    saturation: Fraction = Field(default=0.2, description="as brightness")
    hue: float = Field(default=0.1, ge=0, le=0.5, description="turn from -x to x; 1 is once round")
    grey: Fraction = Field(default=0.2, description="probability of a grey picture")
    blur: Fraction = Field(default=0.1, description="probability of a Gaussian blur with a sigma from 0.1 to 2 px")
    solarise: Fraction = Field(default=0.2, description="probability that bright values are inverted")


class AugmentationParams(Section):
    """Random resized crop, and a flip for data in which left and right do not matter."""

    scale: CropScale = Field(
        default=(0.9, 1.0), description="[lowest, highest] share of a picture's area that a crop has"
    )
    ratio: CropRatio = Field(default=(0.75, 4 / 3), description="[lowest, highest] width over height of a crop")
    flip: Fraction = Field(
        default=0.0, description="probability that a crop is mirrored; 0 if left and right matter, as with writing"
    )
    photometric: PhotometricParams | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # a recipe without it is recorded as it always was
        description="changes of the crop's colours; null: none",
    )
