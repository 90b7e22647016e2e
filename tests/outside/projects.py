"""Projects whose stages read from this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from flame_core.layout import Layout
from flame_core.outside.inputs import outside_stages
from flame_core.outside.noted import changed_inputs, look, note
from flame_core.params import Params, merge, read_yaml
from flame_core.workspace import resolve_params
from tests.data.drawings import png
from tests.suite import datasets

ROOT = Path(__file__).parents[2]
DEFINITION = {
    "title": "many",
    "task": {"kind": "retrieval"},
    "languages": ["en", "zh"],
    "data": {"layout": "crossmodal3600", "path": "many", "obtain": "ask"},
}


def add(folder: Path, *numbers: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        (folder / f"{number}.png").write_bytes(png(number))
        (folder / f"{number}.txt").write_text(f"drawing number {number}")


def changed(layout: Layout) -> dict[str, list[str]]:
    return changed_inputs(resolve_params(layout, [], None).params, layout)


def note_seen(params: Params, layout: Layout, stage: str) -> None:
    note(layout, stage, look(outside_stages(params, layout)[stage]))


def set_params(layout: Layout, change: dict[str, Any]) -> None:
    layout.params.write_text(yaml.safe_dump(merge(read_yaml(layout.params), change)))


def of_a_captioner(layout: Layout) -> Path:
    folder = layout.root / "models/vlm"
    folder.mkdir(parents=True)
    chosen = {"captioner": "vlm", "model": "path:models/vlm", "prompt": "Describe the picture."}
    set_params(layout, {"caption": {"long": chosen}})
    return folder / "model.safetensors"


def of_a_table(layout: Layout) -> Path:
    set_params(layout, {"caption": {"long": {"captioner": "table", "path": "captions.csv"}}})
    return layout.root / "captions.csv"


def of_a_benchmark(layout: Layout) -> Path:
    datasets.crossmodal(layout.root / "datasets/many")
    set_params(layout, {"evaluate": {"benchmarks": {"data": "datasets", "names": ["sets/many.yaml"]}}})
    return layout.root / "datasets/many/captions.jsonl"


def of_a_definition(layout: Layout) -> Path:
    of_a_benchmark(layout)
    return layout.root / "sets/many.yaml"


def of_a_baseline(layout: Layout) -> Path:
    (layout.root / "models").mkdir()
    set_params(layout, {"evaluate": {"baselines": {"net": "timm:resnet10t@models/net.safetensors"}}})
    return layout.root / "models/net.safetensors"


def of_a_scorer(layout: Layout) -> Path:
    (layout.root / "models/clip").mkdir(parents=True)
    scorers = {"clip": {"kind": "model", "source": "transformers:models/clip"}}
    set_params(layout, {"scores": {"scorers": scorers}})
    return layout.root / "models/clip/model.safetensors"


def of_a_tagger(layout: Layout) -> Path:
    (layout.root / "models/clip").mkdir(parents=True)
    tagger = {"kind": "model", "source": "transformers:models/clip"}
    set_params(layout, {"concepts": {"nouns": {}, "images": {"tagger": tagger, "threshold": 0.5}}})
    return layout.root / "models/clip/model.safetensors"


def of_a_teacher(layout: Layout) -> Path:
    (layout.root / "models/clip").mkdir(parents=True)
    recipe = read_yaml(layout.root / "recipes/flame.yaml") | {"teacher": {"model": "transformers:models/clip"}}
    (layout.root / "recipes/student.yaml").write_text(yaml.safe_dump(recipe))
    set_params(layout, {"recipes": ["flame", "student"]})
    return layout.root / "models/clip/model.safetensors"


def set_up_dvc(layout: Layout) -> None:
    for name in ("dvc.yaml", ".dvcignore", "versions.yaml"):
        shutil.copy(ROOT / name, layout.root)
    shutil.copytree(ROOT / ".dvc", layout.root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    subprocess.run(["git", "init", "--quiet"], cwd=layout.root, check=True)
