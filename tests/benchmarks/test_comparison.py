"""The order of a comparison's trainings, which wait for rates and teachers; and what the tables say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import photographs, siblings
from benchmarks.comparison import Arm, Bench, Comparison, Job
from benchmarks.pool import Done
from benchmarks.trainings import Results
from flame_core.layout import Layout
from flame_core.params import load_params

BIG, SMALL, OTHER = Arm("big", "flame"), Arm("small", "flame", teacher="big", student=True), Arm("other", "flame")


class Named(Bench):
    """A bench whose digests are readable, on no data."""

    store: Any = SimpleNamespace(params=SimpleNamespace(evaluate=SimpleNamespace(train_language="en")))

    def run_of(self, job: Job) -> str:
        return f"{job.arm.name}-{job.phase}-{job.rate:g}-{job.seed}"


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    bench = Named("made", tmp_path, (), None, 1, tmp_path / "teachers")
    return Comparison(bench, [SMALL, BIG, OTHER], [0.1, 0.2], [0, 1], Results(tmp_path / "results.jsonl"))


def finish(comparison: Comparison, job: Job, score: float = 0.5) -> None:
    row = {"arm": job.arm.name, "phase": job.phase, "rate": job.rate, "seed": job.seed, "scores": {"en": score}}
    run = comparison.bench.run_of(job)
    comparison.note(Done(job, {**row, "run": run}, "", 1.0))
    if job.kept:
        (comparison.bench.teachers / run).mkdir(parents=True)


def taken(comparison: Comparison) -> list[Job]:
    found = []
    while (job := comparison.take()) is not None:
        found.append(job)
    return found


def shown(jobs: list[Job]) -> list[str]:
    return [f"{job.arm.name} {job.phase} {job.rate:g} {job.seed}" for job in jobs]


def test_trainings_wait_for_the_best_rate_and_students_for_their_teacher(comparison: Comparison):
    rates = taken(comparison)
    assert shown(rates) == ["big rate 0.1 0", "big rate 0.2 0", "other rate 0.1 0", "other rate 0.2 0"]
    for job in rates:
        finish(comparison, job, score=job.rate if job.arm is BIG else -job.rate)
    finals = taken(comparison)
    assert shown(finals) == ["big final 0.2 0", "other final 0.1 0", "big final 0.2 1", "other final 0.1 1"]
    assert [job.kept for job in finals] == [True, False, False, False]
    finish(comparison, finals[0])
    students = taken(comparison)
    assert shown(students) == ["small rate 0.1 0", "small rate 0.2 0"]
    assert {job.teacher for job in students} == {"big-final-0.2-0"}


def test_a_rate_that_failed_is_left_out_and_finished_trainings_are_not_begun_again(comparison: Comparison):
    first, second, *_ = taken(comparison)
    comparison.note(Done(first, None, "its process died", 1.0))
    finish(comparison, second)
    assert comparison.best_rate(BIG) == 0.2
    again = Comparison(comparison.bench, comparison.arms, [0.2], [0], Results(comparison.bench.root / "results.jsonl"))
    assert shown(taken(again)) == ["big final 0.2 0", "other final 0.2 0"]  # one rate: none is chosen


def test_a_teacher_whose_model_was_lost_is_trained_again_and_has_one_row(comparison: Comparison):
    for _ in range(2):
        for job in taken(comparison):
            finish(comparison, job)
    (comparison.bench.teachers / "big-final-0.1-0").rmdir()
    again = Comparison(comparison.bench, [SMALL, BIG], [0.1, 0.2], [0], comparison.results)
    (teacher,) = taken(again)
    assert shown([teacher]) == ["big final 0.1 0"]
    finish(again, teacher)
    assert shown(taken(again)) == ["small rate 0.1 0", "small rate 0.2 0"]
    assert [row["run"] for row in again.results.rows].count("big-final-0.1-0") == 1


def row(arm: str, seed: int, **metrics: float) -> dict[str, Any]:
    return {
        "data": "made", "arm": arm, "phase": "final", "rate": 0.001, "seed": seed, "epochs": 3, "images": 1200,
        "weights": 34, "cpu_seconds": 90.0, "scores": {"en": 0.0}, "metrics": metrics, "run": f"{arm}{seed}",
    }  # fmt: skip


def test_the_table_of_photographs_shows_mean_deviation_and_interval(tmp_path: Path):
    results = Results(tmp_path / "results.jsonl")
    for seed, value in enumerate((0.10, 0.12, 0.14)):
        metrics = {"retrieval/de/n": 964}
        for direction in ("image_to_text", "text_to_image"):
            for k in photographs.CUTS:
                name = f"retrieval/de/{direction}/recall@{k}"
                chance = {f"retrieval/de/{direction}/chance/recall@{k}": 0.01}
                metrics |= {name: value, f"{name}/low": value - 0.02, f"{name}/high": value + 0.03, **chance}
        results.rows.append(row("FLAME", seed, **metrics))
    lines = photographs.table("made", results).splitlines()
    line = next(line for line in lines if line.startswith("| German, picture → text, @10 |"))
    assert line.split(" | ")[1:4] == ["1.00", "not yet measured", "12.0 ± 2.0 (10.0 to 15.0)"]
    assert photographs.table("nothing", results) == "not yet measured"


def test_the_table_of_siblings_compares_each_with_its_baseline(tmp_path: Path):
    results = Results(tmp_path / "results.jsonl")
    for seed, (own, base) in enumerate(((0.50, 0.40), (0.52, 0.42))):
        results.rows.append(row("protoclip", seed, **{"probe/top1": own}))
        results.rows.append(row("protoclip-baseline", seed, **{"probe/top1": base}))
    (line,) = [line for line in siblings.table("made", results).splitlines() if line.startswith("| `protoclip` ")]
    # two means of two values that differ by 2 points: each has a variance of 2 / 2, so the difference one of 2
    assert "| 51.0 ± 1.4 (+10.0, +7.1 SE) |" in line and "| 1,200 | 34 | 1.5 |" in line


def test_every_arm_of_the_siblings_is_a_training_of_its_own(tmp_path: Path):
    class Made(Bench):
        store: Any = SimpleNamespace(
            params=load_params(Layout.find()), layout=Layout.find(), digest="of pictures and texts"
        )

    bench = Made("made", tmp_path, ("cluster.clusters=40",), None, 1, tmp_path / "teachers")
    runs = {
        arm.name: bench.run_of(Job(arm, "rate", 0.001, 0, "a-teacher" if arm.teacher else None))
        for arm in siblings.ARMS
        if not arm.recipe.startswith("protoclip")  # labels of clusters are part of these
    }
    assert len(set(runs.values())) == len(runs) == 9
