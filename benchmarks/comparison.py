"""Arms on the same pictures: for each the best of some learning rates, then several seeds, many trainings at once.

A rate is chosen by recall@10 in the training language on a fifth of the training pictures, after a shorter training on
the others; the validation split has no part in it. Each finished training is a line of a results file, and a rerun
does only what is missing. Trainings that are stopped or fail are reported and left out.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from benchmarks.measure import commit, machine
from benchmarks.pool import Done, Pool
from benchmarks.trainings import (
    AT,
    Results,
    Store,
    embedded,
    held_out_scores,
    train_model,
    validation_metrics,
)
from flame_core.data.shards import read_index
from flame_core.data.sidecars import Sidecar
from flame_core.digest import file_sha256, value_digest
from flame_core.graph.link_contents import link_contents
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.measuring.measures import OTHERS
from flame_core.measuring.retrieval import DIRECTIONS
from flame_core.params import TrainParams
from flame_core.workspace import resolve_params

Row = dict[str, Any]
Phase = Literal["rate", "final"]
_KEPT = ("retrieval/", "classification/top1", "probe/")  # what a row keeps of an evaluation
_LEFT_OUT = ("ceiling", "median_rank", OTHERS, "retrieval/chance")


@dataclass(frozen=True)
class Arm:
    """A row of a table: a recipe, and what is overridden of it.

    `captions` of each picture's raw captions are drawn from (None: all in the store). `teacher` names an arm whose
    model of the first seed it learns from, and in `train` {teacher} stands for that model's folder. A `student` has a
    ViT of two thirds of the width, so about half of the weights.
    """

    name: str
    recipe: str
    train: tuple[str, ...] = ()
    captions: int | None = None
    teacher: str | None = None
    student: bool = False


@dataclass(frozen=True)
class Job:
    """One training; `teacher` is the digest of that of its arm's teacher."""

    arm: Arm
    phase: Phase
    rate: float
    seed: int
    teacher: str | None = None
    kept: bool = False  # the model


