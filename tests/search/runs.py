"""A finished run in the working directory, as `flame query` finds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flame_core.digest import write_json
from flame_core.layout import Layout
from flame_core.model.given_pictures import read_file
from flame_core.model.loaded import Model
from flame_core.model.locate import model_of_run
from flame_core.params import Params
from flame_core.search.ask import Found, Hit, Searcher
from tests.stages.finished_run import finished_run


def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Params, Layout]:
    """Make one in `tmp_path` and go there."""
    params, layout = finished_run(tmp_path)
    write_json(layout.params, params.model_dump(mode="json", exclude={"train"}))  # JSON is YAML
    for name, recipe in params.train.items():
        write_json(layout.recipes / f"{name}.yaml", recipe.model_dump(mode="json"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    return params, layout


def ask_text(params: Params, layout: Layout, model: Model, text: str, **options: Any) -> Found:
    """What a searcher of its own finds for a text."""
    return Searcher(params, layout, model).text(text, **options)


def ask_picture(params: Params, layout: Layout, model: Model, picture: Path, **options: Any) -> Found:
    """What a searcher of its own finds for a picture file."""
    return Searcher(params, layout, model).picture(read_file(picture), **options)


def search(params: Params, layout: Layout, recipe: str, text: str, **options: Any) -> Sequence[Hit]:
    """What a recipe's model finds for a text."""
    return ask_text(params, layout, model_of_run(params, layout, recipe), text, **options).hits
