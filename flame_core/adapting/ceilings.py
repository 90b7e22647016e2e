"""Ceilings of the LLM's texts by language, without and with its adapters, from files that `embed` stores as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flame_core.captions.table import Caption
from flame_core.measuring.ceilings import text_ceilings
from flame_core.params import EvaluateParams, Reading
from flame_core.text.embedding import TEXTS_FILE
from flame_core.text.jobs import Job
from flame_core.text.store import asked_kind
from flame_core.text.tensor_file import TensorFile
from flame_core.work import Unit

Ceilings = dict[str, dict[str, float]]  # {language: {recall@k: value}}


def measured_ceilings(
    params: EvaluateParams,
    captions: Sequence[Caption],
    jobs: Sequence[Job],
    units: Mapping[str, Unit],
    reading: Reading,
) -> Ceilings:
    """Text-to-text recall of the captions, whose vectors are in the units of the jobs; they are not centred."""
    kind = asked_kind("raw", reading)
    known: dict[str, np.ndarray] = {}  # [K, D] by text
    for job in jobs:
        if kind in job.texts:
            t = TensorFile(units[job.name].file(TEXTS_FILE)).read(kind, slice(None))
            known |= zip(job.texts[kind], t, strict=True)
    return text_ceilings(params, captions, lambda _, texts: np.stack([known[text] for text in texts]))


def changes(before: Ceilings, after: Ceilings, name: str) -> dict[str, float]:
    """{language: by how much a recall rose}."""
    return {language: own[name] - before[language][name] for language, own in after.items()}


def mean_but(ceilings: Ceilings, name: str, language: str) -> float | None:
    """The mean of all languages but one; None if there is no other."""
    values = [own[name] for other, own in ceilings.items() if other != language]
    return sum(values) / len(values) if values else None