@dataclass(frozen=True)
class Bench:
    """What all trainings of a comparison share; it is sent to the processes that train.

    Attributes:
        data: name of the data.
        root: of the run whose data is used.
        overrides, preset: its params.
        rate_epochs: of the trainings that choose a rate.
        teachers: the folder that models of teachers are kept in, by their digest.
    """

    data: str
    root: Path
    overrides: tuple[str, ...]
    preset: Path | None
    rate_epochs: int
    teachers: Path

    @cached_property
    def store(self) -> Store:
        params = resolve_params(Layout.find(), self.overrides, self.preset).params
        return Store(params, Layout.find(self.root))

    def recipe(self, job: Job) -> TrainParams:
        """The recipe of a training with all its values."""
        own = [each.replace("{teacher}", str(self.teachers / str(job.teacher))) for each in job.arm.train]
        own += [*self._student(job.arm), f"train.optimizer.learning_rate={job.rate}", f"train.seed={job.seed}"]
        overrides = [*self.overrides, f"recipes=[{job.arm.recipe}]", *own]
        recipe = resolve_params(Layout.find(), overrides, self.preset).params.train[job.arm.recipe]
        return recipe.model_copy(update={"epochs": self.rate_epochs}) if job.phase == "rate" else recipe

    def _student(self, arm: Arm) -> list[str]:
        options = next(iter(self.store.params.train.values())).model.backbone_options if arm.student else {}
        return [
            f"train.model.backbone_options.{name}={options[name] * 2 // 3}"
            for name in ("embed_dim", "num_heads")
            if arm.student
        ]

    def run_of(self, job: Job) -> str:
        """The digest of all that a training follows from."""
        recipe = self.recipe(job)
        needs = links(self.store.layout, recipe)
        sidecars = {what: Sidecar(path).digest for what, path in needs.items() if what.startswith("sidecars")}
        content = {"store": self.store.digest, "phase": job.phase, "recipe": recipe.identity}
        if recipe.inherit is not None:
            content["inherited"] = True  # from whom, `teacher` says; how, the recipe
        if "selection" in needs:
            content["selection"] = file_sha256(needs["selection"])
        if "sampling" in needs:
            content |= link_contents({"sampling": needs["sampling"]})
        return value_digest({**content, "captions": job.arm.captions, "sidecars": sidecars, "teacher": job.teacher})

    def train(self, job: Job) -> Row:
        """Train and measure: the line of the results file. The model of a teacher is kept."""
        from flame_core.objectives import recipe_needs
        from flame_core.training.job import METRICS
        from flame_core.vision.image_encoder import load_tower

        start, cpu, recipe, store = time.perf_counter(), time.process_time(), self.recipe(job), self.store
        run = self.run_of(job)
        row: Row = {"data": self.data, "arm": job.arm.name, "phase": job.phase, "rate": job.rate, "seed": job.seed}
        if job.phase == "rate":
            row["scores"] = held_out_scores(store, recipe, job.arm.captions)
        else:
            with tempfile.TemporaryDirectory() as name:
                model = train_model(store, recipe, Path(name), captions=job.arm.captions)
                metrics = validation_metrics(store, recipe, model)
                steps = len((model / METRICS).read_text("utf-8").splitlines())
                tower, _ = load_tower(model)
                if job.kept:
                    shutil.copytree(model, self.teachers / run)
            languages = [key.split("/")[1] for key in metrics if key.endswith("/n") and OTHERS not in key]
            row["scores"] = {each: _both(metrics, each) for each in languages}
            row["metrics"] = {
                key: value
                for key, value in metrics.items()
                if key.startswith(_KEPT) and not any(part in key for part in _LEFT_OUT)
            }
            row["weights"] = sum(weight.numel() for weight in tower.parameters())
            batch = recipe.schedule(len(read_index(store.layout.shards, "train"))).batch_size
            row["images"] = steps * batch * recipe_needs(recipe).views
        row["scores"] = {language: round(score, 5) for language, score in row["scores"].items()}
        row |= {"epochs": recipe.epochs, "seconds": round(time.perf_counter() - start, 1)}
        row["cpu_seconds"] = round(time.process_time() - cpu, 1)
        return {**row, "run": run, "machine": machine(), "commit": commit()}


def _both(metrics: dict[str, float], language: str) -> float:
    return mean(metrics[f"retrieval/{language}/{direction}/recall@{AT}"] for direction in DIRECTIONS)


