"""The stamps of Tux Paint: a picture, a description in English, and translations by volunteers.

`stamps/<category>/<name>.png|svg` has a file `<name>.txt`, whose first line is English and whose other lines are
`<language>.utf8=<text>`. Languages keep their codes as written (`de`, `pt_BR`, `ca@valencia`). If a stamp has both
files, the PNG is used: the SVG's margins differ, and its text would need fonts. `<name>_mirror` and `<name>_flip`
without their own text are the same stamp mirrored for the program's buttons, and are not pairs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from flame_core.data.sources import RawPair
from flame_core.data.sources.keys import safe_key, words_of
from flame_core.data.sources.unpacked import Package

_STAMPS = Path("usr/share/tuxpaint/stamps")
_TRANSLATION = re.compile(r"^(?P<language>[A-Za-z_]+(?:@[A-Za-z]+)?)\.utf8=(?P<text>.*)$")


def stamps(package: Package) -> Iterator[RawPair]:
    """The pairs of `tuxpaint-stamps-default`, sorted by path."""
    root = package.tree / _STAMPS
    package.note_pictures(root, _SUFFIXES)
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.suffix in _SUFFIXES}
    for stem in sorted({name.rpartition(".")[0] for name in files}):
        picture = files.get(f"{stem}.png") or files.get(f"{stem}.svg")
        text = files.get(f"{stem}.txt")
        if text is None and stem.endswith(("_mirror", "_flip")):
            continue
        category, _, name = stem.rpartition("/")
        key = safe_key(f"stamps/{stem}")
        image = package.keep(picture, f"{key}{picture.suffix}") if picture else None
        yield RawPair(
            key=key,
            image=image,
            captions=read_captions(package.text(text)) if text else {},
            title=words_of(name),
            category=category or None,
            licence=package.licence,
            unread=f"{stem}{picture.suffix}" if picture and image is None else None,
        )


_SUFFIXES = (".png", ".svg", ".txt")


def read_captions(content: str | None) -> dict[str, list[str]]:
    """The captions in a stamp's text file by language; empty if it cannot be read."""
    if content is None:
        return {}
    first, *others = content.split("\n")
    captions = {"en": [first]}
    for line in others:
        if match := _TRANSLATION.match(line):
            captions.setdefault(match["language"], []).append(match["text"])
    return captions
