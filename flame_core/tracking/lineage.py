"""The chain from a model back to its sources, with every link verified.

    flame lineage models:/flame@champion
    flame lineage data/models/flame --json

A link is `verified`, `broken` (then the command exits with 1) or `not checked`, with the reason. All bytes are hashed
again: the weights in MLflow, and every out in the run's `dvc.lock`, in the tree, the cache or the remote.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flame_core import gates
from flame_core.digest import file_sha256, value_digest
from flame_core.dvc_project.recorded import LOCK
from flame_core.errors import InputError
from flame_core.git import git
from flame_core.graph.section_stages import ADAPTER_OUT
from flame_core.layout import Layout
from flame_core.measuring.results import METRICS, RESULTS
from flame_core.model_files import WEIGHTS
from flame_core.names import is_commit, shown
from flame_core.suite.benchmark_results import read_benchmark_results
from flame_core.text.llm import SOURCE
from flame_core.text.llm_licence import licence_in
from flame_core.tracking.belonging import foreign_sources
from flame_core.tracking.benchmarks import benchmark_metrics
from flame_core.tracking.chain import BROKEN, Link, out_link
from flame_core.tracking.dagster_runs import find_run
from flame_core.tracking.evaluation import REPORT
from flame_core.tracking.initial_weights import init_links
from flame_core.tracking.inputs import TRAINING, datasets_of
from flame_core.tracking.linked import linked_links
from flame_core.tracking.listings import part_md5, read_listing
from flame_core.tracking.metric_names import logged_value
from flame_core.tracking.obstacles import Deleted, require_run
from flame_core.tracking.pages import run_url, served, version_url
from flame_core.tracking.promotion import REASON, VERDICT
from flame_core.tracking.provenance import recorded_state
from flame_core.tracking.registry import MODEL_TAG, PACKAGE, ROLLED_BACK
from flame_core.tracking.runs import Record, find_record, read_artifact
from flame_core.tracking.store import asking, require_tracking, trouble
from flame_core.workspace import dvc_cache


@dataclass(frozen=True)
class Lineage:
    """The chain of a model, its newest link first."""

    model: str
    links: list[Link]

    @property
    def broken(self) -> list[Link]:
        return [link for link in self.links if link.status == BROKEN]

    def to_json(self) -> dict[str, Any]:
        """The chain as JSON values."""
        return {"model": self.model, "verified": not self.broken, "links": [asdict(link) for link in self.links]}


def trace(layout: Layout, model: str) -> Lineage:
    """The lineage of a model (see `find_record` for its possible names).

    Raises:
        InputError: MLflow knows no such model, or its run recorded no `dvc.lock`.
        ResourceError: tracking is off, or MLflow does not answer.
    """
    with asking(require_tracking(layout)):
        return _trace(layout, model)


def _trace(layout: Layout, model: str) -> Lineage:
    record = find_record(layout, model)
    running = served(record.address, record.run.info.run_id)
    with record.files() as files:
        lock = read_artifact(files, LOCK)
        outs = {out["path"]: out.get("md5", "") for stage in lock["stages"].values() for out in stage.get("outs", [])}
        recipe = record.tags.get("flame.recipe", "")
        inputs = datasets_of(record.run, TRAINING)
        links = [
            _model(record, running),
            _run(layout, record, running),
            _metrics(record, files),
            _recipe(record, files, outs),
        ]
        links.append(out_link(layout, f"data/models/{recipe}", "weights", outs, lock, {}))
        links += [*init_links(layout, record.tags), *linked_links(layout, record.tags, outs, lock)]
        for name, path in (("embeddings", "data/embeddings"), ("captions", "data/captions"), ("shards", "data/shards")):
            link = out_link(layout, path, name, outs, lock, _described(inputs, name))
            if name in inputs and inputs[name].source_type == "dvc":
                _compare_read(layout, link, inputs[name], path, outs)
            links.append(link)
        if ADAPTER_OUT in outs:
            links.append(out_link(layout, ADAPTER_OUT, "LLM's adapters", outs, lock, {}))
        links.append(out_link(layout, "data/llm", "LLM", outs, lock, _llm(layout, outs.get("data/llm", ""))))
        links.append(out_link(layout, "data/raw", "sources", outs, lock, _sources(inputs)))
    return Lineage(model, [*links, _code(layout, record), _dagster(layout, record)])


def _judged(tags: Mapping[str, str]) -> str:
    """The verdict of a version's gate and its reason."""
    return ": ".join(filter(None, (tags.get(VERDICT, "not judged"), tags.get(REASON))))


