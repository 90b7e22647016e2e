"""Commands in a locale whose encoding is not UTF-8."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from flame_core.params import read_yaml
from tests.stages.pipeline import ROOT, folder_source, tree, write_pairs

NO_UTF8 = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
PROGRAM = """
import os, sys
from flame_core.program.utf8_mode import in_utf8_mode
in_utf8_mode()
print(os.getpid(), sys.getfilesystemencoding(), *sys.argv[1:], *sorted(os.listdir()), flush=True)
sys.exit(os.system(sys.executable + " -c 'import sys; print(sys.getfilesystemencoding())'"))
"""


def test_names_are_read_as_utf8_in_the_same_process_and_its_children(tmp_path):
    (tmp_path / "Größe.txt").touch()
    command = [sys.executable, "-c", PROGRAM, "ein Boot", "für"]
    started = subprocess.Popen(command, cwd=tmp_path, env=NO_UTF8, stdout=subprocess.PIPE)
    said, _ = started.communicate()
    assert said.decode().splitlines() == [f"{started.pid} utf-8 ein Boot für Größe.txt", "utf-8"]


@pytest.mark.parametrize("switch", ["utf8=0", "utf8"])
def test_a_python_that_was_told_its_encoding_ends(switch, tmp_path):
    program = "from flame_core.program.utf8_mode import in_utf8_mode; in_utf8_mode()"
    subprocess.run([sys.executable, "-X", switch, "-c", program], env=NO_UTF8, check=True, timeout=60)


def test_a_stage_makes_the_same_bytes_in_every_locale(tmp_path):
    write_pairs(tmp_path / "pictures", range(2))
    for suffix in (".png", ".txt"):
        (tmp_path / "pictures/0000").with_suffix(suffix).rename((tmp_path / "pictures/Größe").with_suffix(suffix))
    made = []
    for name, environment in (("utf8", os.environ), ("c", NO_UTF8)):
        root = tmp_path / name
        root.mkdir()
        content = read_yaml(ROOT / "params.yaml") | {"sources": {"mine": folder_source(tmp_path / "pictures")}}
        (root / "params.yaml").write_text(yaml.safe_dump(content))
        for shipped in ("dvc.yaml", "versions.yaml"):
            shutil.copy(ROOT / shipped, root)
        shutil.copytree(ROOT / "recipes", root / "recipes")
        command = [sys.executable, "-m", "flame_core", "download"]
        subprocess.run(command, cwd=root, env={**environment, "PYTHONPATH": str(ROOT)}, check=True)
        made.append(tree(root / "data/raw"))
    assert made[0] == made[1]
    assert "Größe.png" in made[0]["mine/manifest.jsonl"].decode()
