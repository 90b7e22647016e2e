"""Brings the files of a project to the installed version without losing an edit.

Each file is compared with the text that was shipped when the project was made or last upgraded:

| the file | becomes |
|---|---|
| was never edited | the new text |
| was edited, in other lines than the new version changes | both changes, merged |
| was edited in the same lines, or is not in the record | stays; the new text is written beside it as `<file>.new` |
| was deleted by its owner | stays deleted (a recipe), or comes back (all others) |
| is a recipe in the other of `recipes/` and `recipes/linked/` | is treated there, since params decide where it is |
| `versions.yaml` | always the new text: it says which code is installed |
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from flame_core.errors import ParamsError
from flame_core.files.whole_files import put
from flame_core.graph.versions import VERSIONS
from flame_core.params.recipe_files import is_made, recipe_file
from flame_core.params.yaml_text import read_yaml_text
from flame_core.project.merge import merge
from flame_core.project.record import PIPELINE, RECORD, read_record, record_text, shipped_files
from flame_core.shipped import shipped

How = Literal["new", "replaced", "merged", "beside", "unknown"]


@dataclass(frozen=True)
class Change:
    """What an upgrade does to a file. `text` is written to `name`, or beside it if both texts are kept."""

    name: str
    how: How
    before: str
    text: str

    @property
    def written(self) -> str:
        return f"{self.name}.new" if self.how in ("beside", "unknown") else self.name

    def diff(self) -> str:
        """The change as a unified diff."""
        lines = difflib.unified_diff(
            self.before.splitlines(), self.text.splitlines(), f"a/{self.name}", f"b/{self.written}", lineterm=""
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class Upgrade:
    """All changes, and whether the record of shipped texts has to be written anew."""

    root: Path
    changes: list[Change]
    stale: bool

    @property
    def needed(self) -> bool:
        return bool(self.changes) or self.stale

    def apply(self) -> None:
        """Write the changes and then the record, so that an interrupted upgrade can be run again."""
        for change in self.changes:
            put(self.root / change.written, change.text.encode())
        if self.root.resolve() != shipped(".").resolve():
            put(self.root / RECORD, record_text(shipped_files()).encode())


def plan_upgrade(root: Path) -> Upgrade:
    """What would bring the project in `root` to the installed version.

    Raises:
        ParamsError: it is no project, a file is not UTF-8 text or no YAML, or a `.new` of the last upgrade still waits.
    """
    if not (root / PIPELINE).is_file() or not (root / "params.yaml").is_file():
        raise ParamsError(f"{root} is no project: it lacks {PIPELINE} or params.yaml; `flame init` makes one")
    base, files = read_record(root), shipped_files()
    if root.resolve() == shipped(".").resolve():  # the files are made here; the others are written from code
        base = {name: path.read_text("utf-8") for name in files if (path := root / name).is_file()}
    places = {name: _place(root, name) for name in files}
    if waiting := [
        f"{places[name]}.new" for name, text in files.items() if _waits(root / places[name], text, base.get(name))
    ]:
        raise ParamsError(
            f"{root}: {', '.join(waiting)} of the last upgrade waits: take what you want from it, and delete it"
        )
    found = [_change(root, places[name], text, base.get(name)) for name, text in files.items()]
    return Upgrade(root, [change for change in found if change], (root / RECORD).is_file() and base != files)


def _change(root: Path, name: str, new: str, base: str | None) -> Change | None:
    path = root / name
    if not path.is_file():
        deleted = base is not None and name.startswith("recipes/")
        return None if deleted else Change(name, "new", "", new)
    try:
        own = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} must be UTF-8 text ({error})") from None
    if own == new:
        return None
    if own == base or name == VERSIONS:
        return Change(name, "replaced", own, new)
    if name.endswith(".yaml"):
        read_yaml_text(own, str(path))
    if new == base:  # only edited by its owner
        return None
    if base is None:
        return Change(name, "unknown", own, new)
    merged = merge(base, own, new)
    if merged is not None and _readable(name, merged):
        return None if merged == own else Change(name, "merged", own, merged)
    return Change(name, "beside", own, new)


def _waits(path: Path, new: str, base: str | None) -> bool:
    """Whether a `.new` is beside a file, other than the one that an upgrade wrote before it was cut short.

    The record then still has the text of before.
    """
    beside = path.with_name(f"{path.name}.new")
    return beside.is_file() and (base == new or beside.read_bytes() != new.encode())


def _place(root: Path, name: str) -> str:
    """Where a shipped file stands in the project; what a link made is not written by hand."""
    if not name.startswith("recipes/"):
        return name
    file = recipe_file(root / "recipes", Path(name).stem)
    return file.relative_to(root).as_posix() if file.is_file() and not is_made(file) else name


def _readable(name: str, text: str) -> bool:
    """Whether a merged file is still YAML without double keys."""
    if not name.endswith(".yaml"):
        return True
    try:
        read_yaml_text(text, name)
    except (ParamsError, yaml.YAMLError):
        return False
    return True


_SAYS: dict[How, str] = {
    "new": "is new",
    "replaced": "is replaced; it was as it came",
    "merged": "gets what is new, and keeps your edits",
    "unknown": "stays as it is, because no record says that it came with the package; what did is written to "
    "{written}, to be merged",
    "beside": "stays as it is, because the same lines were edited; what came is written to {written}, to be merged",
}


def _says(change: Change) -> str:
    if change.how == "replaced" and change.name == VERSIONS:
        return "is replaced; it says which code is installed"
    return _SAYS[change.how].format(written=change.written)


def said(planned: Upgrade) -> list[str]:
    """What an upgrade does, for people: each change as a unified diff, and then in a line each."""
    if not planned.needed:
        return [f"{planned.root} is up to date"]
    diffs = [change.diff() for change in planned.changes]
    lines = [f"{change.name} {_says(change)}" for change in planned.changes]
    return [*diffs, "", *lines] if lines else [f"{RECORD} is renewed; no other file changes"]
