"""A language code or a benchmark's name never becomes a path out of a report."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.errors import InputError, ParamsError
from flame_core.suite.benchmark_results import BenchmarkResult, LanguageRow, benchmark_files
from flame_core.suite.definition import Benchmark, load_benchmark
from flame_core.work import gather
from tests.suite.datasets import definition_file

WAY_OUT = "x/../../../name"


def files_of(language: str) -> dict[str, bytes]:
    benchmark = Benchmark.model_validate(
        {
            "name": "mine",
            "title": "Mine",
            "task": {"kind": "retrieval"},
            "data": {"layout": "held_out", "path": "x", "obtain": "x"},
        }
    )
    row = LanguageRow(language, {"acc": 0.5}, {}, {}, {})
    return benchmark_files([BenchmarkResult(benchmark, "measured", rows=[row])], "flame", "flame")


def test_results_of_a_hostile_language_are_not_written(tmp_path: Path):
    out, state = tmp_path / "project/data/reports/flame", tmp_path / "project/.flame"
    gather(out, state, {}, files_of("de"))
    with pytest.raises(InputError, match=r"reports/flame: .*which leads out of it"):
        gather(out, state, {}, files_of(WAY_OUT))
    assert {path.name for path in tmp_path.rglob("*.json")} == {"mine_de.json", "benchmarks.json", "digests.json"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../x"}, r"name: a name is made of"),
        ({"name": ".."}, r"name: a name is made of"),
        ({"languages": [f"en-{WAY_OUT}"]}, r"languages\.0: a language code looks like"),
        ({"languages": [f"en@{WAY_OUT}"]}, r"languages\.0: a language code looks like"),
    ],
)
def test_a_definition_names_no_way_out(tmp_path: Path, changes: dict, message: str):
    definition_file(tmp_path / "mine.yaml", {"kind": "retrieval"}, "urban1k", "mine", **changes)
    with pytest.raises(ParamsError, match=rf"mine\.yaml is not valid:\n  {message}"):
        load_benchmark("mine.yaml", tmp_path)


def test_a_file_whose_name_is_none_asks_for_one(tmp_path: Path):
    definition_file(tmp_path / "my birds.yaml", {"kind": "retrieval"}, "urban1k", "mine")
    with pytest.raises(ParamsError, match=r"name: a name is made of .* \(got 'my birds'\)"):
        load_benchmark("my birds.yaml", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"title: caf\xe9", r"line 1: byte 0xe9 is not UTF-8"),
        (b"title: a\ntitle: b", r"line 2, title: the key is given twice"),
        (b"[" * 100_000, r"nested more than 50 deep"),
    ],
)
def test_a_definition_that_cannot_be_read(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match=rf"mine\.yaml, .*{message}"):
        load_benchmark("mine.yaml", tmp_path)
