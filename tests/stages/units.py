"""Runs of a stage that are killed after some units of work or checkpoints, or whose computed units are noted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flame_core.settings import settings
from flame_core.stepping import checkpoint, stepwise
from flame_core.work import WorkCache


def killed_after(units: int, run: Callable[[], object]) -> list[str]:
    """The digests of the units that a run finished before it was killed at the next one."""
    compute, done = WorkCache.compute, list[str]()

    def killed(cache, digest, write):
        if len(done) == units:
            raise KeyboardInterrupt
        done.append(digest)
        return compute(cache, digest, write)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkCache, "compute", killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    return done


def computed_by(run: Callable[[], object]) -> list[str]:
    """The digests of the units that a run computed and did not find in the cache."""
    compute, done = WorkCache.compute, list[str]()

    def noted(cache, digest, write):
        done.append(digest)
        return compute(cache, digest, write)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkCache, "compute", noted)
        run()
    return done


def killed_after_step(steps: int, run: Callable[[], object]) -> None:
    """Kill a run whose training writes a checkpoint after each step once there is that of so many steps."""
    every_step, save = settings().model_copy(update={"checkpoint_seconds": 0.0}), checkpoint.save

    def killed(folder, state, *options):
        save(folder, state, *options)
        if state.step == steps:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepwise, "settings", lambda: every_step)
        patch.setattr(checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run()


def steps_taken(fit: Any, run: Callable[[], object]) -> list[int]:
    """Numbers of the steps that a run's training took; `fit` is the class that takes them."""
    step, taken = fit._step, list[int]()

    def noted(self, *given):
        taken.append(given[-1])
        return step(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_step", noted)
        run()
    return taken
