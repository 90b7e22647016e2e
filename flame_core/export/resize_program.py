"""What programs of the cards need to build a tower that was pruned: `resize` of `modeling_flame`, as source text."""

from __future__ import annotations

import ast
from importlib.resources import files

from flame_core.export.subject import Subject


def resize_program(subject: Subject) -> str:
    """The lines that define `resize`; none for a tower that timm's arguments describe."""
    if not subject.sizes:
        return ""
    source = (files("flame_core.export") / "modeling_flame.py").read_text("utf-8")
    (found,) = [each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef) and each.name == "resize"]
    return f"from typing import Any\n\n\n{ast.get_source_segment(source, found)}\n\n\n".replace("  # noqa: B905", "")
