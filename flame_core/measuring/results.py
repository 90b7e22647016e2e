"""Writes and reads the files of a report that are for programs.

Files:

    metrics.json        flat numbers (`measures`)
    results.json        headline measures, languages, classes; what the numbers were measured on
    outcomes.parquet    every held-out picture's contribution to the headline measures (`estimates`)
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.digest import json_bytes
from flame_core.errors import InputError
from flame_core.measuring.estimates import OUTCOMES_SCHEMA
from flame_core.measuring.measures import Evaluation

METRICS, RESULTS, OUTCOMES = "metrics.json", "results.json", "outcomes.parquet"
NO_CLASSES = "the validation pictures have fewer than two top-level categories"


@dataclass(frozen=True)
class Results:
    """The results of one recipe.

    Attributes:
        recipe: name of the recipe.
        metrics: flat numbers.
        headline: {metric: the measures of `outcomes` that it is the mean of}.
        pictures: number of held-out pictures.
        split: digest of their keys, in order.
        outcomes: a table with `OUTCOMES_SCHEMA`.
    """

    recipe: str
    metrics: dict[str, float]
    headline: dict[str, list[str]]
    pictures: int
    split: str
    outcomes: pa.Table


def result_files(evaluation: Evaluation, recipe: str) -> dict[str, bytes]:
    """{file name: content} of an evaluation."""
    classes = evaluation.classification
    described = {
        "recipe": recipe,
        "headline": list(evaluation.headline.items()),  # in the order that readers see
        "pictures": len(evaluation.keys),
        "split": evaluation.split,
        "languages": {code: len(result.pairing.pictures) for code, result in evaluation.languages.items()},
        "missing_languages": evaluation.missing_languages,
        "classification": {"names": classes.names, "confusion": classes.confusion().tolist()}
        if classes
        else {"skipped": NO_CLASSES},
    }
    outcomes = io.BytesIO()
    pq.write_table(evaluation.outcomes, outcomes, compression="zstd")
    return {
        METRICS: json_bytes(evaluation.metrics),
        RESULTS: json_bytes(described),
        OUTCOMES: outcomes.getvalue(),
    }


def read_results(report: Path) -> Results:
    """The results in a report folder.

    Raises:
        InputError: a file is missing or damaged.
    """
    try:
        metrics = json.loads((report / METRICS).read_text("utf-8"))
        described = json.loads((report / RESULTS).read_text("utf-8"))
        return Results(
            described["recipe"],
            metrics,
            dict(described["headline"]),
            described["pictures"],
            described["split"],
            pq.read_table(report / OUTCOMES, schema=OUTCOMES_SCHEMA),
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{report}: no readable results ({error}); run `flame evaluate {report.name}`") from None
