"""What a training was linked to, as its run records it: models, sidecars and selection, by path and sha256.

The tag `flame.linked` is JSON, {what: {"path": ..., "content": digests}}, as `link_contents` tells them; the tag
`flame.teacher` is the sha256 of the teacher's weights, by which MLflow finds all students of a model; `flame.inherit`
is that of the weights that the training began with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flame_core.digest import file_sha256, value_digest
from flame_core.dvc_project.recorded import out_digests
from flame_core.graph.link_contents import MODELS, link_contents
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.model_files import WEIGHTS
from flame_core.params import Params
from flame_core.tracking.chain import Link, out_link
from flame_core.tracking.listings import read_listing
from flame_core.workspace import dvc_cache

LINKED_TAG, TEACHER_TAG = "flame.linked", "flame.teacher"
MODEL_TAGS = {"teacher": TEACHER_TAG, "inherit": "flame.inherit"}


@dataclass(frozen=True)
class LinkedTo:
    """One thing that a training was linked to. `path` is relative to the run's folder if it lies in it."""

    what: str
    path: str
    content: Any

    def out(self, outs: Mapping[str, str]) -> str | None:
        """The out that holds it."""
        return next((out for out in outs if self.path == out or self.path.startswith(f"{out}/")), None)


def linked_tags(params: Params, layout: Layout, recipe: str) -> dict[str, str]:
    """The tags of a training's run; none of a recipe without links."""
    needs = links(layout, params.train[recipe])
    if not needs:
        return {}
    contents = link_contents(needs)
    root = layout.root
    paths = {
        what: path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        for what, path in needs.items()
    }
    described = {what: {"path": paths[what], "content": contents[what]} for what in needs}
    models = {tag: contents[what][WEIGHTS] for what, tag in MODEL_TAGS.items() if what in contents}
    return {LINKED_TAG: json.dumps(described, sort_keys=True, ensure_ascii=False), **models}


def read_linked(tags: Mapping[str, str]) -> list[LinkedTo]:
    """What the run of these tags was linked to.

    Raises:
        ValueError: the tag is damaged.
    """
    described = json.loads(tags.get(LINKED_TAG, "{}"))
    try:
        return [LinkedTo(what, each["path"], each["content"]) for what, each in described.items()]
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f"its tag {LINKED_TAG} is damaged") from None


def linked_data(tags: Mapping[str, str]) -> dict[str, str]:
    """{what: digest} of all but models, which may themselves follow from a seed; {} if the tag is damaged."""
    try:
        return {each.what: value_digest(each.content) for each in read_linked(tags) if each.what not in MODELS}
    except ValueError:
        return {}


def linked_links(layout: Layout, tags: Mapping[str, str], outs: Mapping[str, str], lock: dict[str, Any]) -> list[Link]:
    """A link of the chain for each thing that the recipe needed beside shards, captions and embeddings."""
    try:
        needed = read_linked(tags)
    except ValueError as error:
        link = Link("linked")
        link.fail(str(error))
        return [link]
    return [_linked_to(layout, each, outs, lock) for each in needed]


def _linked_to(layout: Layout, each: LinkedTo, outs: Mapping[str, str], lock: dict[str, Any]) -> Link:
    contents = {f"{name} sha256": digest for name, digest in each.content.items()} if each.what in MODELS else {}
    facts = contents or {"sha256": str(each.content)}
    out = each.out(outs)
    if out is None:
        link = Link(each.what, {"path": each.path, **facts})
        link.notes.append("no stage of the run made it")
    else:
        link = out_link(layout, out, each.what, outs, lock, {"read": each.path, **facts})
    if each.what not in MODELS:
        if out is None:
            link.skip("only the digest that the run read is known")
        return link
    wrong = _differing(layout, each, out, outs.get(out or "", ""))
    if wrong is None:
        link.skip("its files are neither in the tree nor in DVC's cache")
    elif wrong:
        link.fail(f"the run read other bytes of {', '.join(wrong)}")
    return link


def _differing(layout: Layout, model: LinkedTo, out: str | None, digest: str) -> list[str] | None:
    """Files of a linked model whose bytes are not those that the run read; None if none can be found to compare.

    Args:
        layout: of the main line.
        model: as the run recorded it.
        out: that holds it, as the run's `dvc.lock` names it; None of a folder from elsewhere.
        digest: DVC's, of that out.
    """
    wanted: dict[str, str] = model.content
    folder = layout.root / model.path  # an absolute path stays one
    cache = dvc_cache(layout) / "files" / "md5"
    listing = read_listing(digest, cache) or {} if out else {}
    in_tree = out is None or out_digests(layout.root).get(out) == digest
    inside = model.path.removeprefix(out or "").strip("/")
    places: dict[str, Path] = {}
    for name in wanted:
        md5 = listing.get(f"{inside}/{name}".strip("/"))
        found = folder / name if in_tree else cache / md5[:2] / md5[2:] if md5 else None
        if found is None or not found.is_file():
            return None
        places[name] = found
    return [name for name, place in places.items() if file_sha256(place) != wanted[name]]
