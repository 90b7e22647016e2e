"""Stored features by name, in blocks of bounded memory: of an embedding store, a sidecar of vectors, or a .npy file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flame_core.absent_outs import dvc_command
from flame_core.data.sidecars import MANIFEST as SIDECAR_MANIFEST
from flame_core.data.sidecars import VALUES, Sidecar
from flame_core.errors import InputError
from flame_core.measuring.spectrum import Gram
from flame_core.text.manifest import read_manifest
from flame_core.text.store import EMBEDDINGS, TRAIN, Centring
from flame_core.text.tensor_file import TensorFile
from flame_core.verification import DIGESTS, verify

_NUMBERS = 2**22  # read at once: 32 MB in float64


def gram_of(path: Path) -> dict[str, Gram]:
    """{name: sums} of the features that are stored at a path; each file is read once.

    Args:
        path: `data/embeddings`, or the folder `train` in it: one entry per facet, centred as trainings read them; the
            folder of a sidecar of vectors, or a .npy file [N, D]: one entry.

    Raises:
        InputError: there are no features, or they are damaged.
    """
    sums: dict[str, Gram] = {}
    for name, block in _blocks(path):
        sums.setdefault(name, Gram(block.shape[1])).add(block)
    if not sums:
        raise InputError(f"{path} holds no features")
    return sums


def _blocks(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    if path.suffix == ".npy":
        yield from _of_npy(path)
        return
    folder = path / TRAIN if (path / TRAIN / SIDECAR_MANIFEST).is_file() else path
    if not (folder / SIDECAR_MANIFEST).is_file():
        pulled = dvc_command(path)
        raise InputError(
            f"{path} holds no stored features: "
            + (f"`{pulled}` brings them; or " if pulled else "")
            + "name data/embeddings, the folder of a sidecar of vectors, or a .npy file"
        )
    if (folder / DIGESTS).is_file():
        verify({folder: ["*"]})
    if "facets" in (manifest := read_manifest(folder)):
        names, centring = manifest["facets"], Centring.of(folder, manifest)
        for vectors in _of_files(sorted(folder.glob("[0-9]*.safetensors")), EMBEDDINGS):  # [n, K, D]
            centred = centring.applied(vectors, names)
            yield from ((name, centred[:, slot]) for slot, name in enumerate(names))
        return
    about = Sidecar(folder).manifest
    if about.dtype == "int64" or len(about.shape) != 1:
        raise InputError(f"{path} holds {about.dtype} {list(about.shape)} per sample, and not a vector")
    yield from ((about.name, block) for block in _of_files([folder / name for name in sorted(about.files)], VALUES))


def _of_files(files: list[Path], tensor: str) -> Iterator[np.ndarray]:
    for path in files:
        file = TensorFile(path)
        rows, *rest = file.tensor(tensor).shape
        step = max(1, _NUMBERS // int(np.prod(rest)))
        yield from (file.read(tensor, slice(start, start + step)) for start in range(0, rows, step))


def _of_npy(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npy file ({error})") from None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{path} holds {array.dtype} {list(array.shape)}, and features are floats [N, D]")
    step = max(1, _NUMBERS // max(1, array.shape[1]))
    yield from ((path.stem, np.asarray(array[start : start + step])) for start in range(0, len(array), step))
