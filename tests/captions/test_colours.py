from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageColor

from flame_core.captions.colours import COLOURS, name_colours, oklab

# CSS names, by the word that people use for them.
NAMED = {
    "black": ["black", "#101010", "#1a1a1f"],
    "grey": ["gray", "silver", "dimgray", "lightgray", "darkgray", "slategray", "gainsboro"],
    "white": ["white", "snow", "whitesmoke", "ghostwhite"],
    "red": ["red", "crimson", "firebrick", "darkred", "tomato"],
    "orange": ["orange", "darkorange", "coral", "#ff7518"],
    "brown": ["saddlebrown", "sienna", "#5c4033", "#7b3f00", "#b09880"],
    "beige": ["beige", "wheat", "tan", "burlywood", "bisque", "cornsilk"],
    "yellow": ["yellow", "gold", "khaki", "#ffef00", "goldenrod"],
    "green": ["green", "lime", "forestgreen", "darkgreen", "olivedrab", "seagreen", "palegreen", "darkolivegreen"],
    "turquoise": ["turquoise", "cyan", "teal", "darkturquoise", "lightseagreen"],
    "blue": ["blue", "navy", "royalblue", "skyblue", "steelblue", "cornflowerblue", "midnightblue", "lightblue"],
    "purple": ["purple", "indigo", "darkviolet", "rebeccapurple", "mediumorchid", "blueviolet"],
    "pink": ["pink", "hotpink", "deeppink", "lightpink", "salmon", "palevioletred"],
}


def test_oklab_has_the_values_of_its_author():
    """The table of B. Ottosson's article gives red, green and blue; white is (1, 0, 0) by definition."""
    lab = oklab(np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]], dtype=np.uint8))
    expected = [[1, 0, 0], [0.628, 0.225, 0.126], [0.866, -0.234, 0.179], [0.452, -0.032, -0.312], [0, 0, 0]]
    np.testing.assert_allclose(lab, expected, atol=1e-3)


@pytest.mark.parametrize("name", COLOURS)
def test_everyday_colours_get_their_plain_name(name):
    rgb = np.array([ImageColor.getrgb(colour) for colour in NAMED[name]], dtype=np.uint8)
    assert [COLOURS[i] for i in name_colours(oklab(rgb))] == [name] * len(rgb)


def test_every_colour_of_a_picture_gets_a_name_in_its_place():
    rgb = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1).reshape(18, -1, 3)
    names = name_colours(oklab(rgb))
    assert names.shape == rgb.shape[:2]
    assert set(np.unique(names)) == set(range(len(COLOURS)))
    assert COLOURS[names[(rgb == [0, 0, 255]).all(axis=-1)][0]] == "blue"