def _model(record: Record, running: bool) -> Link:
    version = record.version
    if version is None:
        link = Link("model version")
        link.skip("the model is no version of a registered model")
        return link
    link = Link(
        "model version",
        {
            "model": f"{version.name} version {version.version}",
            "aliases": ", ".join(version.aliases) or "none",
            "gate": _judged(version.tags),
            **({"rolled back": version.tags[ROLLED_BACK]} if ROLLED_BACK in version.tags else {}),
            "weights sha256": version.tags.get(MODEL_TAG, ""),
        },
        url=version_url(record.address, version.name, str(version.version)) if running else None,
    )
    from tempfile import TemporaryDirectory

    from mlflow.artifacts import download_artifacts

    with TemporaryDirectory() as folder:
        uri = f"models:/{version.name}/{version.version}/artifacts/{PACKAGE}/{WEIGHTS}"
        try:
            found = file_sha256(Path(download_artifacts(uri, dst_path=folder)))
        except Exception as error:  # artifact stores raise their libraries' own errors
            link.fail(f"its weights cannot be read: {trouble(record.address, error)}")
            return link
    if found != version.tags.get(MODEL_TAG):
        link.fail(f"its weights in MLflow have sha256 {found}")
    return link


def _run(layout: Layout, record: Record, running: bool) -> Link:
    run, tags = record.run, record.tags
    link = Link(
        "run",
        {
            "id": run.info.run_id,
            "name": run.info.run_name or "",
            "status": run.info.status,
            "started": _when(run.info.start_time),
            "by": f"{tags.get('mlflow.user', 'unknown')} on {tags.get('host', 'unknown')}",
            "packages": ", ".join(
                f"{key.removeprefix('package.')} {value}"
                for key, value in sorted(tags.items())
                if key.startswith("package.")
            ),
        },
        url=run_url(record.address, run.info.experiment_id, run.info.run_id) if running else None,
    )
    try:
        require_run(record.client, record.address, run.info.run_id)
    except Deleted as why:
        link.notes.append(f"{why.deleted}, and is kept until `mlflow gc`. {why.restore} brings it back")
    if others := foreign_sources(layout, run):
        link.notes.append(f"it is another project's, trained on {', '.join(others)}: ask from there")
    if run.info.status != "FINISHED":
        link.fail(f"the run is {run.info.status}")
    return link


def _when(milliseconds: int | None) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC" if milliseconds else "not recorded"


def _metrics(record: Record, files: Path) -> Link:
    link = Link("metrics")
    if not (files / REPORT).is_dir():
        link.skip("the model was not evaluated in this run, or its report is gone")
        return link
    try:
        reported = read_artifact(files, f"{REPORT}/{METRICS}")
        headline = read_artifact(files, f"{REPORT}/{RESULTS}")["headline"]
        reported |= benchmark_metrics(read_benchmark_results(files / REPORT))
    except InputError as error:
        link.fail(str(error))
        return link
    logged = record.run.data.metrics
    link.facts = {name: f"{reported[name]:.4f}" for name, _ in headline if name in reported} | {
        "loss, last step": f"{logged['train/loss']:.4f}" if "train/loss" in logged else "not recorded"
    }
    differing = [name for name, value in reported.items() if value == value and logged_value(logged, name) != value]
    if differing:
        link.fail(f"{len(differing)} metrics of the run differ from its report, such as {differing[0]}")
    return link


def _recipe(record: Record, files: Path, outs: dict[str, str]) -> Link:
    link = Link(
        "recipe and params",
        {
            "recipe": record.tags.get("flame.recipe", ""),
            "params digest": record.tags.get("flame.params_digest", ""),
            "dvc.lock digest": record.tags.get("flame.dvc_digest", ""),
        },
    )
    if "flame.workspace" in record.tags:
        link.facts["workspace"] = record.tags["flame.workspace"]
    if value_digest(outs) != record.tags.get("flame.dvc_digest"):
        link.fail(f"{LOCK} of the run has another digest than the run's tag")
    params = read_artifact(files, "params.yaml")
    logged = record.run.data.params
    stated = params.get("llm", {}).get("source")
    if stated != logged.get("llm.source"):
        link.fail(f"params.yaml of the run names the LLM {stated}, and its params {logged.get('llm.source')}")
    return link


