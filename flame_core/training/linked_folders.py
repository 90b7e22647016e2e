"""Folders that a training reads besides its own store: those of what its recipe is linked to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_SIDECARS = "sidecars."


@dataclass(frozen=True)
class LinkedFolders:
    """As far as a recipe names them; nothing of this is a value of the recipe.

    Attributes:
        teacher: of the model that it learns from, or of that model's stored vectors.
        inherited: of the model that the tower inherits from, or of its `model.init`; None leaves the weights random.
        prompts: of the prompt head.
        sidecars: by name.
    """

    teacher: Path | None = None
    inherited: Path | None = None
    prompts: Path | None = None
    sidecars: Mapping[str, Path] = field(default_factory=dict)

    @staticmethod
    def of(links: Mapping[str, Path]) -> LinkedFolders:
        """Those among links as `flame_core.graph.links.links` tells them."""
        return LinkedFolders(
            teacher=links.get("teacher"),
            inherited=links.get("inherit", links.get("init")),
            prompts=links.get("prompts"),
            sidecars={name.removeprefix(_SIDECARS): path for name, path in links.items() if name.startswith(_SIDECARS)},
        )


UNLINKED = LinkedFolders()
