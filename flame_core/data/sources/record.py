"""A pair's texts from what people write beside pictures: a JSON object, or a row of a table.

Captions may be a text, a list of texts, or {language: text or list}. Besides them `title`, `keywords`, `category`,
`licence` (or `license`), `language` and `split` (`train`, `val`) are understood; other fields are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flame_core.data.sources import ImageRef, RawPair


@dataclass(frozen=True)
class RecordReader:
    """How records of a source are read: which fields hold captions, and what stands in for absent fields."""

    caption_fields: tuple[str, ...]
    language: str
    group_field: str | None
    licence: str | None

    def pair(
        self,
        key: str,
        image: ImageRef | None,
        records: Sequence[Mapping[str, Any]],
        *,
        texts: Sequence[str] = (),
        category: str | None = None,
    ) -> RawPair:
        """The pair of all `records` of one picture; `texts` are captions in the source's language.

        Captions add up; of every other field the first record that has it counts.
        """
        captions: dict[str, dict[str, None]] = {}  # texts in order, each once
        _add(captions, list(texts), self.language)
        for record in records:
            language = _text(record.get("language")) or self.language
            for name in self.caption_fields:
                _add(captions, record.get(name), language)

        def first(*names: str) -> str | None:
            values = (_text(record.get(name)) for name in names for record in records)
            return next(filter(None, values), None)

        split = first("split")
        return RawPair(
            key=key,
            image=image,
            captions={language: list(texts) for language, texts in captions.items()},
            title=first("title"),
            keywords=next(filter(None, (keyword_list(record.get("keywords")) for record in records)), []),
            category=first("category") or category,
            licence=first("licence", "license") or self.licence,
            group=first(self.group_field) if self.group_field else None,
            split=split if split in ("train", "val") else None,
        )


def _add(captions: dict[str, dict[str, None]], value: Any, language: str) -> None:
    """Add the texts in `value` (a text, a list, or a mapping by language), in order; what is there stays."""
    left = [(value, language)]
    while left:
        value, language = left.pop()
        if isinstance(value, Mapping):
            left += [(texts, str(code)) for code, texts in reversed(list(value.items()))]
        elif isinstance(value, list | tuple):
            left += [(item, language) for item in reversed(value)]
        elif isinstance(value, str):
            captions.setdefault(language, {}).setdefault(value)


def keyword_list(value: Any) -> list[str]:
    """Keywords from a list, or from a text that separates them by `;` or, where there is none, by `,`."""
    if isinstance(value, str):
        value = value.split(";" if ";" in value else ",")
    if not isinstance(value, list | tuple):
        return []
    return [text for item in value if (text := _text(item))]


def _text(value: Any) -> str | None:
    """A non-empty text, or the text of a number."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(value)
    return None


def json_object(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object in `text`, or None where it holds none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
