"""Sends log lines and metadata to Dagster through Dagster Pipes, if Dagster started this process.

Dagster Pipes is a protocol of two environment variables and a file; the package `dagster-pipes` needs nothing else and
is imported only if those variables are set. Each value is sent immediately, so a stage that fails later loses nothing.
Only the first process of a stage reports; worker processes and other ranks of a distributed training do not.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

VARIABLE = "DAGSTER_PIPES_CONTEXT"


@cache
def session() -> PipesContext | None:
    """The open session, or None if Dagster did not start this process or another process reports."""
    if VARIABLE not in os.environ or multiprocessing.parent_process() or os.environ.get("RANK", "0") != "0":
        return None
    from dagster_pipes import open_dagster_pipes

    opened = open_dagster_pipes()
    atexit.register(opened.close)
    return opened


def send(metadata: Mapping[str, Any]) -> None:
    """Show values on the asset's page; Dagster plots numbers over time."""
    if opened := session():
        opened.report_custom_message({"metadata": {name: _typed(value) for name, value in metadata.items()}})


def markdown(text: str) -> dict[str, Any]:
    """A value that Dagster shows as Markdown."""
    return {"raw_value": text, "type": "md"}


def link(url: str) -> dict[str, Any]:
    """A value that Dagster shows as a link."""
    return {"raw_value": url, "type": "url"}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A value that Dagster shows as a table."""
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    schema = [{"name": column, "type": "string"} for column in columns]
    return {"raw_value": {"records": records, "schema": schema}, "type": "table"}


def _typed(value: Any) -> dict[str, Any]:
    match value:
        case {"raw_value": _, "type": _}:
            return value
        case bool():
            return {"raw_value": value, "type": "bool"}
        case int():
            return {"raw_value": value, "type": "int"}
        case float():
            return {"raw_value": value, "type": "float"}
        case Path():
            return {"raw_value": str(value), "type": "path"}
        case dict() | list():
            return {"raw_value": value, "type": "json"}
        case _:
            return {"raw_value": str(value), "type": "text"}


class PipesHandler(logging.Handler):
    """Writes log records to the run's log in Dagster."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        if opened := session():
            opened.log.log(record.levelno, self.format(record))
