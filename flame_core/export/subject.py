"""What is exported: the trained tower, its config, and all that a reader of the folder has to know about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_core.errors import InputError
from flame_core.export.zero_shot import ZeroShot
from flame_core.params import IngestParams, ModelParams
from flame_core.verification import DIGESTS, verify

if TYPE_CHECKING:
    from flame_core.model.loaded import Model
    from flame_core.tuning.classifier import Classifier
    from flame_core.vision.tower import ImageTower


@dataclass(frozen=True)
class Subject:
    """A trained model that is exported.

    Attributes:
        recipe: its name.
        asked: the name by which it was asked for, if it is one of MLflow; else the recipe's.
        folder: of the trained model.
        tower: on the CPU, in evaluation mode.
        config: content of the model's `config.json`.
        ingest: how pictures were prepared.
        zero_shot: classes to export as weights, if any.
        tuned: a head of `flame tune` on this tower, if it is to be exported.
    """

    recipe: str
    asked: str
    folder: Path
    tower: ImageTower
    config: Mapping[str, Any]
    ingest: IngestParams
    zero_shot: ZeroShot | None = None
    tuned: Classifier | None = None

    @property
    def params(self) -> ModelParams:
        from flame_core.vision.tower import tower_params

        return tower_params(self.config)

    @property
    def dim(self) -> int:
        """D, the numbers of a vector."""
        return self.config.get("words", self.config.get("dim", self.config["hidden"]))

    @property
    def width(self) -> int:
        """C, the numbers of a token of the backbone."""
        return self.tower.backbone.num_features

    @property
    def facets(self) -> int:
        """F, the number of facet tokens; 0 if the tower has none."""
        return 0 if self.tower.facet_tokens is None else len(self.tower.facet_tokens.tokens)

    @property
    def has_text_tower(self) -> bool:
        return self.config["recipe"].get("text_tower") is not None

    @property
    def architecture(self) -> str:
        """The backbone's name in timm, without the tag of pretrained weights."""
        return self.params.backbone.partition(".")[0]

    @property
    def model_args(self) -> dict[str, Any]:
        """Keyword arguments of `timm.create_model` for the backbone, as `vision.tower.create_backbone` calls it."""
        from flame_core.vision.tower import backbone_arguments

        return backbone_arguments(self.params)

    @property
    def sizes(self) -> dict[str, Any]:
        """{`sizes`: of a tower that was pruned}, which `model_args` cannot say; empty for all others."""
        return {} if self.params.sizes is None else {"sizes": self.params.sizes.model_dump()}

    def tower_config(self) -> dict[str, Any]:
        """Everything that builds the tower, in the keys of `modeling_flame.FlameVisionConfig`."""
        blocks = self.params.facet_blocks
        return {
            "architecture": self.architecture,
            "model_args": self.model_args,
            "image_size": self.params.image_size,
            "projection_dim": self.dim,
            "head": self.params.head,
            "num_facets": self.facets,
            "facet_blocks": len(self.tower.backbone.blocks) if blocks == "all" else blocks,
            **self.sizes,
        }


def subject_of(model: Model, zero_shot: ZeroShot | None, tuned: Classifier | None = None) -> Subject:
    """The subject for a model, whose files are verified.

    Raises:
        InputError: a file is missing or damaged.
    """
    from flame_core.vision.image_encoder import load_tower

    if (model.folder / DIGESTS).is_file():
        verify({model.folder: ["*"]})
    tower, config = load_tower(model.folder)
    recipe = config.get("recipe_name") or model.folder.name
    if not isinstance(recipe, str):
        raise InputError(f"{model.folder / 'config.json'}: recipe_name is not a name; run `flame train` for it")
    asked = model.name if model.name.startswith(("models:/", "runs:/")) else recipe
    return Subject(recipe, asked, model.folder, tower, config, model.ingest, zero_shot, tuned)
