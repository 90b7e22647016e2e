"""Writes `data/raw` and `data/shards` again without forgotten samples, in the project and in its workspaces.

This must come before old bytes are deleted: units of `data/raw` are deleted as a whole, and their other pictures, which
may be gone from the web by now, are carried over from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from flame_core.data.shards import INDEX
from flame_core.dvc_project.recorded import recorded_stages
from flame_core.errors import ComputationError, FlameError
from flame_core.files.whole_files import put
from flame_core.forgetting.finding import find_samples
from flame_core.forgetting.requests import Requests
from flame_core.forgetting.revisions import trees
from flame_core.graph.links import PIPELINE
from flame_core.graph.opt_out_edges import edited
from flame_core.layout import OPT_OUT, Layout
from flame_core.params import Params, load_params


def write_edges(pipeline: Path) -> None:
    """Give a `dvc.yaml`, if it is there, the edges from `opt_out.parquet`."""
    if pipeline.is_file():
        text = pipeline.read_text("utf-8")
        if (new := edited(text, pipeline)) != text:
            put(pipeline, new.encode())


def rebuild(params: Params, layout: Layout, keys: Iterable[str], digests: Iterable[str]) -> None:
    """Rebuild the project, and each workspace with a sample that has one of these keys or sha256.

    Raises:
        ComputationError: a stage failed, or the params of a workspace cannot be read; says what to do.
    """
    _rebuild(params, layout)
    asked = Requests(keys=frozenset(keys), sha256=frozenset(digests))
    for revision in trees(layout):
        opened = Layout.find(Path(revision.name))
        if opened.is_workspace and opened.params.is_file() and find_samples([revision], asked):
            try:
                _rebuild_workspace(opened)
            except FlameError as error:
                raise ComputationError(
                    f"the workspace {opened.root} has samples to forget and could not be rebuilt, so old bytes were "
                    f"not deleted yet: {error}. Mend that, or remove the folder, then run `flame forget` again"
                ) from error


def _rebuild_workspace(opened: Layout) -> None:
    if (opened.root / PIPELINE).is_file():
        write_edges(opened.root / PIPELINE)
        put(opened.root / OPT_OUT, opened.opt_out.read_bytes())
    _rebuild(load_params(opened), opened)


def _rebuild(params: Params, layout: Layout) -> None:
    """Write `data/raw` and `data/shards` again if they are there, by DVC if it made them."""
    if "ingest" in recorded_stages(layout.root) and find_spec("dvc") is not None:
        from flame_core.repro.run import reproduce

        if code := reproduce(layout.root, ["ingest"]):
            raise ComputationError(
                f"`dvc repro ingest` in {layout.root} ended with {code}, so old bytes were not deleted yet; mend that, "
                "then run `flame forget` again"
            )
    elif (layout.shards / INDEX).is_file():
        from flame_core.stages import download, ingest

        download.run(params, layout)
        ingest.run(params, layout)
