"""Numbers that other stages than the evaluation find out about a trained model, as metrics of its run in MLflow.

    freq/<number>/<group>            concept_fit: binned, per concept, within test sets, points per decade
    misalign/<number>/<definition>   concept_fit: of the data that the concepts were counted in
    nm/<number>/<preset>             tune: terms per epoch; accuracy within and beyond the domain at the last one
    adapt/<language>/<recall>        train: ceilings of the LLM's texts, without (step 0) and with its adapters (step 1)
    adapt/held_out/<number>          train: the same of captions that the adapters did not learn
    sel/<number>                     train: the selection that the recipe is trained on, as `select` describes it

They are events of the training's journal like all others, marked with the stage. What was recorded last is not recorded
again, so a stage that runs again with the same result adds nothing. If tracking is off, nothing is recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_core.tracking.journal import Journal
from flame_core.tracking.metric_names import metric_name
from flame_core.tracking.steps import STAGE_KEY, now


def record_stage(journal: Journal, stage: str, rows: Sequence[Mapping[str, float]]) -> None:
    """Write metrics of the steps 0, 1, ... to a journal, unless they are what the stage wrote last."""
    before = [event["values"] for event, _ in journal.events() if event.get(STAGE_KEY) == stage]
    new = [dict(row) for row in rows]
    if any(new) and before[-len(new) :] != new:
        time = now()
        journal.append(
            *(
                {"kind": "metrics", "time": time, "step": step, "values": values, STAGE_KEY: stage}
                for step, values in enumerate(new)
            )
        )


def selection_metrics(selection: Path) -> dict[str, float]:
    """The metrics of a selection in `data/selections`; {} of a file that `select` did not make."""
    about = selection.parent / _SELECTIONS
    if not about.is_file():
        return {}
    row: dict[str, Any] = json.loads(about.read_text("utf-8"))["selections"].get(selection.stem, {})
    return {f"sel/{name}": float(row[key]) for name, key in _SELECTION.items() if key in row}


def adapter_metrics(folder: Path) -> list[dict[str, float]]:
    """The metrics of the LLM's adapters in a folder, before and after; [] if there are none."""
    if not (folder / _CEILINGS).is_file():
        return []
    found: dict[str, Any] = json.loads((folder / _CEILINGS).read_text("utf-8"))
    rows = []
    for when in ("before", "after"):
        measured = {**found[when], "held_out": found["held_out"][when]}
        rows.append({f"adapt/{of}/{metric_name(name)}": v for of, own in measured.items() for name, v in own.items()})
    return rows


_CEILINGS = "ceilings.json"  # as in stages.adapt_llm
_SELECTIONS = "selections.json"  # as in stages.select, which imports this
_SELECTION = {"ratio": "share", "n": "samples", "perplexity": "perplexity", "gini": "gini"}
