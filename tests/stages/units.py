"""Runs of a stage that are killed after some units of work, or whose computed units are noted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

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
