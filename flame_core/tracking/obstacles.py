"""What keeps events from arriving at MLflow: an outage, something a person deleted there, or a refusal for good.

Events wait for the end of the first two; only what a server will never take is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from flame_core.errors import FlameError, ResourceError
from flame_core.tracking.store import trouble

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

# What a server answers to a request that it will never take; anything else is an outage, to be tried again.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS"}
_DATABASE_TROUBLE = re.compile(r"\.(DatabaseError|InternalError|InterfaceError|ProgrammingError)\)")
T = TypeVar("T")


class Outage(ResourceError):
    """The server did not take an event; the journal keeps it and all after it."""


class Withheld(Outage):
    """A person deleted where a journal's events belong; they wait until that is restored. Other journals do not."""


def outage(address: str, call: Callable[[], T]) -> T:
    """Call a store; whatever goes wrong there is an outage, so that it can never stop a training."""
    try:
        return call()
    except Outage:
        raise
    except FlameError as error:
        raise Outage(str(error)) from error
    except Exception as error:  # the stores of MLflow raise those of HTTP, SQL and cloud libraries
        raise Outage(trouble(address, error)) from error


def is_refusal(error: MlflowException) -> bool:
    """Whether a server will never take a request. Other troubles of its database are an outage."""
    return error.error_code in _REFUSALS and not _DATABASE_TROUBLE.search(str(error))


def require_run(client: MlflowClient, address: str, run_id: str) -> str:
    """The experiment of a run, neither of which is deleted.

    Raises:
        Withheld: a person deleted one of them.
    """
    run = client.get_run(run_id)
    require_experiment(client, address, run.info.experiment_id)  # whose runs are deleted and restored with it
    if run.info.lifecycle_stage != "active":
        raise Withheld(
            f"run {run.info.run_name} ({run_id}) at {address} was deleted, so its events wait. Restore it with "
            f"`MLFLOW_TRACKING_URI='{address}' mlflow runs restore --run-id {run_id}`, then `flame tracking replay`"
        )
    return run.info.experiment_id


def require_experiment(client: MlflowClient, address: str, experiment_id: str) -> None:
    """An experiment that is not deleted.

    Raises:
        Withheld: a person deleted it.
    """
    found = client.get_experiment(experiment_id)
    if found.lifecycle_stage != "active":
        raise Withheld(
            f"experiment {found.name!r} ({experiment_id}) at {address} was deleted, so events wait. Restore it with "
            f"`MLFLOW_TRACKING_URI='{address}' mlflow experiments restore --experiment-id {experiment_id}`, then "
            "`flame tracking replay`; FLAME_EXPERIMENT names another for new trainings"
        )
