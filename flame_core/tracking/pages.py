"""MLflow's pages: their addresses, and whether a server shows them now.

A link is shown only if a server answers there and serves this project's store. To detect another project's server at
the same port, the server is asked for one of our runs. An asset's page in Dagster gets every link, because `flame ui`,
which shows that page, also serves MLflow.
"""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from flame_core import pipes, reporting
from flame_core.loopback import opener
from flame_core.settings import settings
from flame_core.tracking.address import is_server, sqlite_path
from flame_core.tracking.relocation import ARTIFACTS

_SECONDS = 3.0  # for a server to answer
# MLflow's pages begin with traces and prompts of LLM applications, without the registry, unless an address says this.
TRAINING_PAGES = "workflowType=machine_learning"


def page_address(address: str) -> str:
    """The address of a store's pages: the server itself, or the one that `flame ui` starts for a local store."""
    here = settings()
    return address.rstrip("/") if is_server(address) else here.ui_url(here.mlflow_port)


def runs_url(address: str, name: str) -> str:
    """The page of the experiment `name`; the page of all of them, if a server does not say which number it has."""
    pages = page_address(address)
    url = f"{pages}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(name, safe='')}"
    try:
        with opener(url).open(url, timeout=_SECONDS) as answer:
            number = json.load(answer)["experiment"]["experiment_id"]
    except (OSError, ValueError, KeyError, TypeError):  # before the first training, or it requires a login
        return f"{pages}/#/experiments?{TRAINING_PAGES}"
    return f"{pages}/#/experiments/{number}/runs?{TRAINING_PAGES}"


def run_url(address: str, experiment_id: str, run_id: str) -> str:
    """The page of a run."""
    return f"{page_address(address)}/#/experiments/{experiment_id}/runs/{run_id}?{TRAINING_PAGES}"


def version_url(address: str, name: str, version: str) -> str:
    """The page of a model version."""
    return f"{page_address(address)}/#/models/{quote(name, safe='')}/versions/{version}?{TRAINING_PAGES}"


def served(address: str, run_id: str) -> bool:
    """Whether a server shows the pages of this store now; `run_id` is a run that only this store has."""
    url = f"{page_address(address)}/api/2.0/mlflow/runs/get?run_id={quote(run_id, safe='')}"
    try:
        with opener(url).open(url, timeout=_SECONDS) as answer:
            return is_server(address) or _of_store(address, json.load(answer))
    except urllib.error.HTTPError:
        return is_server(address)  # it runs, but may require a login
    except (OSError, ValueError):
        return False


def _of_store(address: str, answer: Any) -> bool:
    """Whether a server's answer about a run comes from this store and not from a copy of it."""
    if not isinstance(answer, Mapping):
        return False
    place = str(answer.get("run", {}).get("info", {}).get("artifact_uri", ""))
    database = sqlite_path(address)
    if database is None or not place.startswith("file:"):
        return bool(place)
    return place.startswith((database.parent / ARTIFACTS).absolute().as_uri() + "/")


def show_pages(pages: Mapping[str, str], running: bool) -> None:
    """Show {name: address of a page} if a server shows the pages now (`running`); Dagster always gets the links."""
    if running:
        for name, url in pages.items():
            reporting.link(name, url)
        return
    pipes.send({name: pipes.link(url) for name, url in pages.items()})
    if pages:
        reporting.console.print(
            f"{' and '.join(pages)}: recorded; `flame ui` shows the pages",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
