from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from flame_core.captions.appearance import measure, measure_jpeg
from tests.captions.pictures import box, canvas, disc, jpeg, noise


def names(appearance):
    return [colour.name for colour in appearance.colours]


@pytest.mark.parametrize("colour", ["red", "blue", "green", "orange", "purple", "black"])
def test_a_disc_on_white_is_round_and_of_its_colour(colour):
    seen = measure_jpeg(jpeg(disc(colour)))
    assert names(seen) == [colour]
    assert (seen.outline, seen.background, seen.rendering, seen.parts) == ("round", "white", "solid", 1)
    assert seen.background_share == pytest.approx(1 - np.pi * 80**2 / 200**2, abs=0.02)
    assert seen.symmetric and not seen.slanted


@pytest.mark.parametrize(
    ("corners", "outline"),
    [
        ((20, 20, 180, 180), "square"),
        ((20, 60, 180, 140), "rectangular"),
        ((5, 95, 195, 103), "rectangular"),
    ],
)
def test_boxes_are_square_or_rectangular(corners, outline):
    assert measure(box(box=corners)).outline == outline


def test_an_ellipse_is_oval_and_an_outline_with_corners_is_neither_round_nor_square():
    assert measure(disc(box=(20, 60, 180, 140))).outline == "oval"
    picture, draw = canvas()
    draw.polygon([(100, 20), (180, 180), (20, 180)], fill="red")
    assert measure(picture).outline is None


@pytest.mark.parametrize(("turn", "outline"), [(False, "wide"), (True, "tall")])
def test_a_triangle_is_wide_or_tall(turn, outline):
    picture, draw = canvas()
    draw.polygon([(20, 60), (180, 100), (20, 140)], fill="green")
    assert measure(picture.rotate(90) if turn else picture).outline == outline


def test_a_diagonal_bar_is_slender_and_slanted_but_an_upright_one_is_not_slanted():
    picture, draw = canvas()
    draw.line([(30, 30), (170, 170)], fill="brown", width=12)
    assert (measure(picture).outline, measure(picture).slanted) == ("slender", True)
    assert not measure(box(box=(90, 10, 105, 190))).slanted


def test_the_background_is_named_with_its_colour_and_does_not_count_as_the_object():
    seen = measure(disc("yellow", "navy"))
    assert (seen.background, names(seen)) == ("dark blue", ["yellow"])


def test_white_inside_an_object_belongs_to_it():
    picture = disc("blue")
    ImageDraw.Draw(picture).ellipse((60, 60, 140, 140), fill="white")
    assert names(measure(picture)) == ["blue", "white"]
    assert measure(picture).outline == "round"


def test_two_colours_have_their_shares_and_places():
    picture, draw = canvas()
    draw.rectangle((40, 20, 160, 79), fill="red")
    draw.rectangle((40, 80, 160, 180), fill="blue")
    seen = measure(picture)
    assert [(c.name, round(c.share, 1)) for c in seen.colours] == [("blue", 0.6), ("red", 0.4)]
    assert (seen.upper, seen.lower) == ("red", "blue")
    assert seen.rendering == "flat"


@pytest.mark.parametrize(("colour", "shade"), [("darkgreen", "dark"), ("green", None), ("palegreen", "light")])
def test_shades(colour, shade):
    (found,) = measure(disc(colour)).colours
    assert (found.name, found.shade) == ("green", shade)


def test_parts_that_do_not_touch_are_counted_and_specks_are_not():
    picture, draw = canvas()
    for x in (20, 80, 140):
        draw.ellipse((x, 80, x + 40, 120), fill="red")
    draw.point([(10, 10), (190, 190)], fill="black")
    assert measure(picture).parts == 3


def test_a_small_object_leaves_a_margin():
    assert measure(disc(box=(60, 60, 140, 140))).margin
    assert not measure(disc(box=(10, 10, 190, 190))).margin


def test_an_asymmetric_picture_is_not_called_symmetric():
    picture = disc("red")
    ImageDraw.Draw(picture).rectangle((100, 20, 180, 180), fill="blue")
    assert not measure(picture).symmetric


def test_black_outlines_on_white():
    picture, draw = canvas()
    draw.ellipse((20, 20, 180, 180), outline="black", width=5)
    draw.line([(60, 80), (140, 80)], fill="black", width=5)
    assert measure_jpeg(jpeg(picture)).rendering == "outlined"


def test_contours_of_a_flat_drawing_do_not_make_it_black():
    picture, draw = canvas()
    for x in range(20, 180, 40):
        for y in range(20, 180, 40):
            draw.rectangle((x, y, x + 40, y + 40), fill="yellow", outline="black", width=3)
    seen = measure_jpeg(jpeg(picture))
    assert (seen.rendering, names(seen)[0]) == ("flat", "yellow")
    assert "black" not in names(seen)


def test_a_gradient_is_smooth_and_noise_is_textured():
    ramp = np.tile(np.linspace(60, 250, 200)[:, None], (1, 200))
    red = Image.fromarray(np.stack([ramp, ramp * 0.2, ramp * 0.2], axis=-1).astype(np.uint8))
    assert measure(red).rendering == "smooth"
    assert measure(noise(size=(100, 100))).rendering == "textured"


def test_a_picture_without_a_plain_border_has_no_background_and_no_outline():
    for picture in (noise(), noise().filter(ImageFilter.GaussianBlur(3))):
        seen = measure(picture)
        assert (seen.background, seen.background_share, seen.outline, seen.parts) == (None, 0.0, None, 1)
        assert names(seen)[0] == "green"


def test_half_white_half_black_has_no_background():
    picture, draw = canvas()
    draw.rectangle((0, 0, 99, 199), fill="black")
    assert measure(picture).background in (None, "white")
    draw.rectangle((0, 0, 139, 199), fill="black")
    assert measure(picture).background is None


def test_tone_and_vividness():
    assert (measure(disc("#300000")).tone, measure(disc("#ffff60")).tone) == ("dark", "light")
    assert (measure(disc("red")).vividness, measure(disc("#8a7f80")).vividness) == ("vivid", None)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 2), (113, 112)])
@pytest.mark.parametrize("colour", ["white", "black", "#7fff00"])
def test_blank_and_tiny_pictures_are_measured(size, colour):
    seen = measure(Image.new("RGB", size, colour))
    assert len(seen.colours) == 1
    assert (seen.background, seen.colours[0].share) == (None, 1.0)
    assert seen.format == ("square" if abs(size[0] - size[1]) < 2 else "wide" if size[0] > size[1] else "tall")


def test_a_damaged_picture_is_an_os_error():
    whole = jpeg(noise())
    with pytest.raises(OSError):
        measure_jpeg(whole[: len(whole) // 2])
    with pytest.raises(OSError):
        measure_jpeg(b"")


def test_measuring_is_deterministic():
    picture = jpeg(noise(3))
    assert measure_jpeg(picture) == measure_jpeg(picture)
