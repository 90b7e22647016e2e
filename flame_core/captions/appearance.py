"""Measures a picture without knowing what it shows: colours, background, outline, layout, rendering.

Every value is a measurement with a threshold, so a caption made from them states only what the pixels show. The
background is the region of one colour connected to the border; everything else is the object. If the border has no such
colour, as in most photographs, the whole picture is the object and has no outline.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image
from scipy import ndimage as _ndimage

from flame_core.captions.colours import COLOURS, name_colours, oklab

Outline = Literal["round", "oval", "square", "rectangular", "slender", "tall", "wide"]
Rendering = Literal["outlined", "solid", "flat", "smooth", "shaded", "textured"]
ndimage: Any = _ndimage  # it has no types
_SIDE = 112  # pixels of the longer side of the measured copy
_ALIKE = 0.04  # OKLab distance below which a pixel has the background's colour
_PLAIN = 0.02  # largest distance, for nine tenths of the background's pixels
_TOUCHING = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Colour:
    """A colour name, its share of the object's pixels, and whether they are light or dark for that colour."""

    name: str
    share: float
    shade: Literal["light", "dark"] | None


@dataclass(frozen=True)
class Appearance:
    """The measurements. None, or an empty tuple, if the picture gives no clear answer."""

    format: Literal["wide", "tall", "square"]  # of the picture
    colours: tuple[Colour, ...]  # of the object, largest share first, those of at least 8 %
    background: str | None  # colour name, with its shade
    background_share: float  # of the picture
    outline: Outline | None
    slanted: bool  # longer along a diagonal than along the sides
    symmetric: bool  # left and right are mirror images
    parts: int  # number of separate parts with at least 4 % of the object each
    margin: bool  # the object's bounding box covers less than half of the picture's area
    rendering: Rendering
    tone: Literal["dark", "light"] | None
    vividness: Literal["vivid", "muted"] | None
    upper: str | None  # colour of most of the upper third, if it differs from that of the lower third
    lower: str | None


def measure_jpeg(jpeg: bytes) -> Appearance:
    """Measure an encoded picture.

    Raises:
        OSError: the bytes are not a whole picture (Pillow's own errors).
    """
    with Image.open(io.BytesIO(jpeg)) as picture:
        picture.draft("RGB", (_SIDE, _SIDE))  # lets the decoder skip detail that is not measured
        return measure(picture.convert("RGB"))


