"""The folder `mlflow/` stands beside the package of that name and must never hide it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_folder_mlflow_holds_no_python():
    assert [path.name for path in (ROOT / "mlflow").rglob("*.py*")] == []


def test_in_the_repository_root_mlflow_is_the_library():
    code = "import importlib.util; print(importlib.util.find_spec('mlflow').origin)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found = Path(done.stdout.strip())
    assert found.name == "__init__.py" and not found.is_relative_to(ROOT / "mlflow")
