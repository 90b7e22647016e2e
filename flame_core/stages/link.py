"""link-<recipe>: what a recipe needs beside shards, captions and embeddings -> `recipes/<recipe>.yaml`.

That file is the recipe of `recipes/linked/`, with the digests of what it needs. DVC compares it, so `train@<recipe>`
runs again if a teacher's weights changed, and not if a teacher was trained to the same weights.
"""

from __future__ import annotations

import os

import yaml

from flame_core.errors import ParamsError
from flame_core.files.whole_files import put
from flame_core.graph.link_contents import link_contents
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.params.recipe_files import DIGESTS, FOLDER, read_recipe, recipe_file
from flame_core.reporting import facts

_HEADER = "# Made by `flame link {name}` from recipes/{folder}/{name}.yaml: edit that file.\n"


def run(params: Params, layout: Layout, recipe: str) -> None:
    """Write the linked recipe."""
    source = recipe_file(layout.recipes, recipe)
    needs = links(layout, params.train[recipe])
    if source.parent.name != FOLDER or not needs:
        raise ParamsError(f"{source}: only a recipe in recipes/{FOLDER}/ that needs something is linked")
    contents = link_contents(needs)
    text = yaml.safe_dump(read_recipe(source) | {DIGESTS: contents}, sort_keys=False, allow_unicode=True)
    put(layout.recipes / source.name, (_HEADER.format(name=recipe, folder=FOLDER) + text).encode())
    facts(f"link-{recipe}", {what: os.path.relpath(path, layout.root) for what, path in needs.items()})
