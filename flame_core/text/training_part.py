"""What of the store a training reads, for one reading of the captions after the other: vectors, means, a manifest.

Facets lie in `data/embeddings/train/`, sentences in `data/embeddings/train/sentence/`, each with a manifest that says
nothing of the other: a recipe is trained anew if what it reads has changed, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flame_core.digest import bytes_sha256, json_bytes
from flame_core.params import Reading
from flame_core.text import store, tensor_file
from flame_core.text.embedding import TRAIN_FILE
from flame_core.text.jobs import Job
from flame_core.text.manifest import MANIFEST, training_folder
from flame_core.text.whitening import MATRIX, whitening
from flame_core.verification import DIGESTS
from flame_core.work import Unit

REPORT_SAMPLES = 4096  # training samples that the anisotropy report looks at


@dataclass(frozen=True)
class Survey:
    """One pass over the training vectors of a reading.

    Attributes:
        mean: [K, D] in float32.
        sample: [N, K, D] of the first `REPORT_SAMPLES`.
        wrong: rows with a vector that is not finite or not of length 1, as file:row.
    """

    mean: np.ndarray
    sample: np.ndarray
    wrong: list[str]


def survey(jobs: Sequence[Job], units: Mapping[str, Unit]) -> Survey:
    """Read the files of training jobs once."""
    total, count = 0.0, 0
    taken: list[np.ndarray] = []
    wrong: list[str] = []
    for job in jobs:
        t = tensor_file.TensorFile(units[job.name].file(TRAIN_FILE)).read(store.EMBEDDINGS, slice(None))
        if sum(map(len, taken)) < REPORT_SAMPLES:
            taken.append(t)
        total, count = total + t.sum(axis=0, dtype=np.float64), count + len(t)
        right = (np.abs(np.linalg.norm(t, axis=-1) - 1) < 1e-2).all(axis=1)  # false where a value is not finite
        wrong += [f"{job.name}:{row}" for row in np.flatnonzero(~right)]
    return Survey(np.asarray(total / count, dtype=np.float32), np.concatenate(taken)[:REPORT_SAMPLES], wrong)


def reading_part(
    reading: Reading, manifest: Mapping[str, Any], files: Mapping[str, str], surveyed: Survey
) -> dict[str, bytes]:
    """{name below the training embeddings: content} of the manifest of a reading and, if it is centred, of its means.

    Args:
        reading: facets or sentence.
        manifest: what its vectors depend on.
        files: {name in the store: sha256} of the files of vectors.
        surveyed: its training vectors.
    """
    folder = training_folder(Path(store.TRAIN), reading)
    own = {Path(name).name: digest for name, digest in files.items() if Path(name).parent == folder}
    contents = {MANIFEST: json_bytes({**manifest, "files": own})}
    if manifest["center"] != "none":
        mean = surveyed.mean
        center = np.tile(mean.mean(axis=0), (len(mean), 1)) if manifest["center"] == "global" else mean
        more = {MATRIX: whitening(surveyed.sample, mean)} if manifest["center"] == "whiten" else {}
        contents[store.CENTER] = tensor_file.tensor_bytes({store.EMBEDDINGS: center, **more}, "float32")
    below = folder.relative_to(store.TRAIN)
    return {(below / name).as_posix(): content for name, content in contents.items()}


def training_part(files: Mapping[str, str], contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """{name in the store: content} of the small files of the training part, with the digests of all of it.

    Args:
        files: {name in the store: sha256} of the files of vectors.
        contents: {name below the training embeddings: content}.
    """
    folder = f"{store.TRAIN}/"
    own = {name.removeprefix(folder): digest for name, digest in files.items() if name.startswith(folder)}
    recorded = own | {name: bytes_sha256(content) for name, content in contents.items()}
    return {f"{folder}{name}": content for name, content in {**contents, DIGESTS: json_bytes(recorded)}.items()}
