"""Promotion: judges the challenger against the champion by the gate's rule; and rollback.

    flame promote                                   # the challenger, if the gate allows it
    flame promote --rollback --reason "..."         # make the previous champion the champion again
    flame promote --version 3 --again --reason "..."    # judge a version that was rolled back

A version that was rolled back stays so: no delivery makes it the challenger, and no promotion judges it, until a person
allows it with `--again`.

The verdict, its table and its rule are stored on the version. Promotions of one project run one at a time and look up
the champion themselves, so each challenger is judged against the champion at that time.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flame_core import gates
from flame_core.digest import canonical_json, file_sha256, json_bytes, value_digest
from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.files.disk_errors import clear_disk_errors
from flame_core.files.whole_files import put
from flame_core.layout import Layout
from flame_core.measuring.results import METRICS, Results, read_results
from flame_core.model_files import WEIGHTS
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.suite.benchmark_results import read_benchmark_results
from flame_core.tracking.belonging import require_own
from flame_core.tracking.benchmark_gate import benchmark_differences
from flame_core.tracking.evaluation import REPORT
from flame_core.tracking.gate import Verdict, first_champion, judge
from flame_core.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    PACKAGE,
    ROLLED_BACK,
    find_version,
    newest,
    number_with,
)
from flame_core.tracking.runs import SEND_AGAIN
from flame_core.tracking.store import asking, open_client, require_tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PROMOTED, PREVIOUS, AGAIN = "promotion.at", "promotion.previous_champion", "promotion.judged_again"
VERDICT, REASON, RULE, TABLE = "gate.verdict", "gate.reason", "gate.rule", "gate.table"
_BY_HAND = "to go back to another version, give it the alias `champion` in MLflow"
_ROOM = 1 << 20  # bytes; where these do not fit, the disk is why nothing can be fetched
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Promotion:
    """The result: version numbers, and the gate's verdict (None if there was nothing to judge)."""

    challenger: str | None
    champion: str | None
    verdict: Verdict | None


@dataclass(frozen=True)
class Judged:
    """The verdict on models that were judged before, as far as it is kept."""

    promoted: bool
    reason: str


def promote(params: Params, layout: Layout, version: str | None = None) -> Promotion:
    """Judge a version (the challenger by default) and make it champion if the gate allows it.

    Raises:
        InputError: there is no such version, it or the champion is another project's, or its results or the champion's
            cannot be read or compared.
        GateError: its own evaluation failed a blocking check.
        ResourceError: tracking is off, or MLflow does not answer.
    """
    address, name = require_tracking(layout), settings().registered_model
    with asking(address), _one_at_a_time(layout), tempfile.TemporaryDirectory() as scratch:
        client = open_client(address)
        champion = number_with(client, name, CHAMPION)
        chosen = version or number_with(client, name, CHALLENGER)
        if chosen is None or chosen == champion:
            if champion is not None:
                _end_challenge(client, name, champion)  # a promotion that was killed had yet to
            return Promotion(None, champion, None)
        new = _version(client, name, chosen)
        require_own(client, layout, new, "to be judged" if version else CHALLENGER)
        if ROLLED_BACK in new.tags:
            return Promotion(chosen, champion, _stays_back(new))
        challenger = _results(client, new, Path(scratch) / CHALLENGER)
        if champion is None:
            verdict = first_champion(challenger, params.promote, params.evaluate.confidence)
        else:
            holder = _version(client, name, champion)
            require_own(client, layout, holder, CHAMPION)
            old = _champion_results(client, holder, challenger, params, layout, Path(scratch))
            before, now = (read_benchmark_results(Path(scratch) / model / REPORT) for model in (CHAMPION, CHALLENGER))
            benchmarks, apart = benchmark_differences(before, now, params.promote)
            if apart:
                log.warning("not measured for both on the same data, so not compared: %s", ", ".join(apart))
            verdict = judge(old, challenger, params.promote, params.evaluate.confidence, benchmarks)
        _store(client, new, verdict)
        if verdict.promoted:
            _crown(client, name, chosen, champion)
        return Promotion(chosen, chosen if verdict.promoted else champion, verdict)


