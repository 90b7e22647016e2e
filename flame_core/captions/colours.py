"""Plain colour names of pixels, decided in OKLCh, a perceptual space of lightness, chroma and hue.

The names are the eleven basic colour terms of English and two that fill wide gaps between them (beige, turquoise).
OKLab: B. Ottosson, "A perceptual color space for image processing" (2020). The bounds were chosen so that CSS colours
with a basic term in their name, and everyday shades of them, get that term.
"""

from __future__ import annotations

import numpy as np

COLOURS = (
    "black",
    "grey",
    "white",
    "red",
    "orange",
    "brown",
    "beige",
    "yellow",
    "green",
    "turquoise",
    "blue",
    "purple",
    "pink",
)
_INDEX = {name: i for i, name in enumerate(COLOURS)}

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    dtype=np.float32,
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    dtype=np.float32,
)
_level = np.arange(256) / 255
_LINEAR = np.where(_level <= 0.04045, _level / 12.92, ((_level + 0.055) / 1.055) ** 2.4).astype(np.float32)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """OKLab of sRGB bytes: [..., 3] uint8 -> [..., 3] float32, L in 0 to 1, a and b within about 0.4 of 0."""
    return np.cbrt(_LINEAR[rgb] @ _TO_LMS.T) @ _TO_LAB.T


def name_colours(lab: np.ndarray) -> np.ndarray:
    """Index into `COLOURS` of each OKLab colour: [..., 3] -> [...] int8."""
    lightness, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    chroma = np.hypot(a, b)
    # red 29, orange 71, yellow 110, green 142, cyan 195, blue 264, magenta 328
    hue = np.degrees(np.arctan2(b, a)) % 360
    cool = (hue > 160) & (hue < 330)
    olive = (hue >= 93) & (hue < 130)  # hues in which a weak tint is least visible
    greyish = chroma < np.select([lightness > 0.9, olive, cool], [0.022, 0.05, 0.042], 0.036)
    pale = chroma < 0.095
    # The first true condition decides, so only upper bounds on the hue are needed.
    rules: list[tuple[np.ndarray, str]] = [
        ((lightness < 0.25) & (chroma < 0.09) | (lightness < 0.33) & (chroma < 0.05), "black"),
        (greyish & (lightness > 0.93), "white"),
        (greyish, "grey"),
        ((hue < 8) & (lightness > 0.5), "pink"),
        ((hue < 8) & (chroma < 0.13), "purple"),
        ((hue < 40) & pale & (lightness > 0.66), "pink"),
        ((hue < 20) & (lightness > 0.66), "pink"),
        (hue < 20, "red"),
        ((hue < 36) & (lightness > 0.71), "pink"),
        ((hue < 40) & (pale | (lightness < 0.44) & (chroma < 0.12)), "brown"),
        ((hue < 36) | (hue < 40) & (lightness < 0.6), "red"),
        ((hue < 100) & pale & (lightness > 0.75), "beige"),
        ((hue < 79) & (lightness > 0.7) & ~pale, "orange"),
        ((hue < 74) & (lightness > 0.55) & (chroma > 0.14), "orange"),
        (hue < 74, "brown"),
        ((hue < 100) & (lightness > 0.74), "yellow"),
        (hue < 100, "brown"),
        ((hue < 114) & (lightness > 0.9) & (chroma < 0.045), "beige"),
        ((hue < 114) & (lightness > 0.76) & (chroma > 0.08), "yellow"),
        ((hue < 124) & (lightness > 0.9) & (chroma > 0.05), "yellow"),
        ((hue < 120) & (lightness > 0.65) & (chroma < 0.085), "beige"),
        (hue < 163, "green"),
        ((hue > 184) & (hue < 218) & (lightness > 0.87) & (chroma < 0.075), "blue"),
        (hue < 218, "turquoise"),
        (hue < 290, "blue"),
        ((hue > 327) & (lightness > 0.73), "pink"),
        (hue < 334, "purple"),
        (lightness > 0.5, "pink"),
    ]
    return np.select([rule for rule, _ in rules], [_INDEX[name] for _, name in rules], _INDEX["purple"]).astype(np.int8)
