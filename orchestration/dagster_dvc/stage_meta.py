"""Dagster's options of a stage, in its `meta:` in `dvc.yaml`.

Every key is optional:

    stages:
      train:
        cmd: python train.py
        meta:
          dagster:
            group: training                          # default: "default"
            kinds: [pytorch]                         # added to "dvc"
            owners: [someone@example.org, team:vision]
            pool: gpu
            retries: {max: 3, delay_seconds: 30, exit_codes: [5]}    # default of exit_codes: all except stops
            freshness: {warn_days: 14, fail_days: 30}
            checks: [loss_went_down]                 # names of the asset checks that `read_checks` reports
"""

from __future__ import annotations

import signal
from datetime import timedelta

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flame_core.dvc_project.errors import PROJECT_FILE, DvcProjectError
from flame_core.dvc_project.project import Stage

SAVED = 75  # EX_TEMPFAIL: a stage saved its state because it was told to stop
STOPS = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM}  # a crash has another signal


def is_stop(exit_code: int) -> bool:
    """Whether a command ended because it was told to: after saving its state, or by a signal (shells add 128)."""
    return exit_code == SAVED or -exit_code in STOPS or exit_code - 128 in STOPS


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Retries(_Strict):
    max: int = Field(gt=0)
    delay_seconds: float = Field(default=10.0, gt=0)
    exit_codes: tuple[int, ...] = ()

    def may_help(self, exit_code: int) -> bool:
        """Whether to retry a stage that ended with this code; a stage that was stopped is not retried."""
        return not is_stop(exit_code) and (not self.exit_codes or exit_code in self.exit_codes)

    def delay(self, retry: int) -> float:
        """Seconds to wait before a retry (counted from 1), doubled each time."""
        return self.delay_seconds * 2 ** (retry - 1)


class Freshness(_Strict):
    warn_days: float | None = None
    fail_days: float

    def policy(self) -> dg.FreshnessPolicy:
        warn = None if self.warn_days is None else timedelta(days=self.warn_days)
        return dg.FreshnessPolicy.time_window(fail_window=timedelta(days=self.fail_days), warn_window=warn)


class StageMeta(_Strict):
    """`meta: dagster:` of a stage."""

    group: str = "default"
    kinds: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    pool: str | None = None
    retries: Retries | None = None
    freshness: Freshness | None = None
    checks: tuple[str, ...] = ()


def stage_meta(stage: Stage) -> StageMeta:
    """Dagster's options in a stage's `meta:`.

    Raises:
        DvcProjectError: names the stage, the key and what is accepted.
    """
    try:
        return StageMeta.model_validate(stage.meta.get("dagster") or {})
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        accepted = ", ".join(StageMeta.model_fields)
        raise DvcProjectError(
            f"{PROJECT_FILE}: stages.{stage.name}.meta.dagster: {'; '.join(faults)} (accepted: {accepted})"
        ) from None
