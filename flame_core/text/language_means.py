"""`text.center: per_language`: texts whose language is known are centred by the mean of training captions in it.

`embed` reads some training captions of every evaluated language, whose means it keeps beside the store's vectors, with
the language of each text of the held-out captions. Any other text (of a query, a class, a benchmark, a served model)
has no known language and is centred by the mean of its facet over the training vectors, as with `per_facet`. Nothing
of it is read by a training, whose texts are in one language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file

from flame_core.captions.table import Caption, read_captions
from flame_core.digest import text_sha256
from flame_core.errors import InputError
from flame_core.files.parquet_bytes import parquet_bytes
from flame_core.text.jobs import Job
from flame_core.text.sentence import SENTENCE
from flame_core.text.tensor_file import TensorFile, tensor_bytes

MEANS, LANGUAGES = LANGUAGE_FILES = ("language_means.safetensors", "languages.parquet")
_READ = 256  # training captions of a language, at most
_SCHEMA = pa.schema({"text": pa.string(), "language": pa.string()})
_JOB = "texts/language-"


def language_jobs(captions: Path, languages: Sequence[str]) -> list[Job]:
    """A job per language with raw training captions in it, chosen by a hash of their text."""
    found: dict[str, dict[str, None]] = {language: {} for language in languages}
    for path in sorted((captions / "train").glob("*.parquet")):
        for caption in read_captions(path):
            if caption.kind == "raw" and caption.language in found:
                found[caption.language][caption.text] = None
    return [
        Job(f"{_JOB}{language}", {"raw": sorted(texts, key=text_sha256)[:_READ]})
        for language, texts in found.items()
        if texts
    ]


def language_files(
    jobs: Sequence[Job], files: Mapping[str, Path], captions: Sequence[Caption], languages: Sequence[str]
) -> dict[str, bytes]:
    """{name in the store: content} of the means and of the texts' languages.

    Args:
        jobs: all that the store consists of.
        files: of their vectors, by the job's name.
        captions: that are evaluated.
        languages: in which they are, the first in which a text occurs counts.
    """
    means: dict[str, np.ndarray] = {}
    for job in jobs:
        if job.name.startswith(_JOB):
            (kind,) = job.texts
            language = job.name.removeprefix(_JOB).removesuffix(f"-{SENTENCE}")
            t = TensorFile(files[job.name]).read(kind, slice(None))
            means[f"{kind}/{language}"] = t.mean(axis=0, dtype=np.float64).astype(np.float32)
    order = {language: number for number, language in enumerate(languages)}
    known: dict[str, str] = {}
    for caption in sorted(
        (each for each in captions if each.kind == "raw" and each.language in order),
        key=lambda each: order[each.language],
    ):
        known.setdefault(caption.text, caption.language)
    rows = [{"text": text, "language": language} for text, language in known.items()]
    return {MEANS: tensor_bytes(means, "float32"), LANGUAGES: parquet_bytes(pa.Table.from_pylist(rows, schema=_SCHEMA))}


class LanguageMeans:
    """Means [K, D] by kind and language (`raw/de`), and the languages of texts."""

    def __init__(self, means: Mapping[str, np.ndarray], languages: Mapping[str, str]) -> None:
        self._means, self._languages = means, languages

    @classmethod
    def of(cls, embeddings: Path) -> Self | None:
        """Those of a store; None if it has none.

        Raises:
            InputError: a file is damaged.
        """
        path = embeddings / LANGUAGES
        if not path.is_file():
            return None
        try:
            rows = pq.ParquetFile(path).read().cast(_SCHEMA).to_pylist()
            means = load_file(embeddings / MEANS)
        except (OSError, ValueError, KeyError, pa.ArrowException, SafetensorError) as error:
            raise InputError(f"{path} or {MEANS} is damaged ({error}); run `flame embed` again") from None
        return cls(means, {row["text"]: row["language"] for row in rows})

    def of_text(self, kind: str, text: str) -> np.ndarray | None:
        """The means [K, D] of a stored kind by which a text is centred; None if its language is not known."""
        language = self._languages.get(text) if kind in ("raw", SENTENCE) else None
        return None if language is None else self._means.get(f"{kind}/{language}")