def promote_if_new(params: Params, layout: Layout) -> Promotion | Judged:
    """`promote`, or the verdict as it stands if the same models were already judged by the same rule."""
    reports = [layout.report(recipe) / METRICS for recipe in params.recipes]
    weights = [layout.model(recipe) / WEIGHTS for recipe in params.recipes]
    address, name = require_tracking(layout), settings().registered_model
    models = value_digest(
        {
            "files": [file_sha256(path) for path in (*weights, *reports) if path.is_file()],
            "rule": params.promote.model_dump(),
            "address": address,
            "name": name,
        }
    )
    mark = layout.state / "tracking" / "judged"
    if (before := _judged(mark, models)) is not None:
        return _as_it_stands(address, name, *before)
    found = promote(params, layout)
    if found.verdict is None:
        found = _rolled_back(address, name, [file_sha256(path) for path in weights if path.is_file()], found)
    if found.verdict:  # without one, the models may not have arrived at MLflow yet
        verdict = Judged(found.verdict.promoted, found.verdict.reason)
        put(mark, json_bytes({"models": models, "version": found.challenger, "verdict": asdict(verdict)}))
    return found


def _judged(mark: Path, models: str) -> tuple[Judged, str] | None:
    """The verdict that is kept of these models, and the version that it is of.

    None if there is none, or if an earlier version of the code kept less.
    """
    try:
        content = json.loads(mark.read_bytes())
        return (Judged(**content["verdict"]), content["version"]) if content["models"] == models else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _rolled_back(address: str, name: str, models: Sequence[str], found: Promotion) -> Promotion:
    """What there is to say where no model is a challenger: that one of these was rolled back, if none is champion."""
    with asking(address):
        client = open_client(address)
        versions = [version for sha256 in models if (version := find_version(client, name, sha256))]
    last = newest(version for version in versions if ROLLED_BACK in version.tags)
    if last is None or found.champion in {str(version.version) for version in versions}:
        return found
    return Promotion(str(last.version), found.champion, _stays_back(last))


def _as_it_stands(address: str, name: str, kept: Judged, number: str) -> Judged:
    """The verdict that a version has now: a person may have rolled it back since, or had it judged again."""
    try:
        with asking(address):
            version = _version(open_client(address), name, number)
    except (ResourceError, InputError) as error:
        log.warning("what became of version %s of %s since it was judged is not known: %s", number, name, error)
        return kept
    if ROLLED_BACK in version.tags:
        return Judged(False, _stays_back(version).reason)
    if REASON in version.tags:
        return Judged(version.tags.get(VERDICT) == "promoted", version.tags[REASON])
    return kept


def rollback(layout: Layout, reason: str) -> tuple[str, str]:
    """Make the previous champion the champion again; returns (version rolled back, champion now).

    Raises:
        ParamsError: no reason is given.
        InputError: there is no champion, it is another project's, or there was no previous one.
    """
    if not reason.strip():
        raise ParamsError("--rollback needs --reason: it is stored on the version that is rolled back")
    address, name = require_tracking(layout), settings().registered_model
    with asking(address), _one_at_a_time(layout):
        client = open_client(address)
        current = number_with(client, name, CHAMPION)
        if current is None:
            raise InputError(f"models:/{name} has no champion to roll back")
        require_own(client, layout, _version(client, name, current), CHAMPION)
        previous = _before(client, name, current)
        client.set_model_version_tag(name, current, ROLLED_BACK, f"{_now()}: {reason}")
        client.set_registered_model_alias(name, CHAMPION, previous)
        return current, previous


def allow_again(layout: Layout, version: str | None, reason: str) -> None:
    """Allow a version that was rolled back to be judged like any other.

    Raises:
        ParamsError: no version or no reason is given.
        InputError: there is no such version, or it was not rolled back.
    """
    if not version or not reason.strip():
        raise ParamsError("--again needs --version and --reason: the reason is stored on the version")
    address, name = require_tracking(layout), settings().registered_model
    with asking(address), _one_at_a_time(layout):
        client = open_client(address)
        found = _version(client, name, version).tags.get(ROLLED_BACK)
        if found is None:
            raise InputError(f"version {version} of {name} was not rolled back; leave --again out")
        client.set_model_version_tag(name, version, AGAIN, f"{_now()}: {reason} (rolled back {found})")
        client.delete_model_version_tag(name, version, ROLLED_BACK)


def _stays_back(version: ModelVersion) -> Verdict:
    """The verdict on a version that a person rolled back."""
    again = f"flame promote --version {version.version} --again --reason ..."
    reason = f"it was rolled back ({version.tags[ROLLED_BACK]}) and stays back; `{again}` has it judged again"
    return Verdict("refused", reason, "what a person rolled back stays back until a person says otherwise", [])


