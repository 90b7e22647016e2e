"""MLflow's pages: their addresses, and whether a server shows them now.

A link is shown where it leads to what it says: a server answers there, and what it serves is this project's store.
Another project's server at the same port is told apart by asking it for a run of ours. Dagster's page of an asset gets
every link, since `make ui`, which shows it, serves MLflow as well.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from flame_core import pipes, reporting
from flame_core.settings import settings
from flame_core.tracking.address import is_server, sqlite_path
from flame_core.tracking.relocation import ARTIFACTS

_SECONDS = 3.0  # for a server to answer


def page_address(address: str) -> str:
    """Where the pages of a store are: the server itself, or what `make ui` starts for a local one."""
    here = settings()
    return address.rstrip("/") if is_server(address) else here.ui_url(here.mlflow_port)


def run_url(address: str, experiment_id: str, run_id: str) -> str:
    """The page of a run."""
    return f"{page_address(address)}/#/experiments/{experiment_id}/runs/{run_id}"


def version_url(address: str, name: str, version: str) -> str:
    """The page of a model version."""
    return f"{page_address(address)}/#/models/{quote(name, safe='')}/versions/{version}"


def served(address: str, run_id: str) -> bool:
    """Whether a server shows the pages of a store now; a run of the store tells its server from another project's."""
    url = f"{page_address(address)}/api/2.0/mlflow/runs/get?run_id={quote(run_id, safe='')}"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            return is_server(address) or _of_store(address, json.load(answer))
    except urllib.error.HTTPError:
        return is_server(address)  # it runs, and wants to know who asks
    except (OSError, ValueError):
        return False


def _of_store(address: str, answer: Any) -> bool:
    """Whether a server's answer about a run comes from this store, and not from a copy of it."""
    if not isinstance(answer, Mapping):
        return False
    place = str(answer.get("run", {}).get("info", {}).get("artifact_uri", ""))
    database = sqlite_path(address)
    if database is None or not place.startswith("file:"):
        return bool(place)
    return place.startswith((database.parent / ARTIFACTS).absolute().as_uri() + "/")


def show_pages(pages: Mapping[str, str], running: bool) -> None:
    """Show where {what: address of its page} is, where a server shows it now; Dagster's page gets the links anyway."""
    if running:
        for name, url in pages.items():
            reporting.link(name, url)
        return
    pipes.send({name: pipes.link(url) for name, url in pages.items()})
    if pages:
        reporting.console.print(
            f"{' and '.join(pages)}: recorded; `make ui` shows the pages", markup=False, highlight=False, soft_wrap=True
        )
