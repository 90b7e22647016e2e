"""Writes the commented `params.yaml` of a new project for the data that a survey found.

On a CPU the towers are the demo's small ones; on a GPU the image tower is a ViT-S/16 at 224 px, or a ViT-B/16 from
200,000 pictures on.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flame_core.params import Source, parse_params, read_yaml
from flame_core.params.auto import fitting_val_fraction, pictures_needed
from flame_core.preflight.data_fit import WIDE
from flame_core.project.data_survey import FEWEST, Survey
from flame_core.quantities import duration
from flame_core.shipped import shipped

Device = Literal["cpu", "gpu"]
_TEMPLATE = "params.yaml.j2"
_SMALL_VIT = {"img_size": 48, "patch_size": 8, "embed_dim": 192, "depth": 6, "num_heads": 3}
_SMALL_TEXT = {"width": 192, "depth": 2, "heads": 3, "max_tokens": 64}  # of the recipes that train one
_BASE_FROM = 200_000  # pictures
_MEASURED: dict[Device, int] = {"cpu": 128, "gpu": 5000}  # held-out pictures at most: every caption costs LLM tokens
_MOST_LANGUAGES = 10  # that are measured beside the one of the training
_USUALLY_KEPT = 0.6  # of the listed pairs; a gate of ingest wants half
_TOKENS, _TOKENS_PER_WORD = 56, 1.4  # of the three prompts, and of each word of a caption
_CPU_RATE = 400.0  # tokens per second that SmolLM2 reads on two cores
_NOT_WRITTEN = {"kind", "path"}


def params_text(found: Survey, root: Path, device: Device) -> str:
    """The text of `params.yaml` for the project in `root`; valid for the recipes that are shipped."""
    held_out = min(_held_out(found), _MEASURED[device])
    common = [code for code, n in found.languages.most_common() if n >= FEWEST and code != found.language]
    others = sorted(common[:_MOST_LANGUAGES])
    values = {
        "about": f"about {found.usable:,} pictures, on a {device.upper()}",
        "sources": {name: _source(source, root) for name, source in found.sources.items()},
        "max_side": 256,
        "kept": found.kept,
        "fewest_kept": None if found.kept > _USUALLY_KEPT else max(0.0, round(found.kept * 0.8 - 0.005, 2)),
        "llm": read_yaml(shipped("params.yaml"))["llm"],
        "batch_tokens": 1024 if device == "cpu" else 16384,
        "tokens": _cost(found, held_out * len(others), device),
        "model": _model(found.usable, device),
        "text_tower": _SMALL_TEXT if device == "cpu" else None,
        "precision": "float32" if device == "cpu" else "bfloat16",
        "language": found.language,
        "languages": others,
        "all_languages": len(common),
        "max_pictures": _MEASURED[device],
        "recall_at": [k for k in (1, 2, 5, 10) if k <= held_out // 4] or [1],
        "few": held_out < pictures_needed(WIDE, 0.95),
        "held_out": held_out,
    }
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    templates.filters["yaml"] = as_yaml
    return templates.get_template(_TEMPLATE).render(values)


def require_valid(text: str, path: Path) -> None:
    """Refuse a text that is no params file; a mistake of ours, or a name that no file may have.

    Raises:
        ParamsError: names the key.
    """
    import yaml

    parse_params(yaml.safe_load(text), path, shipped("recipes"))


def as_yaml(value: Any) -> str:
    """A value as YAML on one line: JSON is YAML too, and a plain word needs no quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z./][\w./-]*[\w/]", value) is not None
    words = ("true", "false", "null", "yes", "no", "on", "off")
    return value if plain and value.lower() not in words else json.dumps(value, ensure_ascii=False)


def _held_out(found: Survey) -> int:
    """Pictures of the validation split: those that the data say, and a share of those of which they say nothing."""
    free = max(found.usable - found.fixed.total(), 0)
    return found.fixed["val"] + round(fitting_val_fraction(free) * free if free else 0)


def _source(source: Source, root: Path) -> dict[str, Any]:
    content = source.model_dump(mode="json", exclude_defaults=True)
    path = Path(content["path"])
    where = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    told = ("image_column", "caption_column") if content.get("table") else ()
    return {
        "kind": source.kind,
        "path": where,
        **{key: value for key, value in content.items() if key not in _NOT_WRITTEN},
        **{key: getattr(source, key) for key in (*told, "language")},
    }


def _model(pictures: int, device: Device) -> dict[str, Any]:
    if device == "cpu":
        return {"backbone_options": _SMALL_VIT, "image_size": _SMALL_VIT["img_size"]}
    size = "base" if pictures >= _BASE_FROM else "small"
    return {"backbone": f"vit_{size}_patch16_224", "image_size": 224}


def _cost(found: Survey, translations: int, device: Device) -> str:
    tokens = (found.captions + translations) * (_TOKENS + _TOKENS_PER_WORD * found.words)
    said = f"about {round(tokens, -3) or tokens:,.0f} tokens"
    return said if device == "gpu" else f"{said}, {duration(tokens / _CPU_RATE)} on two cores"
