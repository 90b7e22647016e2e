"""The base class of all sections, and types that several of them use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

CaptionKind = Literal["raw", "short", "long"]
Reading = Literal["facets", "sentence"]  # of a caption by the frozen LLM
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]

MISFITS = "misfits"  # the type of pydantic's error for values that do not fit together
LENIENT = "lenient"  # in the context of a validation that lets them pass


class Section(BaseModel):
    """Base of all sections: no unknown keys, no changes after reading, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def refuse(faults: Iterable[tuple[tuple[str, ...], str]], info: ValidationInfo) -> None:
    """Refuse values that do not fit together; called in a validator of the section.

    Args:
        faults: (key below the section, what is wrong with its value), as many as there are.
        info: of the validator; its context may ask to let them pass.

    Raises:
        PydanticCustomError: holds all of them, for `validation.py` to say where each was written.
    """
    found = [] if info.context and info.context.get(LENIENT) else list(faults)
    if found:
        text = "; ".join(message for _, message in found)
        raise PydanticCustomError(MISFITS, "{message}", {"message": text, MISFITS: found})
