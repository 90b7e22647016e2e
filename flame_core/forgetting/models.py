"""Which models saw a sample: MLflow's runs name the training split that they read by its digest.

Nothing is unlearned. A model that saw forgotten samples keeps its tag, and `flame lineage --contains` finds it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flame_core.data.forgotten import Forgotten, ForgottenSample, read_forgotten
from flame_core.errors import ParamsError
from flame_core.forgetting.finding import find_samples, training_digests
from flame_core.forgetting.requests import Requests, parse_requests
from flame_core.forgetting.revisions import cache_folder, cached, trees
from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.tracking.obstacles import read_experiment
from flame_core.tracking.registry import FORGOTTEN_TAG
from flame_core.tracking.store import asking, open_client, require_tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """A model, and whether its training data held a sample: yes, no, or not known, with the reason."""

    run: str
    name: str
    versions: tuple[str, ...]
    held: str


def tag_models(layout: Layout, forgotten: Forgotten) -> dict[str, int]:
    """Tag every run, and every version of its model, under whatever name, with how many forgotten samples it saw.

    Returns:
        {run or version: number} of those that saw any.

    Raises:
        ResourceError: MLflow does not answer.
    """
    address = require_tracking(layout)
    tagged: dict[str, int] = {}
    with asking(address):
        client = open_client(address)
        for run, digest in _runs(client, address):
            number = sum(digest in row.held for row in forgotten.rows)
            if number:
                if run.info.lifecycle_stage == "active":
                    client.set_tag(run.info.run_id, FORGOTTEN_TAG, str(number))
                    tagged[f"run {run.info.run_id}"] = number
                else:  # MLflow refuses its tags
                    log.warning(
                        "run %s saw forgotten samples and is deleted in MLflow, so it gets no tag; if you restore it, "
                        "run `flame forget` again",
                        run.info.run_id,
                    )
                for version in _versions(client, run.info.run_id):
                    client.set_model_version_tag(version.name, str(version.version), FORGOTTEN_TAG, str(number))
                    tagged[f"{version.name} version {version.version}"] = number
    return tagged


def _runs(client: MlflowClient, address: str) -> Iterator[tuple[Run, str]]:
    """Every run of the experiment, also a deleted one, with the digest of the training split that it read."""
    from mlflow.entities import ViewType

    experiment = read_experiment(client, address)
    token: str | None = None
    while experiment is not None:
        page = client.search_runs(
            [experiment.experiment_id], run_view_type=ViewType.ALL, max_results=1000, page_token=token
        )
        for run in page:
            for each in run.inputs.dataset_inputs if run.inputs else []:
                if each.dataset.name == "shards":
                    yield run, json.loads(each.dataset.source).get("sha256", "")
                    break
        token = page.token
        if not token:
            return


def _versions(client: MlflowClient, run: str) -> list[ModelVersion]:
    """The versions of a run's model, of all registered models: `FLAME_REGISTERED_MODEL` may have been another then."""
    return list(client.search_model_versions(f"run_id='{run}'"))


def _title(version: ModelVersion) -> str:
    own = version.name == settings().registered_model
    return str(version.version) if own else f"{version.version} of {version.name}"


def who_saw(layout: Layout, sample: str) -> list[Seen]:
    """For every recorded model, whether its training data held a sample, given as for `flame forget`, but no pHash.

    The same picture by another key counts, and so do captions that went to another sample.

    Raises:
        ParamsError: it is neither a key, a sha256 nor an address.
        InputError: a table cannot be read.
        ResourceError: MLflow does not answer.
    """
    asked = parse_requests([sample], "--contains")
    if asked.hashes or not asked:
        raise ParamsError(f"--contains {sample[:100]!r}: give a key, a sha256 or an address")
    address = require_tracking(layout)
    forgotten = read_forgotten(layout.opt_out)
    cache = cache_folder(layout)
    revisions = [*trees(layout), *(cached(layout, cache) if cache else ())]
    held = {digest for found in find_samples(revisions, asked).values() for digest in found.held}
    known = {digest: digest in held for digest in training_digests(revisions)}
    gone = {digest for row in forgotten.rows if _names(forgotten, row, asked) for digest in row.held}
    rows: list[Seen] = []
    with asking(address):
        client = open_client(address)
        for run, digest in _runs(client, address):
            versions = tuple(map(_title, _versions(client, run.info.run_id)))
            rows.append(Seen(run.info.run_id, run.info.run_name or "", versions, _answer(digest, gone, known)))
    return rows


def _names(forgotten: Forgotten, row: ForgottenSample, asked: Requests) -> bool:
    """Whether a row of what was forgotten is about what is asked for."""
    addresses = set[str]().union(*map(forgotten.salted_forms, asked.urls))
    return row.key in asked.keys or not (asked.sha256.isdisjoint(row.sha256) and addresses.isdisjoint(row.addresses))


def _answer(digest: str, held: Iterable[str], known: Mapping[str, bool]) -> str:
    if digest in held:
        return "yes, and it was forgotten since"
    if digest not in known:
        return "not known: neither a tree nor DVC's cache has its index"
    return "yes" if known[digest] else "no"
