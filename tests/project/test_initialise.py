"""`flame init` on real pictures: what it writes, what it says, and what it refuses without leaving anything."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flame_core import cli
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.params import load_params, read_yaml
from flame_core.project import creation
from flame_core.project.record import RECORD, shipped_files
from flame_core.project.upgrade import plan_upgrade
from flame_core.workspace import resolve_params
from tests.project.test_data_survey import jpeg

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02d}.jpg").write_bytes(jpeg(number))
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], *[(f"{n:02d}.jpg", f"bird number {n}") for n in range(20)]])
    return folder


def init(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli.app, ["init", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        assert code == getattr(done.exception, "exit_code", None), done.exception
        return str(done.exception)
    assert done.exit_code == code, done.output
    return done.output


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_project_for_pictures_in_a_table(pictures, tmp_path, device):
    root = tmp_path / "mine"
    said = init(root, "--images", pictures, "--device", device, "--language", "de")
    assert "column 'caption' of captions.csv" in said and "flame params check" in said
    params = load_params(Layout.find(root))
    source = params.sources["pictures"]
    assert (source.kind, source.path, source.table, source.language) == ("folder", str(pictures), "captions.csv", "de")
    assert params.evaluate.train_language == "de" and params.recipes == ["flame"]
    tower = params.train["flame"].model
    assert tower.image_size == (48 if device == "cpu" else 224)
    clip = resolve_params(Layout.find(root), ["recipes=[clip]"], None).params.train["clip"]
    assert clip.text_tower and clip.text_tower.width == (192 if device == "cpu" else 512)
    assert params.evaluate.gates.min_recall_over_chance == 0  # six held-out pictures
    assert {name: (root / name).read_text() for name in shipped_files()} == shipped_files()
    assert not plan_upgrade(root).needed
    names = {path.name for path in root.iterdir()}
    own = {"params.yaml", RECORD, "pyproject.toml", ".gitignore", ".dvcignore", ".dvc", ".flame"}
    assert names == own | {name.partition("/")[0] for name in shipped_files()}


def test_pictures_without_captions_do_not_fail_the_gate_that_would_refuse_them(pictures, tmp_path):
    for number in range(20, 60):
        (pictures / f"{number}.jpg").write_bytes(jpeg(number))
    said = init(tmp_path / "mine", "--images", pictures, "--device", "cpu")
    assert "40: 20, 21, 22, ..." in said
    text = (tmp_path / "mine/params.yaml").read_text()
    assert "Only 33% of what is listed have a picture and a caption" in text
    assert load_params(Layout.find(tmp_path / "mine")).ingest.gates.min_kept_fraction == 0.26


@pytest.mark.parametrize("name", ["2024", "true", "no", "0x1F"])
def test_names_that_yaml_would_read_as_something_else(pictures, tmp_path, name):
    folder = pictures.rename(tmp_path / name)
    init(tmp_path / "mine", "--images", folder, "--device", "cpu", "--language", "no")
    params = load_params(Layout.find(tmp_path / "mine"))
    assert params.evaluate.train_language == "no" and list(params.sources) == [name]


def test_paths_that_are_no_text_are_refused_by_name(pictures, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    assert "is UTF-8" in init(odd, "--images", pictures, code=2)
    pictures.rename(odd)
    assert "params.yaml is UTF-8" in init(tmp_path / "mine", "--images", odd, code=3)


def test_a_path_that_dvc_or_mlflow_cannot_work_in_is_refused(pictures: Path, tmp_path: Path):
    assert "DVC does not work where a path has { or }" in init(tmp_path / "a{b}", "--images", pictures, code=2)
    assert "MLflow does not work where a path has both" in init(tmp_path / "a'b\"", "--images", pictures, code=2)
    assert not (tmp_path / "a{b}").exists()


def test_at_most_ten_other_languages_are_measured(pictures, tmp_path):
    (pictures / "captions.csv").unlink()
    codes = ["en", *[f"a{letter}" for letter in "abcdefghijkl"]]
    for number in range(20):
        captions = dict.fromkeys(codes[: 13 - number % 2], f"a bird {number}")  # "al" has fewer
        (pictures / f"{number:02d}.json").write_text(json.dumps({"captions": captions}))
    init(tmp_path / "mine", "--images", pictures, "--device", "cpu")
    assert read_yaml(tmp_path / "mine/params.yaml")["evaluate"]["languages"] == codes[1:11]
    assert "the most common of 12, and `all` takes all" in (tmp_path / "mine/params.yaml").read_text()


def test_pictures_inside_the_project_are_named_relative_to_it(tmp_path, pictures):
    root = tmp_path / "mine"
    (root / ".git").mkdir(parents=True)
    (root / ".venv").mkdir()
    pictures.rename(root / ".venv" / "pictures")
    init(root, "--images", root / ".venv" / "pictures", "--device", "cpu")
    assert read_yaml(root / "params.yaml")["sources"]["pictures"]["path"] == ".venv/pictures"


def test_the_demo(tmp_path):
    init(tmp_path / "demo", "--demo")
    assert (tmp_path / "demo/params.yaml").read_text() == (ROOT / "params.yaml").read_text()


def test_dvc_knows_git_where_there_is_git(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path / "repository"], check=True)
    init(tmp_path / "repository", "--demo")
    init(tmp_path / "repository" / "below", "--demo")
    init(tmp_path / "alone", "--demo")
    for name in ("repository", "repository/below"):
        assert "no_scm" not in (tmp_path / name / ".dvc/config").read_text()
    assert "no_scm = true" in (tmp_path / "alone/.dvc/config").read_text()


def test_a_repository_that_is_made_later_takes_in_no_data_and_no_login(tmp_path):
    init(tmp_path / "mine", "--demo")
    for name in (".dvc/cache/files/md5/aa/bb", ".dvc/tmp/lock", ".dvc/config.local", "data/raw/a", ".flame/b", ".env"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).touch()
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "mine", check=True)
    subprocess.run(["git", "add", "--all"], cwd=tmp_path / "mine", check=True)
    added = subprocess.check_output(["git", "ls-files"], cwd=tmp_path / "mine", text=True).split()
    kept = {".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "params.yaml", "pyproject.toml", RECORD}
    assert set(added) == kept | set(shipped_files())


def test_what_is_there_is_never_touched(tmp_path, pictures):
    init(tmp_path / "mine", "--demo")
    before = (tmp_path / "mine/dvc.yaml").stat().st_mtime_ns
    assert "is a project already; `flame upgrade`" in init(tmp_path / "mine", "--demo", code=2)
    assert "is not empty (00.jpg, 01.jpg" in init(pictures, "--images", pictures, code=2)
    assert (tmp_path / "mine/dvc.yaml").stat().st_mtime_ns == before
    assert "/proc/mine cannot be written: No such file" in init("/proc/mine", "--demo", code=3)


def test_a_failure_leaves_nothing_and_the_same_command_can_be_given_again(tmp_path, pictures):
    table = pictures / "captions.csv"
    text = table.read_text()
    table.unlink()
    assert "none has a caption" in init(tmp_path / "mine", "--images", pictures, "--device", "cpu", code=3)
    assert not (tmp_path / "mine").exists()
    table.write_text(text)
    init(tmp_path / "mine", "--images", pictures, "--device", "cpu")


def test_a_folder_that_a_kill_left_is_no_project(tmp_path, monkeypatch):
    def killed(root: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(creation, "_initialise_dvc", killed)
        with pytest.raises(KeyboardInterrupt):
            creation.create(tmp_path / "mine", "recipes: [flame]\n")
    with pytest.raises(ParamsError, match=r"mine is not empty \(.*params\.yaml"):
        creation.require_new(tmp_path / "mine")


def test_a_terminal_is_asked_for_what_the_options_leave_open(pictures, tmp_path):
    shell, terminal = pty.openpty()
    command = [sys.executable, "-m", "flame_core", "init", "mine", "--device", "cpu"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    os.write(shell, b"pictures\nde\n")
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(shell, 4096):
            said += part
    assert process.wait() == 0, said.decode()
    assert b"Folder of your pictures or shards" in said and b"Language of captions" in said
    assert read_yaml(tmp_path / "mine/params.yaml")["evaluate"]["train_language"] == "de"


def test_without_a_terminal_nothing_is_asked(tmp_path):
    assert "say what to train on: --images FOLDER" in init(tmp_path / "mine", code=2)
    assert "take one of" in init(tmp_path / "mine", "--demo", "--images", tmp_path, code=2)
    said = init(tmp_path / "mine", "--images", tmp_path, "--language", "a b", code=2)
    assert said.startswith("--language: ")


def test_a_project_whose_name_begins_with_a_dash_is_entered(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = init("--images", pictures, "--language", "en", "--device", "cpu", "--", "-mine")
    (command,) = [line.strip() for line in told.splitlines() if line.strip().startswith("cd ")]
    assert command == "cd ./-mine"
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False).returncode == 0
