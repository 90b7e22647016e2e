"""A project of its own with a few dozen real pictures and the real SmolLM2, driven as a user drives it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from flame_core.data.sources.debian import Debian
from flame_core.data.sources.listing import read_pairs
from flame_core.layout import Layout
from flame_core.params import DebianSource, merge, read_yaml
from flame_core.settings import settings
from flame_core.tracking.registry import number_with
from flame_core.tracking.store import local_address, open_client
from flame_core.work import WorkCache

ROOT = Path(__file__).parents[2]
PICTURES = 60


@dataclass(frozen=True)
class Project:
    """A folder with `params.yaml`, `dvc.yaml`, recipes and a DVC repository."""

    root: Path

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """`flame <arguments>` in a process group of its own."""
        scripts = Path(sys.executable).parent
        path = os.pathsep.join([str(scripts), os.environ["PATH"]])
        env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "2", **environment}
        return subprocess.Popen(
            [scripts / "flame", *arguments],
            cwd=self.root,
            env=env,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def flame(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run `flame <arguments>`; returns what it printed."""
        process = self.start(*arguments, **environment)
        output, _ = process.communicate()
        assert process.returncode == code, output
        return output

    def outs(self, root: Path | None = None) -> dict[str, bytes]:
        """Every file below `data/`, by name."""
        data = (root or self.root) / "data"
        return {path.relative_to(data).as_posix(): path.read_bytes() for path in data.rglob("*") if path.is_file()}

    def metrics(self, root: Path | None = None) -> dict[str, float]:
        return json.loads(((root or self.root) / "data/reports/flame/metrics.json").read_text())

    def change(self, over: dict) -> None:
        """Lay values over `params.yaml`."""
        path = self.root / "params.yaml"
        path.write_text(yaml.safe_dump(merge(read_yaml(path), over), sort_keys=False, allow_unicode=True))


@pytest.fixture(scope="session")
def stamps() -> Iterator[list]:
    """Pairs of Debian's Tux Paint stamps; the package is kept in the user's cache between test runs."""
    work = WorkCache(settings().cache_dir / "tests", "download")
    folder = Debian(DebianSource(kind="debian", packages=["tuxpaint-stamps-default"])).download(work).folder
    return list(read_pairs(folder, folder))


@pytest.fixture(scope="session")
def pictures(stamps, tmp_path_factory) -> Path:
    """A folder of real pictures with their captions in every language beside them."""
    folder = tmp_path_factory.mktemp("pictures")
    chosen = in_three_languages(stamps)
    write_pictures(folder, chosen[:: len(chosen) // PICTURES][:PICTURES])
    return folder


def in_three_languages(stamps: list) -> list:
    """The pairs that have English, German and French captions."""
    return [pair for pair in stamps if pair.image and "de" in pair.captions and "fr" in pair.captions]


def write_pictures(folder: Path, pairs: list) -> None:
    """Pairs as a folder source holds them: a picture, and its captions beside it."""
    for pair in pairs:
        place = folder / pair.category.partition("/")[2] / pair.key.rpartition("/")[2]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_suffix(pair.image.path.suffix).write_bytes(pair.image.read())
        place.with_suffix(".json").write_text(json.dumps({"captions": pair.captions}))


@pytest.fixture(scope="module")
def project(pictures, smollm2, tmp_path_factory) -> Project:
    """A fresh project on those pictures, without git; nothing has run in it yet."""
    root = tmp_path_factory.mktemp("project")
    for name in ("dvc.yaml", ".dvcignore", "params.yaml"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "recipes", root / "recipes")
    shutil.copy(ROOT / "versions.yaml", root / "versions.yaml")
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text((ROOT / ".dvc/config").read_text() + "    no_scm = true\n")
    made = Project(root)
    made.change(
        {
            "ingest": {"shard_samples": 16, "val_fraction": 0.3},
            "llm": {"name": "smollm2", "source": f"path:{smollm2}", "sha256": None},
            "text": {"layer": 4},
            "evaluate": {
                "languages": ["de", "fr"],
                "gates": {"min_recall_over_chance": 0.0},
            },
            "train": {
                "model": {
                    "image_size": 32,
                    "backbone_options": {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3},
                },
                "batch_size": 16,
                "epochs": 24,
                "warmup_steps": 2,
                "gates": {"max_loss_ratio": 10.0},  # a dozen steps learn little
            },
        }
    )
    content = read_yaml(root / "params.yaml")
    content["sources"] = {"pictures": {"kind": "folder", "path": str(pictures), "folders_are_categories": True}}
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return made


@dataclass(frozen=True)
class Tracked(Project):
    """A project with tracking on."""

    address: str

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return super().start(*arguments, **{"FLAME_TRACKING_URI": self.address, **environment})

    def alias(self, name: str) -> str | None:
        return number_with(self.client, "flame", name)

    @property
    def client(self):
        return open_client(self.address)

    def lineage(self, model: str, code: int = 0) -> dict:
        return json.loads(self.flame("lineage", model, "--json", code=code, FLAME_LOG_LEVEL="ERROR"))


@pytest.fixture(scope="module")
def tracked(project: Project) -> Tracked:
    """The project after a tracked run, whose model was promoted."""
    project.change({"evaluate": {"gates": {"min_recall_over_chance": 0.0}}, "promote": {"min_pictures": 1}})
    made = Tracked(project.root, local_address(Layout.find(project.root)))
    made.flame("run")
    assert "promoted" in made.flame("promote")
    return made
