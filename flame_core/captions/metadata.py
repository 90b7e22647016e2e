"""The `metadata` captioner: sentences composed from a pair's text, category, keywords and pixels.

`short` rephrases the raw caption and adds colours, outline, rendering and background:

    A brown horse, finely shaded on a white background.

`long` is a paragraph of three to five sentences with all measurements. Nothing is generated or guessed: each phrase
comes from a field of the metadata or a threshold in `appearance.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from flame_core.captions.appearance import Appearance, Colour
from flame_core.captions.captioner import Failure
from flame_core.captions.subject import Subject, find_subject, fold, with_colour, words
from flame_core.data.shards import Sample

_SHORT_WORDS = 10  # of the subject
_LONG_WORDS = 18
_LABEL_CHARS = 40  # of a keyword or a part of a category; a longer one is a sentence
_RENDERINGS = {
    "outlined": "drawn in black outlines",
    "flat": "drawn in flat colours",
    "smooth": "smoothly shaded",
    "shaded": "finely shaded",
    "textured": "full of fine detail",
}
_FORMATS = {"wide": "wider than it is tall", "tall": "taller than it is wide", "square": "as wide as it is tall"}
_COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_SHARES = (  # at least
    (0.9, "nearly all"),
    (0.7, "most"),
    (0.58, "about two thirds"),
    (0.42, "about half"),
    (0.29, "about a third"),
    (0.2, "about a quarter"),
)


class MetadataCaptioner:
    """Composes captions of one kind; `measured` returns the appearance of an encoded picture."""

    provenance = "metadata"

    def __init__(self, kind: Literal["short", "long"], measured: Callable[[bytes], Appearance]) -> None:
        self._compose = compose_short if kind == "short" else compose_long
        self._measured = measured

    def captions(self, samples: Sequence[Sample]) -> list[str | Failure]:
        """One text per sample; a picture that cannot be decoded is a failure."""
        return [self._caption(sample) for sample in samples]

    def _caption(self, sample: Sample) -> str | Failure:
        try:
            appearance = self._measured(sample.jpeg)
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged pictures
            return Failure(f"the picture cannot be decoded ({type(error).__name__})")
        return self._compose(sample.meta, appearance)


def compose_short(meta: Mapping[str, Any], appearance: Appearance) -> str:
    """One sentence: subject, colours, outline, rendering, background."""
    subject = find_subject(meta, _SHORT_WORDS) or Subject("A picture", "A", "picture")
    pieces = [_coloured(subject, appearance) if appearance.background else subject.text]
    title = _title(meta, subject)
    if title and not subject.noun and not words(title) & subject.words:
        pieces.append(f"titled {title}")  # the caption seems to be about something else
    if appearance.background:
        pieces.append(_listed([*_traits(appearance)[:1], _drawn(appearance)]))
    else:
        pieces.append(_whole_picture(appearance))
        if appearance.upper:
            pieces.append(f"{appearance.upper} above and {appearance.lower} below")
    return ", ".join(pieces) + "."


def compose_long(meta: Mapping[str, Any], appearance: Appearance) -> str:
    """A paragraph of three to five sentences, about 30 to 60 words."""
    subject = find_subject(meta, _LONG_WORDS, longest=True) or Subject("A picture", "A", "picture")
    sentences = [f"{subject.text}, {_drawn(appearance)}"]
    if appearance.rendering != "solid":  # the first sentence already names its only colour
        sentences.append(_palette(appearance))
    form = _form(appearance)
    if form:
        sentences.append(f"The {'shape' if appearance.background else 'picture'} {form}")
    if appearance.background:
        sentences.append(f"The background takes up {_share(appearance.background_share)} of the picture")
    elif appearance.upper:
        sentences.append(f"The upper part is mostly {appearance.upper} and the lower part mostly {appearance.lower}")
    filed = _filed(meta, subject)
    if filed:
        sentences.append(filed)
    if len(sentences) < 3:
        sentences.append(f"The picture is {_FORMATS[appearance.format]}")
    return ". ".join(sentences) + "."


def category_words(meta: Mapping[str, Any]) -> list[str]:
    """The parts of the category path as words, outermost first, without numbers: ["animals", "birds"]."""
    parts = (re.sub(r"[\W\d_]+", " ", fold(part)).strip().lower() for part in (meta.get("category") or "").split("/"))
    return list(dict.fromkeys(part for part in parts if 0 < len(part) <= _LABEL_CHARS))


def _title(meta: Mapping[str, Any], subject: Subject) -> str:
    """The title without numbers, if it has a new word (by its first five letters); otherwise empty."""
    title = re.findall(r"[^\W\d_]{2,}", fold(meta.get("title") or ""))[:8]
    known = {word[:5] for word in subject.words | words(" ".join(category_words(meta)))}
    joined = "".join(subject.text.lower().split())  # a file's name often joins words
    new = [word for word in map(str.lower, title) if len(word) > 3 and word[:5] not in known and word not in joined]
    return " ".join(title) if new else ""


def _coloured(subject: Subject, appearance: Appearance) -> str:
    """The subject with the colours of the object, unless it already names them."""
    colours = _main_colours(appearance)
    if appearance.rendering in ("outlined", "solid") or {colour.name for colour in colours} <= subject.colours:
        return subject.text
    adjective = _adjective(colours)
    if subject.noun and not subject.colours:
        return with_colour(subject, adjective)
    apart = {1: f"mostly {adjective}", 2: f"in {adjective}"}.get(len(colours), "in many colours")
    return f"{subject.text}, {apart}"


def _whole_picture(appearance: Appearance) -> str:
    """`in a mostly green picture full of fine detail`: for a picture without a background."""
    if appearance.rendering in ("outlined", "solid"):
        return _drawn(appearance)
    colours = _main_colours(appearance)
    adjective = "mostly " * (len(colours) == 1) + _adjective(colours)
    rendering = _RENDERINGS[appearance.rendering]
    if rendering.endswith("shaded"):
        return f"in a {rendering}, {adjective} picture"
    rendering = "with flat areas of colour" if appearance.rendering == "flat" else rendering
    return f"in {'an' if adjective[0] in 'aeiou' else 'a'} {adjective} picture {rendering}"


def _adjective(colours: Sequence[Colour]) -> str:
    if len(colours) > 2:
        return "multicoloured"
    return " and ".join(colour.name for colour in colours) if len(colours) == 2 else _name(colours[0])


def _main_colours(appearance: Appearance) -> list[Colour]:
    """One or two colours, or all if no two of them dominate."""
    colours = list(appearance.colours)
    if len(colours) >= 5 and colours[0].share < 0.35:
        return colours
    return [colour for i, colour in enumerate(colours[:2]) if i == 0 or colour.share >= 0.2]


def _name(colour: Colour) -> str:
    return f"{colour.shade} {colour.name}" if colour.shade else colour.name


def _drawn(appearance: Appearance) -> str:
    if appearance.rendering == "solid":
        text = f"in solid {_name(appearance.colours[0])}"
    elif appearance.rendering == "flat" and not appearance.background:
        text = "in flat areas of colour"  # perhaps a photograph, so not drawn
    else:
        text = _RENDERINGS[appearance.rendering]
    return text + (f" on a {appearance.background} background" if appearance.background else "")


def _traits(appearance: Appearance) -> list[str]:
    traits = [appearance.outline] if appearance.outline else []
    if appearance.parts > 1:
        traits.append(f"in {_COUNTS.get(appearance.parts, 'many')} parts")
    if appearance.symmetric:
        traits.append("symmetrical")
    if appearance.vividness == "vivid":
        traits.append("vivid")
    return traits


def _palette(appearance: Appearance) -> str:
    """`Brown covers about half of the subject, beside black and dark grey, in dark tones`."""
    first, *others = appearance.colours
    whole = "the subject" if appearance.background else "the picture"
    text = f"{_name(first).capitalize()} covers {_share(first.share)} of {whole}"
    if others:
        text += f", beside {_listed([_name(colour) for colour in others[:3]])}"
    tones = [word for word in (appearance.tone, appearance.vividness) if word]
    return text + (f", in {' and '.join(tones)} tones" if tones else "")


def _form(appearance: Appearance) -> str:
    facts = []
    if appearance.outline or appearance.slanted:
        shape = [appearance.outline] if appearance.outline else []
        facts.append("is " + " and ".join([*shape, *["slanted"] * appearance.slanted]))
    if appearance.parts > 1:
        facts.append(f"comes in {_COUNTS.get(appearance.parts, 'many')} separate parts")
    if appearance.symmetric:
        facts.append("is the same on the left and the right")
    if appearance.margin:
        facts.append("leaves a wide margin")
    return _listed(facts)


def _filed(meta: Mapping[str, Any], subject: Subject) -> str | None:
    categories = category_words(meta)
    known = subject.words | words(" ".join([*categories, _title(meta, subject)]))
    keywords = [fold(str(word)).lower() for word in meta.get("keywords") or []]
    keywords = [word for word in dict.fromkeys(keywords) if len(word) <= _LABEL_CHARS and not words(word) <= known][:4]
    title = _title(meta, subject)
    facts = [f"titled {title}"] if title else []
    facts += [f"filed under {_listed(categories[:4])}"] if categories else []
    facts += [f"tagged {_listed(keywords)}"] if keywords else []
    return f"The picture is {_listed(facts)}" if facts else None


def _share(share: float) -> str:
    return next((name for least, name in _SHARES if share >= least), "a small part")


def _listed(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)
