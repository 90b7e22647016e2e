"""What `flame plan` starts from: pictures and caption lengths, as given, measured or assumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from flame_core.captions.table import captions_file, read_captions
from flame_core.data.shards import shard_names
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import CaptionKind, Params
from flame_core.preflight.data_look import DataLook, look
from flame_core.text.cost import ASSUMED, count_words
from flame_core.text.facets import normalise_sentence

_MEASURED = 2000  # captions per kind whose tokens are counted


@dataclass(frozen=True)
class Given:
    """What a plan starts from, and where it comes from.

    Attributes:
        images: training pictures.
        lengths: mean tokens per caption, by kind.
        count: function that counts the tokens of a text.
        basis: where the values come from, in words.
        seen: the data of these params; None if the number of pictures was given, which may be that of others.
    """

    images: int
    lengths: dict[CaptionKind, float]
    count: Callable[[str], int]
    basis: str
    seen: DataLook | None = None


def given(params: Params, layout: Layout, images: int | None, lengths: dict[CaptionKind, float]) -> Given:
    """Pictures and caption lengths: as given, else measured on the existing data, else assumed.

    Raises:
        ParamsError: the number of pictures is neither given nor known.
        InputError: it is not given, and a source cannot be used.
    """
    basis, seen = [], None
    if images is None:
        seen = look(params, layout)
        if seen.refused:
            raise InputError(next(iter(seen.refused.values())))
        if not seen.train:
            raise ParamsError("flame plan: give the number of training pictures: --images 2900000")
        images = seen.train
        basis.append("pictures counted in data/shards" if seen.exact else "pictures estimated from the sources")
    folder = layout.llm / params.llm.name
    count: Callable[[str], int] = count_words
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        count = lambda text: len(tokenizer.encode(text.replace("{bos}", ""), add_special_tokens=False).ids)  # noqa: E731
    basis.append("tokens counted by " + ("words and punctuation" if count is count_words else "the LLM's tokenizer"))
    measured = _measure(params, layout, count)
    basis.append("caption lengths measured" if measured else "caption lengths assumed if not given")
    return Given(images, {**ASSUMED, **measured, **lengths}, count, "; ".join(basis), seen)


def read_lengths(options: Sequence[str]) -> dict[CaptionKind, float]:
    """Options such as `long=150` as {"long": 150.0}.

    Raises:
        ParamsError: quotes the option that is not of this form.
    """
    kinds: dict[str, CaptionKind] = {kind: kind for kind in get_args(CaptionKind)}
    lengths: dict[CaptionKind, float] = {}
    for option in options:
        kind, _, number = option.partition("=")
        if kind not in kinds or not number.replace(".", "", 1).isdecimal():
            raise ParamsError(f"--caption-tokens {option!r}: write a kind ({', '.join(kinds)}) and a number: long=150")
        lengths[kinds[kind]] = float(number)
    return lengths


def _measure(params: Params, layout: Layout, count: Callable[[str], int]) -> dict[CaptionKind, float]:
    """Mean tokens of the first captions of each kind that has captions."""
    texts: dict[CaptionKind, list[str]] = {kind: [] for kind in params.text.train_kinds}
    for name in shard_names(layout.shards, "train"):
        path = captions_file(layout.captions, name)
        for caption in read_captions(path) if path.is_file() else []:
            kind: Any = caption.kind
            if caption.language == params.evaluate.train_language and kind in texts and len(texts[kind]) < _MEASURED:
                texts[kind].append(normalise_sentence(caption.text, params.text.normalise))
        if all(len(own) >= _MEASURED for own in texts.values()):
            break
    return {kind: sum(map(count, own)) / len(own) for kind, own in texts.items() if own}
