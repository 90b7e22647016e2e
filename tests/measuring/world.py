"""A small made-up split: pictures with captions in three languages, and texts with known embeddings."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from flame_core.captions.table import Caption
from flame_core.pages.run_facts import RunFacts, TowerShape
from flame_core.params import Params, parse_params

DIMENSIONS = 64
COLOURS = ["red", "green", "blue", "yellow", "black", "white", "orange", "purple", "brown", "grey", "pink", "gold"]
KEYS = [f"made_{index:02}" for index in range(len(COLOURS))]
CLASSES = ["toys", "boats", "houses"]
GERMAN = [
    "rote",
    "grüne",
    "blaue",
    "gelbe",
    "schwarze",
    "weiße",
    "orange",
    "lila",
    "braune",
    "graue",
    "rosa",
    "goldene",
]
RAW_PREFIX = "Image : {caption} ,"
RAW_FACET = " in one word:"
FACETS = [RAW_FACET, " the main object in one word:"]


def params(tmp_path: Path, **evaluate) -> Params:
    """Params that embed raw captions and short ones with two facets, and evaluate en, de and fr."""
    (tmp_path / "recipes").mkdir(exist_ok=True)
    for name in ("plain", "other"):
        (tmp_path / "recipes" / f"{name}.yaml").write_text("{}\n")
    content = {
        "sources": {"made": {"kind": "folder", "path": "made"}},
        "llm": {"name": "tiny", "source": "path:nowhere"},
        "text": {
            "layer": 2,
            "template": {
                "raw": {"prefix": RAW_PREFIX, "facets": [RAW_FACET]},
                "short": {"prefix": RAW_PREFIX, "facets": FACETS},
            },
            "train_kinds": ["raw", "short"],
        },
        "recipes": ["plain", "other"],
        "train": {
            "kinds": ["raw", "short"],
            "model": {
                "backbone": "vit_tiny_patch16_224",
                "image_size": 32,
                "backbone_options": {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 2},
            },
            "cpu_threads": 1,
        },
        "evaluate": {
            "languages": ["de", "fr"],
            "class_prompts": ["{class}", "a drawing of {class}"],
            **evaluate,
        },
    }
    return parse_params(content, tmp_path / "params.yaml", tmp_path / "recipes")


def classes() -> dict[str, str]:
    """Every picture but the last has a class."""
    return {key: CLASSES[index % 3] for index, key in enumerate(KEYS[:-1])}


def captions(mark: str = "") -> list[Caption]:
    """English for all, German for all but two, French for one; pictures 0 and 1 share their English caption."""
    rows = []
    for index, key in enumerate(KEYS):
        english = f"A {COLOURS[max(index, 1)]} thing.{mark}"
        rows.append(Caption(index, key, "raw", english, "en", "made"))
        if index < 10:
            rows.append(Caption(index, key, "raw", f"Eine {GERMAN[index]} Sache.{mark}", "de", "made"))
        if index == 3:
            rows.append(Caption(index, key, "raw", f"Une chose jaune.{mark}", "fr", "made"))
        rows.append(Caption(index, key, "short", f"Thing number {index}.{mark}", "en", "metadata"))
    return rows


def vector(*parts: object) -> np.ndarray:
    """A unit vector that depends on the parts alone."""
    seed = int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16)
    drawn = np.random.default_rng(seed).normal(size=DIMENSIONS)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def lookup(kind, texts):
    """Embeddings by content: one facet of raw texts, two of short ones."""
    facets = len(FACETS) if kind == "short" else 1
    return np.stack([[vector(kind, text, j) for j in range(facets)] for text in texts])


def pictures_that_know(language: str, rows: list[Caption]) -> np.ndarray:
    """z [N, D] of pictures that lie where their texts of a language lie."""
    z = np.stack([vector("nothing", key) for key in KEYS])
    for row in rows:
        if row.kind == "raw" and row.language == language:
            z[KEYS.index(row.key)] = vector("raw", row.text, 0)
    return z


def jpeg(index: int) -> bytes:
    """A picture of one colour with a darker corner."""
    picture = Image.new("RGB", (48, 40), COLOURS[index])
    picture.paste((20 * index, 10, 10), (0, 0, 12, 12))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def facts(settings: Params, **changes) -> RunFacts:
    values = {
        "recipe": "plain",
        "params": settings,
        "manifest": {"hidden": DIMENSIONS, "facets": ["raw/1", "short/1", "short/2"], "layer": 2},
        "config": {
            "samples": 40,
            "facets": ["raw/1", "short/1", "short/2"],
            "data": {"shards": "5a" * 32, "embeddings": "e7" * 32},
        },
        "training": [
            {"step": s, "loss": 3 / (s + 1), "learning_rate": 0.1, "logit_scale": 10.0, "logit_bias": -5.0}
            for s in range(50)
        ],
        "parameters": 1234567,
        "tower": TowerShape(patch=8, width=24, depth=1),
        "weights_sha256": "0123456789abcdef" * 4,
        "pictures": {"train": 40, "val": 12},
        "captions": [("raw", "source:made", 40, 23), ("short", "metadata", 40, 12)],
        "ledger": [("dropped", "near_duplicate_of_val", 3)],
    }
    return RunFacts(**{**values, **changes})
