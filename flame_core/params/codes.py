"""`codes` and `select`: pictures as histograms of patch codes, and which pictures to train on; both optional."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from flame_core.names import Name
from flame_core.params.clustering import ClusterSizeGates, KMeansParams
from flame_core.params.section import CaptionKind, Fraction, Positive, Section, refuse
from flame_core.params.training import LinkedPath

SelectionMode = Literal["proportional", "sqrt", "capped", "random"]
VqForm = Literal["corrected", "legacy"]


def _timm_source(source: str) -> str:
    """`source`, if it is a timm name, perhaps followed by @ and a file of weights."""
    name, at, file = source.partition("@")
    if not name.strip() or (at and not file.strip()) or "${" in source or not source.isprintable():
        raise ValueError("write a timm model, such as vit_base_patch16_clip_224.openai, or name@file.safetensors")
    return source


class CodesTower(Section):
    """The tower whose patch tokens are coded."""

    recipe: Name | None = Field(default=None, description="a recipe that `recipes` of params.yaml lists")
    path: LinkedPath | None = Field(default=None, description="a folder with config.json and model.safetensors")
    timm: Annotated[str, AfterValidator(_timm_source)] | None = Field(
        default=None, description="a pretrained backbone of timm by name, or name@file with weights"
    )

    @model_validator(mode="after")
    def _names_one(self) -> CodesTower:
        if sum(value is not None for value in (self.recipe, self.path, self.timm)) != 1:
            raise ValueError("name one tower: a recipe, a path or a timm model")
        return self

    @property
    def file(self) -> str | None:
        """What is read besides a recipe's model: the folder, or the weights of a timm model."""
        return self.path or (self.timm.partition("@")[2] or None if self.timm else None)


class CodesGates(Section):
    """Thresholds of the checks of `flame codes`."""

    min_caption_gain: float = Field(
        default=0.0,
        description="vq: nats per word by which held-out captions are likelier behind the codes of their own pictures "
        "than behind those of others; only warns",
    )
    min_perplexity: Fraction = Field(default=0.3, description="perplexity of the codes' usage over their number")
    max_dead_fraction: Fraction = Field(default=0.2, description="of codes that no patch has")
    max_drift: float = Field(
        default=0.1,
        gt=0,
        description="with `frozen`: how much farther patches may lie from their codes than when those were made",
    )


class VqParams(Section):
    """How a codebook is trained with a captioner."""

    kinds: list[CaptionKind] = Field(
        default=["raw"], min_length=1, description="kinds of captions to learn; raw ones where a picture has none"
    )
    words: Positive = Field(default=4096, description="most frequent words that the captioner writes")
    max_words: Positive = Field(default=30, description="of a caption; longer ones are cut")
    width: Positive = Field(default=128, multiple_of=32, description="of the captioner, 32 per attention head")
    layers: Positive = Field(default=2, description="of the captioner")
    beta: float = Field(default=0.01, gt=0, description="weight of the commitment term; the paper has 0.25")
    form: VqForm = Field(
        default="corrected",
        description="corrected: beta weights the commitment of tokens; legacy: that of codes, as the released code of "
        "the paper does",
    )
    steps: Positive = Field(default=2000, description="of the training")
    batch_size: Positive = Field(default=64, description="pictures of a step")
    learning_rate: float = Field(default=1e-3, gt=0, description="of AdamW; cosine to 0")


class CodesParams(Section):
    """A codebook over patch tokens, and the codes of every training picture's patches."""

    tower: CodesTower
    codebook: Literal["kmeans", "vq", "words"] = Field(
        default="kmeans",
        description="kmeans: mini-batch spherical k-means over patch tokens; vq: trained with a captioner that reads "
        "only codes; words: the LLM's words, for a tower that projects patches into the LLM's space",
    )
    vq: VqParams = VqParams()
    frozen: LinkedPath | None = Field(
        default=None, description="a folder that `flame codes` made earlier, whose codebook is used; null: make one"
    )
    codes: int = Field(default=1024, ge=2, le=2**16, description="K; for words, the most frequent K of the captions")
    dims: Positive = Field(default=64, description="of the space in which tokens are compared, by PCA; not for words")
    fit_tokens: Positive = Field(
        default=2_000_000, description="patch tokens at most that the codebook is fitted to; vq takes whole pictures"
    )
    batch_tokens: Positive = Field(default=65_536, description="of one step of k-means")
    steps: Positive = Field(default=100, description="of k-means")
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="of the drawn pictures and patches, and of the first codes"
    )
    similarity: bool = Field(
        default=False,
        description="also store how similar the tower finds each picture and its raw captions, for a filter; needs a "
        "trained tower",
    )
    gates: CodesGates = CodesGates()

    @model_validator(mode="after")
    def _codebook_fits(self, info: ValidationInfo) -> CodesParams:
        message = "codebook words needs a tower that projects patches into the LLM's space, which a timm backbone lacks"
        faults = [(("codebook",), message)] if self.codebook == "words" and self.tower.timm else []
        if self.similarity and self.tower.timm:
            faults.append(
                (("similarity",), "similarity needs a tower trained with texts, which a timm backbone is not")
            )
        if self.codebook != "words" and self.frozen is None and self.fit_tokens < self.codes:
            said = (
                f"{self.fit_tokens:,} patch tokens make no {self.codes:,} codes: raise it to 10 times as many or more"
            )
            faults.append((("fit_tokens",), said))
        if self.codebook != "vq" and self.vq != VqParams():
            faults.append((("vq",), f"vq says how a codebook vq is trained, and codebook is {self.codebook}"))
        refuse(faults, info)
        return self


