"""Captions made of a few words: what the LLM reads when its rounding in float8 is calibrated.

They are always the same, so stored vectors do not depend on the data of others. On captions that people wrote, what is
learned from them does nearly as well as what is learned from such captions.
"""

from __future__ import annotations

import random

_SUBJECTS = """
man woman boy girl dog cat horse bird child player worker cyclist dancer crowd couple tourist farmer musician
skateboarder climber swimmer chef
"""
_THINGS = """
street beach mountain river bridge house tree table field market train bus boat fountain wall window garden snow
kitchen stage bench building lake forest
"""
_VERBS = """
stands sits runs jumps sleeps waits walks plays smiles looks works climbs dances rides swims rests eats reads sings
"""
_ADJECTIVES = """
old young small large red blue green white black brown wooden wet busy quiet bright dark empty tall happy striped
"""
_PLACES = ("beside", "near", "in front of", "behind", "on", "under", "across from", "along", "next to", "inside")
_ENDS = (
    "at sunset",
    "in the rain",
    "on a sunny day",
    "while others watch",
    "holding a camera",
    "wearing a hat",
    "at night",
)
_COUNTS = ("A", "One", "The", "Some", "Another", "This")


def calibration_captions(number: int = 400) -> list[str]:
    """So many captions, always the same."""
    draw = random.Random(0)

    def word(of: str) -> str:
        return draw.choice(of.split())

    def thing(of: str) -> str:
        return f"{word(_ADJECTIVES)} {word(of)}"

    captions = []
    for _ in range(number):
        caption = f"{draw.choice(_COUNTS)} {thing(_SUBJECTS)} {word(_VERBS)} {draw.choice(_PLACES)} a {thing(_THINGS)}"
        if draw.random() < 0.5:
            caption += f" and a {thing(_SUBJECTS)} {word(_VERBS)}"
        if draw.random() < 0.5:
            caption += f" {draw.choice(_ENDS)}"
        captions.append(f"{caption}.")
    return captions
