"""Outs below a folder that is a link to another disk, in a git repository.

DVC lets git ignore every out, and refuses one whose real place is outside of the repository. Git does not look behind
links, so there is nothing to ignore there.
"""

from __future__ import annotations

from typing import Any


def allow_linked_outs() -> None:
    """From now on, DVC in this process accepts outs behind a link that leads out of the repository."""
    from scmrepo.exceptions import FileNotInRepoError
    from scmrepo.git import Git

    def allowing(method: Any) -> Any:
        def ignore(self: Git, path: str) -> str | None:
            try:
                return method(self, path)
            except FileNotInRepoError:
                return None

        return ignore

    Git.ignore = allowing(Git.ignore)
    Git.ignore_remove = allowing(Git.ignore_remove)
