"""`flame classify`: the classes of pictures by a head of `flame tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flame_core.commands.recipe_completion import recipe_names


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel="Results")(classify)


def classify(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Files of pictures.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Model of this run that has a head (default: the first in `tune`).", autocompletion=recipe_names
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes of each picture.")] = 3,
) -> None:
    """Say what class pictures are of, by the head that `flame tune` made for a model."""
    from flame_core.errors import ParamsError
    from flame_core.layout import Layout
    from flame_core.model.locate import model_of_run
    from flame_core.params import load_params
    from flame_core.reporting import table
    from flame_core.tuning.classifier import Classifier

    layout = Layout.find()
    params = load_params(layout)
    tuned = [*params.tune.recipes, *params.tune.probed] if params.tune else []
    if not tuned:
        raise ParamsError(
            f"{layout.params} has no section `tune`: write `tune: {{recipes: [{recipe or params.recipes[0]}]}}`, then "
            "`flame run tune`"
        )
    if recipe is not None and recipe not in tuned:
        raise ParamsError(
            f"{layout.params}: the section `tune` names no recipe {recipe}; write it under tune.recipes, then "
            "`flame run tune`"
        )
    name = recipe or tuned[0]
    head = Classifier(layout.heads / name, model_of_run(params, layout, name))
    found = head.classify(list(pictures), top)
    rows = [
        (str(picture), label, f"{share:.1%}")
        for picture, classes in zip(pictures, found, strict=True)
        for label, share in classes
    ]
    table(f"classes by {head.config['preset']} on {name}", ["picture", "class", "probability"], rows)
