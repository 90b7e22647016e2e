"""All measured models, of all recipes and over time, from MLflow's records.

    flame tracking history                          # a table, and the address where MLflow compares the runs
    flame tracking history --html history.html      # the same as a page, with a chart per headline metric

`flame compare` compares the models of the present params and is an out, so it cannot contain times. The history covers
everything that the tracking server knows: every training of the main line and of workspaces, and every baseline, the
oldest first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from flame_core.digest import file_sha256
from flame_core.layout import Layout
from flame_core.measuring.measures import OTHERS, headline_k
from flame_core.measuring.retrieval import DIRECTIONS
from flame_core.model_files import WEIGHTS
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.suite.benchmark_results import measured_baselines
from flame_core.suite.definition import load_benchmarks
from flame_core.suite.held_out_benchmarks import RETRIEVAL
from flame_core.tracking.benchmarks import BASELINE_TAG, baseline_journal, benchmark_headline
from flame_core.tracking.inputs import EVALUATION, TRAINING, datasets_of
from flame_core.tracking.journal import Journal
from flame_core.tracking.linked import linked_data
from flame_core.tracking.metric_names import logged_value
from flame_core.tracking.obstacles import read_experiment
from flame_core.tracking.pages import TRAINING_PAGES, page_address, run_url, served, show_pages, version_url
from flame_core.tracking.promotion import VERDICT
from flame_core.tracking.registry import MODEL_TAG, ROLLED_BACK
from flame_core.tracking.store import asking, journals, open_client, require_tracking, tracking_address

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

_PAGE = 500  # runs per request to MLflow
_COMPARED = 20  # runs of a comparison in MLflow, all named in its address


@dataclass(frozen=True)
class RecordedScore:
    """A metric of a model, with its interval if the run recorded one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class MeasuredModel:
    """A model that was measured.

    Attributes:
        run_id: id of its MLflow run.
        url: address of the run's page.
        when: start of the training.
        recipe: name of the recipe, or of the baseline.
        commit: short commit of the code, with a note if tracked files had changes.
        workspace: digest of the workspace; "" in the main line.
        version: number of its registered version; "" if it has none.
        version_url: address of the version's page.
        standing: its aliases and the gate's verdict.
        split: short digest of the held-out pictures; scores on different pictures cannot be compared.
        params: {dotted key: value} of all stages.
        data: {name: digest} of the datasets, sidecars and selection that it was trained on.
        scores: by headline metric, only measured ones.
    """

    run_id: str
    url: str
    when: datetime
    recipe: str
    commit: str
    workspace: str
    version: str
    version_url: str
    standing: str
    split: str
    params: dict[str, str]
    data: dict[str, str]
    scores: dict[str, RecordedScore]


@dataclass(frozen=True)
class History:
    """The models, the oldest first, all their headline metrics, and MLflow's page that compares the newest."""

    models: list[MeasuredModel]
    metrics: list[str]
    comparison: str | None


def read_history(params: Params, layout: Layout) -> History:
    """The history, with the headline metrics of these params.

    Raises:
        ResourceError: tracking is off.
    """
    address = require_tracking(layout)
    with asking(address):
        return _read_history(params, layout, address)


def _read_history(params: Params, layout: Layout, address: str) -> History:
    client = open_client(address)
    experiment = read_experiment(client, address)
    if experiment is None:
        return History([], [], None)
    wanted = headline(params, layout)
    name = settings().registered_model
    versions = _versions(client, name)
    aliases = _aliases(client, name)
    models = []
    for run in _runs(client, experiment.experiment_id):
        scores = {metric: score for metric in wanted if (score := _score(run, metric))}
        if scores:
            version = versions.get(run.data.tags.get(MODEL_TAG, ""))
            models.append(_measured_model(address, run, version, aliases, scores))
    metrics = [metric for metric in wanted if any(metric in each.scores for each in models)]
    newest = [each.run_id for each in models][-_COMPARED:]
    return History(models, metrics, comparison_url(address, experiment.experiment_id, newest))