def _compare_read(layout: Layout, link: Link, dataset: Any, path: str, outs: dict[str, str]) -> None:
    """Fail the link of an out if the run read other bytes than the out (or its folder) has."""
    found = outs.get(path)
    folder = str(json.loads(dataset.source)["path"]).removeprefix(path).strip("/")
    if found and folder:
        found = part_md5(found, folder, dvc_cache(layout) / "files" / "md5")
        if found is None:
            link.skip(f"DVC's cache has no list of its files, so {path}/{folder} was not compared with what was read")
            return
    if dataset.digest != found:
        link.fail(f"the run read {dataset.digest}, and its {LOCK} names {found}")


def _described(inputs: dict[str, Any], name: str) -> dict[str, str]:
    """The facts of a dataset that the run read."""
    if name not in inputs:
        return {}
    source, profile = (json.loads(text or "{}") for text in (inputs[name].source, inputs[name].profile))
    facts = {**{key: value for key, value in source.items() if key not in ("path", "dvc", "sources")}, **profile}
    return {key: gates.shown(value) for key, value in facts.items()}


def _sources(inputs: dict[str, Any]) -> dict[str, str]:
    """A line per source: package or address, version, licence."""
    if "shards" not in inputs:
        return {}
    sources: dict[str, Any] = json.loads(inputs["shards"].source).get("sources", {})
    return {name: gates.shown(record) for name, record in sources.items()}


def _llm(layout: Layout, digest: str) -> dict[str, str]:
    """The LLM's licence by its `source.json` in DVC's cache, if that is there."""
    cache = dvc_cache(layout) / "files" / "md5"
    listing = read_listing(digest, cache) or {}
    places = [cache / md5[:2] / md5[2:] for name, md5 in listing.items() if name.endswith(f"/{SOURCE}")]
    found = [licence_in(json.loads(place.read_text("utf-8"))) for place in places if place.is_file()]
    return {"licence": ", ".join(found)} if found else {}


def _code(layout: Layout, record: Record) -> Link:
    commit = record.tags.get("git.commit")
    link = Link("code", {"commit": commit or "not recorded", "clean": record.tags.get("git.clean", "unknown")})
    if not commit:
        link.skip("the training ran outside git")
        return link
    if not is_commit(commit):
        link.fail(f"{shown(commit)} is no commit")
        return link
    if record.tags.get("git.clean") == "false":
        link.notes.append("tracked files had changes that the commit does not hold")
    state = recorded_state(record.tags)
    if state != {name: record.tags.get(name) for name in state} and state.get("git.clean") == "false":
        link.notes.append("at the last evaluation, tracked files had changes that its commit does not hold")
    evaluated = state.get("git.commit", commit)
    if evaluated != commit:
        link.facts["last evaluated at"] = evaluated
    for each in dict.fromkeys((commit, evaluated)):
        if not is_commit(each) or git(layout.project, "cat-file", "-e", f"{each}^{{commit}}") is None:
            link.fail(f"commit {each if is_commit(each) else shown(each)} is not in this repository")
    return link


def _dagster(layout: Layout, record: Record) -> Link:
    run_id, url = record.tags.get("dagster.run_id"), record.tags.get("dagster.run_url")
    link = Link("Dagster run")
    if not run_id or not url:
        link.skip("the training was not started by Dagster")
        return link
    link.facts = {"run": run_id, "asset": record.tags.get("dagster.asset", "")}
    found = find_run(layout, run_id, url)
    if found.served:
        link.url = url
    if found.home:
        link.facts["found in"] = str(found.home.relative_to(layout.project))
    elif not found.served and (found.ours or (found.searched and record.tags.get("host") == socket.gethostname())):
        link.fail(f"Dagster knows no run {run_id}")
    elif not found.served:
        link.skip(found.server)
    if not found.served and found.home:
        link.notes.append(f"no page: {found.server}")
    return link
