"""Recognises files that hold forgotten samples: by key, digests, captions, or the picture's bytes.

Parquet files are read column by column, texts by words, tars by the names of their members and the captions of their
samples. All but tables are searched for a piece of the bytes of each picture. Many pictures may share that piece (the
same colour profile, the same Huffman tables), so a hit counts only if the whole picture is around it. Pages show
smaller pictures, which are made again here and compared (`Traces.views`). Vectors
(`.safetensors`, `.npy`) name nobody; those that stand in line with a file that does are known by their digest
(`Traces.files`).
"""

from __future__ import annotations

import hashlib
import html
import json
import mmap
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from flame_core.data.captions_text import clean_caption
from flame_core.data.shards import read_metas
from flame_core.digest import canonical_json, json_bytes, text_sha256
from flame_core.errors import InputError
from flame_core.files.columns import is_among
from flame_core.files.whole_files import put
from flame_core.inline_pictures import DATA_URI, square_view, thumbnail

PIECE = 48  # bytes of a picture that are searched for
_LONG = 15  # characters of a caption that is searched for in running text; a shorter one only where it stands alone
_WORDS = re.compile(r"[A-Za-z0-9_/-]+")
_TEXT_MOST = 1 << 28  # bytes of a text file
_DETAIL = "detail"  # the column of ledgers and scans that says more, for people
_VECTORS = {".safetensors", ".npy", ".gguf", ".pt", ".onnx"}


@dataclass
class Traces:
    """What a file is searched for. Sets only grow, so traces of several requests can be put together."""

    keys: set[str] = field(default_factory=set)  # of samples, and of addresses (urls/...)
    digests: set[str] = field(default_factory=set)  # sha256 of pictures
    texts: set[str] = field(default_factory=set)  # captions that no other sample has
    pieces: set[str] = field(default_factory=set)  # of pictures, as `_piece` writes them
    views: set[str] = field(default_factory=set)  # sha256 of small pictures as pages embed them
    files: set[str] = field(default_factory=set)  # sha256 of files in line with others that name a sample
    md5s: set[str] = field(default_factory=set)  # the same, as DVC names them

    def __bool__(self) -> bool:
        return bool(self.keys or self.digests)

    def update(self, other: Traces) -> None:
        """Add what another has."""
        for name, values in vars(other).items():
            getattr(self, name).update(values)

    def add_picture(self, content: bytes) -> None:
        """Search for a picture with these bytes."""
        if content:
            self.pieces.add(_piece(content))

    def add_views(self, stored: bytes) -> None:
        """Search for what pages show of a picture that shards have: it may stand beside a caption that others have."""
        with suppress(OSError, Image.DecompressionBombError):  # damaged, or so large: no page could show it
            self.views |= {text_sha256(view(stored)) for view in (thumbnail, square_view)}

    def write(self, path: Path, **more: Any) -> None:
        """Keep them in a file, replaced atomically."""
        put(path, json_bytes({**{name: sorted(values) for name, values in vars(self).items()}, **more}))

    @classmethod
    def read(cls, content: dict[str, Any]) -> Traces:
        """Traces that `write` wrote."""
        known = cls.__dataclass_fields__.keys() - {"views"}  # which earlier versions did not write
        return cls(**{name: set(content[name]) for name in known}, views=set(content.get("views", ())))

    def in_file(self, path: Path) -> bool:
        """Whether a file holds a sample.

        Raises:
            OSError: it cannot be read.
        """
        if path.suffix in _VECTORS or not path.stat().st_size:
            return False
        with path.open("rb") as file:
            head = file.read(4096)
        if head[:4] == b"PAR1":
            return self._in_parquet(path)
        if _is_vectors(head):
            return False
        if b"\0" not in head and path.stat().st_size <= _TEXT_MOST:
            try:
                if self.in_text(path.read_text("utf-8")):
                    return True
            except UnicodeDecodeError:
                pass
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if head[257:262] == b"ustar":
                if any(_is_member(content, key) for key in self.keys):
                    return True
                said = any(content.find(canonical_json(text).encode()) >= 0 for text in self.texts)
                if said and self._in_shard(path):
                    return True
            return any(_has_picture(content, piece) for piece in self.pieces)

    def in_text(self, text: str) -> bool:
        """Whether a text (JSON, HTML, lines) names a sample, says its caption or shows its picture."""
        words = set(_WORDS.findall(text))
        if not words.isdisjoint(self.keys) or not words.isdisjoint(self.digests):
            return True
        if self.views and any(text_sha256(shown) in self.views for shown in DATA_URI.findall(text)):
            return True
        return any(_says(text, caption) for caption in self.texts)

    def is_said_in(self, caption: str) -> bool:
        """Whether a caption that a model wrote is one of a sample's, or has a long one of them in it."""
        said = clean_caption(caption, len(caption))[0]
        return said in self.texts or any(text in said for text in self.texts if len(text) >= _LONG)

    def _in_shard(self, path: Path) -> bool:
        """Whether a sample of a shard has one of the captions, for example of a near-duplicate that it absorbed."""
        try:
            captions = [meta["captions"] for _, meta in read_metas(path)]
            return any(not self.texts.isdisjoint(some) for own in captions for some in own.values())
        except (InputError, KeyError, TypeError, AttributeError):  # another tar, such as one of a source
            return False

    def _is_named_in(self, detail: str | None) -> bool:
        """Whether what a table says about another sample names one of these, which that one looks like."""
        return detail is not None and not self.keys.isdisjoint(_WORDS.findall(detail))

    def _in_parquet(self, path: Path) -> bool:
        wanted = pa.array(sorted(self.keys | self.digests | self.texts), pa.large_string())
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=8192):
                    for name, column in zip(batch.schema.names, batch.columns, strict=True):
                        for strings in _strings(column):
                            if is_among(strings.cast(pa.large_string()), wanted).true_count:
                                return True
                            if name == _DETAIL and any(map(self._is_named_in, strings.to_pylist())):
                                return True
        except pa.ArrowException:  # damaged; its bytes may still hold a caption
            return any(caption.encode() in path.read_bytes() for caption in (*self.keys, *self.texts))
        return False


