"""`domains` and `tune`: labelled pictures of other domains, and heads on frozen features that are tested on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from flame_core.names import DottedName, Name
from flame_core.params.augmentation import CropScale
from flame_core.params.section import Fraction, Positive, Section
from flame_core.params.sources import Source

HeadPreset = Literal["lp", "mlp", "paper", "code"]
NMTUNE_TERMS = ("mse", "cov", "svd")  # of the presets paper and code
_ClassName = Annotated[str, Field(min_length=1)]


class DomainParams(Section):
    """Pictures of a source that no model is trained on, with classes by their categories."""

    source: Source = Field(description="where the pictures come from, as in `sources`")
    classes: dict[_ClassName, _ClassName] | None = Field(
        default=None,
        min_length=1,
        description="{category, or the beginning of one: class}; the longest that fits counts, other pictures are left "
        "out; null: the first part of the category",
    )
    per_class: Positive | None = Field(default=40, description="pictures at most, chosen by a hash; null: all")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the hash that chooses pictures of a class")


class ViewsParams(Section):
    """Random crops, possibly mirrored, whose features are computed once and drawn from in pairs."""

    count: int = Field(default=4, ge=2, description="K, per training picture")
    scale: CropScale = Field(
        default=(0.8, 1.0), description="[lowest, highest] share of a picture's area that a view has"
    )
    flip: Fraction = Field(default=0.5, description="probability that a view is mirrored")


class TuneParams(Section):
    """Heads on frozen features: a linear probe, an MLP, and NMTune's; tested within the domain and beyond it."""

    recipes: list[Name] = Field(default=[], description="whose models get all `presets`")
    baselines: list[DottedName] = Field(default=[], description="the same of models in evaluate.baselines")
    probed: list[Name] = Field(default=[], description="recipes whose models only get a linear probe: a noise study")
    benchmark: str | None = Field(
        default=None,
        description="a benchmark with classes, by whose split `train_split` heads are trained and which tests them; "
        "null: the categories of the shards, training and held-out split",
    )
    train_split: str = Field(default="train", description="of the benchmark")
    domains: list[Name] = Field(default=[], description="names in `domains` to test on")
    beyond: list[str] = Field(default=[], description="benchmarks with some of the same classes to test on")
    features: Literal["pooled", "z"] = Field(
        default="pooled", description="pooled: as linear probes read them, before the projector; z: after it"
    )
    presets: list[HeadPreset] = Field(
        default=["lp", "mlp", "paper", "code"], min_length=1, description="which heads are trained"
    )
    factors: list[Annotated[float, Field(ge=0)]] = Field(
        default=[0.0, 0.1, 1.0, 10.0],
        min_length=1,
        description="of the weights of paper and code; that which is best on the validation part is taken",
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        default=[0, 1, 2], min_length=1, description="a training of every head per seed; tables show their mean"
    )
    validation: float = Field(default=0.1, gt=0, lt=1, description="share of the training pictures of each class")
    min_pictures: int = Field(default=5, ge=3, description="training pictures of a class; one with fewer is left out")
    views: ViewsParams = ViewsParams()
    ratio: Positive = Field(default=4, description="width of the MLP over that of the features")
    epochs: Positive = Field(default=30, description="of a head's training")
    batch_size: int = Field(default=64, ge=2, description="pictures of a step")
    learning_rate: float = Field(default=1e-3, gt=0, description="of heads with an MLP")
    probe_learning_rate: float = Field(default=1e-2, gt=0, description="of the linear probe")
    weight_decay: float = Field(default=1e-4, ge=0, description="of AdamW")

    @model_validator(mode="after")
    def _names_models_once(self) -> TuneParams:
        names = [*self.recipes, *self.baselines, *self.probed]
        if not names:
            raise ValueError("name a model: recipes, baselines or probed")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} stands more than once among recipes, baselines and probed")
        tests = ["train", "validation", "test", *self.domains, *self.beyond]
        if twice := sorted({name for name in tests if tests.count(name) > 1}):
            raise ValueError(
                f"{', '.join(twice)}: domains and beyond need names of their own, and not train, validation or test"
            )
        if self.benchmark is not None and self.benchmark in self.beyond:
            raise ValueError(f"beyond: {self.benchmark} is `benchmark`, which is the test within the domain already")
        return self
