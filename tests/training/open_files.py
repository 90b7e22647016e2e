"""A process that may open 200 files at first and reads batches that need 300; arguments: `folder hard-limit`."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from flame_core.errors import ResourceError
from flame_core.training.loader import EpochOrder, TrainingSamples, create_loader
from tests.training.world import recipe, samples_of


class Many(TrainingSamples):
    open_files = 300

    def __getitem__(self, samples):
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
        return super().__getitem__(samples)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, int(sys.argv[2])))
    samples = samples_of(Path(sys.argv[1]), recipe())
    samples.__class__ = Many
    for workers in (0, 1):
        try:
            said = len(list(create_loader(samples, EpochOrder(24, 8, 1, 0), workers, pin_memory=False)))
        except ResourceError as error:
            said = error
        sys.stdout.write(f"{said}\n")
