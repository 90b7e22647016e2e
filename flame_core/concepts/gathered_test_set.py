"""A test set like Let It Wag! from a folder of gathered pictures, one subfolder per class (arXiv 2404.04125, appendix).

    gathered/snowy owl/*.jpg  ->  wag/test/snowy owl/*.jpg, wag/classnames.txt, wag/record.json

Per class: files that are no pictures, hidden ones and those in hidden folders go; pictures that are byte for byte in
several classes go; outliers go, the given share of pictures with the smallest mean cosine to the others of their class
(if there are vectors); of pictures that look alike (pHash, at most `distance` different bits of 64), or whose vectors
have a cosine of at least `cosine`, the first by name stays. Classes with fewer than `least` pictures are left out, and
of each other class `sample` are drawn by a hash of the seed and the bytes, so more pictures of one class change no
other. What the paper checked by hand remains to be checked by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flame_core.data.perceptual import perceptual_hash
from flame_core.digest import bytes_sha256, text_sha256
from flame_core.errors import InputError
from flame_core.files.regular_files import is_hidden
from flame_core.suite.content import Skips
from flame_core.suite.layouts.reading import pictures_below
from flame_core.suite.safe_pictures import opened

Encode = Callable[[Sequence[bytes]], np.ndarray]  # encoded pictures to unit vectors [n, D]
UNREADABLE, SEVERAL = "cannot be decoded", "in several classes"
OUTLIER, ALIKE, NEAR = "outlier", "looks like another", "has nearly the vector of another"


@dataclass(frozen=True)
class Rules:
    """What is kept.

    Attributes:
        least: pictures that a class must have left.
        sample: pictures of each class; at most `least`, so that all classes have as many.
        distance: bits of the pHash in which pictures that look alike differ at most.
        outliers: share of a class that is dropped as outliers.
        seed: of the sample.
        cosine: of pictures whose vectors are so near one another or nearer, one stays; None keeps them.
    """

    least: int
    sample: int
    distance: int = 10
    outliers: float = 0.05
    seed: int = 0
    cosine: float | None = None


@dataclass
class Gathered:
    """What was kept and why the rest was not.

    Attributes:
        kept: {class: paths}, sorted.
        dropped: {class: {reason: count}}.
        small: {class: pictures that were left} of classes that are left out.
    """

    kept: dict[str, list[Path]] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    small: dict[str, int] = field(default_factory=dict)


def choose(folder: Path, rules: Rules, encode: Encode | None = None) -> Gathered:
    """The pictures of a test set; `encode` gives vectors for finding outliers and pictures that are near one another.

    Raises:
        InputError: there is no such folder or class, or the rules do not fit together.
    """
    if not 0 < rules.sample <= rules.least:
        raise InputError(
            f"--sample {rules.sample} and --least {rules.least}: a class has at least as many pictures as are drawn"
        )
    below = sorted(folder.iterdir()) if folder.is_dir() else []
    classes = [path for path in below if path.is_dir() and not is_hidden(path.name)]
    if not classes:
        raise InputError(f"{folder} holds no folder per class")
    found = Gathered()
    usable = {path.name: _usable(path, found.dropped.setdefault(path.name, {})) for path in classes}
    times = Counter(sha256 for own in usable.values() for sha256 in {each.sha256 for each in own})
    for name, own in usable.items():
        dropped = found.dropped[name]
        kept = _without(own, [times[each.sha256] > 1 for each in own], SEVERAL, dropped)
        vectors: dict[str, np.ndarray] = {}  # by sha256
        if encode is not None and kept:
            encoded = encode([each.path.read_bytes() for each in kept]).astype(np.float64)
            vectors = dict(zip([each.sha256 for each in kept], encoded, strict=True))
            kept = _without(kept, _outliers(_stacked(kept, vectors), rules.outliers), OUTLIER, dropped)
        kept = _without(kept, _alike(kept, rules.distance), ALIKE, dropped)
        if vectors and rules.cosine is not None:
            kept = _without(kept, _near(_stacked(kept, vectors), rules.cosine), NEAR, dropped)
        if len(kept) < rules.least:
            found.small[name] = len(kept)
            continue
        drawn = sorted(kept, key=lambda each: text_sha256(f"{rules.seed} {each.sha256}"))[: rules.sample]
        found.kept[name] = sorted(each.path for each in drawn)
    return found


@dataclass(frozen=True)
class _Picture:
    path: Path
    sha256: str
    look: int  # pHash


def _usable(folder: Path, dropped: dict[str, int]) -> list[_Picture]:
    """The pictures of a class by name; what else lies there is counted in `dropped`, hidden files and folders too."""
    pictures: list[_Picture] = []
    skips = Skips()
    found = pictures_below(folder, skips)
    dropped |= skips.counts
    for path in found:
        content = path.read_bytes()
        try:
            look = perceptual_hash(opened(content, str(path)).convert("RGB"))
        except InputError:
            dropped[UNREADABLE] = dropped.get(UNREADABLE, 0) + 1
            continue
        pictures.append(_Picture(path, bytes_sha256(content), look))
    return pictures


def _without(pictures: list[_Picture], gone: Sequence[bool], reason: str, dropped: dict[str, int]) -> list[_Picture]:
    if count := sum(gone):
        dropped[reason] = dropped.get(reason, 0) + count
    return [each for each, leaves in zip(pictures, gone, strict=True) if not leaves]


def _stacked(pictures: Sequence[_Picture], vectors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Unit vectors [n, D] of pictures."""
    return np.array([vectors[each.sha256] for each in pictures])


def _outliers(vectors: np.ndarray, share: float) -> list[bool]:
    count = int(share * len(vectors))
    if not count or len(vectors) < 3:
        return [False] * len(vectors)
    total = vectors.sum(axis=0)
    cosine = (vectors @ total - np.einsum("nd,nd->n", vectors, vectors)) / (len(vectors) - 1)
    lowest = set(np.argsort(cosine.round(9), kind="stable")[:count].tolist())
    return [number in lowest for number in range(len(vectors))]


def _alike(pictures: Sequence[_Picture], distance: int) -> list[bool]:
    """Whether a picture looks like an earlier one that stays."""
    looks = np.array([each.look for each in pictures], np.uint64)
    return _repeated(len(pictures), lambda number: np.bitwise_count(looks[:number] ^ looks[number]) <= distance)


def _near(vectors: np.ndarray, cosine: float) -> list[bool]:
    """Whether a picture's vector is near that of an earlier one that stays."""
    return _repeated(len(vectors), lambda number: (vectors[:number] @ vectors[number]).round(9) >= cosine)


def _repeated(count: int, like: Callable[[int], np.ndarray]) -> list[bool]:
    """By picture, whether it is like an earlier one that stays; `like` compares one with all before it."""
    stays = np.zeros(count, bool)
    for number in range(count):
        stays[number] = not (like(number) & stays[:number]).any()
    return (~stays).tolist()
