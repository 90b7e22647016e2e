"""The formats by name, and the whole export: from a model to a folder that its library loads."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Literal, get_args

from flame_core.export.about import About
from flame_core.export.folder import write_folder
from flame_core.export.readme import README, readme
from flame_core.export.subject import Subject

Format = Literal["timm", "transformers", "onnx", "safetensors"]
FORMATS: tuple[Format, ...] = get_args(Format)


def export(subject: Subject, about: About, form: Format, out: Path) -> list[str]:
    """Write a new folder `out`; returns what this format cannot do, in sentences.

    Raises:
        InputError: `out` is there already.
        ResourceError: the format needs a package that is not installed, or the disk refuses.
    """
    lacks: list[str] = []

    def write(folder: Path) -> None:
        usage = import_module(f"flame_core.export.{form}_format").write(subject, folder)
        (folder / README).write_text(readme(subject, about, usage), "utf-8")
        lacks.extend(usage.lacks)
        if subject.has_text_tower and form != "safetensors":
            lacks.append("The model's text tower is not in this format; `--format safetensors` has it.")

    write_folder(out, write)
    return lacks
