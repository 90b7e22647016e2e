"""The wheel holds all that a project is made of; nothing is read from the repository."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.project.test_data_survey import jpeg
from tests.wheel import ROOT, Installed


def texts(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.yaml")}


def test_the_wheel_ships_the_files_of_this_project(installed: Installed, tmp_path):
    said = installed.python("-c", "from flame_core.shipped import shipped; print(shipped('.'))", cwd=tmp_path)
    folder = Path(said.strip())
    assert folder.is_relative_to(installed.folder)
    for name in ("dvc.yaml", "requirements.lock"):
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    for name in ("recipes", "presets"):
        assert texts(folder / name) == texts(ROOT / name) != {}


def test_the_servers_of_the_interfaces_find_their_files_in_the_wheel(installed: Installed, tmp_path):
    code = (
        "from pathlib import Path\n"
        "from flame_core.layout import Layout\n"
        "from orchestration.ui.servers import prepare, servers\n"
        "layout = Layout.find(Path.cwd())\n"
        "home = prepare(layout)\n"
        "assert (home / 'dagster.yaml').is_file()\n"
        "print(servers(layout, home)[-1].command[-1])\n"
    )
    said = installed.python("-c", code, cwd=tmp_path)
    script = Path(said.strip().splitlines()[-1])
    assert script.is_file() and script.is_relative_to(installed.folder)


def test_a_project_of_the_wheel_checks_and_plans_without_the_repository(installed: Installed, tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(20):
        (tmp_path / "pictures" / f"{number:02d}.jpg").write_bytes(jpeg(number))
        (tmp_path / "pictures" / f"{number:02d}.txt").write_text(f"bird number {number}\n")
    said = installed.flame("init", "mine", "--images", "pictures", "--device", "cpu", cwd=tmp_path)
    assert "pictures with captions  20" in said
    project = tmp_path / "mine"
    assert "is valid" in installed.flame("params", "check", cwd=project)
    assert f"{project} is up to date" in installed.flame("upgrade", "--check", cwd=project)
    stages = json.loads(installed.python("-m", "dvc", "status", "--json", cwd=project).splitlines()[-1])
    assert stages.keys() == {
        "download", "fetch_llm", "ingest", "caption", "embed", "train@flame", "evaluate@flame", "baselines", "compare"
    }  # fmt: skip
    status = installed.flame("status", cwd=project / "recipes", code=1)
    assert "would run" in status
    installed.flame("download", cwd=project)
    assert "preset 'none' does not exist (known presets: cc3m-vitb16," in installed.flame(
        "params", "check", "--preset", "none", cwd=project, code=2
    )
    assert "# Params and settings" in installed.flame("docs", "params", cwd=project)
    assert "# What a digest of params covers" in installed.flame("docs", "decisions/digests", cwd=project)


def test_dagster_loads_the_assets_in_a_project_of_the_wheel(installed: Installed, tmp_path):
    installed.flame("init", "mine", "--demo", cwd=tmp_path)
    said = installed.python("-m", "dagster", "definitions", "validate", cwd=tmp_path / "mine")
    assert "Validation successful for code location flame" in said


@pytest.mark.slow
def test_the_interfaces_open_in_a_project_of_the_wheel(installed: Installed, tmp_path):
    installed.flame("init", "mine", "--demo", cwd=tmp_path)
    ports = [str(free_port()), str(free_port())]
    variables = installed.variables | {"FLAME_DAGSTER_PORT": ports[0], "FLAME_MLFLOW_PORT": ports[1]}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flame_core", "ui"], cwd=tmp_path / "mine", env=variables, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 240
        while b"Ctrl-C ends both" not in (tmp_path / "log").read_bytes():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.5)
        for port in ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
                assert answer.status == 200
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_this_repository_is_up_to_date_for_the_wheel(installed: Installed):
    said = installed.flame("upgrade", "--check", cwd=ROOT)
    assert f"{ROOT} is up to date" in said
