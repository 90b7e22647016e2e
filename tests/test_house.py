"""The shape of the house: nothing hides the library mlflow, and no packages import one another in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_folder_mlflow_holds_no_python():
    assert [path.name for path in (ROOT / "mlflow").rglob("*.py*")] == []


def test_in_the_repository_root_mlflow_is_the_library():
    code = "import importlib.util; print(importlib.util.find_spec('mlflow').origin)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found = Path(done.stdout.strip())
    assert found.name == "__init__.py" and "site-packages" in found.parts


def test_no_packages_import_one_another_in_a_circle():
    """Lazy imports within functions count too."""
    graph: dict[str, set[str]] = {}
    for file in (ROOT / "flame_core").rglob("*.py"):
        own = file.relative_to(ROOT / "flame_core").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module] if node.module != "flame_core" else [f"flame_core.{name}" for name in names]
            others = {name.split(".")[1] for name in names if name.startswith("flame_core.")}
            graph.setdefault(own, set()).update(others - {own})
    assert "training" in graph["stages"]  # the test sees imports within functions
    list(TopologicalSorter(graph).static_order())  # raises a CycleError that names the circle


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_a_benchmark_can_be_imported(name: str):
    """No other test runs them."""
    import_module(f"benchmarks.{name}")
