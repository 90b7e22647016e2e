"""The formats by name, and the whole export: from a model to a folder that its library loads."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Literal, get_args

from flame_core.errors import ParamsError
from flame_core.export.about import About
from flame_core.export.folder import write_folder
from flame_core.export.readme import README, readme
from flame_core.export.subject import Subject

Format = Literal["timm", "transformers", "onnx", "safetensors"]
FORMATS: tuple[Format, ...] = get_args(Format)
_PROGRAMMED = ("patches", "pooled")  # heads that the folders' programs build; ONNX holds the tower's own graph


def export(subject: Subject, about: About, form: Format, out: Path) -> list[str]:
    """Write a new folder `out`; returns what this format cannot do, in sentences.

    Raises:
        ParamsError: the format cannot hold this tower's head, or the tuned one.
        InputError: `out` is there already.
        ResourceError: the format needs a package that is not installed, or the disk refuses.
    """
    known = subject.params.head in _PROGRAMMED and subject.params.head_hidden is None
    if not known and form != "onnx":
        own = subject.params.head + (" with head_hidden" if subject.params.head_hidden is not None else "")
        raise ParamsError(
            f"flame export: a head {own} is written with --format onnx only; the programs of the other "
            f"formats know {' and '.join(_PROGRAMMED)} without head_hidden"
        )
    if subject.tuned is not None and form != "onnx":
        raise ParamsError(
            "flame export: a tuned head is part of the graph of --format onnx; the programs of the other formats build "
            "none, so leave --tuned-head out"
        )
    if subject.params.connector is not None:
        raise ParamsError(
            "flame export: a tower with a connector cannot be exported; `flame describe` writes captions with it"
        )
    lacks: list[str] = []

    def write(folder: Path) -> None:
        usage = import_module(f"flame_core.export.{form}_format").write(subject, folder)
        (folder / README).write_text(readme(subject, about, usage), "utf-8")
        lacks.extend(usage.lacks)
        if subject.config["recipe"].get("text_projection") is not None:
            lacks.append("The layers that texts pass through are in no format: let this project embed texts.")
        if subject.has_text_tower and form != "safetensors":
            lacks.append("The model's text tower is not in this format; `--format safetensors` has it.")
        if subject.config["recipe"].get("lora") is not None:
            lacks.append("The adapters of the LLM are not in this format, but in the model's own folder.")

    write_folder(out, write)
    return lacks
