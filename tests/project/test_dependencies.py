"""An empty environment gets all that the code imports: what the wheel requires, and what that requires in turn."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PER_CHOICE = {"open_clip"}  # asked for by name where they are used


def imported() -> dict[str, str]:
    """{top-level module: a file that imports it}, lazy imports too."""
    found: dict[str, str] = {}
    for file in [*(ROOT / "flame_core").rglob("*.py"), *(ROOT / "orchestration").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            found |= {name.partition(".")[0]: file.relative_to(ROOT).as_posix() for name in names}
    return found


def closure(lines: list[str]) -> set[str]:
    """Names of the distributions that these requirements bring."""
    waiting = [Requirement(line) for line in lines]
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        found.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                below = [Requirement(line) for line in requires(name) or []]
            except PackageNotFoundError:  # for another platform
                below = []
            waiting += [each for each in below if each.marker is None or each.marker.evaluate({"extra": extra})]
    return found


def test_every_import_is_brought_by_a_requirement():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought = closure(
        project["dependencies"] + [line for more in project["optional-dependencies"].values() for line in more]
    )
    of_module = packages_distributions()
    own = {"flame_core", "orchestration", *sys.stdlib_module_names}
    missing = {
        module: file
        for module, file in imported().items()
        if module not in own | PER_CHOICE
        and not {canonicalize_name(name) for name in of_module.get(module, ())} & brought
    }
    assert missing == {}
    assert {"torch", "dagster", "jinja2"} <= imported().keys() and len(brought) > 100
