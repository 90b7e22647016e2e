"""What a source saw but did not use: all of it counted, and named up to a maximum number of rows.

`Problems` are files, members and rows that should have been used but could not be. `Unused` counts what a source's
rules leave out (hidden files, suffixes that are not read, a tool's own files), by reason and kind, since there may be
millions. Both are written to `source.json` and to ingest's ledger.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Literal

from flame_core.data.picture_kinds import suffix_of
from flame_core.data.sources import Problem
from flame_core.names import printable

NAMED = 1000  # problems per reason that have their own row
_EXAMPLES = 3
UNREAD_VALUE = "unread_value"
_KINDS = 100  # distinct kinds per reason

UnusedReason = Literal[
    "project",  # a folder of a project: what it makes of the source must not become part of it
    "hidden",  # its name, or a folder's above it, begins with a dot, or is macOS's `__MACOSX`
    "unsupported_suffix",
    "beside_table",  # a sidecar, although a table has the captions
    "other_table",  # than the one that the source names, if any
    "side_file",  # written by img2dataset beside its shards
    "not_matched",  # by `shards`
    "linked_folder",  # a link to a folder that was already read
    "unsupported_member",
    "beyond_max_samples",
    "unread_value",  # of a field that a record has, such as a category that is a list
]
_SAYS: dict[str, str] = {
    "project": "not read since they are projects",
    "hidden": "not read since they are hidden",
    "unsupported_suffix": "neither pictures nor captions by their suffix",
    "beside_table": "not read since `table` has the captions",
    "other_table": "not read since a source reads only the one in `table`",
    "side_file": "img2dataset's own about its shards",
    "not_matched": "not matched by `shards`",
    "linked_folder": "linked to again and read once",
    "unsupported_member": "not read since members are known by their extension (jpg, png, txt, json and the like)",
    "beyond_max_samples": "behind the first `max_samples`",
}


class Problems(list[Problem]):
    """A list of problems that keeps the first `NAMED` per reason and counts the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._met: Counter[str] = Counter()
        self._more: dict[str, Problem] = {}

    def append(self, problem: Problem, /) -> None:
        self._met[problem.reason] += 1
        if self._met[problem.reason] <= NAMED:
            super().append(problem)
            return
        left = self._more.get(problem.reason)
        count = problem.count + (left.count if left else 0)
        first = left.file if left else problem.file
        self._more[problem.reason] = Problem(first, problem.reason, f"the first of {count:,} more of this kind", count)

    def rows(self) -> list[Problem]:
        """All problems; those beyond the first `NAMED` share one row per reason."""
        return [*self, *(self._more[reason] for reason in sorted(self._more))]


@dataclass
class UnusedGroup:
    """Files or members of one kind left out for one reason."""

    reason: str
    kind: str  # usually a suffix
    count: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def detail(self) -> str:
        """A description of the group, for people."""
        if self.reason == UNREAD_VALUE:
            return f"{self.count:,} pairs have {self.kind}, which is not read in that form; the rest of them is"
        names = ", ".join(self.examples)
        return f"{self.count:,} of the kind {self.kind}, {_SAYS.get(self.reason, self.reason)}: such as {names}"


class Unused:
    """Counts what a source's rules leave out, with a few example names of each kind."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, UnusedGroup]] = defaultdict(dict)

    def add(self, reason: UnusedReason, name: str, kind: str | None = None, count: int = 1) -> None:
        """Count `name` as not used; its kind is its suffix unless `kind` is given."""
        kind = printable(suffix_of(name) or "no suffix") if kind is None else printable(kind)
        self.include(UnusedGroup(reason, kind, count, [printable(name)]))

    def include(self, more: UnusedGroup) -> None:
        """Count what was counted elsewhere."""
        groups = self._groups[more.reason]
        kind = more.kind if more.kind in groups or len(groups) < _KINDS else "other kinds"
        group = groups.setdefault(kind, UnusedGroup(more.reason, kind))
        group.count += more.count
        wanted = 1 if more.reason == UNREAD_VALUE else _EXAMPLES
        group.examples += more.examples[: max(0, wanted - len(group.examples))]

    def rows(self) -> list[UnusedGroup]:
        """All groups, sorted by reason and kind."""
        return sorted(self.groups(), key=lambda group: (group.reason, group.kind))

    def groups(self) -> list[UnusedGroup]:
        """All groups; those of one reason in the order in which they were met, which decides what has no room."""
        return [group for groups in self._groups.values() for group in groups.values()]
