"""The Open Clip Art Library: PNGs from one package, captions from the RDF metadata of the SVGs in another.

Many submissions have the title and description of their whole collection ("Part of the Flat Icon Collection", "Lemon
SVG theme"). A text shared by more than `_SHARED` pictures describes none of them: it is left out, and the words of the
file's name replace such a title.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flame_core.data.sources import RawPair
from flame_core.data.sources.keys import safe_key, words_of
from flame_core.data.sources.unpacked import Package

_PNG = Path("usr/share/openclipart/png")
_SVG = Path("usr/share/openclipart/svg")
_SHARED = 3


@dataclass(frozen=True)
class Metadata:
    """An SVG's metadata about itself."""

    title: str = ""
    description: str = ""
    keywords: list[str] = field(default_factory=list)
    licence: str | None = None
    language: str = "en"


def clipart(png: Package, svg: Package) -> Iterator[RawPair]:
    """The pairs of `openclipart-png` and `openclipart-svg`, sorted by path."""
    png.note_pictures(png.tree / _PNG, (".png",))
    pictures = sorted((png.tree / _PNG).rglob("*.png"), key=Path.as_posix)
    names = [picture.relative_to(png.tree / _PNG).with_suffix("") for picture in pictures]
    metadata = [read_metadata(svg.tree / _SVG / f"{name.as_posix()}.svg") for name in names]
    originals = {picture.resolve(): said for picture, said in zip(pictures, metadata, strict=True)}
    times = Counter(text for said in originals.values() for text in {said.title, said.description})
    for picture, name, said in zip(pictures, names, metadata, strict=True):
        title, description = (text if times[text] <= _SHARED else "" for text in (said.title, said.description))
        title = title or words_of(name.name)
        key = safe_key(f"clipart/{name.as_posix()}")
        image = png.keep(picture, f"{key}.png")
        yield RawPair(
            key=key,
            image=image,
            captions={said.language: [text for text in (title, description) if text]},
            title=title,
            keywords=said.keywords,
            category=None if name.parent == Path() else name.parent.as_posix(),
            licence=said.licence or png.licence,
            unread=None if image else f"{name.as_posix()}.png",
        )


def read_metadata(path: Path) -> Metadata:
    """The Dublin Core and Creative Commons fields of an SVG; empty if it has none or is not XML."""
    try:
        for _, element in ElementTree.iterparse(path, events=("end",)):
            if _name(element) == "Work":
                return _metadata(element)
    except (OSError, ElementTree.ParseError):
        pass
    return Metadata()


def _metadata(work: ElementTree.Element) -> Metadata:
    parts = {_name(element): element for element in work}
    texts = {name: " ".join((element.text or "").split()) for name, element in parts.items()}
    subject, licence = parts.get("subject"), parts.get("license")
    items = subject.iter() if subject is not None else ()
    keywords = [" ".join(item.text.split()) for item in items if _name(item) == "li" and item.text]
    resource = next(iter(licence.attrib.values()), None) if licence is not None else None
    language = re.fullmatch(r"([A-Za-z]{2})([-_ ].*)?", texts.get("language", ""))
    return Metadata(
        title=texts.get("title", ""),
        description=texts.get("description", ""),
        keywords=[keyword for keyword in keywords if keyword],
        licence=resource or None,
        language=language[1].lower() if language else "en",
    )


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
