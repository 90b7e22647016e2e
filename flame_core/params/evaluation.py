"""`evaluate`: what is measured on the held-out split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from flame_core.names import DottedName, LanguageCode
from flame_core.params.section import Positive, Precision, Section


class EvaluateGates(Section):
    """Thresholds of the checks of `flame evaluate`."""

    min_recall_over_chance: float = Field(
        default=1.0,
        ge=0,
        description="the lower end of the interval of recall@10 over chance must exceed this, in the training "
        "language and in both directions; 0: no recall blocks",
    )
    language_floors: dict[LanguageCode, Annotated[float, Field(ge=0)]] = Field(
        default={}, description="the same per other language: {de: 1.5}; a language that is not measured fails"
    )


class BenchmarksParams(Section):
    """Benchmarks besides the held-out split, and where their data are."""

    names: list[str] = Field(
        default=[],
        description="names of suite/benchmarks/*.yaml, or paths of such files; `@facets` sets the prompt",
    )
    only_baselines: list[str] = Field(
        default=[],
        exclude_if=lambda value: not value,  # records of a run without them stay as they were
        description="further ones on which only evaluate.baselines are measured: the LLM reads none of their texts",
    )
    data: str = Field(default="datasets", description="folder that holds the data of every benchmark")

    @model_validator(mode="after")
    def _each_is_listed_once(self) -> BenchmarksParams:
        if twice := [name for name in self.only_baselines if name in self.names]:
            raise ValueError(f"only_baselines: {', '.join(twice)} stands under names as well: remove it from either")
        return self


class SpectrumParams(Section):
    """Singular values of the held-out pictures' vectors and of their captions' vectors."""

    max_top_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="share of the largest singular value in the sum of all; above it, a warning",
    )


class LooksDisjointParams(Section):
    """Whether training pictures look like pictures of the benchmarks."""

    distance: int = Field(default=6, ge=0, le=16, description="bits of 64 in which two perceptual hashes may differ")
    refuse: bool = Field(default=False, description="a check that fails blocks what reads the report; false: it warns")


class EvaluateParams(Section):
    """Held-out retrieval in several languages and zero-shot classification into the source's categories."""

    max_pictures: Positive | None = Field(
        default=None, description="number of validation pictures to measure, chosen by a hash of their key; null: all"
    )
    languages: list[LanguageCode] | Literal["all"] = Field(
        default=["en"],
        description="languages whose held-out captions are measured besides train_language; all: all that they have",
    )
    train_language: LanguageCode = Field(
        default="en",
        description="language of the captions that are trained on; captions of other languages are only measured",
    )
    recall_at: list[Positive] = Field(
        default=[1, 5, 10], min_length=1, description="k of recall@k: among the k best answers is a right one"
    )
    class_prompts: list[str] = Field(
        default=["{class}"],
        description="texts with {class} that stand for a class in zero-shot classification; the mean of their vectors "
        "is taken",
    )
    benchmarks: BenchmarksParams = BenchmarksParams()
    baselines: dict[DottedName, str] = Field(
        default={},
        description="other people's models, each under a name you choose: transformers:<folder or id[@revision]>, "
        "open_clip:<architecture>@<weights>, timm:<name>[@<weights>]",
    )
    confidence: float = Field(default=0.95, gt=0, lt=1, description="level of the intervals of all metrics")
    precision: Precision = Field(
        default="float32",
        exclude_if=lambda value: value == "float32",  # params without it are recorded as they always were
        description="of the image tower; bfloat16: autocast, faster on a GPU, with vectors of about three digits",
    )
    gates: EvaluateGates = EvaluateGates()
    spectrum: SpectrumParams | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # reports without it stay as they were
        description="also measure the spectra of vectors; null: not",
    )

    looks_disjoint: LooksDisjointParams | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # reports without it stay as they were
        description="also look for training pictures that look like benchmark pictures; null: not",
    )

    @field_validator("class_prompts")
    @classmethod
    def _prompts_name_the_class(cls, prompts: list[str]) -> list[str]:
        if not prompts or any("{class}" not in prompt for prompt in prompts):
            raise ValueError("every prompt must contain {class}")
        return prompts

    @field_validator("baselines")
    @classmethod
    def _baselines_name_a_kind(cls, baselines: dict[str, str]) -> dict[str, str]:
        for name, source in baselines.items():
            if source.partition(":")[0] not in ("transformers", "open_clip", "timm") or not source.partition(":")[2]:
                raise ValueError(f"{name}: {source!r} must be transformers:..., open_clip:... or timm:...")
        return baselines
