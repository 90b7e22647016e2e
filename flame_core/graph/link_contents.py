"""The content of what a recipe is linked to, by digest: it makes weights, wherever it lies.

A stage reads these digests from what travels with each out (`verification.py`); a training verifies the bytes as well,
before it uses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flame_core import gates
from flame_core.absent_outs import bringing
from flame_core.data.sidecars import Sidecar
from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.model_files import CONFIG, TEXT_WEIGHTS, WEIGHTS
from flame_core.text.sentence import SENTENCE
from flame_core.verification import DIGESTS, read_digests, read_object

EXPORTED = "flame-tower/1"  # `format` in the config of an exported tower, whose checks passed before the export
MODELS = ("teacher", "inherit")  # links to trained models
COUNTS, HITS = "frequency.parquet", "hits/"  # as concepts.concept_out names them, which imports numpy
_OF_PROMPTS = ("head.safetensors", CONFIG)  # as soft_prompts.prompt_head names them, which imports torch
_OF_TEXT = (TEXT_WEIGHTS, "tokenizer.json")  # of a model with a text tower of its own


def link_contents(links: Mapping[str, Path]) -> dict[str, Any]:
    """{what: digests}: of a model and of counts of concepts {file: sha256}, else one sha256.

    Args:
        links: what a recipe needs, as `flame_core.graph.links.links` tells.

    Raises:
        InputError: something is missing, or has no digests.
        GateError: a teacher or a sidecar failed a blocking check.
    """
    return {what: _content(what, path) for what, path in links.items()}


def _content(what: str, path: Path) -> Any:
    if what in MODELS:
        files = _model_files(path, what)
        return {name: digest for name, digest in read_digests(path).items() if name in files}
    if what == "init":
        if not path.is_file():
            raise InputError(f"{path} is missing, the weights to begin with: correct `model.init.source`")
        return file_sha256(path)
    if what == "selection":
        if not path.is_file():
            raise InputError(f"{path} is missing, the selection of keys to train on: make it, or correct `selection`")
        if (path.parent / gates.CHECKS).is_file():
            gates.require(path.parent)
        return file_sha256(path)
    gates.require(path)
    if what == "prompts":
        return {name: digest for name, digest in read_digests(path).items() if name in _OF_PROMPTS}
    return _of_concepts(path) if is_of_concepts(what, path) else Sidecar(path).digest


def is_of_concepts(what: str, path: Path) -> bool:
    """Whether samples are drawn by counts of concepts, and not by a sidecar's weights."""
    return what == "sampling" and (path / COUNTS).is_file()


def _of_concepts(path: Path) -> dict[str, str]:
    """{file: sha256} of the counts and hits in `data/concepts`."""
    return {name: digest for name, digest in read_digests(path).items() if name == COUNTS or name.startswith(HITS)}


def _model_files(folder: Path, what: str) -> list[str]:
    """Names of the files that make up a model."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            role = "teacher" if what == "teacher" else "model to inherit from"
            raise InputError(
                f"{folder / name} is missing, so there is no {role}: {bringing(folder)}, or name the folder of a "
                "model that `flame train` made"
            )
    if (folder / gates.CHECKS).is_file() or read_object(folder, CONFIG).get("format") != EXPORTED:
        gates.require(folder)
    return [CONFIG, WEIGHTS, *(name for name in _OF_TEXT if (folder / name).is_file())]


def read_by_training(links: Mapping[str, Path]) -> dict[Path, list[str]]:
    """{folder: patterns} of the files that a training verifies before it reads them."""
    found: dict[Path, list[str]] = {}  # of a folder with several, all their patterns
    for what, path in links.items():
        if what in MODELS:
            files = found.setdefault(path, [])
            files += [name for name in _model_files(path, what) if name not in files]
        elif what in ("selection", "init"):
            if (path.parent / DIGESTS).is_file():
                found.setdefault(path.parent, []).append(path.name)
        elif what == "prompts":
            found.setdefault(path, []).extend(_OF_PROMPTS)
        else:
            found.setdefault(path, []).extend([COUNTS, f"{HITS}*"] if is_of_concepts(what, path) else ["*"])
    return found


def require_same_store(sidecar: Sidecar, train_embeddings: Path) -> None:
    """Refuse a sidecar that follows from other embeddings than these, if its origin says so.

    Raises:
        InputError: names the sidecar and the command that makes it again.
    """
    origin = sidecar.manifest.origin
    if "embeddings" not in origin:
        return
    sentences = origin.get("reading") == "sentence"
    path = (train_embeddings / SENTENCE if sentences else train_embeddings) / "manifest.json"
    if not path.is_file() or file_sha256(path) != origin["embeddings"]:
        raise InputError(
            f"{sidecar.folder}: made from another store than {path.parent}; run `flame {sidecar.manifest.stage}` again"
        )


def same_centre(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    """Whether a model's texts were centred as a store's are, as far as its config says so: earlier ones do not."""
    return config.get("center", manifest.get("center")) == manifest.get("center")


def require_same_space(model: Path, manifest: Mapping[str, Any], what: str = "teacher") -> None:
    """Refuse a teacher, or a model whose head is inherited, that was trained into another space than the store's.

    Raises:
        InputError: names what differs, with both values.
    """
    config = read_object(model, CONFIG)
    role = "the teacher" if what == "teacher" else "this model"
    wrong = [
        f"  {name}: {role} has {config.get(name)!r}, the embeddings have {manifest[name]!r}"
        for name in ("llm", "layer", "hidden")
        if config.get(name) != manifest[name]
    ]
    space = "another LLM's space" if wrong else "a space that is centred otherwise"
    if not same_centre(config, manifest):
        wrong.append(f"  center: {role} has {config['center']!r}, the embeddings have {manifest.get('center')!r}")
    if wrong:
        way = (
            "take a teacher of the same LLM, layer and text.center, or embed for this one"
            if what == "teacher"
            else "inherit its backbone only (inherit.projector: false), or take a model of the same LLM, layer and "
            "text.center"
        )
        raise InputError(f"{model} was trained into {space} than these embeddings; {way}:\n" + "\n".join(wrong))
