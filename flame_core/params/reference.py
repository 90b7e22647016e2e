"""What every key of `params.yaml` and of a recipe means, from the classes in this package: `flame params describe`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from textwrap import wrap
from typing import Any, NamedTuple

from flame_core.errors import ParamsError
from flame_core.names import did_you_mean
from flame_core.params.places import BY_OBJECTIVE
from flame_core.params.whole import Params

Schema = Mapping[str, Any]
MUST = "must be given"
_NUMBERS = {"integer": "whole number", "number": "number"}


class Key(NamedTuple):
    """One key.

    Attributes:
        name: as it is written; `...` behind it if it has keys of its own.
        values: what it takes.
        default: as in YAML; empty for a section.
        meaning: a sentence.
    """

    name: str
    values: str
    default: str
    meaning: str


class Described(NamedTuple):
    """What a key holds.

    Attributes:
        meaning: of the key itself.
        keys: that may be written below it; of a key without such, the key itself.
        kinds: whether `keys` are kinds, of which one is chosen.
    """

    meaning: str
    keys: list[Key]
    kinds: bool = False


def describe(key: str = "") -> Described:
    """What can be written at a key such as `train.model`; the kinds of an entry are steps: `train.objective.infonce`.

    Raises:
        ParamsError: there is no such key.
    """
    return _reference().describe(key)


@cache
def _reference() -> Reference:
    return Reference(Params.model_json_schema())


def paragraphs(found: Described, key: str, width: int) -> Iterator[str]:
    """Lines for a terminal: each key with what it takes and its default, and below that its meaning."""
    above = f"{key}." if key else ""
    if found.meaning and found.keys[0].meaning != found.meaning:
        yield from wrap(found.meaning, width)
        yield ""
    for each in found.keys:
        default = each.default if each.default in ("", MUST) else f"default {each.default}"
        yield ": ".join(part for part in (each.name, "; ".join(filter(None, (each.values, default)))) if part)
        yield from wrap(each.meaning, width, initial_indent="    ", subsequent_indent="    ")
    if found.kinds:
        yield f"\nThe keys of one: flame params describe {above}{found.keys[0].name}"
    elif any(each.name.endswith("...") for each in found.keys):
        yield f"\nA key with ... has keys of its own: flame params describe {above}<key>"


class Reference:
    """The JSON schema of the params, in which keys are looked up."""

    def __init__(self, schema: Schema) -> None:
        self._whole, self._parts = schema, schema["$defs"]

    def describe(self, key: str) -> Described:
        """As `describe` of this module."""
        here, above, required = self._whole, "", False
        for part in key.split(".") if key else ():
            required = any(part in section.get("required", ()) for section in self._sections(here).values())
            here, above = self._below(here, part, above), part
        sections = self._sections(here)
        if len(sections) > 1:
            kinds = [Key(tag, "", "", _sentence(section)) for tag, section in sections.items()]
            return Described(self._meaning(here), kinds, kinds=True)
        own = [
            self._row(name, value, name in section.get("required", ()))
            for section in sections.values()
            for name, value in section["properties"].items()
        ]
        return Described(self._meaning(here), own or [self._row(above, here, required)])

    def _below(self, here: Schema, part: str, above: str) -> Schema:
        sections = self._sections(here)
        for section in sections.values():
            if part in section["properties"]:
                return section["properties"][part]
        if part in sections:
            return sections[part]
        if part == BY_OBJECTIVE and above == "train":
            return self._below(here, "objective", above)
        if "additionalProperties" in here or "items" in here:
            return here  # a name or a number that somebody chose, or by_recipe
        known = [*sections, *(name for section in sections.values() for name in section["properties"])]
        where = f" below {above}" if above else ""
        raise ParamsError(
            f"there is no key {part!r}{where};{did_you_mean(part, known)} `flame params describe` lists all"
        )

    def _sections(self, value: Schema) -> dict[str, Schema]:
        """{tag: section} of all that a value may be or hold; the tag of a single one is empty."""
        if "$ref" in value:
            return self._sections(self._parts[value["$ref"].rpartition("/")[2]])
        if "properties" in value:
            return {"": value}
        found: dict[str, Schema] = {}
        tags = {ref: tag for tag, ref in value.get("discriminator", {}).get("mapping", {}).items()}
        for choice in (*value.get("anyOf", ()), *value.get("oneOf", ())):
            found |= {tags.get(choice.get("$ref"), tag): own for tag, own in self._sections(choice).items()}
        for held in (value.get("items"), value.get("additionalProperties")):
            found |= self._sections(held) if isinstance(held, Mapping) else {}
        return found

    def _meaning(self, value: Schema) -> str:
        if "description" in value:
            return _sentence(value)
        sections = self._sections(value)
        return _sentence(next(iter(sections.values()))) if len(sections) == 1 else ""

    def _row(self, name: str, value: Schema, required: bool = False) -> Key:
        sections = self._sections(value)
        default, meaning = MUST if required else "", self._meaning(value)
        if "default" in value and (not sections or not isinstance(value["default"], Mapping)):
            default = json.dumps(value["default"], ensure_ascii=False)
        if "const" in value and not meaning:
            meaning = "says which kind this is"
        return Key(f"{name} ..." if sections else name, " or ".join(self._types(value)), default, meaning)

    def _types(self, value: Schema) -> Iterator[str]:
        """The forms that a value may have."""
        choices = [*value.get("anyOf", ()), *value.get("oneOf", ())]
        if "$ref" in value or "discriminator" in value:
            yield "section"
        elif choices:
            yield from (text for choice in choices for text in self._types(choice))
        elif "enum" in value or "const" in value:
            given = value.get("enum", [value.get("const")])
            yield ", ".join(each if str(each).isidentifier() else json.dumps(each) for each in given)
        elif value.get("type") == "array":
            inner = [" or ".join(self._types(each)) for each in value.get("prefixItems", ())]
            each = value.get("items", {})
            yield f"[{', '.join(inner)}]" if inner else f"list of {' or '.join(self._types(each)) or 'values'}"
        elif value.get("type") == "object":
            held = value.get("additionalProperties")
            yield f"{{name: {' or '.join(self._types(held)) if isinstance(held, Mapping) else 'value'}}}"
        else:
            yield _plain(value)


def _plain(value: Schema) -> str:
    """A number with its bounds, a text, a switch, null."""
    kind = str(value.get("type", "value"))
    if kind not in _NUMBERS:
        return {"string": "text", "boolean": "true, false"}.get(kind, kind)
    bounds = {
        "from": value.get("minimum"),
        "above": value.get("exclusiveMinimum"),
        "to": value.get("maximum"),
        "below": value.get("exclusiveMaximum"),
    }
    return " ".join([_NUMBERS[kind], *(f"{word} {bound:,}" for word, bound in bounds.items() if bound is not None)])


def _sentence(value: Schema) -> str:
    """The first paragraph of a description, on one line."""
    return " ".join(value.get("description", "").partition("\n\n")[0].split())
