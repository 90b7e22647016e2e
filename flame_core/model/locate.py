"""Finds a model by its name: a version in MLflow, a packaged model in any folder, or the folder of a training.

A packaged model (`serving.package`) is complete but for the frozen LLM, which is taken from the project,
`data/llm/<name>`, unless `FLAME_SERVING_LLM` names its folder. A training's folder belongs to its project: the params
of that project say how texts are read, and texts that it has embedded need no LLM.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_core import gates
from flame_core.absent_outs import absent
from flame_core.digest import file_sha256, value_digest
from flame_core.errors import InputError
from flame_core.layout import Layout, is_root
from flame_core.measuring.text_side import side_in
from flame_core.model.loaded import Model, Parts
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.names import expanded
from flame_core.params import IngestParams, LLMParams, Params, TextParams, load_params
from flame_core.settings import settings
from flame_core.text.manifest import require_fit
from flame_core.text.store import CENTER, TextStore
from flame_core.verification import verify

if TYPE_CHECKING:
    from flame_core.text.encoder import TextEncoder

SERVING = "serving.json"  # as in serving.package, whose import would load torch
_LLM_VARIABLE = "FLAME_SERVING_LLM"  # as in serving.predictor


def find_model(name: str | os.PathLike[str], project: str | os.PathLike[str] | None = None) -> Model:
    """The model of a name (see `flame_core.load`), none of whose parts is loaded yet.

    Raises:
        InputError: there is no such model.
        ResourceError: MLflow is needed, and off or not there.
    """
    named = os.fspath(name)
    layout = Layout.find(Path(project) if project is not None else None)
    if named.startswith(("models:/", "runs:/")):
        from flame_core.model.versions import package_of  # MLflow

        package = package_of(layout, named)
        return _packaged(named, package.folder, layout, package.version)
    folder = expanded(named).absolute()  # not resolved: `data/` may be a link to another disk
    if project is not None or not folder.is_dir():
        folder = layout.root / expanded(named)
    if (folder / SERVING).is_file():
        return _packaged(named, folder, layout)
    if not (folder / WEIGHTS).is_file():
        lost = (
            "" if is_root(layout.root) else f"; {layout.root} is no project, so name the model's (in Python: project=)"
        )
        raise InputError(
            f"{named!r} is not a model: write models:/<name>@<alias>, models:/<name>/<version>, runs:/<id>, or the "
            f"folder of a model, such as data/models/flame ({absent(folder / WEIGHTS)}){lost}"
        )
    own = Layout.find(folder.parents[2]) if len(folder.parents) > 2 else layout
    if own.model(folder.name).resolve() != folder.resolve() or not own.params.is_file():
        raise InputError(
            f"{folder} is a model outside of its project, whose params.yaml and data/embeddings say how texts are "
            "read: name it where it was trained (<project>/data/models/<recipe>), or by its version in MLflow"
        )
    return model_of_run(load_params(own), own, folder.name, named)


def model_of_run(params: Params, layout: Layout, recipe: str, name: str | None = None) -> Model:
    """The model of a recipe of this run.

    Raises:
        InputError: it is not there, or does not fit the texts of this run.
        GateError: it, or the embeddings, failed a quality gate.
    """
    folder = layout.model(recipe)
    gates.require(folder)
    config = _read_config(folder)

    def open_parts() -> Parts:
        from flame_core.measuring.image_vectors import require_same_space
        from flame_core.vision.image_encoder import load_encoder

        gates.require(layout.embeddings)
        store = TextStore.open(layout.embeddings)
        require_fit(store.manifest, params, layout)
        require_same_space(config, store.manifest, folder)
        verify({folder: ["*"]})
        side = side_in(folder).of_model(folder, store, open_llm)
        return Parts(load_encoder(folder, settings().torch_device()), side)

    @cache
    def open_llm() -> TextEncoder:
        from flame_core.text.encoder import TextEncoder

        _require_llm(layout.llm / params.llm.name, params.llm, config, f"run `flame fetch-llm` in {layout.root}")
        return TextEncoder.open(params, layout)

    centers = {path.parent.name: file_sha256(path) for path in sorted(layout.train_embeddings.rglob(CENTER))}
    content = params.model_dump(mode="json", include={"text", "llm"})
    text = {**content, "centers": centers}
    return Model(name or f"data/models/{recipe}", folder, params.ingest, text, config, open_parts)


def _packaged(name: str, folder: Path, layout: Layout, version: str | None = None) -> Model:
    config, content = _read_config(folder), _read(folder / SERVING)

    def open_llm(llm: LLMParams, text: TextParams, adapter: Path | None) -> TextEncoder:
        from flame_core.text.encoder import TextEncoder

        place = Path(os.environ.get(_LLM_VARIABLE) or layout.llm / llm.name)
        way = f"run `flame fetch-llm` in the project that trained the model, or set {_LLM_VARIABLE} to the LLM's folder"
        _require_llm(place, llm, config, way)
        return TextEncoder.load(place, text, llm, settings().torch_device(), adapter=adapter)

    def open_parts() -> Parts:
        from flame_core.serving.predictor import Predictor

        opened = Predictor(folder, open_llm)
        return Parts(opened.encoder, opened.side)

    text = {name: content.get(name) for name in ("text", "llm", "text_facets", "facets")}
    ingest = IngestParams.model_validate(content.get("ingest", {}))
    return Model(name, folder, ingest, text, config, open_parts, version)


def _require_llm(place: Path, llm: LLMParams, config: Mapping[str, Any], way: str) -> None:
    """Refuse a folder that does not hold the LLM that a model was trained against; `way` says how it gets there."""
    source = place / "source.json"
    if not source.is_file():
        raise InputError(
            f"this text needs the frozen LLM {llm.name}, which is not in {place}: {way}. Pictures need none"
        )
    expected = (config.get("llm") or {}).get("digest")
    if expected and value_digest(_read(source).get("files")) != expected:
        raise InputError(f"{place} holds another LLM than the model was trained against ({llm.source}): {way}")


def _read_config(folder: Path) -> dict[str, Any]:
    config = _read(folder / CONFIG)
    recipe = config.get("recipe")
    if not (isinstance(recipe, dict) and isinstance(recipe.get("model"), dict) and "hidden" in config):
        raise InputError(f"{folder / CONFIG} is not of a model of `flame train`: run `flame train` for it")
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path.parent} is not a usable model ({error}); run `flame train` for it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not an object of JSON")
    return content
