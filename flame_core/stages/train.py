"""train@<recipe>: shards and embeddings -> `data/models/<recipe>/` (weights, config, one line of metrics per step)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from flame_core import gates
from flame_core.digest import json_bytes
from flame_core.errors import InputError
from flame_core.files.whole_folders import alone, scratch_below
from flame_core.layout import Layout
from flame_core.model_files import CONFIG, METRICS, WEIGHTS
from flame_core.pages.charts import line_chart, standalone
from flame_core.params import Params, TrainParams
from flame_core.processes.nodes import nodes
from flame_core.reporting import curve, facts, picture
from flame_core.settings import settings
from flame_core.tracking.run import track_training
from flame_core.training.job import SIZES
from flame_core.training.losses import first_and_last, main_losses
from flame_core.verification import Verified, verify
from flame_core.work import UnitRecord, WorkCache, gather


def run(params: Params, layout: Layout, recipe: str) -> None:
    """Train one recipe, or resume its training. Of several nodes, only the first writes the model and is tracked."""
    from flame_core.stepping.checkpoint import resumed_at
    from flame_core.training.preparation import prepare
    from flame_core.training.teacher_vectors import crop_folders

    prepared = prepare(params, layout, recipe)
    chosen = prepared.recipe
    cache = WorkCache(layout.work, "train")
    digest = cache.digest(prepared.identity)
    checkpoints = layout.work / "train-checkpoints" / digest
    verified = prepared.verified
    resumed: int | None = None
    where = nodes()

    def compute(folder: Path, journal: Path | None) -> None:
        nonlocal verified
        verified += _verify(prepared.large, checkpoints)
        crops = prepared.store_crops()
        job = prepared.job(folder, checkpoints, journal, crops)
        if (processes := settings().train_processes) > 1 or where is not None:
            job.run_on(processes, where)
        else:
            job.run()
        stored = [] if crops is None else crop_folders(crops)
        verified += _verify(prepared.large | {crop: ["*"] for crop in stored}, checkpoints)

    def write(folder: Path) -> UnitRecord:
        nonlocal resumed
        compute(folder, tracked.journal)
        resumed = resumed_at(checkpoints)
        steps = len((folder / METRICS).read_text("utf-8").splitlines())
        return UnitRecord({"steps": steps, "images": steps * prepared.batch_size})

    if where is not None and not where.first:
        if cache.find(digest) is None:
            with scratch_below(cache.folder) as folder:  # to which no rank of this node writes
                compute(folder, None)
        return
    with alone(checkpoints):  # a workspace that only measures otherwise has the same training
        with track_training(params, layout, recipe, chosen, digest) as tracked:
            unit = cache.find(digest) or cache.compute(digest, write)
            steps = [json.loads(line) for line in unit.file(METRICS).read_text("utf-8").splitlines()]
            tracked.trained(steps, unit.file(WEIGHTS))
        shutil.rmtree(checkpoints, ignore_errors=True)
    losses = main_losses(steps, chosen.objective.name)
    first, last = first_and_last(losses)
    checks = [_loss_went_down(first, last, chosen)]
    sizes = {"sizes": json.loads(unit.file(SIZES).read_text("utf-8"))} if SIZES in unit.names() else {}
    contents = {CONFIG: json_bytes(prepared.config | sizes), gates.CHECKS: gates.to_bytes(checks)}
    files = {name: unit.file(name) for name in unit.names() if name != SIZES}
    gather(layout.model(recipe), layout.state, files, contents, unit.sha256)
    facts(
        f"train@{recipe}",
        {
            **prepared.facts(),
            "steps": len(steps),
            "first / last loss": f"{first:.3f} / {last:.3f}",
            "from": "trained now" if unit.computed else "the work cache",
            **({} if resumed is None else {"resumed at step": resumed}),
            "verified": verified,
        },
    )
    gates.warn(checks)
    curve("loss", losses, "steps")
    picture(
        "loss, large",
        lambda: standalone(line_chart(range(len(losses)), losses, "Training loss by step", "step")),
        "svg+xml",
    )


def _verify(inputs: Mapping[Path, Sequence[str]], checkpoints: Path) -> Verified:
    """Verify the inputs of a training; if they are damaged, move its checkpoints aside, which may be damaged too.

    Raises:
        InputError: names the damaged files, and the new place of the checkpoints.
    """
    try:
        return verify(inputs)
    except InputError as error:
        if not checkpoints.is_dir():
            raise
        aside = checkpoints.with_name(f"{checkpoints.name}.doubtful")
        shutil.rmtree(aside, ignore_errors=True)
        checkpoints.rename(aside)
        raise InputError(
            f"{error}\nIts checkpoints may come from the damaged data, so a new training begins from step 0; "
            f"they are kept in {aside}"
        ) from None


def _loss_went_down(first: float, last: float, recipe: TrainParams) -> gates.Check:
    return gates.Check(
        "loss_went_down",
        last < first * recipe.gates.max_loss_ratio,
        "mean loss of the last twentieth of the steps over that of the first",
        value=last / first if first else f"{last:g} after 0",
        threshold=recipe.gates.max_loss_ratio,
    )
