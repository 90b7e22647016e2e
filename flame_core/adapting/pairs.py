"""Pairs of captions of one picture: one in the language of training, and another, of any kind and language.

Which pictures a step has, and which two captions of each, follow from the seed and the step's number only. A picture
is held out by the text of its first caption, so pictures that share it are all learned or all held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from flame_core.captions.table import Caption, read_captions
from flame_core.data.captions_text import same_text
from flame_core.digest import text_sha256
from flame_core.errors import InputError
from flame_core.params import AdaptLLMParams
from flame_core.text.caption_tokens import printable

_PLACES = 2**32
_STEPS_PER_SEED = 1_000_003  # a prime above all numbers of steps, so that no two seeds share the draw of a step

Text = tuple[str, str]  # kind and text


@dataclass(frozen=True)
class Picture:
    """The captions of a picture: of the chosen kinds in the language of training, and raw ones by other language."""

    own: tuple[Text, ...]
    others: dict[str, tuple[Text, ...]] = field(default_factory=dict)

    def pair(self, draw: torch.Generator) -> tuple[Text, Text]:
        """A caption in the language of training, and one that says it otherwise: the languages are equally likely."""
        first = self.own[_below(len(self.own), draw)]
        groups = [
            rest
            for texts in (self.own, *self.others.values())
            if (rest := [each for each in texts if same_text(each[1]) != same_text(first[1])])
        ]
        group = groups[_below(len(groups), draw)]
        return first, group[_below(len(group), draw)]


@dataclass(frozen=True)
class CaptionPairs:
    """N pictures with at least two different captions.

    Attributes:
        pictures: in the order of the shards.
        params: of the section.
    """

    pictures: list[Picture]
    params: AdaptLLMParams

    def batch(self, step: int) -> list[tuple[Text, Text]]:
        """The pairs of a step, counted from 0; every picture comes once per epoch but for those that fill no batch."""
        size, learned = self.params.batch_size, self.learned
        epoch, place = divmod(step, len(learned) // size)
        order = _order(len(learned), self.params.seed, epoch)[place * size : (place + 1) * size]
        draw = self._draw(_STEPS_PER_SEED // 2 + step)
        return [self.pictures[learned[i]].pair(draw) for i in order.tolist()]

    @cached_property
    def test(self) -> list[tuple[Text, Text]]:
        """A pair of each held-out picture, the same at every measurement."""
        draw = self._draw(_STEPS_PER_SEED - 1)
        return [self.pictures[i].pair(draw) for i in self.held_out[: self.params.tested]]

    @cached_property
    def learned(self) -> list[int]:
        """Numbers of the pictures that are learned."""
        return [i for i, place in enumerate(self._places) if place >= self.params.held_out * _PLACES]

    @cached_property
    def held_out(self) -> list[int]:
        """Numbers of the pictures that are held out, in an order that says nothing about them."""
        own = [i for i, place in enumerate(self._places) if place < self.params.held_out * _PLACES]
        return sorted(own, key=lambda i: (self._places[i], i))

    @cached_property
    def _places(self) -> list[int]:
        """A whole number below 2^32 per picture."""
        return [int(text_sha256(f"held out {same_text(each.own[0][1])}")[:8], 16) for each in self.pictures]

    def _draw(self, number: int) -> torch.Generator:
        return _drawing(self.params.seed, number)


def _drawing(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * _STEPS_PER_SEED + number)


@lru_cache(maxsize=1)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of `count` pictures in an epoch, [count]; that of the last one is kept."""
    return torch.randperm(count, generator=_drawing(seed, epoch))


def _below(count: int, draw: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=draw))


def said_again(pairs: Sequence[tuple[Text, Text]]) -> Tensor:
    """Whether two pairs share a text, [N, N]: then neither is a wrong answer for the other."""
    numbers: dict[str, int] = {}
    first, second = torch.tensor(
        [[numbers.setdefault(same_text(text), len(numbers)) for _, text in pair] for pair in pairs]
    ).unbind(dim=1)  # [N] each
    same = [one[:, None] == other for one in (first, second) for other in (first, second)]
    return same[0] | same[1] | same[2] | same[3]


def read_pairs(chosen: AdaptLLMParams, captions: Path, language: str) -> CaptionPairs:
    """The captions of all training pictures that have two different ones; `language` is that of training.

    Raises:
        InputError: no caption is in one of the languages, or too few are left to learn and to test.
    """
    pictures: list[Picture] = []
    there: set[str] = set()  # languages of raw captions
    for path in sorted((captions / "train").glob("*.parquet")):
        rows: dict[int, list[Caption]] = {}
        for caption in read_captions(path):
            rows.setdefault(caption.row, []).append(caption)
            there |= {caption.language} if caption.kind == "raw" else set()
        pictures += [picture for row in sorted(rows) if _has_a_pair(picture := _picture(rows[row], chosen, language))]
    if missing := sorted({*chosen.languages} - there if chosen.languages != "all" else ()):
        raise InputError(
            f"adapt_llm.languages has {', '.join(missing)}, and the raw training captions are in "
            f"{', '.join(sorted(there))}: name only these, or all"
        )
    found = CaptionPairs(pictures, chosen)
    nothing_wrong = not found.held_out or bool(said_again(found.test).all())  # to tell a right answer from
    if len(found.learned) < chosen.batch_size or nothing_wrong:
        raise InputError(
            f"adapt_llm: of {len(pictures)} pictures with two different captions of adapt_llm.kinds and "
            f"adapt_llm.languages, {len(found.learned)} are to learn, of which a batch needs {chosen.batch_size}, and "
            f"{len(found.held_out)} held out, of which 2 that say different things are needed: lower "
            "adapt_llm.batch_size, raise adapt_llm.held_out, or name more kinds or languages"
        )
    return found


def _picture(captions: Sequence[Caption], chosen: AdaptLLMParams, language: str) -> Picture:
    own: dict[Text, None] = {}
    others: dict[str, dict[Text, None]] = {}
    wanted = None if chosen.languages == "all" else set(chosen.languages)
    for caption in captions:
        text = caption.kind, printable(caption.text)
        if not text[1]:
            continue
        if caption.language == language:
            if caption.kind in chosen.kinds:
                own[text] = None
        elif caption.kind == "raw" and (wanted is None or caption.language in wanted):
            others.setdefault(caption.language, {})[text] = None
    return Picture(tuple(own), {name: tuple(texts) for name, texts in sorted(others.items())})


def _has_a_pair(picture: Picture) -> bool:
    """Whether each caption in the language of training has another one that differs from it."""
    texts = {same_text(text) for group in (picture.own, *picture.others.values()) for _, text in group}
    return bool(picture.own) and len(texts) > 1