def _piece(content: bytes) -> str:
    """`start:size:sha256:piece` of a picture: a piece of it, in hexadecimal, and what verifies the whole picture.

    Of three places, the one with most different bytes: headers and flat areas are alike in many pictures.
    """
    places = [max(0, len(content) * quarter // 4 - PIECE) for quarter in (4, 3, 2)]
    start = max(places, key=lambda place: len(set(content[place : place + PIECE])))
    digest = hashlib.sha256(content).hexdigest()
    return f"{start}:{len(content)}:{digest}:{content[start : start + PIECE].hex()}"


def _has_picture(content: mmap.mmap, piece: str) -> bool:
    start, size, digest, wanted = piece.split(":")
    found = bytes.fromhex(wanted)
    place = content.find(found)
    while place >= 0:
        first = place - int(start)
        if first >= 0 and hashlib.sha256(content[first : first + int(size)]).hexdigest() == digest:
            return True
        place = content.find(found, place + 1)
    return False


def _strings(array: Any) -> Iterator[Any]:
    """The arrays of strings inside an array."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield array
    elif pa.types.is_dictionary(kind):
        yield from _strings(array.dictionary)
    elif pa.types.is_map(kind):
        yield from _strings(array.keys)
        yield from _strings(array.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _strings(array.flatten())
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            yield from _strings(part)


def _is_vectors(head: bytes) -> bool:
    """Whether a file without a suffix, as in DVC's cache, holds vectors: safetensors, NumPy or GGUF."""
    return (head[8:10] in (b'{"', b"{}") and b"\0" in head[:8]) or head[:6] == b"\x93NUMPY" or head[:4] == b"GGUF"


def _is_member(content: mmap.mmap, key: str) -> bool:
    """Whether a tar has members of a key."""
    name = f"{key}.".encode()
    place = content.find(name)
    while place >= 0:
        if place % tarfile.BLOCKSIZE == 0:
            return True
        place = content.find(name, place + 1)
    return False


def _says(text: str, caption: str) -> bool:
    plain, quoted = caption, json.dumps(caption, ensure_ascii=False)[1:-1]
    forms = {
        plain,
        quoted,
        json.dumps(caption)[1:-1],
        html.escape(plain),
        html.escape(plain).replace("&#x27;", "&#39;"),
    }
    forms.add(html.escape(plain).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"))
    if len(caption) >= _LONG:
        return any(form in text for form in forms)
    return any(f"{before}{form}{after}" in text for form in forms for before, after in ('""', "><"))
