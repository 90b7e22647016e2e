"""`.env.example`: every setting with its meaning and its default, from the class that reads them."""

from __future__ import annotations

import textwrap
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from flame_core.settings import Settings

_HEAD = """\
# Settings: what changes no result. Copy this file to .env and uncomment what you set; the environment wins over .env.
# What changes a result is in params.yaml. DAGSTER_* and MLFLOW_* variables belong into the environment.
"""
_WIDTH = 118


def env_text() -> str:
    """The text of `.env.example`."""
    parts = [_HEAD]
    for name, field in Settings.model_fields.items():
        meaning = "\n".join(textwrap.wrap(_meaning(field), _WIDTH, initial_indent="# ", subsequent_indent="# "))
        parts.append(f"{meaning}\n# FLAME_{name.upper()}={_default(field)}\n")
    return "\n".join(parts)


def _meaning(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    said = field.description or ""
    return f"{said} ({', '.join(map(str, choices))})" if choices else said


def _default(field: FieldInfo) -> str:
    """The default as `.env` would say it; empty if the machine decides."""
    value = field.default if field.default_factory is None else None
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(value)
        case _:
            return str(value)
