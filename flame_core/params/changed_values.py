"""The part of a section that enters a digest: values that differ from the defaults, so a new field changes no digest.

The rule, and when a stage's version is bumped instead: `docs/decisions/digests.md`.
"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from flame_core.params.section import Section


def changed_values(section: Section) -> dict[str, Any]:
    """{field: value} of required fields, fields that differ from their default and union tags, at every depth.

    Two sections of one class have the same changed values only if they are equal.
    """
    values = {name: (info, getattr(section, name)) for name, info in type(section).model_fields.items()}
    return {
        name: _plain(value)
        for name, (info, value) in values.items()
        if _is_tag(info) or info.is_required() or value != info.get_default(call_default_factory=True)
    }


def _is_tag(info: FieldInfo) -> bool:
    """Whether the field is a union's tag, without which two members could have the same changed values."""
    return get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return changed_values(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
