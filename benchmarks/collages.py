"""PatchDis of trained models on collages of held-out pictures, whose masks are known: FLAME's patches beside words.

    python -m benchmarks.collages                          # all models in data/models of the project, after `flame run`
    python -m benchmarks.collages --models lexvla-frozen .flame/runs/<run>/data/models/flame --collages 200

The demo has no pictures with masks, so they are made: a collage is four held-out pictures of four different top-level
classes in a square of two by two, on white. What is not white is of the picture's class, and the rest is not counted
(value 255). Every patch gets the class with the nearest name among the four, as in the benchmark task `segmentation`.
`by chance` is the same with random classes. Class names are those of the zero-shot classification, which the store has,
so no LLM runs but for a model with adapters. Nothing is written but the table.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from flame_core.data.shards import PictureReader, read_index
from flame_core.layout import Layout
from flame_core.measuring.classification import class_embeddings
from flame_core.measuring.image_vectors import require_same_space
from flame_core.measuring.text_side import texts_of
from flame_core.measuring.texts import class_names, read_classes
from flame_core.params import load_params
from flame_core.settings import settings
from flame_core.suite.models.trained import patch_grid
from flame_core.suite.tasks.segmentation import SegmentationParams, label_patches, overlap, score_overlaps
from flame_core.text.store import TextStore
from flame_core.vision.image_encoder import load_encoder

IGNORED = 255
TILE = 96  # pixels per side of a picture in a collage
_WHITE = 245  # from this value on in all channels


@dataclass(frozen=True)
class Collage:
    """A picture as PNG, and its mask [S, S] of class numbers and `IGNORED`."""

    picture: bytes
    mask: np.ndarray


def collage(pictures: Sequence[bytes], classes: Sequence[int]) -> Collage:
    """Four pictures in a square of two by two."""
    pixels = np.full((2 * TILE, 2 * TILE, 3), 255, dtype=np.uint8)
    mask = np.full(pixels.shape[:2], IGNORED, dtype=np.int64)
    for place, (content, number) in enumerate(zip(pictures, classes, strict=True)):
        shown = Image.open(io.BytesIO(content)).convert("RGB")
        shown.thumbnail((TILE, TILE))
        own = np.asarray(shown)
        height, width = own.shape[:2]
        top = place // 2 * TILE + (TILE - height) // 2
        left = place % 2 * TILE + (TILE - width) // 2
        pixels[top : top + height, left : left + width] = own
        mask[top : top + height, left : left + width][(own < _WHITE).any(axis=2)] = number
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return Collage(written.getvalue(), mask)


def draw(classes: Mapping[str, str], count: int, seed: int) -> list[list[str]]:
    """Keys of the four pictures of each collage, of four different classes."""
    rng, names = np.random.default_rng(seed), class_names(dict(classes))
    if len(names) < 4:
        raise SystemExit(f"the held-out pictures have {len(names)} classes; a collage needs four")
    members = {name: sorted(key for key, own in classes.items() if own == name) for name in names}
    chosen = [rng.choice(len(names), 4, replace=False) for _ in range(count)]
    return [[str(rng.choice(members[names[number]])) for number in four] for four in chosen]


def miou(patches: np.ndarray, t: np.ndarray, masks: Sequence[np.ndarray]) -> float:
    """PatchDis of patches [N, g, g, D] by classes t [C, D]; candidates are the classes in a picture."""
    params = SegmentationParams(kind="segmentation", ignore=IGNORED)
    found = (label_patches(own, t, mask, params) for own, mask in zip(patches, masks, strict=True))
    overlaps = [overlap(labels, mask, len(t), IGNORED) for labels, mask in zip(found, masks, strict=True)]
    return float(score_overlaps(overlaps, "en").metrics["miou"])


def made(layout: Layout, count: int, seed: int) -> tuple[list[str], list[Collage]]:
    """The names of the classes, and the collages of held-out pictures."""
    rows, reader = {row.key: row for row in read_index(layout.shards, "val")}, PictureReader(layout.shards)
    classes = {key: name for key, name in read_classes(layout.shards).items() if key in rows}
    names = class_names(classes)
    collages = [
        collage([reader.jpeg(rows[key]) for key in four], [names.index(classes[key]) for key in four])
        for four in draw(classes, count, seed)
    ]
    return names, collages


def measured(layout: Layout, model: Path, names: Sequence[str], collages: Sequence[Collage]) -> tuple[float, float]:
    """PatchDis of a model, and by chance with as many patches."""
    run = layout if model.parent.parent == layout.data else Layout.find(model.parents[2])
    params, store = load_params(run), TextStore.open(run.embeddings)
    encoder = load_encoder(model, settings().torch_device())
    require_same_space(encoder.config, store.manifest, model)
    t = class_embeddings(params.evaluate, names, texts_of(model, params, run, store).lookup)
    patches = encoder.encode_with(patch_grid, [each.picture for each in collages], batch_size=16)
    random = np.random.default_rng(0).normal(size=(*patches.shape[:3], 64))
    masks = [each.mask for each in collages]
    return miou(patches, t, masks), miou(random, np.random.default_rng(1).normal(size=(len(t), 64)), masks)


def main() -> None:
    """Measure the models, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[], help="recipes or folders of models; all by default")
    parser.add_argument("--collages", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    layout = Layout.find()
    folders = [layout.model(name) if "/" not in name else Path(name).resolve() for name in options.models]
    folders = folders or sorted(path.parent for path in layout.data.glob("models/*/model.safetensors"))
    names, collages = made(layout, options.collages, options.seed)
    print(f"{len(collages)} collages, {len(names)} classes\n\n| model | PatchDis | by chance |\n|---|---|---|")
    for folder in folders:
        own, chance = measured(layout, folder, names, collages)
        print(f"| {folder.name} | {own:.1%} | {chance:.1%} |", flush=True)


if __name__ == "__main__":
    main()