def _before(client: MlflowClient, name: str, current: str) -> str:
    """The last champion before `current` that was not rolled back itself."""
    version, seen = _version(client, name, current), {current}
    while (number := version.tags.get(PREVIOUS)) and number not in seen:
        seen.add(number)
        try:
            version = _version(client, name, number)
        except InputError as error:
            raise InputError(
                f"what was champion before version {version.version} is gone ({error}); {_BY_HAND}"
            ) from None
        if ROLLED_BACK not in version.tags:
            return number
    raise InputError(f"no promotion noted a champion before version {current} of {name}; {_BY_HAND}")


@contextmanager
def _one_at_a_time(layout: Layout) -> Iterator[None]:
    from filelock import FileLock

    folder = layout.state / "tracking"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "promotion.lock"):
        yield


def _version(client: MlflowClient, name: str, number: str) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, number)
    except MlflowException as error:
        raise InputError(f"models:/{name}/{number}: {error.message}") from None


def _results(client: MlflowClient, version: ModelVersion, folder: Path) -> Results:
    """The results recorded with a version, fetched into a folder; its blocking checks must have passed."""
    from mlflow.exceptions import MlflowException

    folder.mkdir(parents=True)
    try:
        report = Path(client.download_artifacts(str(version.run_id), REPORT, str(folder)))
    except (MlflowException, OSError) as error:
        with clear_disk_errors(folder):  # MLflow does not tell what the disk told it
            (folder / "room").write_bytes(bytes(_ROOM))
        raise InputError(
            f"the report of version {version.version} of {version.name} cannot be read from run {version.run_id}: "
            f"{error} If its files are gone, {SEND_AGAIN}"
        ) from None
    try:
        gates.require(report)
        return read_results(report)
    except InputError as error:  # which names a folder that is gone by now
        raise InputError(
            f"the report of version {version.version} of {version.name} in run {version.run_id} lacks files or is "
            f"damaged: {SEND_AGAIN}"
        ) from error


def _champion_results(
    client: MlflowClient, version: ModelVersion, challenger: Results, params: Params, layout: Layout, scratch: Path
) -> Results:
    """The champion's results on the challenger's pictures: as recorded, or measured now if the split has changed."""
    recorded = _results(client, version, scratch / CHAMPION)
    if recorded.split == challenger.split:
        return recorded
    from mlflow.artifacts import download_artifacts

    from flame_core.measuring.held_out import measure, measured_from
    from flame_core.verification import verify

    verify(measured_from(layout))
    (scratch / "model").mkdir()
    uri = f"models:/{version.name}/{version.version}"
    folder = Path(download_artifacts(f"{uri}/artifacts/{PACKAGE}", dst_path=str(scratch / "model")))
    evaluation = measure(params, layout, folder).evaluation
    found = replace(
        recorded,
        metrics=evaluation.metrics,
        headline=evaluation.headline,
        pictures=len(evaluation.keys),
        split=evaluation.split,
        outcomes=evaluation.outcomes,
    )
    if found.split != challenger.split:
        raise InputError(
            f"version {version.version} (champion) and the challenger were measured on different pictures, and the "
            f"held-out split in {layout.shards} is neither's: evaluate the challenger again, then promote"
        )
    return found


def _store(client: MlflowClient, version: ModelVersion, verdict: Verdict) -> None:
    """Store the verdict as tags of the version."""
    content = {
        VERDICT: verdict.outcome,
        REASON: verdict.reason,
        RULE: verdict.rule,
        TABLE: canonical_json(verdict.to_json()["differences"]),
    }
    for key, value in content.items():
        client.set_model_version_tag(version.name, str(version.version), key, value)


def _crown(client: MlflowClient, name: str, chosen: str, previous: str | None) -> None:
    client.set_model_version_tag(name, chosen, PROMOTED, _now())
    if previous:
        client.set_model_version_tag(name, chosen, PREVIOUS, previous)
    client.set_registered_model_alias(name, CHAMPION, chosen)
    _end_challenge(client, name, chosen)


def _end_challenge(client: MlflowClient, name: str, champion: str) -> None:
    """Take the challenger's alias from the champion."""
    if number_with(client, name, CHALLENGER) == champion:
        client.delete_registered_model_alias(name, CHALLENGER)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
