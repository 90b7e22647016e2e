"""`flame params check` as a command: its exit code, and what it prints."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from flame_core import cli
from tests.preflight.test_data_fit import shards

ROOT = Path(__file__).parents[2]


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Runs the command in a copy of the demo's params, with 51 training pictures."""
    from flame_core.layout import Layout

    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("recipes", "presets"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shards(Layout.find(tmp_path), 51, 200)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["flame", "params", "check", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), " ".join(capsys.readouterr().err.split())

    return run


def test_warnings_are_printed_and_are_no_mistakes(said):
    code, text = said()
    assert code == 0 and "is valid" in text
    assert "warning: params.yaml, line " in text and "train.batch_size: 128, and there are 51 training pictures" in text


def test_mistakes_are_listed_and_are_a_usage_error(said):
    code, text = said("--set", "text.layer=31", "--set", "evaluate.languages=[xx]")
    assert code == 2 and "error: " in text and "params.yaml is not valid:" in text
    assert "--set text.layer=31, text.layer: smollm2-135m-instruct has 30 layers" in text
    assert "--set evaluate.languages=[xx], evaluate.languages.0: unknown language 'xx'" in text


def test_a_preset_has_a_name(said):
    code, text = said("--preset", "flickr8k")
    assert code == 2 and "flickr8k.yaml, line 12, sources.flickr8k.path: " in text
    code, text = said("--preset", "flickr")
    assert (
        code == 2 and "preset 'flickr' does not exist (known presets: cc3m-vitb16, demo-curation, demo-gemma, d" in text
    )
