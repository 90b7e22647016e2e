from __future__ import annotations

from functools import cache

import pytest
from PIL import Image, ImageDraw

from flame_core.captions.appearance import measure, measure_jpeg
from flame_core.captions.captioner import Failure
from flame_core.captions.metadata import MetadataCaptioner, compose_long, compose_short
from flame_core.data.shards import Sample
from tests.captions.pictures import box, canvas, disc, noise, sample


def short(picture, **meta):
    return compose_short(sample(**meta).meta, measure(picture))


def long(picture, **meta):
    return compose_long(sample(**meta).meta, measure(picture))


def test_a_red_disc_is_called_red_and_round():
    meta = {"captions": {"en": ["A button."]}, "category": "clothes/fasteners"}
    assert short(disc("red"), **meta) == ("A button, round and in solid red on a white background.")
    assert long(disc("red"), **meta) == (
        "A button, in solid red on a white background. The shape is round and is the same on the left and the right. "
        "The background takes up about half of the picture. The picture is filed under clothes and fasteners."
    )


def test_two_colours_stand_before_the_noun_and_with_their_shares():
    picture, draw = canvas()
    draw.polygon([(40, 20), (180, 20), (180, 80), (60, 80)], fill="red")
    draw.polygon([(60, 80), (180, 80), (150, 180), (90, 180)], fill="blue")
    assert short(picture, captions={"en": ["A vase."]}).startswith("A blue and red vase, ")
    assert "Blue covers about half of the subject, beside red" in long(picture, captions={"en": ["A vase."]})


def test_a_colour_that_the_caption_names_is_not_said_twice():
    cross, draw = canvas()
    draw.rectangle((80, 20, 120, 180), fill="yellow")
    draw.rectangle((20, 80, 180, 120), fill="yellow")
    draw.rectangle((85, 85, 115, 115), fill="saddlebrown")
    assert short(cross, captions={"en": ["A yellow cross."]}).startswith("A yellow cross, ")
    assert short(cross, captions={"en": ["A cross."]}).startswith("A yellow cross, ")
    assert short(cross, captions={"en": ["Saturn"]}).startswith("Saturn, mostly yellow, ")


def test_a_photograph_is_described_as_a_whole():
    text = short(noise(), captions={"en": ["Two dogs are running ."]})
    assert text == "Two dogs running, in a mostly green picture full of fine detail."
    assert long(noise(), captions={"en": ["Two dogs are running ."]}) == (
        "Two dogs running, full of fine detail. Green covers nearly all of the picture. "
        "The picture is as wide as it is tall."
    )


def test_title_and_keywords_appear_where_they_say_something_new():
    meta = {
        "captions": {"en": ["Because a brain is a terrible thing to waste"]},
        "title": "football helmet 2",
        "keywords": ["Helmet", "sport", "head gear", "brain"],
        "category": "sports",
    }
    assert ", titled football helmet, " in short(disc(), **meta)
    end = "The picture is titled football helmet, filed under sports and tagged head gear."
    assert long(disc(), **meta).endswith(end)
    for title in ("football helmet", "footballhelmet_2", "helmets"):
        same = {"captions": {"en": ["A football helmet."]}, "title": title}
        assert "titled" not in short(disc(), **same) + long(disc(), **same)


def test_without_any_english_text_the_pixels_still_speak():
    text = short(disc("green"), captions={"de": ["Ein Knopf."]})
    assert text == "A picture, round and in solid green on a white background."


@pytest.mark.parametrize(
    "raw",
    [
        'He said "{caption}" and {0} and %s and {{x}}.',
        "A \x00 bell \x1b[31m rings\u2028twice.",
        "<s> [INST] {caption} </s>",
        "'",
        "((((",
        "A " + "very " * 20_000 + "long caption",
    ],
)
@pytest.mark.parametrize("compose", [short, long])
def test_odd_captions_are_plain_text(compose, raw):
    text = compose(disc(), captions={"en": [raw]}, title=raw, keywords=[raw], category=raw)
    assert text.isprintable()
    assert len(text) < 1000
    assert text.count("{caption}") <= 4 * raw.count("{caption}")
    assert text.endswith(".")


def test_captions_stay_in_their_length():
    picture = disc("orange")
    ImageDraw.Draw(picture).rectangle((60, 60, 140, 140), fill="blue")
    words = "A small brown bear sitting on the grass beside a lake with some ducks and a boat and a tree in summer"
    meta = {"captions": {"en": [words]}, "title": "Teddy", "keywords": list("abcdef"), "category": "a1/b2/c3/d4/e5"}
    assert len(short(picture, **meta).split()) <= 30
    sentences = long(picture, **meta).split(". ")
    assert 3 <= len(sentences) <= 5
    assert len(" ".join(sentences).split()) <= 80


def test_a_captioner_gives_one_result_a_sample_in_order_and_fails_on_damaged_pictures_alone():
    good, other = sample("a", disc("red")), sample("c", box("blue", box=(20, 60, 180, 140)))
    bad = Sample("b", good.jpeg[:300], good.meta)
    measured = cache(measure_jpeg)
    texts = MetadataCaptioner("short", measured).captions([good, bad, other])
    assert texts[0] == "A thing, round and in solid red on a white background."
    assert texts[1] == Failure("the picture cannot be decoded (OSError)")
    assert texts[2] == "A thing, rectangular and in solid blue on a white background."
    assert MetadataCaptioner("short", measured).captions([other]) == texts[2:]
    MetadataCaptioner("long", measured).captions([good, other])
    assert measured.cache_info().misses == 3


def test_a_picture_of_one_pixel():
    assert short(Image.new("RGB", (1, 1), "red")) == "A thing, in solid red."
