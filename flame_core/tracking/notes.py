"""Markdown for MLflow's pages, where tags are plain text but descriptions may have links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flame_core.markdown import code_span, plain_text

NOTE_TAG = "mlflow.note.content"  # a run's description


def note(tags: Mapping[str, str], datasets: Sequence[Mapping[str, Any]]) -> str:
    """The description at the top of a run's MLflow page, in Markdown: links to Dagster, and digests of the data."""
    data = ", ".join(f"{plain_text(each['name'])} {code_span(each['digest'])}" for each in datasets)
    return f"Trained by {dagster_link(tags)} from {data}."


def dagster_link(tags: Mapping[str, str]) -> str:
    """Markdown links to the Dagster run and asset in a run's tags, or words if it ran outside Dagster."""
    if "dagster.run_url" not in tags:
        return "a command, outside Dagster"
    run = f"[Dagster run {tags['dagster.run_id'][:8]}]({tags['dagster.run_url']})"
    if "dagster.asset_url" not in tags:
        return run
    return f"{run}, asset [{plain_text(tags['dagster.asset'])}]({tags['dagster.asset_url']})"
