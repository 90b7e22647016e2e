from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flame_core import cli

ROOT = Path(__file__).parent.parent
STAGES = ["download", "fetch-llm", "ingest", "caption", "embed", "train", "evaluate", "baselines", "compare"]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_lists_every_stage_and_imports_nothing_heavy():
    done = python(
        "import sys\n"
        "sys.argv = ['flame', '--help']\n"
        "from flame_core.cli import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'transformers', 'timm', 'numpy', 'pyarrow', 'pydantic', 'dvc', 'dagster', 'mlflow'}\n"
        "    print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    for stage in STAGES:
        assert stage in done.stdout


def test_every_module_imports_without_dagster_and_dvc():
    done = python(
        "import importlib, pkgutil, sys\n"
        "for name in ('dagster', 'dvc', 'mlflow'):\n    sys.modules[name] = None\n"
        "import flame_core\n"
        "for module in pkgutil.walk_packages(flame_core.__path__, 'flame_core.'):\n"
        "    if module.name != 'flame_core.serving.pyfunc_model':  # the code that MLflow itself runs\n"
        "        importlib.import_module(module.name)\n"
    )
    assert done.returncode == 0, done.stderr


def test_training_needs_no_package_of_the_pipeline():
    done = python(
        "import sys\n"
        "for name in ('dagster', 'dvc', 'mlflow', 'webdataset', 'transformers'):\n    sys.modules[name] = None\n"
        "import flame_core.training.loop, flame_core.processes.launcher, flame_core.training.job\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_stages_of_dvc_yaml_are_commands():
    import yaml

    commands = {info.name or info.callback.__name__.replace("_", "-") for info in cli.app.registered_commands}
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values():
        assert stage["cmd"].split()[1] in commands


@pytest.mark.parametrize("arguments", [[], ["flame", "--recipe", "flame"]])
def test_one_recipe_is_named(project, arguments):
    for command in ("train", "evaluate"):
        done = CliRunner().invoke(cli.app, [command, *arguments])
        assert done.exit_code == 2 and "name one recipe" in done.output


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    for name in ("params.yaml", "dvc.yaml", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capsys, monkeypatch, *arguments: str) -> tuple[int, str]:
    """Exit code and message of a command line that ends with an error."""
    monkeypatch.setattr(sys, "argv", ["flame", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, " ".join(capsys.readouterr().err.split())


def test_a_wrong_override_is_a_usage_error(project, capsys, monkeypatch):
    code, message = fails(capsys, monkeypatch, "params", "check", "--set", "train.epoch=3")
    assert code == 2
    assert "--set train.epoch=3, train.epoch: unknown key; did you mean 'epochs'" in message


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train.epochs=[1"])
def test_an_override_that_cannot_be_read_is_quoted(project, capsys, monkeypatch, override):
    code, message = fails(capsys, monkeypatch, "params", "check", "--set", override)
    assert code == 2
    assert override in message


def test_an_unknown_recipe_names_the_known_ones(project, capsys, monkeypatch):
    code, message = fails(capsys, monkeypatch, "train", "flam")
    assert code == 2
    assert "'flam' is not among the recipes" in message
    assert message.endswith("flame")


def test_a_stage_without_its_input_says_what_to_run(project, capsys, monkeypatch):
    code, message = fails(capsys, monkeypatch, "train", "flame")
    assert code == 3
    assert "checks.json is missing: run `flame ingest` first" in message


def test_a_wrong_setting_names_its_variable(project, capsys, monkeypatch):
    from flame_core.settings import settings

    monkeypatch.setenv("FLAME_WORKERS", "none")
    settings.cache_clear()
    code, message = fails(capsys, monkeypatch, "params", "check")
    assert code == 2
    assert "FLAME_WORKERS" in message


def test_params_check_shows_what_would_run(project):
    shown = CliRunner().invoke(cli.app, ["params", "check"])
    assert shown.exit_code == 0


def test_settings_that_cannot_be_read_are_one_sentence(project, capsys, monkeypatch):
    from flame_core.settings import settings

    for content, message in (
        (b"FLAME_WORKERS=\xff", ".env must be UTF-8 text"),
        (b"FLAME_REGISTERED_MODEL=a'b", "pattern"),
    ):
        (project / ".env").write_bytes(content)
        settings.cache_clear()
        code, said = fails(capsys, monkeypatch, "params", "check")
        assert code == 2 and message in said


@pytest.mark.parametrize("content", [b"a: caf\xe9", b"a: 1\na: 2", b"[" * 100_000, b"a: &a [*a]", b"a: 2026-01-01"])
@pytest.mark.parametrize("file", ["params.yaml", "recipes/flame.yaml", "preset.yaml"])
def test_hostile_files_of_params_are_usage_errors(project, capsys, monkeypatch, file, content):
    (project / "recipes").unlink()
    shutil.copytree(ROOT / "recipes", project / "recipes")
    (project / file).unlink(missing_ok=True)
    (project / file).write_bytes(content)
    preset = ["--preset", "preset.yaml"] if file == "preset.yaml" else []
    code, message = fails(capsys, monkeypatch, "params", "check", *preset)
    assert code == 2
    assert Path(file).name in message and "line" in message and len(message) < 700


def test_the_version_names_the_commit_of_the_tree():
    shown = CliRunner().invoke(cli.app, ["--version"])
    assert shown.exit_code == 0
    assert re.fullmatch(r"flame \d\S*( \(commit [0-9a-f]{12}( and changes to tracked files)?\))?\n", shown.output)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("flame tra", {"train", "tracking"}), ("flame train flame-", {"flame-facets", "flame-infonce", "flame-raw"})],
)
def test_the_shell_completes_commands_and_recipes(words, expected):
    environment = {**os.environ, "_FLAME_COMPLETE": "complete_bash", "COMP_WORDS": words}
    environment["COMP_CWORD"] = str(len(words.split()) - 1)
    code = "import sys; sys.argv = ['flame']; from flame_core.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_be_told_how_to_complete(shell):
    environment = {**os.environ, "_FLAME_COMPLETE": f"source_{shell}"}
    code = "import sys; sys.argv = ['flame']; from flame_core.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert "_FLAME_COMPLETE" in done.stdout and "flame" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "query bird",
        "lineage models:/flame/1",
        "reproduce models:/flame/1",
        "tracking status",
        "tracking replay",
    ],
)
def test_outside_of_a_project_a_command_says_how_to_make_one_and_leaves_nothing(tmp_path, monkeypatch, capsys, command):
    from flame_core.settings import settings

    monkeypatch.delenv("FLAME_TRACKING_URI", raising=False)
    settings.cache_clear()
    monkeypatch.chdir(tmp_path)
    code, message = fails(capsys, monkeypatch, *command.split())
    assert code == 2 and "`flame init` makes one" in message
    assert not list(tmp_path.iterdir())


def test_commands_work_from_any_subfolder(project, capsys, monkeypatch):
    inside = project / "data" / "models" / "mine"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    code, message = fails(capsys, monkeypatch, "train", "flame")
    assert code == 3 and f"{project}/data/shards/checks.json is missing" in message


def test_the_settings_are_those_of_the_project_in_any_subfolder(project, capsys, monkeypatch):
    from flame_core.settings import settings

    (project / ".env").write_text("FLAME_WORKERS=none\n")
    (project / "deep").mkdir()
    monkeypatch.chdir(project / "deep")
    settings.cache_clear()
    code, message = fails(capsys, monkeypatch, "params", "check")
    assert code == 2 and "FLAME_WORKERS" in message


def test_a_stage_says_that_it_starts_before_heavy_imports(project):
    code = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'numpy', 'pyarrow', 'flame_core.params'):\n"
        "            sys.exit(f'imported {name}')\n"
        "sys.meta_path.insert(0, Stop())\n"
        "sys.argv = ['flame', 'train', 'flame']\n"
        "from flame_core.cli import main\n"
        "main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=project, env=environment, capture_output=True, text=True)
    assert done.stderr.splitlines() == ["flame train flame ...", "imported flame_core.params"]
