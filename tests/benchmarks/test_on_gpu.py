"""A part is a process that is stopped at its limit, and its figures are the lines that it recorded."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from benchmarks import on_gpu
from benchmarks.on_gpu import PARTS, Part, run_part


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The benchmarks of a folder whose module `writes` records one figure, `fails` none, and `hangs` never ends."""
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").touch()
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps({"benchmark": "old", "case": "a", "figure": 1.0, "unit": "s"}) + "\n")
    line = json.dumps({"benchmark": "new", "case": "b", "figure": 2.5, "unit": "images/s"})
    (package / "writes.py").write_text(
        f"import sys; assert sys.argv[1:] == ['a b']; open({str(file)!r}, 'a').write({line!r})"
    )
    (package / "fails.py").write_text("raise SystemExit(3)")
    (package / "hangs.py").write_text("import time; time.sleep(60)")
    (package / "late.py").write_text(
        f"import time\ntry:\n  time.sleep(60)\nexcept KeyboardInterrupt:\n  open({str(file)!r}, 'a').write({line!r})"
    )
    (package / "child.py").write_text(
        "import subprocess; own = subprocess.Popen(['sleep', '60']); open('child', 'w').write(str(own.pid)); own.wait()"
    )
    monkeypatch.setattr(on_gpu, "ROOT", tmp_path)
    monkeypatch.setattr(on_gpu, "OTHERS", tmp_path / "others")
    monkeypatch.setattr(on_gpu, "RESULTS", file)
    return file


def test_the_figures_of_a_part_are_those_that_it_added(results):
    outcome = run_part(Part("writes a~b", 60))
    assert outcome["ended"] == "done"
    assert outcome["figures"] == {"new: b": [2.5, "images/s"]}


@pytest.mark.parametrize(("module", "limit", "ended"), [("fails", 60, "failed"), ("hangs", 1, "too long")])
def test_a_part_that_does_not_end_well_says_so(results, module, limit, ended):
    assert run_part(Part(module, limit)) | {"seconds": 0} == {"ended": ended, "seconds": 0, "figures": {}}


def test_a_part_at_its_limit_records_what_it_has_measured(results):
    outcome = run_part(Part("late", 5))
    assert outcome["ended"] == "too long" and outcome["figures"] == {"new: b": [2.5, "images/s"]}


def test_a_part_that_takes_too_long_leaves_no_process(results, tmp_path):
    assert run_part(Part("child", 3))["ended"] == "too long"
    child = Path("/proc") / (tmp_path / "child").read_text()
    end = time.monotonic() + 10  # a killed process ends when the kernel comes to it
    while child.exists() and "zombie" not in (child / "status").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_part_without_its_package_is_left_out_in_words(results):
    outcome = run_part(Part("fails", 60, package="no_such_package"))
    assert outcome == {"ended": "left out", "why": "no_such_package is not installed, also not in others"}


def test_a_package_in_the_folder_of_others_counts(results, tmp_path):
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "only_there.py").write_text("")
    assert run_part(Part("writes a~b", 60, package="only_there"))["ended"] == "done"


def test_only_the_text_engine_is_given_texts(results, tmp_path):
    (tmp_path / "benchmarks" / "text_engine.py").write_text("import sys; assert sys.argv[1:] == ['a', '--pairs', 'p']")
    assert run_part(Part("text_engine a", 60), ["--pairs", "p"])["ended"] == "done"
    assert run_part(Part("writes a~b", 60), ["--pairs", "p"])["ended"] == "done"


def test_every_part_is_a_benchmark():
    folder = Path(on_gpu.__file__).parent
    assert all((folder / f"{part.arguments.split()[0]}.py").is_file() for part in PARTS.values())
