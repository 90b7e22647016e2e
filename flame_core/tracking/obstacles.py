"""What keeps events from arriving at MLflow: an outage, a deletion by a person, or a permanent refusal.

Events wait for the end of the first two; only permanently refused events are left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from flame_core.errors import FlameError, ResourceError
from flame_core.settings import settings
from flame_core.tracking.store import trouble

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.exceptions import MlflowException

# Error codes of a permanent refusal; any other error is an outage, to be tried again.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS"}
_MLFLOWS_OWN = "Default"  # the experiment that every store has
_DATABASE_TROUBLE = re.compile(r"\.(DatabaseError|InternalError|InterfaceError|ProgrammingError)\)")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Outage(ResourceError):
    """The server did not accept an event; the journal keeps it and all later ones."""


class Withheld(Outage):
    """A person deleted a journal's run or experiment; the journal's events wait until it is restored."""


class Deleted(Withheld):
    """One of them, found deleted.

    Attributes:
        deleted: says what was deleted.
        restore: the command that brings it back.
    """

    def __init__(self, deleted: str, restore: str, otherwise: str = "") -> None:
        super().__init__(
            f"{deleted}, so events wait. Restore it with {restore}, then `flame tracking replay`{otherwise}"
        )
        self.deleted, self.restore = deleted, restore


def outage(address: str, call: Callable[[], T]) -> T:
    """Call a store; any error there is an outage, so that it can never stop a training."""
    try:
        return call()
    except Outage:
        raise
    except FlameError as error:
        raise Outage(str(error)) from error
    except Exception as error:  # MLflow's stores raise errors of HTTP, SQL and cloud libraries
        raise Outage(trouble(address, error)) from error


def is_refusal(error: MlflowException) -> bool:
    """Whether a server refuses a request permanently. Problems of its database are an outage instead."""
    return error.error_code in _REFUSALS and not _DATABASE_TROUBLE.search(str(error))


def require_run(client: MlflowClient, address: str, run_id: str) -> str:
    """The experiment id of a run, after checking that neither is deleted.

    Raises:
        Deleted: a person deleted one of them.
    """
    run = client.get_run(run_id)
    require_experiment(client, address, run.info.experiment_id)  # an experiment's runs are deleted and restored with it
    if run.info.lifecycle_stage != "active":
        raise Deleted(
            f"run {run.info.run_name} ({run_id}) at {address} was deleted",
            f"`MLFLOW_TRACKING_URI='{address}' mlflow runs restore --run-id {run_id}`",
        )
    return run.info.experiment_id


def require_experiment(client: MlflowClient, address: str, experiment_id: str) -> None:
    """Check that an experiment is not deleted.

    Raises:
        Deleted: a person deleted it.
    """
    found = client.get_experiment(experiment_id)
    if found.lifecycle_stage != "active":
        raise Deleted(
            f"experiment {found.name!r} ({experiment_id}) at {address} was deleted",
            f"`MLFLOW_TRACKING_URI='{address}' mlflow experiments restore --experiment-id {experiment_id}`",
            "; FLAME_EXPERIMENT names another for new trainings",
        )


def read_experiment(client: MlflowClient, address: str) -> Experiment | None:
    """The experiment `FLAME_EXPERIMENT` for a command that reads its runs; None if there is none.

    A person may have renamed or deleted it: a warning says so, because its runs would be missing without a word.
    """
    name = settings().experiment
    found = client.get_experiment_by_name(name)
    if found is not None:
        try:
            require_experiment(client, address, found.experiment_id)
        except Deleted as why:
            log.warning("%s, so none of its runs is read. Restore it with %s", why.deleted, why.restore)
    elif others := [each.name for each in client.search_experiments() if each.name != _MLFLOWS_OWN]:
        log.warning(
            "MLflow at %s has no experiment %r, but %s; FLAME_EXPERIMENT names the one that is read",
            address,
            name,
            ", ".join(map(repr, others)),
        )
    return found
