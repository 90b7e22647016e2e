"""The base class of all sections, and types that several of them use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo
from pydantic_core import PydanticCustomError

CaptionKind = Literal["raw", "short", "long"]
Reading = Literal["facets", "sentence"]  # of a caption by the frozen LLM
Precision = Literal["float32", "bfloat16"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]

AUTO = "auto"
OR_AUTO = "number, or auto"  # the tag of the number in the types below, in whose errors `auto` is offered

MAY_BE_AUTO = "ingest.val_fraction, ingest.shard_samples, train.batch_size, train.epochs and train.warmup_steps"


def _number_or_auto(value: Any) -> str:
    return AUTO if value == AUTO else OR_AUTO


_Auto = Annotated[Literal["auto"], Tag(AUTO)]  # chosen from the data, by the rules in `auto.py`
FractionOrAuto = Annotated[Annotated[Fraction, Tag(OR_AUTO)] | _Auto, Discriminator(_number_or_auto)]
PositiveOrAuto = Annotated[Annotated[Positive, Tag(OR_AUTO)] | _Auto, Discriminator(_number_or_auto)]
CountOrAuto = Annotated[Annotated[int, Field(ge=0), Tag(OR_AUTO)] | _Auto, Discriminator(_number_or_auto)]

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
