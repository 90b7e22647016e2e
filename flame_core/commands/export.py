"""`flame export`: a trained model for timm, transformers, ONNX Runtime, or any reader of safetensors."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flame_core.commands.recipe_completion import recipe_names

if TYPE_CHECKING:
    from flame_core.layout import Layout
    from flame_core.model.loaded import Model


class Format(StrEnum):
    """As `export.formats.Format`, whose import would load torch."""

    timm = "timm"
    transformers = "transformers"
    onnx = "onnx"
    safetensors = "safetensors"


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel="Results")(export)


def export(
    named: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="models:/flame@champion, runs:/<id>, the folder of a model, or a recipe.",
            autocompletion=recipe_names,
        ),
    ],
    form: Annotated[Format, typer.Option("--format", help="The library that is to load it.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder.")],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|BENCHMARK",
            help="Also export classes, whose texts become weights: a file with one name per line, a benchmark, or "
            "held-out (the classes of the held-out split).",
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(metavar="PROMPT", help="A prompt of the classes, with {class}; may be given more than once."),
    ] = None,
    tuned_head: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Also export a head of `flame tune` on this model, such as data/heads/flame (onnx)."
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="The licence of the folder, as the hub calls it.")
    ] = None,
) -> None:
    """Write a model as a folder that another library loads, with its preprocessing and a card for a hub."""
    from flame_core.errors import ParamsError
    from flame_core.export.folder import require_new
    from flame_core.names import expanded
    from flame_core.reporting import facts, starting

    if template and classes is None:
        raise ParamsError("--template goes with --classes, which names the classes")
    require_new(expanded(out).absolute())
    starting(f"flame export {named}")

    from flame_core.export.about import about
    from flame_core.export.formats import export as write
    from flame_core.export.subject import subject_of
    from flame_core.export.zero_shot import zero_shot
    from flame_core.layout import Layout

    layout = Layout.find()
    model = _model(layout, named)
    head = None if classes is None else zero_shot(model, layout, classes, template or [])
    tuned = None
    if tuned_head is not None:
        from flame_core.tuning.classifier import Classifier

        tuned = Classifier(tuned_head, model)
    subject = subject_of(model, head, tuned)
    lacks = write(subject, about(model, licence), form.value, out)
    facts(
        f"exported {subject.asked}",
        {
            "format": form.value,
            "vectors": f"{subject.dim} dimensions" + (f", {subject.facets} facets" if subject.facets else ""),
            **({"classes": len(head.names)} if head else {}),
            **({"classes of the tuned head": len(tuned.classes)} if tuned else {}),
            "folder": out,
            "how to load it": out / "README.md",
            **{f"note {number}": sentence for number, sentence in enumerate(lacks, start=1)},
        },
    )


def _model(layout: Layout, named: str) -> Model:
    """A model by the name of a recipe of this run, or as `flame_core.load` finds it."""
    from flame_core.model.locate import find_model, model_of_run
    from flame_core.params import load_params

    if layout.params.is_file() and not Path(named).exists() and named in (params := load_params(layout)).train:
        return model_of_run(params, layout, named)
    return find_model(named)