class FilterParams(Section):
    """Only the samples with the highest scores may be selected."""

    scores: LinkedPath = Field(
        default="data/sidecars/similarity",
        description="a sidecar of one number per sample; by default what codes.similarity stores",
    )
    keep: Annotated[float, Field(gt=0, lt=1)] = Field(description="share of all samples that is kept, such as 0.5")


class SelectionParams(Section):
    """One selection: how many samples, and how they are spread over the clusters."""

    share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="of the training samples, such as 0.25"
    )
    samples: Positive | None = Field(default=None, description="how many samples, instead of a share")
    mode: SelectionMode = Field(
        default="proportional",
        description="proportional: every cluster keeps the same share; sqrt: as the roots of their sizes; capped: no "
        "cluster gives more than a bound; random: without clusters, to compare with",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the hash that orders the samples of a cluster")
    min_per_cluster: int = Field(default=0, ge=0, description="samples that every cluster gives, if it has them")
    filter: FilterParams | None = Field(
        default=None, description="scores of which only the highest may be selected; null: all samples may be"
    )

    @model_validator(mode="after")
    def _names_one(self) -> SelectionParams:
        if (self.share is None) == (self.samples is None):
            raise ValueError("write share or samples")
        if self.filter is not None and self.share is not None and self.share > self.filter.keep:
            raise ValueError(
                f"share {self.share:g} of all samples is more than filter.keep {self.filter.keep:g} leaves"
            )
        return self

    def budget(self, total: int) -> int:
        """How many of `total` samples; halves are rounded up."""
        return self.samples if self.samples is not None else max(1, int((self.share or 0.0) * total + 0.5))


class SelectGates(ClusterSizeGates):
    """Thresholds of the checks of `flame select`."""

    max_drift: float = Field(
        default=0.1,
        gt=0,
        description="with `frozen`: how much farther new samples may lie from their centroids than the earlier ones",
    )
    max_caption_cosine: float = Field(
        default=0.1,
        gt=0,
        description="how far the mean cosine between generated captions may exceed that between original ones; only "
        "warns",
    )


class SelectParams(KMeansParams):
    """Clusters of the training pictures by their codes, and selections of keys from them."""

    selections: dict[Name, SelectionParams] = Field(min_length=1)
    clusters: Positive = Field(description="about one per 1,000 samples of a large data set")
    descriptor: Literal["histogram", "code_numbers"] = Field(
        default="histogram",
        description="histogram: how many patches of a picture have each code; code_numbers: codes' numbers place by "
        "place, as the released code of the paper clusters them, to compare with",
    )
    frozen: LinkedPath | None = Field(
        default=None, description="a folder that `flame select` made earlier, whose clusters are used; null: make them"
    )
    counted: Literal["words", "concepts"] = Field(
        default="words",
        description="what the page compares before and after: words of the raw captions, or the concepts of the stage "
        "`concepts`",
    )
    gates: SelectGates = SelectGates()

    @model_validator(mode="after")
    def _values_fit_together(self, info: ValidationInfo) -> SelectParams:
        refuse(self._misfits(), info)
        return self

    def _misfits(self) -> Iterator[tuple[tuple[str, ...], str]]:
        for name, each in self.selections.items():
            if each.mode == "random" and each.min_per_cluster:
                yield (
                    ("selections", name, "min_per_cluster"),
                    f"selection {name} is random, so no cluster gives it a fixed number: remove min_per_cluster",
                )
