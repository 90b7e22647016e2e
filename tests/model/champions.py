"""A project whose first recipe's model is the champion in MLflow, as `flame promote` leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.digest import file_sha256, write_json
from flame_core.layout import Layout
from flame_core.measuring.text_side import texts_of
from flame_core.params import Params
from flame_core.serving.package import package_files
from flame_core.settings import settings
from flame_core.text.store import TextStore
from flame_core.tracking import registry
from flame_core.tracking.journal import KEY_TAG, MODEL_TAG
from flame_core.tracking.store import experiment_id, local_address, open_client
from tests.conftest import tiny_llm
from tests.search.runs import run_here


def champion_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer) -> tuple[Params, Layout]:
    """Make it in `tmp_path` and go there; the project has a tiny LLM."""
    monkeypatch.delenv("FLAME_TRACKING_URI", raising=False)
    settings.cache_clear()
    params, layout = run_here(tmp_path, monkeypatch)
    llm = layout.llm / params.llm.name
    tiny_llm("llama").save_pretrained(llm)
    tokenizer.save_pretrained(llm)
    write_json(llm / "source.json", {"files": {}})
    recipe = params.recipes[0]
    side = texts_of(layout.model(recipe), params, layout, TextStore.open(layout.embeddings))
    package = tmp_path / "package"
    package.mkdir()
    files, contents = package_files(params, layout, recipe, side, [], "")
    for name, path in files.items():
        (package / name).write_bytes(path.read_bytes())
    for name, content in contents.items():
        (package / name).write_bytes(content)
    address = local_address(layout)
    client = open_client(address)
    experiment = experiment_id(client, address)
    run_id = client.create_run(experiment).info.run_id
    tags = {MODEL_TAG: file_sha256(layout.model(recipe) / "model.safetensors"), KEY_TAG: "made"}
    event = {"name": recipe, "tags": tags, "time": 1}
    model_id = registry.log_model(client, experiment, run_id, package, event)
    version = registry.register(client, "flame", run_id, model_id, event, "")
    client.set_registered_model_alias("flame", registry.CHAMPION, version)
    return params, layout
