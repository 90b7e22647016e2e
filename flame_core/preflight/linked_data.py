"""Whether what recipes are linked to belongs to the shards that are there: keys of a selection, sidecars, teachers.

`flame train` refuses the same, after all stages before it have run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flame_core import gates
from flame_core.data.key_selection import select
from flame_core.data.shards import Index, read_index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import FlameError
from flame_core.graph.link_contents import is_of_concepts, link_contents, require_same_store
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.params import Params, recipe_sources
from flame_core.params.validation import Fault
from flame_core.text.manifest import MANIFEST
from flame_core.training.recipe_check import is_made_by_a_stage


class LinkedFault(NamedTuple):
    """A fault; it `may_change` if a stage of the pipeline makes what is linked, so that a run may put it right."""

    fault: Fault
    may_change: bool


def linked_data_faults(params: Params, layout: Layout) -> list[LinkedFault]:
    """All that `flame train` would refuse of what exists; the shards of `layout` are those of these params."""
    found: list[LinkedFault] = []
    index: Index | None = None
    for name, recipe in params.train.items():
        for what, path in links(layout, recipe).items():
            if not path.exists() or what in recipe_sources(recipe):
                continue
            index = index or read_index(layout.shards, "train")
            may_change = is_made_by_a_stage(path, layout)
            key = ("train", name, *(("model", "init") if what == "init" else what.split(".", 1)))
            refused = [LinkedFault(Fault(key, said), may_change) for said in _refused(what, path, index, layout)]
            if not refused and (said := _of_another_store(what, path, layout)):
                refused = [LinkedFault(Fault(key, said), True)]  # the embeddings may be made again
            found += refused
    return found


def _of_another_store(what: str, path: Path, layout: Layout) -> str | None:
    """Why a sidecar, such as labels of clusters, follows from other embeddings than those that are there."""
    if not what.startswith("sidecars.") or not (layout.train_embeddings / MANIFEST).is_file():
        return None
    try:
        require_same_store(Sidecar(path), layout.train_embeddings)
    except FlameError as error:
        return str(error)
    return None


def _refused(what: str, path: Path, index: Index, layout: Layout) -> Iterator[str]:
    try:
        if what == "selection":
            select(index, path, layout.shards)
        elif what.startswith("sidecars.") or (what == "sampling" and not is_of_concepts(what, path)):
            gates.require(path)
            Sidecar(path).require_aligned(index)
        elif what != "init" or not path.is_file():  # whose digest nobody asks for here: weights may be gigabytes
            link_contents({what: path})
    except FlameError as error:
        yield str(error)
