"""`scores`: numbers per training picture or pair by models of the user's, and selections by them; optional."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from flame_core.names import Name
from flame_core.params.section import Fraction, Section, refuse
from flame_core.params.training import LinkedPath


def _of_pairs(source: str) -> str:
    return _known(source, ("transformers", "open_clip"))


def _of_pictures(source: str) -> str:
    return _known(source, ("transformers", "open_clip", "timm"))


def _of_labels(source: str) -> str:
    return _known(source, ("transformers",))


def _known(source: str, kinds: tuple[str, ...]) -> str:
    """`source`, if it names a model of one of these kinds."""
    kind, _, rest = source.partition(":")
    if kind not in kinds or not rest.strip():
        raise ValueError(f"{source!r} must be {' or '.join(f'{each}:<...>' for each in kinds)}")
    return source


class TowerScorerParams(Section):
    """Similarity of a picture with its raw captions, by a tower of this project and the stored texts."""

    kind: Literal["tower"]
    recipe: Name = Field(description="the recipe whose tower sees the pictures")


class ModelScorerParams(Section):
    """Similarity of a picture with its raw captions, by somebody else's CLIP or SigLIP."""

    kind: Literal["model"]
    source: Annotated[str, AfterValidator(_of_pairs)] = Field(
        description="transformers:<folder or id> or open_clip:<architecture>@<weights>"
    )


class HeadScorerParams(Section):
    """A linear map or an MLP over a picture's vector, such as LAION's aesthetic predictors over CLIP ViT-L/14."""

    kind: Literal["head"]
    source: Annotated[str, AfterValidator(_of_pictures)] = Field(
        description="the model below the head: transformers:<folder or id>, open_clip:<...> or timm:<...>"
    )
    file: LinkedPath = Field(description="safetensors of the head: <layer>.weight [out, in] and <layer>.bias [out]")
    features: Literal["projected", "pooled"] = Field(
        default="projected",
        description="what the head reads: the unit vector in the space of the texts, or the features before the "
        "projection, as they are; a timm backbone has only the latter",
    )
    activation: Literal["none", "relu", "gelu"] = Field(default="none", description="between the layers of the head")


class ClassifierScorerParams(Section):
    """Probability of a label, by a picture classifier such as an NSFW detector."""

    kind: Literal["classifier"]
    source: Annotated[str, AfterValidator(_of_labels)] = Field(description="transformers:<folder or id>")
    label: str = Field(description="one of the classifier's labels")


class TableScorerParams(Section):
    """A column of a table that something else made."""

    kind: Literal["table"]
    path: LinkedPath = Field(description="a parquet file with a column `key` and a row per training sample")
    column: str = Field(description="of numbers")


ScorerParams = Annotated[
    TowerScorerParams | ModelScorerParams | HeadScorerParams | ClassifierScorerParams | TableScorerParams,
    Field(discriminator="kind"),
]


class ScoreRule(Section):
    """Which samples a score lets through; of several conditions, all must hold."""

    min: float | None = Field(default=None, description="lowest score that is kept")
    max: float | None = Field(default=None, description="highest score that is kept")
    top: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="share of all training samples, those with the highest scores"
    )

    @model_validator(mode="after")
    def _says_something(self) -> ScoreRule:
        if self.min is None and self.max is None and self.top is None:
            raise ValueError("write min, max or top")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class ScoreGates(Section):
    """Thresholds of the checks of `flame scores`."""

    min_kept: Fraction = Field(default=0.01, description="share of the samples that each selection keeps")


class ScoresParams(Section):
    """Scores of the training samples, and selections by them."""

    scorers: dict[Name, ScorerParams] = Field(
        min_length=1, description="{name: scorer}; each becomes the sidecar data/sidecars/score-<name>"
    )
    selections: dict[Name, dict[Name, ScoreRule]] = Field(
        default={}, description="{name: {scorer: rule}}; each becomes data/scores/<name>.parquet"
    )
    gates: ScoreGates = ScoreGates()

    @property
    def towers(self) -> list[str]:
        """The recipes whose towers score."""
        return sorted({each.recipe for each in self.scorers.values() if isinstance(each, TowerScorerParams)})

    @property
    def paths(self) -> list[str]:
        """Files that are given."""
        given = self.scorers.values()
        heads = [each.file for each in given if isinstance(each, HeadScorerParams)]
        return [*heads, *(each.path for each in given if isinstance(each, TableScorerParams))]

    @model_validator(mode="after")
    def _selections_name_scorers(self, info: ValidationInfo) -> ScoresParams:
        refuse(self._misfits(), info)
        return self

    def _misfits(self) -> Iterator[tuple[tuple[str, ...], str]]:
        for name, rules in self.selections.items():
            if not rules:
                yield ("selections", name), f"selection {name} has no rule: write {{<scorer>: {{min: ...}}}}"
            for scorer in sorted(set(rules) - set(self.scorers)):
                yield (
                    ("selections", name, scorer),
                    f"selection {name}: there is no scorer {scorer}; scorers has {', '.join(sorted(self.scorers))}",
                )
