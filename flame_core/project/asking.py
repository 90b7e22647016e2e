"""What `flame init` has to know: from its options and, at a terminal, from questions about what they leave open."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from flame_core.errors import ParamsError
from flame_core.names import expanded, require_language_code
from flame_core.project.data_survey import Given
from flame_core.project.params_file import Device


@dataclass(frozen=True)
class Wanted:
    """A project to make; `data` is None for the demo's."""

    folder: Path
    data: Given | None
    device: Device


def ask(
    folder: Path,
    images: Path | None,
    shards: Path | None,
    demo: bool,
    table: Path | None,
    image_column: str | None,
    caption_column: str | None,
    language: str | None,
    device: Device | None,
) -> Wanted:
    """The wish of a person.

    Raises:
        ParamsError: options contradict one another, or leave open what cannot be asked without a terminal.
    """
    if sum((images is not None, shards is not None, demo)) > 1:
        raise ParamsError("take one of --images, --shards and --demo; more sources can be added to params.yaml later")
    at_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if images is None and shards is None and not demo:
        if not at_terminal:
            raise ParamsError(
                "say what to train on: --images FOLDER (pictures with .txt beside them, or a table of captions), "
                "--shards FOLDER (webdataset tars), or --demo"
            )
        answer = typer.prompt("Folder of your pictures or shards (empty: the demo's pictures)", "", show_default=False)
        path = expanded(answer)
        if answer.strip():
            images, shards = (None, path) if next(path.glob("*.tar"), None) else (path, None)
        demo = images is None and shards is None
    if demo:
        return Wanted(folder, None, "cpu")
    if language is None and at_terminal:
        language = typer.prompt("Language of captions that do not say theirs", "en")
    try:
        language = language and require_language_code(language)
    except ValueError as error:
        raise ParamsError(f"--language: {error}") from None
    found = device or _device()
    if device is None and at_terminal:
        found = (
            "gpu" if typer.prompt("A model for a CPU or a GPU (cpu, gpu)", found).strip().lower() == "gpu" else "cpu"
        )
    given = Given(
        shards or images or Path(), shards is not None, table, image_column, caption_column, language
    )  # fmt: skip
    return Wanted(folder, given, found)


def _device() -> Device:
    from flame_core.settings import settings

    return "gpu" if settings().torch_device() == "cuda" else "cpu"
