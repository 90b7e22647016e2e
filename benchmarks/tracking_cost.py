"""How much time tracking adds to a training: the demo's model on its data, in turns with and without tracking.

    python -m benchmarks.tracking_cost                    # after `make demo`: its 100 steps, three times each
    python -m benchmarks.tracking_cost --epochs 2 --turns 12    # if turns of minutes differ by more than the cost

It measures the stage `train` in a separate process, like `flame train`, from its imports until MLflow has received the
last event: the journal, the sampling of the machine, and the process next to the training that delivers to a SQLite
store. The store is set up in advance, as in a project with earlier trainings. Most of the cost occurs once per
training, whatever its length. `--project` is only read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.measure import in_turns, record
from flame_core.layout import Layout
from flame_core.model_files import WEIGHTS
from flame_core.params import Params, load_params
from flame_core.text.store import TrainStore
from flame_core.tracking.delivery import deliver
from flame_core.tracking.journal import Journal
from flame_core.tracking.run import track_training
from flame_core.tracking.steps import now
from flame_core.tracking.store import OFF, local_address
from flame_core.training.job import METRICS, TrainingJob

RECIPE = "flame"
LIMIT = 0.02  # fraction of the training's time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--epochs", type=int, help="epochs per training (default: the project's)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--once", metavar="DIGEST", help="one training in the folder --project, not measured")
    options = parser.parse_args()
    if options.once:
        layout = Layout.find(options.project)
        train_once(shortened(load_params(layout), options.epochs), layout, options.once)
        return
    with tempfile.TemporaryDirectory(prefix="tracking-cost-") as folder:
        layout = Layout.find(Path(folder))
        for name in ("data", "recipes", "params.yaml", "dvc.lock", ".git"):
            if (target := options.project.resolve() / name).exists():
                (layout.root / name).symlink_to(target)
        prepare_store(layout)
        numbers = itertools.count()
        again = [sys.executable, "-P", "-m", "benchmarks.tracking_cost", "--project", folder]
        again += ["--epochs", str(options.epochs)] if options.epochs else []

        def case(address: str) -> None:
            environment = {**os.environ, "FLAME_TRACKING_URI": address, "PYTHONPATH": str(Path(__file__).parent.parent)}
            subprocess.run([*again, "--once", f"{next(numbers):016}"], env=environment, check=True)

        cases = {"off": lambda: case(OFF), "on": lambda: case(local_address(layout))}
        measured = in_turns(cases, options.turns, warm=0)
        require_delivered(layout)
    cost = 1 / measured.ratio("on", "off")
    extra = median(on - off for on, off in zip(measured.seconds["on"], measured.seconds["off"], strict=True))
    record("tracking_cost", "more with tracking", extra, "s")
    record("tracking_cost", "training, tracking off", measured.median("off"), "s")
    record("tracking_cost", "training, tracking on", measured.median("on"), "s", cost, "tracking off")
    print(f"tracking costs {cost - 1:+.2%} of the training's time; the limit is {LIMIT:.0%}")


def shortened(params: Params, epochs: int | None) -> Params:
    """The params, with another number of epochs if one is given."""
    if epochs is None:
        return params
    recipe = params.train[RECIPE].model_copy(update={"epochs": epochs})
    return params.model_copy(update={"train": {**params.train, RECIPE: recipe}})


def train_once(params: Params, layout: Layout, digest: str) -> None:
    """What the stage does between its checks and its out."""
    chosen, store = params.train[RECIPE], TrainStore(layout.embeddings)
    slots = [place for place, name in enumerate(store.facets) if name.split("/")[0] in chosen.kinds]
    out = layout.state / "out" / digest
    out.mkdir(parents=True)
    with track_training(params, layout, RECIPE, chosen, digest) as tracked:
        TrainingJob(
            recipe=chosen,
            shards=layout.shards,
            embeddings=layout.embeddings,
            slots=slots,
            captions=None,
            checkpoints=layout.state / "checkpoints" / digest,
            out=out,
            journal=tracked.journal,
        ).run()
        rows = [json.loads(line) for line in (out / METRICS).read_text("utf-8").splitlines()]
        tracked.trained(rows, out / WEIGHTS)


def prepare_store(layout: Layout) -> None:
    """Set the store up with a first run."""
    journal = Journal(layout.state / "first")
    journal.append(
        {"kind": "start", "time": now(), "name": "first", "tags": {}},
        {"kind": "end", "status": "FINISHED", "time": now()},
    )
    deliver(journal, local_address(layout))


def require_delivered(layout: Layout) -> None:
    """Refuse a figure if events were not delivered, since then it lacks part of the cost."""
    address = local_address(layout)
    if left := sum(journal.pending(address) for journal in Journal.all(layout.state)):
        raise SystemExit(f"{left} events were not delivered, so the figure would be too small")


if __name__ == "__main__":
    main()
