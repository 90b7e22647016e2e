"""The wheel holds all that a project is made of; nothing is read from the repository."""

from __future__ import annotations

from pathlib import Path

from tests.project.conftest import ROOT, Installed


def test_the_wheel_ships_the_files_of_this_project(installed: Installed, tmp_path):
    said = installed.python("-c", "from flame_core.shipped import shipped; print(shipped('.'))", cwd=tmp_path)
    folder = Path(said.strip())
    assert folder.is_relative_to(installed.folder)
    for name in ("dvc.yaml", "requirements.lock"):
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    for name in ("recipes", "presets"):
        ours = {path.name: path.read_bytes() for path in (ROOT / name).glob("*.yaml")}
        assert ours == {path.name: path.read_bytes() for path in (folder / name).iterdir()} and ours


def test_the_servers_of_the_interfaces_find_their_files_in_the_wheel(installed: Installed, tmp_path):
    code = (
        "from pathlib import Path\n"
        "from flame_core.layout import Layout\n"
        "from orchestration.ui import prepare, servers\n"
        "layout = Layout.find(Path.cwd())\n"
        "home = prepare(layout)\n"
        "assert (home / 'dagster.yaml').is_file()\n"
        "print(servers(layout, home)[-1].command[-1])\n"
    )
    said = installed.python("-c", code, cwd=tmp_path)
    script = Path(said.strip().splitlines()[-1])
    assert script.is_file() and script.is_relative_to(installed.folder)
