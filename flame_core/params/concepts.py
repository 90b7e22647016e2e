"""`concepts`: how often concepts occur in the training data, and how accuracy follows from it; optional."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from flame_core.names import Name
from flame_core.params.section import CaptionKind, Fraction, Positive, Section, refuse
from flame_core.params.training import LinkedPath

HELD_OUT_CLASSES = "held-out-classes"  # in `benchmarks`: the categories of the held-out pictures
MatchMode = Literal["phrase", "bag"]


class NounParams(Section):
    """Concepts that are nouns of the training captions, in English, found by word lists and patterns."""

    min_captions: Positive = Field(default=5, description="captions that must have the noun")
    most: Positive = Field(default=4000, description="nouns at most, the most frequent ones")


def _hold_the_concept(prompts: list[str]) -> list[str]:
    if not prompts or any("{concept}" not in prompt for prompt in prompts):
        raise ValueError("every prompt must contain {concept}")
    return prompts


class TowerTaggerParams(Section):
    """Similarity of a trained tower's picture vectors with stored text vectors."""

    kind: Literal["tower"]
    recipe: Name = Field(description="the recipe whose tower sees the pictures")
    texts: Literal["captions", "prompts"] = Field(
        default="captions",
        description="vector of a concept: captions: the mean of the stored vectors of training captions that mention "
        "it; prompts: its stored prompts, which only classes of evaluation have",
    )
    prompts: list[str] = Field(default=["{concept}"], description="that evaluation has stored, with {concept}")

    _checked = field_validator("prompts")(_hold_the_concept)


class ModelTaggerParams(Section):
    """Similarity by somebody else's zero-shot model."""

    kind: Literal["model"]
    source: str = Field(description="as in evaluate.baselines: transformers:<folder or id>, open_clip:<...>")
    prompts: list[str] = Field(default=["a photo of a {concept}."], description="averaged per concept")

    _checked = field_validator("prompts")(_hold_the_concept)

    @field_validator("source")
    @classmethod
    def _is_a_known_kind(cls, source: str) -> str:
        if source.partition(":")[0] not in ("transformers", "open_clip") or not source.partition(":")[2]:
            raise ValueError(f"{source!r} must be transformers:... or open_clip:...")
        return source


class ClassifierTaggerParams(Section):
    """Probabilities of a picture classifier or tagger of transformers, whose labels are compared with the concepts."""

    kind: Literal["classifier"]
    source: str = Field(description="transformers:<folder or id>")

    @field_validator("source")
    @classmethod
    def _is_of_transformers(cls, source: str) -> str:
        if not source.removeprefix("transformers:") or not source.startswith("transformers:"):
            raise ValueError(f"{source!r} must be transformers:<folder or id>")
        return source


class TableTaggerParams(Section):
    """Tags that somebody else made: a parquet file with `key`, `tags` and perhaps `scores`."""

    kind: Literal["table"]
    path: LinkedPath = Field(
        description="a parquet file: key (text), tags (list of text), scores (list of numbers; without it, all are 1)"
    )


Tagger = Annotated[
    TowerTaggerParams | ModelTaggerParams | ClassifierTaggerParams | TableTaggerParams, Field(discriminator="kind")
]


class ImageSideParams(Section):
    """Which concepts the pictures show."""

    tagger: Tagger = Field(description="what gives pictures their scores")
    threshold: float = Field(description="a picture shows a concept if its score is above this")
    thresholds: LinkedPath | None = Field(
        default=None, description="JSON file of {concept: threshold}, in place of `threshold` for these concepts"
    )
    labels: LinkedPath | None = Field(
        default=None,
        description="CSV file (key, concept, present) of labelled training pictures: a concept with both answers gets "
        "the threshold with the best F1, unless `thresholds` has one",
    )
    floor: float = Field(default=0.0, description="scores up to this are not stored, so no threshold may be below it")

    @model_validator(mode="after")
    def _threshold_is_stored(self, info: ValidationInfo) -> ImageSideParams:
        if self.threshold < self.floor:
            refuse([(("threshold",), f"threshold {self.threshold:g} is below floor {self.floor:g}: lower floor")], info)
        return self


