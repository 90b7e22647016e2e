"""Stages of the project's own find their scripts and tables in a workspace and in a reproduction."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.graph.own_stages import link_inputs, own_outs

STAGES = {
    "vectors": {
        "cmd": "python scripts/vectors.py",
        "deps": ["scripts/vectors.py", "table", "data/shards", "../outside", "s3://bucket/x", "gone.txt"],
        "params": ["table", {"mine.yaml": ["a"]}, {"versions.yaml": ["train"]}, {"recipes/linked/x.yaml": None}],
    },
    "each": {"foreach": ["a"], "do": {"cmd": "cat notes-${item}.txt words.txt", "deps": ["words.txt"]}},
}
LINKED = ("mine.yaml", "scripts/vectors.py", "table", "words.txt")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    here = tmp_path / "project"
    for name in ("scripts/vectors.py", "table/a.csv", "mine.yaml", "words.txt", "data/shards/x", "versions.yaml"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
    (tmp_path / "outside").write_text("")
    return here


def linked(root: Path) -> dict[str, Path]:
    return {path.relative_to(root).as_posix(): path.readlink() for path in root.rglob("*") if path.is_symlink()}


def test_what_a_run_lacks_is_linked_and_nothing_else(project, tmp_path):
    link_inputs(STAGES, tmp_path / "run", project)
    assert linked(tmp_path / "run") == {name: project / name for name in LINKED}


def test_the_first_source_counts_and_a_file_of_the_run_stays(project, tmp_path):
    run, commit = tmp_path / "run", tmp_path / "commit"
    for folder, text in ((commit, "as committed"), (run, "of the run")):
        folder.mkdir()
        (folder / "words.txt").write_text(text)
    (commit / "mine.yaml").write_text("")
    link_inputs(STAGES, run, project)
    link_inputs(STAGES, run, commit, project)
    assert linked(run)["mine.yaml"] == commit / "mine.yaml" and linked(run)["table"] == project / "table"
    assert (run / "words.txt").read_text() == "of the run"


def test_outs_of_own_stages_are_those_of_other_commands():
    stages = {
        "ingest": {"cmd": "flame ingest", "outs": ["data/shards"]},
        "words": {"cmd": "python words.py", "outs": ["data/words", {"data/more": {"cache": False}}]},
        "each": {"matrix": {"a": [1]}, "cmd": "cat ${item.a}", "outs": ["data/${item.a}"]},
        "away": {"cmd": ["true", "false"], "outs": ["/srv/x", "../x"]},
        "bare": {"cmd": "true"},
        "written wrongly": None,
    }
    assert own_outs(stages) == ["data/words", "data/more"]
