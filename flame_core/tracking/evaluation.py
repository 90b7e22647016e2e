"""Records an evaluation with its training: scores linked to model and data, the report, and the model itself.

In the main line the model becomes a version of the registered model and its challenger.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_core.digest import file_sha256, value_digest
from flame_core.dvc_project.recorded import out_digests
from flame_core.errors import InputError, ResourceError
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.files.whole_folders import scratch
from flame_core.layout import Layout
from flame_core.measuring.measures import Evaluation
from flame_core.model_files import WEIGHTS
from flame_core.pages.run_facts import RunFacts
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.suite.benchmark_results import BenchmarkResult
from flame_core.text.llm_licence import stated_licence
from flame_core.text.side import TextSide
from flame_core.tracking import provenance
from flame_core.tracking.benchmarks import benchmark_events, held_out_events
from flame_core.tracking.delivery import deliver
from flame_core.tracking.journal import KEY_TAG, Journal
from flame_core.tracking.registry import CHALLENGER, CLOCKS_DIFFER, MODEL_TAG, ROLLED_BACK
from flame_core.tracking.run import shipping, show_links
from flame_core.tracking.steps import now
from flame_core.tracking.store import all_journals, asking, journals, open_client, require_tracking, tracking_address

REPORT = "report"  # folder of the report among the run's artifacts
log = logging.getLogger(__name__)


def track_evaluation(
    params: Params,
    layout: Layout,
    recipe: str,
    evaluation: Evaluation,
    benchmark_results: Sequence[BenchmarkResult],
    about: RunFacts,
    texts: TextSide,
) -> None:
    """Record an evaluation after its report is written; does nothing if tracking is off."""
    address = tracking_address(layout)
    if address is None:
        return
    from flame_core.serving.package import package_files

    sha256 = file_sha256(layout.model(recipe) / WEIGHTS)
    journal = Journal.of_model(journals(layout), sha256)
    if journal is None:
        log.warning("the training of %s was not tracked, so its evaluation is not either", layout.model(recipe))
        return
    names = evaluation.classification.names if evaluation.classification else []
    files, contents = package_files(params, layout, recipe, texts, names, _card(params, layout, evaluation, about))
    tags = {
        "flame.recipe": recipe,
        MODEL_TAG: sha256,
        KEY_TAG: journal.key,
        **provenance.dagster_tags(),
    }
    report = layout.report(recipe)
    artifacts = {f"{REPORT}/{path.relative_to(report)}": path for path in sorted(report.rglob("*")) if path.is_file()}
    run = {path.name: path for path in provenance.files(layout)}
    package = {**_keep(journal, files), **_write(journal, contents)}
    model = {"kind": "model", "name": recipe, "files": package, "tags": tags}
    digests = out_digests(layout.root)
    state = provenance.evaluation_tags(layout.project)
    journal.append(
        {"kind": "tags", "tags": {**state, **({"flame.dvc_digest": value_digest(digests)} if digests else {})}},
        {"kind": "artifacts", "files": _keep(journal, {**artifacts, **run})},
        model,
        *held_out_events(
            evaluation.metrics, evaluation.headline, evaluation.split, len(evaluation.keys), benchmark_results
        ),
        *benchmark_events(benchmark_results),
    )
    if not layout.is_workspace:
        journal.append(_version(layout, model))
    with shipping(journal, address):
        pass
    show_links(journal, address)


def register_workspace(layout: Layout, workspace: str, recipe: str) -> dict[str, str]:
    """Make the tracked model of a workspace a version and the challenger; returns its version and alias.

    Raises:
        InputError: there is no such workspace, or its model was not tracked.
        ResourceError: tracking is off, MLflow does not answer, or another process sends what was recorded.
    """
    address = require_tracking(layout)
    place = Layout.find(layout.state / "runs" / workspace)
    weights = place.model(recipe) / WEIGHTS
    if not weights.is_file():
        raise InputError(f"{weights} does not exist; workspaces are the folders of {layout.state / 'runs'}")
    journal = Journal.of_model(journals(place), file_sha256(weights))
    if journal is None or journal.delivered(address).model_id is None:
        raise InputError(f"the model of workspace {workspace} was not recorded in MLflow; evaluate it there first")
    model = [event for event, _ in journal.events() if event["kind"] == "model"][-1]
    journal.append(_version(layout, model))
    deliver(journal, address)
    name, number = settings().registered_model, journal.delivered(address).version
    if number is None:
        raise ResourceError(
            f"the model of workspace {workspace} is no version yet: another process is sending what was recorded, or "
            "MLflow refused it; run the same command again"
        )
    with asking(address):
        if reason := open_client(address).get_model_version(name, number).tags.get(ROLLED_BACK):
            raise InputError(
                f"the model is {name} version {number}, which was rolled back ({reason}) and stays back; "
                f"`flame promote --version {number} --again --reason ...` has it judged again"
            )
    return {"version": f"{name} version {number}", "alias": CHALLENGER}


def _version(layout: Layout, model: Mapping[str, Any]) -> dict[str, Any]:
    """The event that makes a logged model a version and the challenger, from the model's own event.

    Its time is later than that of every such event of the project, also if the clock was set back since.
    """
    from flame_core.serving.package import CARD

    name, time = settings().registered_model, now()
    before = [
        event["time"]
        for journal in all_journals(layout)
        for event in journal.of_kind("version")
        if event.get("time", 0) < time + 1000 * CLOCKS_DIFFER  # as `registry` believes it
    ]
    time = max([time, *(each + 1 for each in before)])
    return {"kind": "version", "time": time, "name": name, "tags": model["tags"], "card": model["files"][CARD]}


def _card(params: Params, layout: Layout, evaluation: Evaluation, about: RunFacts) -> str:
    from flame_core.serving.model_card import model_card

    return model_card(
        about.recipe,
        params,
        about.config,
        provenance.read_sources(params, layout),
        about.pictures,
        evaluation.metrics,
        list(evaluation.headline),
        list(evaluation.languages),
        stated_licence(layout.llm / params.llm.name),
    )


def _keep(journal: Journal, files: Mapping[str, Path]) -> dict[str, str]:
    return {name: journal.keep(path) for name, path in files.items()}


def _write(journal: Journal, contents: Mapping[str, bytes]) -> dict[str, str]:
    """Store new contents as kept files."""
    kept = {}
    with clear_disk_errors(journal.folder), scratch(journal.folder) as folder:
        for name, content in contents.items():
            path = folder / name
            path.write_bytes(content)
            kept[name] = journal.keep(path)
    return kept
