"""The base class of all sections, and types that several of them use."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, model_validator
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

BY_NAME = "by name"  # the tag of a mapping beside one value for all


def one_or_by_name(value: Any) -> str:
    """For `Discriminator`: whether a value is a mapping."""
    return BY_NAME if isinstance(value, dict) else "one"


MISFITS = "misfits"  # the type of pydantic's error for values that do not fit together
LENIENT = "lenient"  # in the context of a validation that lets them pass


SWITCHES = "YAML also reads the plain words yes, no, on and off as such: put such a text in quotes"


def _has_switch(value: Any) -> bool:
    match value:
        case bool():
            return True
        case list() | tuple():
            return any(map(_has_switch, value))
        case dict():
            return any(map(_has_switch, value.values()))
        case _:
            return False


@cache
def _takes_switch(annotation: Any) -> bool:
    """Whether a value of this type may be a switch, or hold one."""
    if annotation in (bool, Any) or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return True
    return any(_takes_switch(part) for part in get_args(annotation))


class Section(BaseModel):
    """Base of all sections: no unknown keys, no changes after reading, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_no_switch_for_a_number(cls, values: Any, info: ValidationInfo) -> Any:
        """Pydantic would take `on` and `yes`, which are true in YAML, for 1."""
        if isinstance(values, dict):
            known = [name for name in values if name in cls.model_fields]
            shown = {name: json.dumps(values[name], default=str) for name in known if _has_switch(values[name])}
            wrong = [name for name in shown if not _takes_switch(cls.model_fields[name].annotation)]
            refuse([((name,), f"{shown[name]} is no value for it; {SWITCHES}") for name in wrong], info)
        return values


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
