"""Completion of recipes' names in the shell."""

from __future__ import annotations


def recipe_names(incomplete: str) -> list[str]:
    """Names of the project's recipes that begin so."""
    from flame_core.layout import Layout

    return sorted(path.stem for path in Layout.find().recipes.glob("*.yaml") if path.stem.startswith(incomplete))
