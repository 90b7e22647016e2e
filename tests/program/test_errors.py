"""How the commands of ours end when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMANDS = ["flame_core", "orchestration.materialize", "orchestration.ui.servers"]


@pytest.mark.parametrize("module", COMMANDS)
def test_a_wrong_setting_ends_in_a_sentence(module, tmp_path):
    arguments = ["status"] if module == "flame_core" else []
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=tmp_path,
        env={**os.environ, "FLAME_LOG_LEVEL": "LOUD", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: settings (environment or .env): FLAME_LOG_LEVEL: Input should be 'DEBUG',")
    assert "Traceback" not in done.stderr
