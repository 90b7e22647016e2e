"""`sampling` of a recipe: which samples an epoch has, and how often. Each way has a class with only its own values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from flame_core.params.section import Fraction, Positive, Section


def plain_path(path: str) -> str:
    """`path`, if it may be written into `dvc.yaml`, where `${` begins a value of params."""
    if not path.strip() or "${" in path or not path.isprintable():
        raise ValueError("a path is not empty, is printable and holds no ${")
    return path


LinkedPath = Annotated[str, AfterValidator(plain_path)]
CONCEPTS, WEIGHTS = "data/concepts", "data/sidecars/concept-weights"
COUNTED = (CONCEPTS, WEIGHTS)  # what `flame concepts` makes


class UniformSampling(Section):
    """Each sample once per epoch."""

    name: Literal["uniform"] = "uniform"

    @property
    def source(self) -> str | None:
        """What is read for it: a folder, or nothing."""
        return None


class WeightedSampling(Section):
    """Samples in proportion to a weight that a stage stored, such as `concepts.weights`."""

    name: Literal["weighted"]
    weights: LinkedPath = Field(default=WEIGHTS, description="folder of a sidecar with a number per sample")

    @property
    def source(self) -> str | None:
        return self.weights


class SoftCapSampling(Section):
    """The better a sample's score the more often, and the less often the more it was seen: FLYT's soft cap sampling."""

    name: Literal["soft_cap"]
    scores: LinkedPath = Field(description="folder of a sidecar with a number per sample, such as score-clip")
    temperature: float = Field(default=1.0, gt=0, description="what scores are divided by; the smaller, the choosier")
    penalty: float = Field(gt=0, description="alpha: what each time a sample is drawn takes from its divided score")

    @property
    def source(self) -> str | None:
        return self.scores


class CappedSampling(Section):
    """Samples of frequent concepts less often: weights as of `concepts.weights`, from counts of `flame concepts`."""

    name: Literal["capped"]
    cap: Positive = Field(description="t: a concept of frequency f takes each of its samples with min(1, t / f)")
    other: Fraction = Field(default=1.0, description="weight of a sample without any concept")
    concepts: LinkedPath = Field(default=CONCEPTS, description="folder that `flame concepts` made")

    @property
    def source(self) -> str | None:
        return self.concepts


class BalancedSampling(Section):
    """Batches in which concepts are about equally frequent, each chosen from several times as many samples."""

    name: Literal["balanced"]
    oversample: int = Field(default=4, ge=2, description="samples that each one of a batch is chosen from")
    concepts: LinkedPath = Field(default=CONCEPTS, description="folder that `flame concepts` made")

    @property
    def source(self) -> str | None:
        return self.concepts


Sampling = Annotated[
    UniformSampling | WeightedSampling | SoftCapSampling | CappedSampling | BalancedSampling,
    Field(discriminator="name"),
]
SOURCES = ("weights", "scores", "concepts")  # fields that name a place, not a value
