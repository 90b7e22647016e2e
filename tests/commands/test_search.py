"""`flame embed-images` and `flame query`, as they are typed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flame_core import cli
from tests.data.drawings import png
from tests.measuring import world
from tests.search.runs import run_here


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run_here(tmp_path, monkeypatch)
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(png(number))
    (tmp_path / "pictures" / "bad.png").write_bytes(b"x")
    return tmp_path


def said(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return " ".join(done.output.split())


def refused(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["flame", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_vectors_go_where_they_are_wanted(
    project: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, suffix: str
):
    monkeypatch.setenv("HOME", str(project / "home"))
    said("embed-images", "pictures", "--out", f"~/own{suffix}")
    assert (project / f"home/own{suffix}").is_file() and not (project / "~").exists()
    (project / f"link{suffix}").symlink_to(f"there{suffix}")
    said("embed-images", "pictures", "--out", f"link{suffix}")
    assert (project / f"link{suffix}").is_symlink() and (project / f"there{suffix}").is_file()
    (project / f"folder{suffix}").mkdir()
    for place, why in ((f"folder{suffix}", "Is a directory"), (f"/proc/own{suffix}", "No such file or directory")):
        code, message = refused(capsys, monkeypatch, "embed-images", "pictures", "--out", place)
        assert code == 3 and f"--out {place} cannot be written: {why}" in message


def test_a_folder_is_embedded_and_searched(project: Path):
    output = said("embed-images", "pictures", "--out", "vectors.parquet")
    assert "bad.png" in output and "image_unreadable" in output
    assert (project / "vectors.parquet").is_file()
    for index in ("pictures", "vectors.parquet"):
        output = said("query", "Eine grüne Sache.", "--index", index, "--top", "2", "--page", "found.html")
        assert "of 3 pictures of" in output and output.count(".png") >= 2
        assert "A search with nothing to find" in output or "Nothing is near" in output
    assert (project / "found.html").read_text().count("data:image/jpeg") == 2
    output = said("query", "pictures/1.png", "--index", "pictures", "--recipe", "plain", "--top", "1")
    assert "1.000" in output and "1.png" in output


def test_the_held_out_split_is_searched_by_any_model(project: Path):
    by_recipe = said("query", "Eine grüne Sache.", "--recipe", "other", "--top", "3")
    assert sum(key in by_recipe for key in world.KEYS) == 3
    assert said("query", "Eine grüne Sache.", "--model", "data/models/other", "--top", "3") == by_recipe
    assert "of 12 held-out pictures" in by_recipe
    assert "of 15 training and held-out pictures" in said("query", "Eine grüne Sache.", "--index", "all", "--top", "3")


def test_paths_are_those_of_the_working_directory(project: Path, monkeypatch: pytest.MonkeyPatch):
    (project / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(project / "pictures")
    said("embed-images", ".")
    for model in ("data/models/plain", "../data/models/plain"):
        output = said("query", "1.png", "--index", ".", "--model", model, "--top", "1", "--page", "found.html")
        assert "1.000" in output
    assert (project / "pictures" / "found.html").is_file()
    assert (project / ".flame" / "search").is_dir() and not (project / "pictures" / ".flame").exists()


def test_mistakes_are_one_sentence(project: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    for code, message, arguments in (
        (2, "'x' is not among the recipes", ["query", "a", "--recipe", "x"]),
        (2, "not by both", ["query", "a", "--recipe", "plain", "--model", "data/models/plain"]),
        (2, "--facets goes with a text", ["query", "pictures/1.png", "--facets"]),
        (2, "has no words: only models with model.head lexical", ["query", "--lexical", "dog, grass"]),
        (2, "are different ways to ask: give one", ["query", "--lexical", "dog", "--facets"]),
        (3, "no vectors of data/models/plain yet: run `flame embed-images", ["query", "a", "--index", "pictures"]),
        (3, "'a.png' looks like the path of a picture", ["query", "a.png"]),
        (3, "'nowhere' is not a model", ["query", "a", "--model", "nowhere"]),
        (2, "ends in .parquet or .npy", ["embed-images", "pictures", "--out", "x.csv"]),
        (3, "nowhere is not a folder", ["embed-images", "nowhere"]),
        (3, "has no picture that can be read", ["embed-images", "recipes"]),
    ):
        given, output = refused(capsys, monkeypatch, *arguments)
        assert (given, message in output) == (code, True), output