@dataclass
class Comparison:
    """The trainings of all arms, as far as they are not in the results file."""

    bench: Bench
    arms: Sequence[Arm]
    rates: Sequence[float]
    seeds: Sequence[int]
    results: Results
    _failed: set[Job] = field(default_factory=set)
    _begun: set[Job] = field(default_factory=set)

    def run(self, processes: int, job_seconds: float, seconds: float | None) -> None:
        """Train what is missing, all rates first, then one seed after the other, so that a table exists early."""
        pool: Pool[Job, Row] = Pool(self.bench.train, processes, job_seconds, seconds)
        for done in pool.run(self.take):
            self.note(done)

    def note(self, done: Done[Job, Row]) -> None:
        """Keep a result, or report why there is none."""
        if done.result is not None:
            if self._row(done.job) is None:  # a teacher whose model was lost is trained again: its row is there
                self.results.add(done.result)
            return
        self._failed.add(done.job)
        job = done.job
        print(f"no result: {job.arm.name}, {job.phase}, rate {job.rate:g}, seed {job.seed}: {done.error}", flush=True)

    def take(self) -> Job | None:
        """The next training that is missing and waits for none."""
        for job in self._jobs():
            if job is not None and job not in self._begun and not self._has(job):
                self._begun.add(job)
                return job
        return None

    def _jobs(self) -> list[Job | None]:
        """All trainings in order; None for one that waits for its rate or its teacher."""
        taught = {arm.teacher for arm in self.arms}
        teachers = [arm for arm in self.arms if arm.name in taught]
        rates = [job for arm in [*teachers, *self.arms] for job in self._rate_jobs(arm)]
        first = [self._final(arm, self.seeds[0]) for arm in teachers if self.seeds]
        return [*first, *rates, *(self._final(arm, seed) for seed in self.seeds for arm in self.arms)]

    def _final(self, arm: Arm, seed: int) -> Job | None:
        rate, teacher = self.best_rate(arm), self._teacher(arm)
        if rate is None or (arm.teacher and teacher is None):
            return None
        kept = seed == self.seeds[0] and arm.name in {each.teacher for each in self.arms}
        return Job(arm, "final", rate, seed, teacher, kept)

    def _rate_jobs(self, arm: Arm) -> list[Job]:
        teacher = self._teacher(arm)
        if len(self.rates) == 1 or (arm.teacher and teacher is None):
            return []
        return [Job(arm, "rate", rate, 0, teacher) for rate in self.rates]

    def _teacher(self, arm: Arm) -> str | None:
        """The digest of the training of an arm's teacher, if it is done."""
        own = next((each for each in self.arms if each.name == arm.teacher), None)
        job = None if own is None else self._final(own, self.seeds[0] if self.seeds else 0)
        return self.bench.run_of(job) if job is not None and self._has(job) else None

    def _has(self, job: Job) -> bool:
        """Whether it is done: its row is there, and the model of a teacher."""
        row = self._row(job)
        return row is not None and (not job.kept or (self.bench.teachers / row["run"]).is_dir())

    def best_rate(self, arm: Arm) -> float | None:
        """The rate with the best held-out recall; None as long as one may still come."""
        if len(self.rates) == 1:
            return self.rates[0]
        found = {job.rate: self._row(job) for job in self._rate_jobs(arm) if job not in self._failed}
        if not found or any(row is None for row in found.values()):
            return None
        language = self.bench.store.params.evaluate.train_language
        return max(found, key=lambda rate: (found[rate] or {})["scores"][language])

    def _row(self, job: Job) -> Row | None:
        if job not in self._runs:
            self._runs[job] = self.bench.run_of(job)
        return self.results.find(self._runs[job])

    @cached_property
    def _runs(self) -> dict[Job, str]:
        return {}


def compare(
    description: str | None,
    arms: Sequence[Arm],
    rates: Sequence[float],
    stage: str,
    file: Path,
    table: Callable[[str, Results], str],
    needs: Sequence[str] = (),
) -> None:
    """The command line of a comparison.

    Args:
        description: of the command.
        arms: the costly ones first.
        rates: to choose from.
        stage: the last one that must have run.
        file: of the results.
        table: of a data set's results.
        needs: overrides without which the store lacks something.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--data", help="the name of the data in the results file; by default the preset's, or demo")
    parser.add_argument("--results", type=Path, default=file)
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in arms], help="run only these")
    parser.add_argument("--rates", nargs="+", type=float, default=list(rates), help="one: no rate is chosen")
    parser.add_argument("--rate-epochs", type=int, default=6, help="of the trainings that choose a rate")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="none: only choose rates")
    parser.add_argument("--processes", type=int, default=1, help="trainings at once")
    parser.add_argument("--job-seconds", type=float, default=3600, help="after which a training is stopped")
    parser.add_argument("--seconds", type=float, help="after which all are stopped")
    parser.add_argument("--as-is", action="store_true", help="the stages have run in this folder: do not call DVC")
    parser.add_argument("--table", action="store_true", help="only the table of existing results")
    options = parser.parse_args()
    name = options.data or (options.preset.stem if options.preset else "demo")
    results = Results(options.results)
    if not options.table:
        overrides = (*needs, *options.overrides)
        layout = Layout.find() if options.as_is else embedded(list(overrides), options.preset, stage).layout
        bench = Bench(
            name, layout.root, overrides, options.preset, options.rate_epochs, options.results.with_suffix(".teachers")
        )
        wanted = {arm.name for arm in arms} if not options.arms else {*options.arms}
        wanted |= {arm.teacher for arm in arms if arm.name in wanted and arm.teacher}
        chosen = [arm for arm in arms if arm.name in wanted]
        comparison = Comparison(bench, chosen, options.rates, options.seeds, results)
        comparison.run(options.processes, options.job_seconds, options.seconds)
    print(table(name, results))
