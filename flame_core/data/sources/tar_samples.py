"""Groups the members of a webdataset tar into samples: a member's name up to its extension is the key.

The extension begins at the name's first dot (`7.jpg`, `7.json`), or at the last dot if only that gives a known
extension: `22.10.jpg` with `22.10.txt` is the sample `22.10`. If such members do not make a sample of their own
(`7.seg.png` beside `7.jpg`, or `7.input.jpg` and `8.input.jpg` without captions), everything after the first dot is an
extension that is not read, and the members are counted by it. Members of a key need not be adjacent.

If a member occurs twice under one key, the second starts another sample, provided that all samples of the key then have
the same members (the tar was written twice). Otherwise it is unknown which caption belongs to which picture: with
several pictures all members are left out and named, with one picture only the repeated members.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from flame_core.data.picture_kinds import SUFFIXES, may_be_picture
from flame_core.data.sources import Problem
from flame_core.data.sources.accounting import Unused
from flame_core.data.sources.manifest import SIDECARS
from flame_core.data.sources.tar_headers import Member
from flame_core.files.regular_files import is_hidden
from flame_core.names import printable

PICTURES = frozenset(suffix.removeprefix(".") for suffix in SUFFIXES)
CAPTIONED = frozenset(suffix.removeprefix(".") for suffix in SIDECARS)
_READ = PICTURES | CAPTIONED


@dataclass
class Parts:
    """The members of a sample by extension, in the order of the tar."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)
    unread: str | None = None  # a member in the picture's place that cannot be read

    @property
    def pictures(self) -> list[Member]:
        return [member for kind, member in self.members.items() if kind in PICTURES]

    @property
    def whole(self) -> bool:
        """Whether it has a picture and a member that may hold a caption."""
        return bool(self.pictures) and not CAPTIONED.isdisjoint(self.members)


def group_members(shard: str, members: Iterable[Member], problems: list[Problem], unused: Unused) -> list[Parts]:
    """The samples of a tar, in the order of their first members; all other members are counted or named."""
    groups: dict[str, list[tuple[str, Member]]] = defaultdict(list)
    others: dict[str, str] = {}  # key -> member that may be its picture
    for member in members:
        folder, _, name = member.name.rpartition("/")
        if member.folder:
            continue
        if any(is_hidden(part) and part not in (".", "..") for part in member.name.split("/")):
            unused.add("hidden", f"{shard}/{member.name}")
            continue
        first, last = name.partition(".")[2].lower(), name.rpartition(".")[2].lower()
        kind = first if first in _READ else last
        if not member.regular or "." not in name or kind not in _READ:
            unused.add("unsupported_member", f"{shard}/{member.name}", _extension(member, first))
            if may_be_picture(name):
                others[str(PurePosixPath(folder, PurePosixPath(name).stem))] = f"{shard}/{member.name}"
            continue
        groups[member.name[: -len(kind) - 1]].append((kind, member))
    _leave_compounds(shard, groups, unused)
    samples = [parts for key, found in groups.items() for parts in _samples(shard, key, found, problems)]
    for parts in samples:
        if not parts.pictures:
            parts.unread = printable(others.get(str(PurePosixPath(parts.key)), "")) or None
    return samples


def _extension(member: Member, extension: str) -> str:
    if not member.regular:
        return "link or sparse file (tar --dereference --hard-dereference packs none)"
    return f".{extension}" if extension else "no extension"


def _leave_compounds(shard: str, groups: dict[str, list[tuple[str, Member]]], unused: Unused) -> None:
    """Remove members from `groups` whose extension has more than one part."""
    dotted: dict[str, tuple[str, list[str]]] = {}  # key -> (its key up to the first dot, extensions)
    times: Counter[str] = Counter()
    for key, found in groups.items():
        folder, slash, name = key.rpartition("/")
        base, dot, rest = name.partition(".")
        if dot:
            extensions = [f"{rest}.{kind}".lower() for kind, _ in found]
            dotted[key] = (folder + slash + base, extensions)
            times.update(set(extensions))
    plain = groups.keys() - dotted.keys()
    for key, (base, extensions) in dotted.items():
        kinds = {kind for kind, _ in groups[key]}
        whole = not kinds.isdisjoint(PICTURES) and not kinds.isdisjoint(CAPTIONED)
        if not whole and (base in plain or all(times[extension] > 1 for extension in extensions)):
            for extension, (_, member) in zip(extensions, groups.pop(key), strict=True):
                unused.add("unsupported_member", f"{shard}/{member.name}", f".{extension}")


def _samples(shard: str, key: str, found: list[tuple[str, Member]], problems: list[Problem]) -> list[Parts]:
    """The samples under one key: one, unless members occur twice."""
    runs = [Parts(key)]
    for kind, member in found:
        if kind in runs[-1].members:
            runs.append(Parts(key))
        runs[-1].members[kind] = member
    if len({frozenset(run.members) for run in runs}) == 1:
        return runs
    pictures = [member for run in runs for member in run.pictures]
    one = Parts(key)
    for kind, member in found:
        if len(pictures) <= 1 and kind not in one.members:
            one.members[kind] = member
        else:
            told = "it is left out, since the key has it twice"
            if len(pictures) > 1:
                told = "it is left out: members of this key come twice, and which belong together cannot be told"
            problems.append(Problem(printable(f"{shard}/{member.name}"), "duplicate_member", told))
    return [one] if one.members else []
