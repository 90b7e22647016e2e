"""Time and peak memory of evaluation's two large cases, with random vectors of 5,120 dimensions mapped from disk.

How to run it:

    python benchmarks/evaluation_memory.py classes      # 50,000 pictures, 1,000 classes in 80 templates
    python benchmarks/evaluation_memory.py languages    # 36 languages of 3,600 pairs
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from flame_core.suite.content import Captioned, Labelled
from flame_core.suite.tasks import classification, retrieval
from flame_core.suite.tasks.classification import ClassificationParams
from flame_core.suite.tasks.retrieval import RetrievalParams

D, BLOCK = 5120, 4096


def peak() -> float:
    """Peak resident memory of this process in GiB, including mapped pages."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def random_map(path: Path, rows: int, kind: type) -> np.ndarray:
    """[rows, D] random values in a file, mapped."""
    rng = np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, "w+", kind, (rows, D))
    for start in range(0, rows, BLOCK):
        array[start : start + BLOCK] = rng.standard_normal((min(BLOCK, rows - start), D), dtype=np.float32)
    array.flush()
    return np.load(path, mmap_mode="r")


def classes(folder: Path) -> None:
    """ImageNet's size."""
    z, t = random_map(folder / "z.npy", 50_000, np.float32), random_map(folder / "t.npy", 80_000, np.float16)
    names, templates = [f"{i}" for i in range(1000)], [f"{j} {{c}}" for j in range(80)]
    labels = np.random.default_rng(1).integers(0, 1000, 50_000)
    content = Labelled([], labels, {"en": names}, {"en": templates})

    def encode(texts: list[str]) -> np.ndarray:
        return t[[int(text.split()[1]) * 80 + int(text.split()[0]) for text in texts]].astype(np.float32)

    classification.score_language(ClassificationParams(kind="classification"), content, "en", z, encode)


def languages(folder: Path) -> None:
    """Crossmodal-3600's size."""
    z, t = random_map(folder / "z.npy", 3600, np.float32), random_map(folder / "t.npy", 36 * 3600, np.float16)
    captions = {str(code): [(i, f"{code} {i}") for i in range(3600)] for code in range(36)}
    content = Captioned([], captions)

    def encode(texts: list[str]) -> np.ndarray:
        return t[[int(text.split()[0]) * 3600 + int(text.split()[1]) for text in texts]].astype(np.float32)

    for code in captions:
        retrieval.score_language(RetrievalParams(kind="retrieval"), content, code, z, encode)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        {"classes": classes, "languages": languages}[sys.argv[1]](Path(scratch))
        print(f"{sys.argv[1]}: {time.monotonic() - started:.0f} s with making the vectors, peak {peak():.2f} GiB")
