"""The base class of all sections, and types that several of them use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

CaptionKind = Literal["raw", "short", "long"]
Reading = Literal["facets", "sentence"]  # of a caption by the frozen LLM
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Base of all sections: no unknown keys, no changes after reading, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
