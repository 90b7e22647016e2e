"""Looks for a Dagster run in this project's instances, and at a server, which may belong to another project.

This project's instances:

    .flame/dagster/           written by `make demo` and `flame ui`
    .flame/dagster-inline/    written by `make demo` in older projects
"""

from __future__ import annotations

import json
import logging
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flame_core.layout import Layout
from flame_core.loopback import opener
from flame_core.tracking.address import without_secrets

log = logging.getLogger(__name__)
_HOMES = ("dagster", "dagster-inline")
_SECONDS = 5.0  # for a server to answer
_QUERY = "query($id: ID!){runOrError(runId: $id){__typename} instance{info}}"


@dataclass(frozen=True)
class Sighting:
    """What is known about a run.

    Attributes:
        home: folder of this project's instance that has it, or None.
        searched: whether this project has any instance that can be read.
        served: whether the server at the run's address shows it now.
        server: what answers there, in words.
        ours: whether that server belongs to this project.
    """

    home: Path | None
    searched: bool
    served: bool
    server: str
    ours: bool


def find_run(layout: Layout, run_id: str, url: str) -> Sighting:
    """Look for a run whose page is, or was, at `url`."""
    homes = [home for name in _HOMES if (home := layout.state / name).is_dir()]
    seen = {home: has for home in homes if (has := _has(home, run_id)) is not None}
    found = next((home for home, has in seen.items() if has), None)
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc}"
    try:
        kind, info = _ask(f"{place}/graphql", run_id)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Sighting(found, bool(seen), False, f"Dagster does not answer at {place} ({error})", False)
    ours = any(str(home) in info for home in homes)
    if kind == "Run":
        return Sighting(found, bool(seen), True, f"Dagster at {place}", ours)
    whose = "this project's" if ours else "another project's"
    return Sighting(found, bool(seen), False, f"{whose} Dagster answers at {place}, and knows no run {run_id}", ours)


def _ask(url: str, run_id: str) -> tuple[str, str]:
    """A server's type name for the result of looking up a run, and its instance description (with its folder)."""
    body = json.dumps({"query": _QUERY, "variables": {"id": run_id}}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with opener(url).open(request, timeout=_SECONDS) as answer:
        data: dict[str, Any] = json.load(answer)["data"]
    return str(data["runOrError"]["__typename"]), str(data["instance"]["info"])


def _has(home: Path, run_id: str) -> bool | None:
    """Whether an instance on this machine has a run; None if it cannot be read."""
    import dagster as dg

    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            return instance.get_run_by_id(run_id) is not None
    except Exception as error:  # an outdated configuration, or its database's own
        said = without_secrets(str(error), None).strip().splitlines() or [type(error).__name__]
        log.warning("Dagster's history in %s cannot be read: %s", home, said[0][:300])
        return None
