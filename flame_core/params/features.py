"""`features`: vectors of the training pictures by a frozen tower, stored as the texts' vectors are. Optional."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, ValidationInfo, model_validator

from flame_core.params.section import Positive, Section, refuse
from flame_core.params.towers import ModelParams

FeatureView = Literal["plain", "mirrored"]


class FeatureGates(Section):
    """Thresholds of the checks of `flame features`."""

    max_cosine: float = Field(
        default=0.99, description="fails if the mean cosine between pictures is above this: the tower sees nothing"
    )


class FeaturesParams(Section):
    """The tower, and which views of a picture it sees; recipes read the result as the sidecar `features`."""

    model: ModelParams = Field(
        description="backbone, its options, image_size, pixels and init as in the recipes that read the vectors; head "
        "says what is stored: cls and linear, the CLS token; pooled, gated and none, the mean of the last tokens"
    )
    views: list[FeatureView] = Field(
        default=["plain", "mirrored"], min_length=1, description="as evaluation sees a picture, and its mirror image"
    )
    dtype: Literal["float16", "float32", "int8"] = Field(
        default="float16", description="of the stored numbers; int8 keeps one scale per vector and one mean per shard"
    )
    cpu_threads: Positive = Field(default=2, description="of torch on a CPU; sums depend on it")
    gates: FeatureGates = FeatureGates()

    @model_validator(mode="after")
    def _values_fit_together(self, info: ValidationInfo) -> FeaturesParams:
        refuse(self._misfits(), info)
        return self

    def _misfits(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if self.model.init is None:
            yield ("model",), "features.model needs init: a frozen tower has weights that somebody trained"
        if self.model.head in ("patches", "attention", "lexical"):
            yield ("model",), f"features.model.head {self.model.head} reads patches, and one vector per view is stored"
        if self.views[0] != "plain" or len(set(self.views)) < len(self.views):
            yield ("views",), f"features.views {self.views}: write [plain] or [plain, mirrored]"
