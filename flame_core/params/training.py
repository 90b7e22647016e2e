"""A training recipe: `recipes/<name>.yaml`, overridden by `train` of `params.yaml`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from flame_core.names import Name
from flame_core.params.augmentation import AugmentationParams
from flame_core.params.auto import Schedule, schedule
from flame_core.params.changed_values import changed_values
from flame_core.params.initial_weights import TextProjectionParams
from flame_core.params.model_links import InheritParams, TeacherParams
from flame_core.params.objectives import MultiPositiveSigmoidParams, ObjectiveParams
from flame_core.params.optimizer import OptimizerParams
from flame_core.params.sampling import SOURCES, LinkedPath, Sampling, UniformSampling
from flame_core.params.section import (
    AUTO,
    CaptionKind,
    CountOrAuto,
    Fraction,
    Positive,
    PositiveOrAuto,
    Precision,
    Reading,
    Section,
    refuse,
)
from flame_core.params.towers import LoraParams, ModelParams, TextTowerParams

FEATURES = "features"  # name of the sidecar that holds a frozen tower's vectors of the pictures
WITHOUT_LOSS = ("attentive_mask", "learned_masks")  # terms that stand beside a loss
# what a recipe may need beside shards, captions and embeddings
LINKS = ("teacher", "inherit", "sidecars", "selection", "prompts")


class TrainGates(Section):
    """Thresholds of the checks of `flame train`."""

    max_loss_ratio: float = Field(default=1.0, description="last loss over first loss must stay below this")


class TrainParams(Section):
    """A training recipe: `recipes/<name>.yaml`, overridden by `train:` of params.yaml."""

    model: ModelParams = ModelParams()
    text_tower: TextTowerParams | None = Field(
        default=None,
        description="a text tower to train with the image tower; null: the stored embeddings of the frozen LLM",
    )
    lora: LoraParams | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # as `reading` below
        description="adapters on the LLM to train with the image tower, for objective lexical; null: the LLM is frozen",
    )
    text_projection: TextProjectionParams | None = Field(
        default=None,
        exclude_if=lambda value: value is None,  # as `reading` below
        description="layers behind the stored embeddings that learn too; null: the embeddings as they are",
    )
    objective: ObjectiveParams = Field(default=MultiPositiveSigmoidParams(), description="the loss")
    terms: list[ObjectiveParams] = Field(
        default=[],
        exclude_if=lambda value: not value,  # as `reading` below
        description="further losses to add to the objective, each with its weight",
    )
    augmentation: AugmentationParams = AugmentationParams()
    decoder: Literal["pil", "torchvision", "nvjpeg"] = Field(
        default="pil",
        exclude_if=lambda value: value == "pil",  # as `reading` below
        description="what decodes and resizes training pictures; torchvision: faster, by rounding the same; "
        "nvjpeg: on the GPU",
    )
    optimizer: OptimizerParams = OptimizerParams()
    kinds: list[CaptionKind] = Field(
        default=["raw", "short", "long"], min_length=1, description="kinds of captions to draw from"
    )
    reading: Reading = Field(
        default="facets",
        exclude_if=lambda value: value == "facets",  # a recipe that does not name it is recorded as it always was
        description="the LLM's reading of captions that is trained on; sentence needs text.sentence",
    )
    texts_per_image: Positive = Field(default=6, description="texts drawn per image, anew at every step")
    batch_size: PositiveOrAuto = Field(
        default=3072, description="images per step, over all processes; auto: a quarter of the samples or fewer"
    )
    micro_batch_size: Positive | None = Field(
        default=None, description="images whose graph a process holds at once; the loss is still that of the batch"
    )
    compile: bool = Field(
        default=True,
        description="torch.compile the image tower on a GPU (takes half a minute once); a CPU never compiles",
    )
    epochs: PositiveOrAuto = Field(default=32, description="auto: fewer, the more samples there are")
    warmup_steps: CountOrAuto = Field(default=2000, description="auto: a tenth of all steps, at most 2,000")
    precision: Precision = Field(
        default="bfloat16", description="of the towers; bfloat16: under autocast, with weights in float32"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="of first weights, the order of samples, crops, drawn texts and dropout"
    )
    cpu_threads: Positive = Field(default=2, description="of torch on a CPU; sums depend on it")
    gates: TrainGates = TrainGates()
    teacher: TeacherParams | None = Field(default=None, description="a model to learn from")
    inherit: InheritParams | None = Field(default=None, description="a model to begin with; null: random weights")
    sidecars: dict[Name, LinkedPath] = Field(
        default_factory=dict, description="values per sample that another stage stored: {name: folder}"
    )
    noise: Fraction = Field(
        default=0.0,
        exclude_if=lambda value: value == 0,  # as `reading`
        description="share of the samples that get each other's texts, by the sidecar `noise` of `flame noise`",
    )
    sampling: Sampling = Field(
        default=UniformSampling(),
        exclude_if=lambda value: value == UniformSampling(),  # as `reading` above
        description="which samples an epoch has: uniform (each once), weighted, soft_cap, capped, or balanced batches",
    )
    prompts: LinkedPath | None = Field(
        default=None,
        description="folder of the head that `flame prompts` made, data/prompts, for the term prompts",
    )
    selection: LinkedPath | None = Field(default=None, description="a parquet file of the keys to train on; null: all")

    @property
    def automatic(self) -> list[str]:
        """Fields that are `auto`."""
        return [name for name in ("batch_size", "epochs", "warmup_steps") if getattr(self, name) == AUTO]

    @property
    def reads_features(self) -> bool:
        """Whether it trains on the stored vectors of a frozen tower instead of pictures."""
        return FEATURES in self.sidecars

    @property
    def learns_masks(self) -> bool:
        """Whether the tower is pruned while it is trained."""
        return any(term.name == "learned_masks" for term in self.terms)

    @property
    def crops(self) -> int | None:
        """How many crops of each picture there are, if the teacher's vectors are stored; None: new in every epoch."""
        return self.teacher.copies if self.teacher else None

    def schedule(self, samples: int) -> Schedule:
        """Batch size, epochs and warm-up of a training on so many samples."""
        return schedule(samples, self.batch_size, self.epochs, self.warmup_steps)

    def fitted(self, samples: int) -> TrainParams:
        """This recipe with values for so many samples in place of every `auto`."""
        if not self.automatic:
            return self
        chosen = self.schedule(samples)
        return self.model_copy(update={name: getattr(chosen, name) for name in self.automatic})

    @property
    def identity(self) -> dict[str, Any]:
        """The values that decide the weights, for a training's digest; gates only judge the weights.

        What it is linked to is known by its content instead (`graph/link_contents.py`), wherever it lies.
        """
        values = {name: value for name, value in changed_values(self).items() if name not in ("gates", *LINKS)}
        if self.model.init is not None:
            values["model"] = self.model.identity  # the weights are known by their content
        if (sampling := values.get("sampling")) is not None:
            values["sampling"] = {name: value for name, value in sampling.items() if name not in SOURCES}
        inherited = self.inherit.how if self.inherit else {}
        copies = {"copies": self.teacher.copies} if self.teacher and self.teacher.copies else {}
        return values | ({"inherit": inherited} if inherited else {}) | ({"teacher": copies} if copies else {})

    def dump(self) -> dict[str, Any]:
        """All values for a model's config, of `LINKS` only those that are set."""
        content = self.model_dump(mode="json", exclude=set(LINKS))
        return content | {name: value for name, value in changed_values(self).items() if name in LINKS}

    @model_validator(mode="after")
    def _values_fit_together(self, info: ValidationInfo) -> TrainParams:
        refuse(self._misfits(), info)
        return self

    def _misfits(self) -> Iterator[tuple[tuple[str, ...], str]]:
        names = [self.objective.name, *(term.name for term in self.terms)]
        yield from self._steps_without_loss()
        blocks = self.model.facet_blocks
        yield from self._misfits_of_weights()
        if blocks is not None and self.model.head != "patches":
            head = self.model.head
            yield ("model", "head"), f"model.head {head} has no facets: model.facet_blocks needs head patches"
        if self.decoder == "nvjpeg" and self.augmentation.photometric is not None:
            yield (
                ("decoder",),
                "decoder nvjpeg cannot change colours, which augmentation.photometric asks for: take torchvision",
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            yield (
                ("terms",),
                f"terms: {', '.join(twice)} stands more than once among objective and terms; use its weight",
            )
        if (self.model.head == "lexical") != (self.objective.name == "lexical"):
            yield (
                ("objective", "name"),
                "objective.name lexical and model.head lexical go together: set both or neither",
            )
        yield from self._impossible_lora()
        for here, key in ((self.model.connector, "model"), (self.prompts, "prompts")):
            if here is not None and "prompts" not in names:
                other = ("model", "connector") if key == "model" else ("prompts",)
                yield other, f"{'.'.join(other)} is of use only with the term prompts: add it to terms, or set null"
        if self.model.connector is not None and self.learns_masks:
            yield ("model", "connector"), "a tower with a connector cannot be pruned: drop one of the two"
        if self.reading == "sentence" and blocks is not None:
            yield (
                ("reading",),
                "model.facet_blocks needs facets, which reading: sentence lacks: unset one of them",
            )
        if ("facet_sigmoid" in names) != (blocks is not None):
            yield (
                ("objective", "name"),
                "objective.name facet_sigmoid and model.facet_blocks go together: set both or neither",
            )

    def _steps_without_loss(self) -> Iterator[tuple[tuple[str, ...], str]]:
        losses = [each for each in (self.objective, *self.terms) if each.name not in WITHOUT_LOSS]
        given = [getattr(each, "during", None) for each in losses]
        if not any(given):
            return
        end, spans = 0.0, [during or (0.0, 1.0) for during in given]
        for first, last in sorted(spans):
            if first > end:
                break
            end = max(end, last)
        if end < 1:
            where = ("terms",) if self.terms else ("objective", "during")
            yield where, f"no loss counts from {end:g} of the steps on: extend a `during`, so that they cover [0, 1]"

    def _impossible_lora(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if self.lora is None:
            return
        if self.text_tower is not None:
            yield ("lora",), "lora and text_tower both train what reads the captions: unset one of them"
        if self.objective.name != "lexical":
            yield ("lora",), "lora trains the LLM to give words: set objective.name and model.head to lexical"
        if self.reading != "sentence":
            yield ("reading",), "lora reads captions as sentences: set reading: sentence"

    def _misfits_of_weights(self) -> Iterator[tuple[tuple[str, ...], str]]:
        model = self.model
        if model.init is not None and self.inherit is not None:
            yield ("inherit",), "model.init and inherit both say what weights the tower begins with: unset one of them"
        if model.init is not None and model.sizes is not None:
            yield ("model", "sizes"), "model.init gives a whole backbone its weights: unset model.sizes"
        if model.init is None and self.inherit is None and model.train != "all":
            yield ("model", "train"), f"model.train {model.train}: weights that do not learn must come from model.init"
        if self.text_projection is not None and (self.text_tower is not None or model.head == "lexical"):
            yield (
                ("text_projection",),
                "text_projection is behind stored embeddings, which this recipe does not read",
            )
        if model.head == "none" and self.text_projection is None:
            yield ("model", "head"), "model.head none leaves pictures where they are: texts need a text_projection"
        if model.head_hidden is not None and model.head not in ("pooled", "cls", "attention", "gated"):
            yield ("model", "head_hidden"), f"model.head {model.head} has no hidden units of its own: unset head_hidden"
        rates = self.optimizer
        if rates.layer_decay is not None and model.train == "none":
            yield ("optimizer", "layer_decay"), "no layer of the backbone learns (model.train none): unset layer_decay"
        if rates.head_first is not None and (model.train == "none" or (model.init is None and self.inherit is None)):
            yield (
                ("optimizer", "head_first"),
                "head_first waits with a backbone that has trained weights (model.init or inherit) and learns later "
                "(model.train other than none): set both, or unset it",
            )
        if rates.head_first is not None and self.learns_masks:
            yield ("optimizer", "head_first"), "a tower with learned masks is pruned while it learns: unset head_first"
        if model.head == "linear" and model.init is None and self.inherit is None:
            yield ("model", "head"), "model.head linear has the matrix of trained weights: name them in model.init"
        if not self.reads_features:
            return
        if model.train != "none":
            yield ("model", "train"), "stored features are those of a frozen tower: set model.train to none"
        if model.head in ("patches", "attention", "lexical"):
            yield (
                ("model", "head"),
                f"stored features are one vector per picture, and model.head {model.head} reads patches: take pooled",
            )
