"""Reads a pair's texts from a record: a JSON object, or a row of a table.

Captions may be a text, a list of texts, {language: text or list}, or one of these written as text (JSON, or a list as
Python prints it). In a list, or with keys that are no languages, a mapping is a record of its own, whose caption is in
`caption`, `raw` or `text`. Of a conversation (LLaVA's {from, value}, or {role, content}) the first answer counts. Other
known fields are `title`, `keywords`, `category`, `licence` (or `license`), `language` (or `lang`) and `split` (words in
`splits.py`); all others are ignored.
A value that none of these fields reads, such as a `category` that is a list, is counted as `unread_value`.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flame_core.data.captions_text import unescape
from flame_core.data.picture_kinds import is_picture
from flame_core.data.sources import ImageRef, RawPair
from flame_core.data.sources.accounting import Unused
from flame_core.data.sources.splits import split_of
from flame_core.data.text_files import TextError, decode_text
from flame_core.language_names import is_language, meant_code

_OF_RECORD = ("caption", "raw", "text")  # the fields of a record in a list that may hold its caption
RECORDS = 5  # version of this reading; listings of sources depend on it
_DEEPEST = 32  # levels of nested lists and objects in a JSON object


@dataclass(frozen=True)
class RecordReader:
    """How to read the records of a source: which fields hold captions, and defaults for missing fields."""

    caption_fields: tuple[str, ...]
    language: str
    group_field: str | None
    licence: str | None
    folders_are_categories: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of all fields that are read."""
        known = ("title", "keywords", "category", "licence", "license", "language", "lang", "split")
        return tuple(dict.fromkeys((*self.caption_fields, *known, *filter(None, [self.group_field]))))

    def pair(
        self,
        key: str,
        image: ImageRef | None,
        records: Sequence[Mapping[str, Any]],
        *,
        texts: Sequence[str] = (),
        folders: str | None = None,
        missing: str | None = None,
        unused: Unused | None = None,
    ) -> RawPair:
        """The pair of all `records` of one picture; `texts` are captions in the source's language.

        `folders` are those above the picture, which are its category if the source says so. Values that are not read
        are counted in `unused`.

        Captions of all records are combined, and records must agree about the split. Every other field comes from the
        first record that has it.
        """
        captions: dict[str, dict[str, None]] = {}  # texts in order, each once
        _add(captions, list(texts), self.language)  # files of texts, one caption per line
        unread: dict[tuple[str, str], None] = {}  # (field, form of its value)
        for record in records:
            told = _text(record.get("language")) or _text(record.get("lang"))
            language = meant_code(told) if told else self.language
            for name in self.caption_fields:
                _note(unread, name, _add(captions, record.get(name), language))
            for name, values in self._unread(record):
                _note(unread, name, values)
        if unused is not None:
            for name, form in unread:
                unused.add("unread_value", name, f"{name} as {form}")  # not by the key, which may be forgotten one day

        def first(*names: str) -> str | None:
            values = (_text(record.get(name)) for name in names for record in records)
            return next(filter(None, values), None)

        return RawPair(
            key=key,
            image=image,
            captions={language: list(texts) for language, texts in captions.items()},
            title=unescape(first("title") or "") or None,
            keywords=next(filter(None, (keyword_list(record.get("keywords")) for record in records)), []),
            category=first("category") or (folders if self.folders_are_categories else None),
            licence=first("licence", "license") or self.licence,
            group=first(self.group_field) if self.group_field else None,
            split=split_of([record.get("split") for record in records]),
            missing=missing,
        )

    def _unread(self, record: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
        """(field, its values that are not read), of the fields that hold no captions; `split` always counts."""
        for name in self.fields:
            value = record.get(name)
            if value is None or isinstance(value, str) or name == "split" or name in self.caption_fields:
                continue
            if name == "keywords":
                yield (
                    name,
                    [item for item in value if _text(item) is None] if isinstance(value, list | tuple) else [value],
                )
            elif _text(value) is None:
                yield name, [value]


def _note(unread: dict[tuple[str, str], None], name: str, values: Sequence[Any]) -> None:
    """Note the forms of the values of a field that are not read."""
    for value in values:
        if form := _form(value):
            unread.setdefault((name, form))


def _form(value: Any) -> str | None:
    """What a value that is no text is, for people; None if it holds nothing."""
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number" if value == value else None
        case Mapping():
            return "an object" if value else None
        case list() | tuple():
            return "a list" if value else None
        case _:
            return None


def texts_in(value: Any, language: str) -> dict[str, list[str]]:
    """The texts in the value of a caption field, by language and in order, each once; `language` if it says none."""
    captions: dict[str, dict[str, None]] = {}
    _add(captions, value, language)
    return {code: list(texts) for code, texts in captions.items()}


def _add(captions: dict[str, dict[str, None]], value: Any, language: str) -> list[Any]:
    """Add the texts in `value`, in order, to those already there; returns the parts of it that are no texts."""
    unread: list[Any] = []
    left = [(value, language, False)]
    while left:
        value, language, in_list = left.pop()
        if isinstance(value, Mapping):
            own = next((value[name] for name in _OF_RECORD if isinstance(value.get(name), str)), None)
            by_language = _by_language(value)
            if own is not None and (in_list or not by_language):
                left.append((own, language, in_list))
            elif by_language or not in_list:
                left += [(texts, meant_code(str(code)), False) for code, texts in reversed(list(value.items()))]
            else:
                unread.append(value)
        elif (answer := answer_of(value)) is not None:
            left.append((answer, language, in_list))
        elif isinstance(value, list | tuple):
            left += [(item, language, True) for item in reversed(value)]
        elif isinstance(value, str):
            written = _written(value)
            if written is None:
                captions.setdefault(language, {}).setdefault(value)
            else:
                left.append((written, language, in_list))
        else:
            unread.append(value)
    return unread


def answer_of(value: Any) -> str | None:
    """The first answer of a conversation with a model; None if `value` is none, or has no answer."""
    if not isinstance(value, list | tuple):
        return None
    for turn in value:
        match turn:
            case {"from": "gpt" | "assistant", "value": str(said)} | {"role": "assistant", "content": str(said)}:
                return said
    return None


def _written(text: str) -> list[Any] | dict[str, Any] | None:
    """The list of texts, the conversation or the texts by language that a text is as a whole, or an empty one."""
    text = text.strip()
    if text[:1] + text[-1:] not in ("[]", "{}"):
        return None
    value: Any = None
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        value = json.loads(text) if text.startswith(("{", '["', '[{"')) else ast.literal_eval(text)
    if isinstance(value, list) and (all(isinstance(item, str) for item in value) or answer_of(value) is not None):
        return value
    if isinstance(value, dict) and _by_language(value):
        return value
    return None


def _by_language(value: Mapping[Any, Any]) -> bool:
    return all(is_language(meant_code(str(code))) for code in value)


def is_record(value: Mapping[str, Any], captions: str) -> bool:
    """Whether a mapping has fields, such as `captions`, and is not itself the value of that field."""
    own = any(isinstance(value.get(name), str) for name in _OF_RECORD)
    return captions in value or not (own or _by_language(value))


def keyword_list(value: Any) -> list[str]:
    """Keywords from a list, or from a text that separates them by `;` or, if it has no `;`, by `,`."""
    if isinstance(value, str):
        value = unescape(value)  # first, so that the `;` of an entity is not a separator
        value = value.split(";" if ";" in value else ",")
    if not isinstance(value, list | tuple):
        return []
    return [unescape(text) for item in value if (text := _text(item))]


def _text(value: Any) -> str | None:
    """A non-empty text, or a number as text; None for anything else."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(value)
    return None


def read_json(content: bytes | str, encoding: str = "utf-8") -> Any:
    """The JSON in `content`, which is in UTF-8, UTF-16 or UTF-32, or in the given encoding.

    Raises:
        TextError: `content` is no JSON, or is nested far too deeply, or repeats a key that names a picture.
    """
    try:
        return _loads(_decoded(content, encoding), _by_picture_once)
    except json.JSONDecodeError as error:
        lines = "; with a record in each line, it is a .jsonl: rename it" if error.msg == "Extra data" else ""
        raise TextError(f"not JSON: {error}{lines}") from None


def read_object(content: bytes | str, encoding: str = "utf-8") -> dict[str, Any]:
    """The JSON object in `content`, which is in UTF-8, UTF-16 or UTF-32, or in the given encoding.

    Raises:
        TextError: `content` is not a JSON object, or is nested too deeply.
    """
    content = _decoded(content, encoding)
    try:
        value = _loads(content)
    except json.JSONDecodeError:
        raise TextError("not a JSON object") from None
    if not isinstance(value, dict):
        raise TextError("not a JSON object")
    if content.count("[") + content.count("{") > _DEEPEST and too_deep(value):
        raise TextError(f"nested more than {_DEEPEST} deep")
    return value


def _loads(content: str, of_pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    try:
        return json.loads(content, object_pairs_hook=of_pairs)
    except RecursionError:
        raise TextError(f"nested more than {_DEEPEST} deep") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # a number of too many digits
        raise json.JSONDecodeError(str(error), content, 0) from None


def _by_picture_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of whose repeated keys the last one counts, as everywhere, unless captions would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1 and is_picture(name):
                raise TextError(f"the key {name!r} is there {count:,} times: write its captions as one list")
    return found


def _decoded(content: bytes | str, encoding: str) -> str:
    if isinstance(content, str):
        return content
    return decode_text(content, json.detect_encoding(content) if encoding == "utf-8" else encoding)


def too_deep(value: Any) -> bool:
    """Whether lists and objects are nested more deeply than in any record."""
    level = [value]
    for _ in range(_DEEPEST):
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
    return bool(level)
