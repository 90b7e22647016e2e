"""What the README and docs/using-a-model.md say of using a model runs as it is written there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import flame_core
from flame_core import cli
from tests.data.drawings import drawing, encoded
from tests.measuring import world
from tests.model.champions import champion_here

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/using-a-model.md")


def blocks(language: str) -> list[str]:
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [block for page in PAGES for block in fence.findall((ROOT / page).read_text("utf-8"))]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byte_tokenizer):
    return champion_here(tmp_path, monkeypatch, byte_tokenizer)


@pytest.mark.slow
def test_every_example_runs(project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for number, name in enumerate(("bird.jpg", "boat.jpg", "home/Pictures/a/one.jpg", "home/Pictures/two.jpg")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(drawing(number, (60, 50)), "JPEG"))
    programs = [block for block in blocks("python") if "flame_core.load" in block]
    assert len(programs) == 2
    for program in programs:
        found: dict = {}
        exec(program, found)
        assert found["z"].shape == (2, world.DIMENSIONS) and found["z"].dtype == np.float32
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ flame ")]
    ours = [line for line in lines if line.split()[1] in ("query", "embed-images")]
    assert len(ours) >= 10
    for line in ours:
        arguments = [
            str(Path(each).expanduser()) if each[0] == "~" else each for each in shlex.split(line, comments=True)
        ]
        done = CliRunner().invoke(cli.app, arguments[1:])
        assert done.exit_code == 0, (line, done.output, done.exception)
    assert np.load("pictures.npy").shape == (2, world.DIMENSIONS) and Path("found.html").is_file()


@pytest.mark.slow
def test_the_champion_is_the_model_that_was_trained(project, tmp_path: Path):
    """Also its texts; and it is copied from MLflow once."""
    trained, champion = flame_core.load("data/models/plain"), flame_core.load()
    pictures = [world.jpeg(0), world.jpeg(1)]
    np.testing.assert_array_equal(champion.encode_image(pictures), trained.encode_image(pictures))
    texts = ["something nobody wrote", "ein Boot"]
    np.testing.assert_allclose(champion.encode_text(texts), trained.encode_text(texts), atol=1e-5)
    assert champion.of_pictures == trained.of_pictures
    shutil.rmtree(tmp_path / ".flame" / "mlflow" / "artifacts")
    assert flame_core.load("models:/flame/1").folder == champion.folder
    assert champion.version == "models:/flame/1" and trained.version is None
    assert champion.title == "models:/flame@champion (models:/flame/1)"
    assert flame_core.load("models:/flame/1").title == "models:/flame/1" and trained.title == "data/models/plain"
