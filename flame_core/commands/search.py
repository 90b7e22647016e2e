"""Commands that use a trained model: `flame query`, `flame serve` and `flame embed-images`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flame_core.commands.recipe_completion import recipe_names
from flame_core.files.whole_files import clear_output_errors, write_output

if TYPE_CHECKING:
    from flame_core.layout import Layout
    from flame_core.model.loaded import Model
    from flame_core.params import Params

RESULTS = "Results"
_NAMED = 20  # refused pictures that are printed
_PICTURED = 6  # best pictures shown in the terminal
Recipe = Annotated[
    str | None, typer.Option(help="Model of this run (default: the first recipe).", autocompletion=recipe_names)
]
Named = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="Or any model: models:/flame@champion, runs:/<id>, or its folder."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (query, serve, embed_images):
        app.command(rich_help_panel=RESULTS)(command)


def query(
    asked: Annotated[
        str, typer.Argument(metavar="TEXT|PICTURE", help="A text, in any language that the LLM reads, or a file.")
    ],
    recipe: Recipe = None,
    named: Named = None,
    index: Annotated[
        str, typer.Option(help="What to search: held-out, all, a folder after `embed-images`, or its --out file.")
    ] = "held-out",
    top: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 10,
    facets: Annotated[
        bool, typer.Option("--facets", help="Ask with one prompt per facet instead of a single prompt.")
    ] = False,
    lexical: Annotated[
        bool, typer.Option("--lexical", help="Look for words, such as 'dog, grass', in a model of words.")
    ] = False,
    page: Annotated[Path | None, typer.Option(help="Write a page with the pictures.")] = None,
) -> None:
    """Find the pictures that match a text or a picture best."""
    from flame_core.errors import ParamsError
    from flame_core.layout import Layout
    from flame_core.model.given_pictures import read_file
    from flame_core.params import load_params
    from flame_core.reporting import console, table
    from flame_core.search.ask import Searcher, picture_asked
    from flame_core.search.terminal_pictures import show_pictures
    from flame_core.web_search.running import read_by_server

    layout = Layout.find()
    params = load_params(layout)
    model = _model(params, layout, recipe, named)
    picture = None if lexical else picture_asked(asked)
    if lexical and facets:
        raise ParamsError("--lexical and --facets are different ways to ask: give one")
    if picture and facets:
        raise ParamsError("--facets goes with a text: a picture is asked as a whole")
    searcher = Searcher(params, layout, model, lambda *text: read_by_server(layout, model.of_texts, *text))
    if lexical:
        found = searcher.words(asked, index, top)
    elif picture:
        found = searcher.picture(read_file(picture), index, top)
    else:
        found = searcher.text(asked, index, top, float(facets))
    show_pictures([(found.gallery.picture, hit.number) for hit in found.hits[:_PICTURED]], model.ingest, sys.stdout)
    captions = any(hit.caption for hit in found.hits)
    words = any(hit.words for hit in found.hits)
    columns = ["score", "key", *(["words"] if words else []), *(["caption"] if captions else []), "path"]
    rows = [
        (
            f"{hit.score:.3f}",
            hit.key,
            *([", ".join(f"{word} {share:.2f}" for word, share in hit.words)] if words else []),
            *([hit.caption] if captions else []),
            hit.path,
        )
        for hit in found.hits
    ]
    table(f"pictures for {asked!r}, of {found.gallery.title}", columns, rows)
    typer.echo(str(found.nearness))
    if page:
        from flame_core.search.result_page import result_page

        content = picture.read_bytes() if picture else None
        write_output(page, result_page(asked, content, model, found), "--page")
        console.print(f"page: {page}", markup=False, highlight=False, soft_wrap=True)


def serve(
    recipe: Recipe = None,
    named: Named = None,
    index: Annotated[
        list[str] | None,
        typer.Option(help="What can be searched, as in `flame query`; may be given several times.", show_default=False),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    host: Annotated[str, typer.Option(help="Address to listen on. There is no login.")] = "127.0.0.1",
) -> None:
    """Open a search page on this machine, with a JSON interface; the model and its LLM stay loaded. Ctrl-C ends it."""
    from flame_core.layout import Layout
    from flame_core.params import load_params
    from flame_core.reporting import starting

    starting("flame serve: opens the model and the pictures")

    from flame_core.search.ask import Searcher
    from flame_core.web_search.server import serve as answer

    layout = Layout.find()
    params = load_params(layout)
    searcher = Searcher(params, layout, _model(params, layout, recipe, named))

    def ready(url: str) -> None:
        typer.echo(f"search page: {url}\nCtrl-C ends it.")

    answer(layout, searcher, index or ["held-out", "all"], host, port, ready)


def embed_images(
    folder: Annotated[Path, typer.Argument(help="A folder of pictures; its subfolders are read too.")],
    out: Annotated[Path | None, typer.Option(help="Also write the vectors to a .parquet or .npy file.")] = None,
    recipe: Recipe = None,
    named: Named = None,
) -> None:
    """Encode every picture in a folder, for `flame query --index FOLDER`; only new and changed ones are computed."""
    from flame_core.errors import InputError, ParamsError
    from flame_core.layout import Layout
    from flame_core.names import expanded
    from flame_core.params import load_params
    from flame_core.reporting import facts, table
    from flame_core.search.folder_index import embed_folder, reasons, write_npy, write_parquet

    if out is not None and out.suffix not in (".parquet", ".npy"):
        raise ParamsError(f"--out {out}: write a name that ends in .parquet or .npy")
    out = None if out is None else expanded(out)
    layout = Layout.find()
    model = _model(None if named else load_params(layout), layout, recipe, named)
    done = embed_folder(layout, model, folder)
    if out is not None:
        with clear_output_errors(out, "--out"):
            (write_npy if out.suffix == ".npy" else write_parquet)(done.index, Path(os.path.realpath(out)))
    refused = done.index.refused
    if refused:
        shown = [(each.path, each.reason, each.detail) for each in refused[:_NAMED]]
        table(f"{len(refused):,} pictures without a vector", ["path", "reason", "detail"], shown)
    facts(
        f"embed-images {folder}",
        {
            "pictures": len(done.index.paths),
            "encoded now": done.encoded,
            **{f"without a vector, {reason}": count for reason, count in reasons(refused).items()},
            **{f"left out ({number})": detail for number, detail in enumerate(done.unused, start=1)},
            "model": model.title,
            "index": done.file if out is None or out.suffix == ".npy" else out,
            **({"vectors": out} if out is not None else {}),
        },
    )
    if not done.index.paths:
        raise InputError(f"{folder} has no picture that can be read")


def _model(params: Params | None, layout: Layout, recipe: str | None, named: str | None) -> Model:
    """The model of a recipe of this run, or any by its name."""
    from flame_core.errors import ParamsError
    from flame_core.model.locate import find_model, model_of_run

    if recipe and named:
        raise ParamsError("name a model by --recipe or by --model, not by both")
    if named or params is None:
        return find_model(named or "")
    if recipe is not None and recipe not in params.train:
        raise ParamsError(f"{recipe!r} is not among the recipes of {layout.params}: {', '.join(params.recipes)}")
    return model_of_run(params, layout, recipe or params.recipes[0])
