"""Lists the members of a tar from its headers only, even if it is damaged.

`tarfile` follows extension headers by recursion and raises many kinds of errors for broken ones, and a set of millions
of samples has some. Here each block is read once, so time grows with the tar's size and memory with its members, and
unreadable parts are reported with their place. `tarfile.TarInfo` decodes the blocks.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from flame_core.names import printable

_BLOCK = tarfile.BLOCKSIZE
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENSIONS = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_LARGEST_EXTENSION = 1 << 20  # bytes: names have at most a few thousand
_LONGEST_END = 2 << 20  # bytes of zeros; tars are padded to whole records, which have 10 KB to 1 MB
_EMPTY = bytes(_BLOCK)


@dataclass(frozen=True)
class Member:
    """A member of a tar: `size` bytes from `offset`. Bytes of its name that are not UTF-8 are lone surrogates."""

    name: str
    offset: int
    size: int
    regular: bool  # a plain file, not a folder, a link, a device or a sparse file
    folder: bool


def read_members(file: BinaryIO, damaged: Callable[[str], None]) -> Iterator[Member]:
    """All members whose header can be read, in order; `damaged` is called with each fault and its place."""
    size = os.fstat(file.fileno()).st_size
    offset = end = 0  # place of the next block; end of the part that was read without a fault
    last, reported, zeros = "(start)", False, 0
    name, length, sparse = None, None, False  # set by extension headers for the next member

    def fault(detail: str) -> None:
        damaged(f"{detail} behind {last} (byte {end:,} of {size:,})")

    while offset + _BLOCK <= size:
        file.seek(offset)
        block = file.read(_BLOCK)
        if block == _EMPTY:
            offset, zeros = offset + _BLOCK, zeros + 1
            continue
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            stored = header.size if length is None or header.type in _EXTENSIONS else length
            if header.size < 0:
                raise ValueError("negative size")
        except (tarfile.HeaderError, ValueError, OverflowError):
            if not reported:
                fault("damaged")
            reported, offset, zeros = True, offset + _BLOCK, 0
            continue
        if zeros and not reported and (zeros == 1 or offset % tarfile.RECORDSIZE):  # not two tars in one file
            fault(f"damaged: {zeros * _BLOCK:,} bytes of zeros, where members may be lost,")
        reported, zeros = False, 0
        data = offset + _BLOCK
        if header.type == tarfile.GNUTYPE_SPARSE:
            data = _behind_sparse_map(file, block, data)
        if header.type in (tarfile.LNKTYPE, tarfile.SYMTYPE, *_WITHOUT_DATA):
            stored = 0
        if data + stored > size:
            end = offset
            fault(f"cut off: {printable(name or header.name)} is not complete")
            return
        offset = end = data + -(-stored // _BLOCK) * _BLOCK
        if header.type in _EXTENSIONS:
            content = b""
            if stored <= _LARGEST_EXTENSION:
                file.seek(data)
                content = file.read(stored)
            elif header.type != tarfile.GNUTYPE_LONGLINK:
                fault(f"damaged: an extension header of {stored:,} bytes")
            if header.type in _PAX:
                found = _pax_records(content)
                name, length = found.get("path", name), _whole(found.get("size"), length)
                sparse = sparse or "sparse" in found
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                name = content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            continue
        last = printable(name or header.name)
        regular = header.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) and not sparse
        folder = header.type == tarfile.DIRTYPE
        full = name or header.name
        yield Member(full.rstrip("/") if folder else full, data, stored, regular, folder)
        name, length, sparse = None, None, False
    file.seek(offset)
    if zeros * _BLOCK > _LONGEST_END:
        fault(f"cut off, perhaps: it ends in {zeros * _BLOCK:,} bytes of zeros")
    elif not zeros and not reported:
        fault("cut off: there is no end mark")
    elif not reported and file.read(_BLOCK).strip(b"\0"):
        fault("damaged")
    elif last == "(start)" and not reported:
        damaged("there is no member in it")


_WITHOUT_DATA = (tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


def _behind_sparse_map(file: BinaryIO, block: bytes, offset: int) -> int:
    """Where the data of a GNU sparse member begin, after the blocks that continue its map."""
    more = block[482]
    while more:
        block = file.read(_BLOCK)
        offset += _BLOCK
        more = block[504] if len(block) == _BLOCK else 0
    return offset


def _pax_records(content: bytes) -> dict[str, str]:
    """`path`, `size` and (for a sparse file) `sparse` from the records `<length> <key>=<value>` of a pax header."""
    found: dict[str, str] = {}
    place = 0
    while place < len(content):
        digits = content[place : place + 20].partition(b" ")[0]
        if not digits.isdigit() or (length := int(digits)) <= len(digits) + 1:
            break
        record = content[place + len(digits) + 1 : place + length]
        key, equals, value = record.removesuffix(b"\n").partition(b"=")
        if not equals or not record.endswith(b"\n"):
            break
        if key in (b"path", b"size"):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        elif key.startswith(b"GNU.sparse."):
            found["sparse"] = ""
        place += length
    return found


def _whole(text: str | None, otherwise: int | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else otherwise
