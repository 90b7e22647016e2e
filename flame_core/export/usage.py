"""What a format tells its folder's card: the library, the program that loads it, what its files are, its limits."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Usage:
    """How an exported folder is used.

    Attributes:
        library: as the Hugging Face hub calls it.
        programs: {title: Python} that runs in the folder, with a picture bird.jpg in it.
        files: {name: what it holds}.
        notes: sentences on how to use it.
        lacks: sentences on what this format cannot do; the command shows them, too.
    """

    library: str
    programs: dict[str, str]
    files: dict[str, str]
    notes: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