def headline(params: Params, layout: Layout) -> list[str]:
    """The metrics for comparing models: of the held-out split, then of every configured benchmark."""
    options = params.evaluate
    k = headline_k(options)
    found = [
        f"retrieval/{language}/{direction}/recall@{k}"
        for language in (options.train_language, OTHERS)
        for direction in DIRECTIONS
    ]
    found.append("classification/top1")
    for benchmark in load_benchmarks([*options.benchmarks.names, *options.benchmarks.only_baselines], layout.project):
        found += benchmark_headline(benchmark)
    return found


def comparison_url(address: str, experiment_id: str, runs: Sequence[str]) -> str | None:
    """The page where MLflow compares runs; None for fewer than two."""
    if len(runs) < 2:
        return None
    asked = f"runs={quote(json.dumps(list(runs)))}&experiments={quote(json.dumps([experiment_id]))}"
    return f"{page_address(address)}/#/compare-runs?{TRAINING_PAGES}&{asked}"


def show_comparison(params: Params, layout: Layout) -> None:
    """Show MLflow's comparison page for the models of `flame compare`, if it has their runs."""
    address = tracking_address(layout)
    if address is None:
        return
    weights = [layout.model(recipe) / WEIGHTS for recipe in params.recipes]
    found = [Journal.of_model(journals(layout), file_sha256(path)) for path in weights if path.is_file()]
    found += [baseline_journal(layout, name, source) for name, source in measured_baselines(params, layout).items()]
    marks = [journal.delivered(address) for journal in found if journal]
    runs = [mark.run_id for mark in marks if mark.run_id]
    experiment = next((mark.experiment_id for mark in marks if mark.experiment_id), None)
    if experiment and (url := comparison_url(address, experiment, runs)):
        show_pages({"MLflow comparison": url}, served(address, runs[0]))


def _runs(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    """The finished runs of trainings and baselines, the oldest first."""
    token = None
    while True:
        found = client.search_runs(
            [experiment_id],
            "attributes.status = 'FINISHED'",
            max_results=_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from found
        token = found.token
        if not token:
            return


def _versions(client: MlflowClient, name: str) -> dict[str, ModelVersion]:
    """{sha256 of the weights: the newest version with them}."""
    found: dict[str, ModelVersion] = {}
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        for version in page:
            sha256 = version.tags.get(MODEL_TAG)
            if sha256 and (sha256 not in found or int(found[sha256].version) < int(version.version)):
                found[sha256] = version
        token = page.token
        if not token:
            return found


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """{alias: number of its version}; a search for versions does not return aliases."""
    models = client.search_registered_models(f"name = '{name}'")
    return {alias: str(number) for model in models for alias, number in model.aliases.items()}


def _score(run: Run, metric: str) -> RecordedScore | None:
    logged = run.data.metrics
    value = logged_value(logged, metric)
    if value is None:
        return None
    return RecordedScore(value, *(logged_value(logged, f"{metric}/{end}") for end in ("low", "high")))


def _measured_model(
    address: str, run: Run, version: ModelVersion | None, aliases: dict[str, str], scores: dict[str, RecordedScore]
) -> MeasuredModel:
    tags = run.data.tags
    number = str(version.version) if version else ""
    verdict = version.tags.get(VERDICT, "not judged") if version else ""
    standing = [alias for alias, holder in sorted(aliases.items()) if number and holder == number]
    if version and ROLLED_BACK in version.tags:
        verdict = "rolled back"
    standing += [verdict] if verdict else ["baseline"] if BASELINE_TAG in tags else []
    measured, trained = (datasets_of(run, context) for context in (EVALUATION, TRAINING))
    return MeasuredModel(
        run_id=run.info.run_id,
        url=run_url(address, run.info.experiment_id, run.info.run_id),
        when=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        recipe=tags.get("flame.recipe") or tags.get(BASELINE_TAG, ""),
        commit=tags.get("git.commit", "")[:12] + (" and changes" if tags.get("git.clean") == "false" else ""),
        workspace=tags.get("flame.workspace", ""),
        version=number,
        version_url=version_url(address, settings().registered_model, number) if number else "",
        standing=", ".join(standing),
        split=measured[RETRIEVAL].digest[:8] if RETRIEVAL in measured else "",
        params=run.data.params,
        data={name: dataset.digest for name, dataset in trained.items()} | linked_data(tags),
        scores=scores,
    )