def measure(picture: Image.Image) -> Appearance:
    """Measure an RGB picture."""
    ratio = picture.height / picture.width
    scale = _SIDE / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BOX)
    lab = oklab(np.asarray(picture))  # [H, W, 3]
    names = name_colours(lab)  # [H, W]
    background, thing = _split(lab, names)
    rows, columns = np.nonzero(thing)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    inner = ndimage.binary_erosion(thing, _TOUCHING) if background else thing  # the edge mixes two colours
    if inner.sum() < 0.2 * thing.sum():
        inner = thing
    rendering = _rendering(lab, inner, names)
    coloured = _without_strokes(inner, names) if rendering == "flat" else inner
    colours = _colours(lab[coloured], names[coloured])
    upper, lower = _halves(names[box], inner[box])
    lightness, chroma = lab[inner][:, 0].mean(), np.hypot(lab[inner][:, 1], lab[inner][:, 2]).mean()
    outline, slanted = _outline(thing[box]) if background else (None, False)
    height, width = thing[box].shape
    return Appearance(
        format="tall" if ratio > 1.05 else "wide" if ratio < 1 / 1.05 else "square",
        colours=colours,
        background=_shaded(background) if background else None,
        background_share=float(1 - thing.mean()) if background else 0.0,
        outline=outline,
        slanted=slanted,
        symmetric=_symmetric(lab[box], thing[box], bool(background)),
        parts=_parts(thing) if background else 1,
        margin=bool(background) and height * width < 0.5 * thing.size,
        rendering=rendering,
        tone="dark" if lightness < 0.35 else "light" if lightness > 0.85 else None,
        vividness="vivid" if chroma > 0.14 else "muted" if 0.03 < chroma < 0.05 else None,
        upper=upper,
        lower=lower,
    )


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Euclidean distance of OKLab colours: [..., 3] and [..., 3] -> [...]."""
    difference = one - other
    return np.sqrt(np.einsum("...i,...i->...", difference, difference))


def _split(lab: np.ndarray, names: np.ndarray) -> tuple[Colour | None, np.ndarray]:
    """The background, if there is one, and the mask of the object: [H, W] bool with at least one pixel."""
    everything = np.ones(names.shape, dtype=bool)
    edge = everything.copy()
    edge[1:-1, 1:-1] = False
    name = int(np.bincount(names[edge]).argmax())
    middle = np.median(lab[edge & (names == name)], axis=0)
    alike = _distance(lab, middle) < _ALIKE
    white = (names[edge] == COLOURS.index("white")).mean()
    if alike[edge].mean() < 0.5 or (COLOURS[name] != "white" and white > 0.15):
        return None, everything  # transparent pixels became white, so beside white no other colour is the background
    regions, _ = ndimage.label(np.pad(alike, 1, constant_values=True))
    thing = regions[1:-1, 1:-1] != regions[0, 0]
    thing = thing & ~_specks(thing)
    share = float(1 - thing.mean())
    large_enough = share > (0.05 if COLOURS[name] == "white" else 0.15)
    if not thing.any() or not large_enough or np.quantile(_distance(lab[~thing], middle), 0.9) > _PLAIN:
        return None, everything
    return Colour(COLOURS[name], share, _shade(COLOURS[name], middle[0])), thing


def _specks(mask: np.ndarray) -> np.ndarray:
    """Parts of a mask that are too small to see, such as compression noise."""
    parts, count = ndimage.label(mask, _TOUCHING)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    small = sizes < 4
    small[0] = False
    return small[parts]


def _shade(name: str, lightness: float) -> Literal["light", "dark"] | None:
    if name in ("black", "white", "beige", "orange", "yellow"):
        return None
    dark, light = (0.4, 0.75) if name in ("red", "brown", "blue", "purple") else (0.45, 0.8)
    return "dark" if lightness < dark else "light" if lightness > light else None


def _shaded(colour: Colour) -> str:
    return f"{colour.shade} {colour.name}" if colour.shade else colour.name


def _colours(lab: np.ndarray, names: np.ndarray) -> tuple[Colour, ...]:
    """Colours of pixels [N, 3] by share."""
    shares = np.bincount(names, minlength=len(COLOURS)) / names.size
    found = []
    for index in np.argsort(-shares, kind="stable"):
        if shares[index] >= 0.08 or not found:
            lightness = float(np.median(lab[names == index, 0]))
            found.append(Colour(COLOURS[index], float(shares[index]), _shade(COLOURS[index], lightness)))
    return tuple(found)


def _without_strokes(mask: np.ndarray, names: np.ndarray) -> np.ndarray:
    """A mask without thin black strokes (the contours of drawings), unless little else would be left."""
    black = names == COLOURS.index("black")
    rest = mask & ~(black & ~ndimage.binary_opening(black, np.ones((5, 5), dtype=bool)))
    return rest if rest.sum() > 0.25 * mask.sum() else mask


def _halves(names: np.ndarray, thing: np.ndarray) -> tuple[str | None, str | None]:
    """Main colour names of the upper and of the lower third of the object, if they differ."""
    third = max(1, len(names) // 3)
    found = []
    for part in (np.s_[:third], np.s_[-third:]):
        pixels = names[part][thing[part]]
        shares = np.bincount(pixels, minlength=len(COLOURS)) / max(1, pixels.size)
        found.append(COLOURS[shares.argmax()] if shares.max() > 0.6 else None)
    upper, lower = found
    return (upper, lower) if upper and lower and upper != lower else (None, None)


def _outline(thing: np.ndarray) -> tuple[Outline | None, bool]:
    """The outline of an object that touches all four sides of its mask, and whether it is slanted."""
    height, width = thing.shape
    y, x = np.nonzero(thing)
    if y.size < 30:
        return None, False
    (yy, xy), (_, xx) = np.cov(y, x)
    variances, axes = np.linalg.eigh(np.array([[xx, xy], [xy, yy]]) + np.eye(2) / 12)
    elongation = float(np.sqrt(variances[1] / variances[0]))
    angle = abs(float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))))
    slanted = elongation > 2.6 and 20 < min(angle, 180 - angle) < 70
    ratio = height / width
    filled = ndimage.binary_fill_holes(thing)
    if filled.mean() > 0.94:
        return ("square" if 0.9 < ratio < 1.1 else "rectangular"), slanted
    if _ellipse_overlap(filled) > 0.94:
        return ("round" if elongation < 1.15 else "oval"), slanted
    if elongation > 3.4:
        return "slender", slanted
    return ("tall" if ratio > 1.5 else "wide" if ratio < 1 / 1.5 else None), slanted


def _ellipse_overlap(mask: np.ndarray) -> float:
    """Intersection over union of a mask and the ellipse with the same area and second moments."""
    y, x = np.nonzero(mask)
    covariance = np.cov(y, x) + np.eye(2) / 12
    (p, q), (_, r) = np.linalg.inv(covariance)
    dy, dx = np.arange(mask.shape[0])[:, None] - y.mean(), np.arange(mask.shape[1]) - x.mean()
    distance = p * dy * dy + 2 * q * dy * dx + r * dx * dx
    ellipse = distance <= y.size / (np.pi * np.sqrt(np.linalg.det(covariance)))
    return float((mask & ellipse).sum() / (mask | ellipse).sum())


def _symmetric(lab: np.ndarray, thing: np.ndarray, cut_out: bool) -> bool:
    """Whether left and right agree in outline and in colour; without an outline, whether more than by chance."""
    mirrored = thing[:, ::-1]
    either = thing | mirrored
    if (thing & mirrored).sum() < 0.92 * either.sum():
        return False
    difference = _distance(lab, lab[:, ::-1])[either].mean()
    spread = _distance(lab, lab[either].mean(axis=0))[either].mean()
    return bool(difference < (0.08 if cut_out else min(0.08, 0.3 * spread)))


def _parts(thing: np.ndarray) -> int:
    parts, count = ndimage.label(thing, _TOUCHING)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return max(1, int((sizes > 0.04 * thing.sum()).sum()))


def _rendering(lab: np.ndarray, inner: np.ndarray, names: np.ndarray) -> Rendering:
    """How the object is drawn, from the steps between neighbouring pixels inside it."""
    darkest = np.array([0.25, 0, 0], dtype=np.float32)
    seen = np.where(lab[..., :1] < darkest[0], darkest, lab)  # OKLab magnifies noise in black
    across, down = _distance(seen[:-1, 1:], seen[:-1, :-1]), _distance(seen[1:, :-1], seen[:-1, :-1])
    lit = inner & (lab[..., 0] >= darkest[0])
    where = (lit if lit.sum() > 0.1 * inner.sum() else inner)[:-1, :-1]
    steps = np.maximum(across, down)[where]
    if steps.size == 0:
        return "solid"
    none, small, rough = (steps < 0.012).mean(), ((steps >= 0.012) & (steps < 0.05)).mean(), (steps >= 0.05).mean()
    shares = np.bincount(names[inner], minlength=len(COLOURS)) / inner.sum()
    black, grey, white = shares[:3]
    if white >= 0.4 and black >= 0.05 and black + grey + white > 0.95 and small < 0.15:
        strokes = ndimage.distance_transform_edt(np.pad(names == COLOURS.index("black"), 1))
        if strokes.max() < 0.06 * max(names.shape):
            return "outlined"
    if shares.max() > 0.93 and none > 0.5 and rough < 0.2 and np.std(seen[inner], axis=0).max() < 0.05:
        return "solid"
    if none > 0.25 and small < 0.42 * (none + small) and _few_colours(lab[:-1, :-1][where][steps < 0.012]):
        return "flat"
    return "textured" if rough > 0.45 else "smooth" if rough < 0.2 else "shaded"


def _few_colours(lab: np.ndarray) -> bool:
    """Whether eight colours make up most of the pixels [N, 3], which is not so in a slow gradient."""
    _, counts = np.unique((lab / 0.03).round().astype(np.int8), axis=0, return_counts=True)
    return bool(np.sort(counts)[-8:].sum() > 0.6 * len(lab))
