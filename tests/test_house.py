"""The shape of the house: nothing hides the library mlflow, and packages import one another in one direction."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
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
    for file, names in imports_of("flame_core"):
        own = file.relative_to("flame_core").parts[0].removesuffix(".py")
        others = {name.split(".")[1] for name in names if name.startswith("flame_core.")}
        graph.setdefault(own, set()).update(others - {own})
    assert "training" in graph["stages"]  # the test sees imports within functions
    list(TopologicalSorter(graph).static_order())  # raises a CycleError that names the circle


def test_flame_core_stands_without_orchestration():
    """The command line is above both: `flame ui` alone starts what `orchestration` has."""
    users = {str(file) for file, names in imports_of("flame_core") if any(n.startswith("orchestration") for n in names)}
    assert users == {"flame_core/commands/project.py"}


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        (r"dvc(_data|_objects|_render)?|scmrepo", {"flame_core/dvc_project", "flame_core/repro"}),
        ("dagster", {"flame_core/tracking"}),  # whether an instance of this project knows a run
    ],
)
def test_a_library_of_the_orchestration_is_imported_in_few_rooms(library: str, rooms: set[str]):
    found = {
        str(file.parent)
        for file, names in imports_of("flame_core")
        if any(re.fullmatch(library, name.partition(".")[0]) for name in names)
    }
    assert found == rooms


@pytest.mark.parametrize(
    ("room", "known", "unknown"),
    [
        ("flame_core.process_trees", (), ("mlflow", "dagster", "dvc")),
        ("flame_core.dvc_project", ("flame_core.process_trees",), ("mlflow", "dagster")),
        ("orchestration.dagster_dvc", ("flame_core.process_trees", "flame_core.dvc_project"), ("mlflow",)),
    ],
)
def test_rooms_for_any_dvc_project_know_nothing_of_flame(room: str, known: tuple[str, ...], unknown: tuple[str, ...]):
    code = (
        f"import pkgutil, sys, {room} as package\n"
        "for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "    __import__(module.name)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert [name for name in names if name.partition(".")[0] in unknown] == []
    ours = [name for name in names if name.startswith(("flame_core.", "orchestration."))]
    assert [name for name in ours if not name.startswith((room, *known))] == []


def imports_of(folder: str) -> Iterator[tuple[Path, list[str]]]:
    """Each Python file below a folder of the repository, with the modules that it imports anywhere."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        names = []
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module in ("flame_core", "orchestration"):
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
        yield file.relative_to(ROOT), names


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_a_benchmark_can_be_imported(name: str):
    """No other test runs them."""
    import_module(f"benchmarks.{name}")
