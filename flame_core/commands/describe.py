"""`flame describe`: captions of picture files, by a trained captioner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel="Results")(describe)


def describe(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Files of pictures.")],
    model: Annotated[
        str, typer.Option(help="A folder, a recipe, or models:/<name>@<alias>; its tower has a connector.")
    ] = "data/captioner",
    llm: Annotated[str | None, typer.Option(help="Folder of the model's LLM (default: data/llm/<name>).")] = None,
    beams: Annotated[int, typer.Option(min=1, help="Texts that are followed at once; 1: greedily.")] = 1,
    sample: Annotated[bool, typer.Option("--sample", help="Draw each token by its probability.")] = False,
    temperature: Annotated[float, typer.Option(min=1e-3, help="Of what is drawn.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=1e-3, max=1, help="Share of the likeliest tokens to draw from.")] = 1.0,
    repetition_penalty: Annotated[float, typer.Option(min=1e-3, help="Above 1, tokens are repeated less.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of a caption.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
) -> None:
    """Write captions of pictures with a model of `flame caption-lm`, or of a recipe with the term prompts."""
    from flame_core.captioning.address import find_captioner, find_llm
    from flame_core.captioning.writer import PictureWriter
    from flame_core.layout import Layout
    from flame_core.model.given_pictures import prepared
    from flame_core.params import CaptionWriting, load_params
    from flame_core.reporting import table
    from flame_core.settings import settings

    layout = Layout.find()
    ingest = load_params(layout).ingest
    writing = CaptionWriting(
        max_new_tokens=max_tokens,
        num_beams=beams,
        repetition_penalty=repetition_penalty,
        do_sample=sample,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    folder = find_captioner(model, layout)
    jpegs = [prepared(picture, place, ingest) for place, picture in enumerate(pictures)]
    writer = PictureWriter.load(folder, find_llm(folder, llm, layout), settings().torch_device())
    texts = writer.captions(jpegs, writing)
    rows = [(str(picture), text) for picture, text in zip(pictures, texts, strict=True)]
    table(f"captions by {folder.name}", ["picture", "caption"], rows)
