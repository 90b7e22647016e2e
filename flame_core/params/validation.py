"""Turns YAML files into models; errors name the file, the key and what is accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flame_core.errors import ParamsError
from flame_core.names import did_you_mean, shown
from flame_core.params.places import Key
from flame_core.params.section import AUTO, LENIENT, MAY_BE_AUTO, MISFITS, OR_AUTO, SWITCHES
from flame_core.params.yaml_text import Placed, read_placed_file, read_yaml_file

M = TypeVar("M", bound=BaseModel)
_MOST_FAULTS = 50  # listed in one error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ParamsError: the file is missing, is refused by `yaml_text` (with key and line), or is not a mapping.
    """
    return _sections(read_yaml_file(path), path)


def read_placed(path: Path, where: str) -> Placed:
    """The mapping in a YAML file with its lines; messages about its content name `where`.

    Raises:
        ParamsError: as `read_yaml`, but keys given twice are told by the result.
    """
    placed = read_placed_file(path, where)
    _sections(placed.value, path)
    return placed


def _sections(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ParamsError(f"{path} must hold a mapping of sections")
    return content


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` overridden by `over`: mappings merge key by key, any other value replaces the old one.

    A mapping of another kind (`kind`, `captioner`, a sampling's `name`) replaces the old one: its keys are others.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and not _is_of_another_kind(key, old, value):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _is_of_another_kind(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    names = {"kind", "captioner"} | ({"name"} if key == "sampling" else set())
    return any(old[name] != new[name] for name in names & old.keys() & new.keys())


class Fault(NamedTuple):
    """A wrong value: its key as pydantic names it, with tags of unions, and what is accepted there.

    `missing`: the last part of the key is one that should be there. `is_misfit`: the value does not fit to others.
    `section`: the optional section of the params that does not say what this value needs.
    """

    key: Key
    message: str
    missing: bool = False
    is_misfit: bool = False
    section: str | None = None


def examine(model: type[M], content: dict[str, Any], *, lenient: bool = False) -> tuple[M | None, list[Fault]]:
    """The content as a model, or None and all faults; `lenient` accepts values that do not fit together."""
    try:
        return model.model_validate(content, context={LENIENT: lenient}), []
    except ValidationError as error:
        return None, [fault for found in _of_unions(error.errors()) for fault in _faults(model, found)]


def _of_unions(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The errors, of which those of a value or a word in its place, such as `all`, are one."""
    kept: list[ErrorDetails] = []
    for error in errors:
        above = error["loc"][:-1]
        if kept and str(error["loc"][-1]).startswith("literal[") and kept[-1]["loc"][: len(above)] == above:
            if len(kept[-1]["loc"]) == len(error["loc"]):  # else the mistake is inside of the value
                kept[-1]["msg"] += f", or {error['msg'].removeprefix('Input should be ')}"
        else:
            kept.append(error)
    return kept


def _faults(model: type[BaseModel], found: ErrorDetails) -> Iterator[Fault]:
    key = tuple(part for part in map(str, found["loc"]) if part != "[key]")
    message = found["msg"].removeprefix("Value error, ")
    if len(key) > 1 and key[-1] == OR_AUTO:
        key, message = key[:-1], f"{message}, or write auto"
    elif found.get("input") == AUTO:
        message += f"; auto is chosen for {MAY_BE_AUTO} only"
    if found["type"] == MISFITS:
        yield from (Fault((*key, *below), text, is_misfit=True) for below, text in found.get("ctx", {})[MISFITS])
        return
    if found["type"] == "extra_forbidden":
        message = f"unknown key{_accepted(model, found['loc'])}"
    elif found["type"] == "union_tag_not_found":
        message = f"the key {found.get('ctx', {}).get('discriminator')} is missing; it selects the kind"
    elif "input" in found and not isinstance(found["input"], dict | BaseModel):
        message += f" (got {_shown_value(found['input'])})"
    yield Fault(key, message, missing=found["type"] == "missing")


def validate(model: type[M], content: dict[str, Any], path: Path) -> M:
    """The content of a file as a model.

    Raises:
        ParamsError: names the file, every wrong key and what is accepted there.
    """
    made, faults = examine(model, content)
    if made is not None:
        return made
    lines = [
        f"{'.'.join(shown(part)[1:-1] for part in fault.key) or '(whole file)'}: {fault.message}" for fault in faults
    ]
    raise not_valid(path, lines)


def not_valid(path: Path, faults: Sequence[str]) -> ParamsError:
    """The error that lists what is wrong with a file."""
    listed = [f"  {fault}" for fault in faults[:_MOST_FAULTS]]
    if len(faults) > len(listed):
        listed.append(f"  and {len(faults) - len(listed)} more")
    return ParamsError(f"{path} is not valid:\n" + "\n".join(listed))


def _shown_value(value: Any) -> str:
    """A wrong value, cut if it is long."""
    if isinstance(value, bool):
        return f"{value}; {SWITCHES}"
    return shown(value) if isinstance(value, str) else repr(value)[:200]


def _accepted(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """`; did you mean x? accepted here: ...` for an unknown key at `location`."""
    here: Any = model
    around: Any = None  # the section that contains this one, and this one's key in it
    for part in location[:-1]:
        if isinstance(here, type) and issubclass(here, BaseModel):
            around = here, part
        here = _inside(here, part)
    if not (isinstance(here, type) and issubclass(here, BaseModel)):
        return ""
    names = list(here.model_fields)
    if around and location[-1] in around[0].model_fields:
        return f"; it belongs beside {around[1]!r}, not in it; accepted here: {', '.join(names)}"
    return f";{did_you_mean(str(location[-1]), names)} accepted here: {', '.join(names)}"


def _inside(kind: Any, part: int | str) -> Any:
    """The type at `part` inside the type `kind`; tags of discriminated unions are parts too."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        info = kind.model_fields.get(str(part))
        return info.annotation if info else None
    origin = get_origin(kind)
    if origin is Annotated:
        return _inside(get_args(kind)[0], part)
    if origin in (Union, UnionType):
        for option in get_args(kind):
            fields = getattr(option, "model_fields", {})
            tags = {tag for info in fields.values() for tag in get_args(info.annotation)}
            if part in tags:
                return option
        return next((found for option in get_args(kind) if (found := _inside(option, part))), None)
    if origin is dict:
        return get_args(kind)[1]
    if origin is list:
        return get_args(kind)[0]
    return None