class ConceptWeightParams(Section):
    """Weights of samples for `train.sampling: {name: weighted}`: rare concepts whole, frequent ones thinned out."""

    cap: Positive = Field(
        description="t: a sample is taken for a concept of frequency f with probability min(1, t / f)"
    )
    other: Fraction = Field(default=1.0, description="probability of a sample without any concept")


class ConceptGates(Section):
    """Thresholds of the checks of `flame concepts`."""

    max_zero_fraction: Fraction = Field(default=0.6, description="of concepts that no caption mentions; only warns")
    max_unknown_fraction: Fraction = Field(
        default=0.5, description="of concepts with a word that no caption has; only warns"
    )
    min_sides_spearman: float = Field(
        default=0.4, ge=-1, le=1, description="rank correlation of counts in texts and pictures; only warns"
    )
    min_agreement: Fraction = Field(
        default=0.5, description="F1 of each calibrated threshold on the labelled pictures; only warns"
    )
    max_misaligned: Fraction = Field(
        default=0.5, description="of samples whose caption and picture have concepts, but none in common; only warns"
    )


class ConceptParams(Section):
    """Counts of concepts in the captions and pictures of the training split."""

    benchmarks: list[str] = Field(
        default=[],
        description=f"{HELD_OUT_CLASSES}, and entries of evaluate.benchmarks.names: their classes are concepts",
    )
    nouns: NounParams | None = Field(default=None, description="nouns of the captions as concepts; null: none")
    file: LinkedPath | None = Field(default=None, description="text file with a concept per line")
    kinds: list[CaptionKind] = Field(default=["raw"], min_length=1, description="kinds of captions that are counted")
    mode: MatchMode = Field(
        default="phrase",
        description="phrase: the words of a concept follow one another; bag: one caption has them all. Both are "
        "counted; this is the one that rankings, joint counts and fits use",
    )
    unknown: Literal["zero", "drop"] = Field(
        default="zero", description="a word of a concept that no caption has: the count is zero, or the word is dropped"
    )
    images: ImageSideParams | None = Field(default=None, description="counts in pictures; null: none")
    weights: ConceptWeightParams | None = Field(
        default=None, description="also writes data/sidecars/concept-weights; null: not"
    )
    gates: ConceptGates = ConceptGates()

    @property
    def suite_benchmarks(self) -> list[str]:
        """The benchmarks besides the held-out classes."""
        return [name for name in self.benchmarks if name != HELD_OUT_CLASSES]

    @property
    def tower(self) -> str | None:
        """The recipe whose tower tags pictures, if one does."""
        tagger = self.images and self.images.tagger
        return tagger.recipe if isinstance(tagger, TowerTaggerParams) else None

    @property
    def paths(self) -> list[str]:
        """Files that are given."""
        images = self.images
        table = images.tagger.path if images and isinstance(images.tagger, TableTaggerParams) else None
        given = (self.file, images and images.thresholds, images and images.labels, table)
        return [path for path in given if path is not None]

    @model_validator(mode="after")
    def _names_concepts(self, info: ValidationInfo) -> ConceptParams:
        refuse(self._misfits(), info)
        return self

    def _misfits(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if not self.benchmarks and self.nouns is None and self.file is None:
            yield (
                ("benchmarks",),
                f"concepts needs concepts: write benchmarks: [{HELD_OUT_CLASSES}], nouns: {{}} or file",
            )


class ConceptFitParams(Section):
    """Accuracy per concept over its frequency."""

    recipes: list[Name] = Field(min_length=1, description="recipes whose evaluations are read")
    retrieval: bool = Field(
        default=True, description="also recall on the held-out pictures whose captions mention the concept"
    )
    min_pictures: Positive = Field(default=5, description="held-out pictures that a concept of `retrieval` must have")
    frequency: Literal["text", "image", "both"] = Field(default="text", description="which count is the frequency")
    resamples: Positive = Field(default=1000, description="of the bootstrap, clustered by concept")
    permutations: Positive = Field(default=1000, description="of scores, for the p values")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="level of the intervals")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the bootstrap and the permutations")
    min_points: Positive = Field(default=20, description="a fit of fewer points only warns")
