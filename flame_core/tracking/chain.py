"""One link of a model's chain (`lineage.py`): what is known of it, and whether that holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flame_core.dvc_project.recorded import LOCK
from flame_core.layout import Layout
from flame_core.tracking.outs import find_bytes

VERIFIED, BROKEN, UNCHECKED = "verified", "broken", "not checked"


@dataclass
class Link:
    """One link of the chain: what it is, the facts about it, and whether they are verified."""

    name: str
    facts: dict[str, str] = field(default_factory=dict)
    status: str = VERIFIED
    notes: list[str] = field(default_factory=list)
    url: str | None = None  # of its page, if a server shows it now

    def fail(self, *problems: str) -> None:
        """Mark the link broken."""
        self.status = BROKEN
        self.notes += problems

    def skip(self, why: str) -> None:
        """Mark a link that is not broken as not checked."""
        if self.status == VERIFIED:
            self.status = UNCHECKED
        self.notes.append(why)


def out_link(
    layout: Layout, path: str, name: str, outs: Mapping[str, str], lock: dict[str, Any], facts: dict[str, str]
) -> Link:
    """The link of an out of the run, whose bytes are hashed again wherever they are found."""
    digest = outs.get(path)
    link = Link(name, {"path": path, "digest": digest or "not recorded", **facts})
    if not digest:
        link.fail(f"{LOCK} of the run names no {path}")
        return link
    finding = find_bytes(layout, path, digest, lock)
    if finding.where:
        link.facts["found in"] = finding.where
    else:
        link.fail(*finding.problems)
    return link
