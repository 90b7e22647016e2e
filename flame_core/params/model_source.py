"""Where a model comes from: `hub:<id>@<revision>`, `path:<folder>` or `pypi:<package>==<version>#<file in the wheel>`.

Ids, revisions, packages and versions become arguments of commands and parts of addresses and paths, so each is checked
by the rules of its reader: ids by the hub's, versions by the packaging library's.
"""

from __future__ import annotations

import re

from packaging.version import InvalidVersion, Version

from flame_core.names import require_hub_id, require_revision, shown

_PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")  # PyPA's specification of names


def require_model_source(source: str) -> str:
    """`source`, if it has one of the three forms.

    Raises:
        ValueError: says what is wrong with it.
    """
    kind, colon, rest = source.partition(":")
    if not colon or not rest or kind not in ("hub", "path", "pypi"):
        raise ValueError(
            f"{shown(source)}: write hub:<id>@<revision>, path:<folder> or "
            "pypi:<package>==<version>#<file in the wheel>"
        )
    if kind == "hub":
        model, at, revision = rest.partition("@")
        require_hub_id(model)
        if at:
            require_revision(revision)
    elif kind == "pypi":
        requirement, _, member = rest.partition("#")
        require_requirement(requirement)
        if not member:
            raise ValueError(f"{shown(source)}: name the file in the wheel after a #")
    return source


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
