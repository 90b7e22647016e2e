"""PatchDis: measures single patches by the mean intersection over union with masks.

Every patch gets the class whose name is nearest to it, the first of equals, and each pixel of the mask the class of the
nearest patch. Over all pictures IoU_m = |predicted m and m| / |predicted m or m|, and the mean is over classes with
pixels in the union. (LexVLA's metric; its candidate classes are not published, so they are a param: those present in
the mask, or all.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from flame_core.errors import InputError
from flame_core.measuring.intervals import mean_of, ratio
from flame_core.measuring.similarity import first_best, resolution, similarities
from flame_core.reporting import progress
from flame_core.suite.content import Masked
from flame_core.suite.encoding import Vectors
from flame_core.suite.safe_pictures import opened
from flame_core.suite.score import Score
from flame_core.suite.tasks.classification import Templates, class_vectors, prompts
from flame_core.suite.tasks.task import Asked, Task, TaskParams


class SegmentationParams(TaskParams):
    """PatchDis: every patch gets the class with the nearest name; mean intersection over union with the masks."""

    kind: Literal["segmentation"]
    candidates: Literal["present", "all"] = Field(
        default="present", description="candidate classes in a picture: those in its mask, or all"
    )
    ignore: int = Field(default=255, description="mask value that is not counted")
    templates: Templates = Field(default={}, description="{language: templates with {c}}")

    def prompt_languages(self) -> set[str]:
        return set(self.templates)


class SegmentationTask(Task[SegmentationParams, Masked]):
    """Which class does each patch show?"""

    params = SegmentationParams
    wanted = Masked
    wanted_is = "pictures with masks"
    exported_as = "patch_segmentation"
    one_language = True
    titles: ClassVar[Mapping[str, str]] = {"miou": "mean IoU of patches"}

    def texts(self, params: SegmentationParams, content: Masked) -> list[str]:
        found: dict[str, None] = {}
        for language, names in content.names.items():
            for rows in prompts(names, params.templates.get(language, [])):
                found.update(dict.fromkeys(rows))
        return list(found)

    def measure(self, asked: Asked[SegmentationParams, Masked], vectors: Vectors) -> Iterator[tuple[str, Score | None]]:
        for language in asked.content.names:
            yield language, score_patches(asked.params, asked.content, language, vectors)

    def headline(self, params: SegmentationParams) -> list[str]:
        return ["miou"]


def score_patches(params: SegmentationParams, content: Masked, language: str, vectors: Vectors) -> Score:
    """Mean IoU over all pictures, by class names in one language.

    Raises:
        InputError: a mask is wrong, or no pixel of any counts.
    """
    t = class_vectors(prompts(content.names[language], params.templates.get(language, [])), vectors.texts)  # [M, D]
    overlaps = []
    with progress("patches", len(content.pictures), "pictures") as bar:
        for picture, shown in zip(content.pictures, content.masks, strict=True):
            mask = view_of_mask(shown.read(), shown.name, len(t), params.ignore)
            predicted = label_patches(vectors.patches(picture), t, mask, params)
            overlaps.append(overlap(predicted, mask, len(t), params.ignore))
            bar.advance()
    if not any(either.any() for _, either in overlaps):
        raise InputError(
            f"{content.masks[0].path.parent}: no pixel of the {len(overlaps):,} masks counts, because all have the "
            f"value {params.ignore} (task.ignore): correct it, or the masks"
        )
    return score_overlaps(overlaps, language)


def view_of_mask(png: bytes, name: str, classes: int, ignore: int) -> np.ndarray:
    """The mask as the model sees its picture: the centre square, [S, S] class numbers.

    Raises:
        InputError: it cannot be decoded, or a value is not a class.
    """
    picture = opened(png, f"mask {name}")
    if picture.mode not in ("L", "P", "I", "I;16", "1"):
        raise InputError(f"mask {name}: must have one channel whose values are class numbers, not {picture.mode}")
    mask = np.asarray(picture).astype(np.int64)
    height, width = mask.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    mask = mask[top : top + side, left : left + side]
    wrong = np.unique(mask[(mask >= classes) & (mask != ignore)])
    if len(wrong):
        raise InputError(f"mask {name}: value {wrong[0]} is none of the {classes} classes (ignored: {ignore})")
    return mask


def label_patches(patches: np.ndarray, t: np.ndarray, mask: np.ndarray, params: SegmentationParams) -> np.ndarray:
    """[S, S], the class of each pixel from its patch: patches [g, g, D], classes t [M, D], mask [S, S]."""
    flat = patches.reshape(-1, patches.shape[-1])
    scores = similarities(flat, t)  # [g * g, M]
    if params.candidates == "present":
        absent = np.setdiff1d(np.arange(len(t)), mask[mask != params.ignore])
        scores[..., absent] = -np.inf
    labels = first_best(scores, resolution(flat, t)).reshape(patches.shape[:2])
    grid, side = len(labels), len(mask)
    at = np.minimum((np.arange(side) * 2 + 1) * grid // (2 * side), grid - 1)  # patch under the middle of each pixel
    return labels[np.ix_(at, at)]


def overlap(predicted: np.ndarray, mask: np.ndarray, classes: int, ignore: int) -> tuple[np.ndarray, np.ndarray]:
    """(intersection [M], union [M]) in pixels."""
    counted = mask != ignore
    truth, found = mask[counted], predicted[counted]
    both = np.bincount(truth[truth == found], minlength=classes)
    either = np.bincount(truth, minlength=classes) + np.bincount(found, minlength=classes) - both
    return both.astype(np.float64), either.astype(np.float64)


def score_overlaps(overlaps: Sequence[tuple[np.ndarray, np.ndarray]], language: str) -> Score:
    """Mean IoU over classes with a union; in its interval, the pixels of one picture count as dependent."""
    both, either = (np.stack(part) for part in zip(*overlaps, strict=True))  # [N, M]
    seen = np.flatnonzero(either.sum(axis=0))
    score = Score(language, facts={"pictures": len(both), "classes": len(seen)})
    score.add("miou", mean_of([ratio(both[:, number], either[:, number]) for number in seen]))
    return score
