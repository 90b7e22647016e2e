"""The description of a training run: tags, the params of all stages, and the datasets it read, by digest.

DVC's digests come from `dvc.lock`. Our own (of the shard index and of the embedding manifest, which cover every file
below them) also exist without DVC.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flame_core import pipes
from flame_core.captions.table import MANIFEST as CAPTION_MANIFEST
from flame_core.data.ledger import read_ledger
from flame_core.data.shards import SPLITS, read_chosen, read_index
from flame_core.data.sources.listing import SOURCE
from flame_core.digest import file_sha256, value_digest
from flame_core.dvc_project.recorded import LOCK, out_digests, recorded_stages
from flame_core.errors import ResourceError
from flame_core.git import git
from flame_core.layout import Layout
from flame_core.params import Params, Reading, TrainParams
from flame_core.settings import settings
from flame_core.text.manifest import MANIFEST, read_manifest, training_folder
from flame_core.text.sentence import SENTENCE
from flame_core.text.store import TRAIN
from flame_core.tracking.listings import part_md5
from flame_core.version import code_version, installed_version
from flame_core.workspace import dvc_cache

PACKAGES = ("torch", "torchvision", "timm", "transformers", "safetensors", "webdataset", "numpy", "dvc", "dagster")
_EVALUATED = "evaluated."  # before the tags of the source tree that last evaluated the model
log = logging.getLogger(__name__)


def git_state(project: Path) -> dict[str, str]:
    """`git.commit` and `git.clean` ("true" or "false") of the source tree; {} outside git."""
    commit = git(project, "rev-parse", "HEAD")
    changes = git(
        project, "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{LOCK}"
    )  # which runs rewrite
    if commit is None or changes is None:
        return {}
    return {"git.commit": commit, "git.clean": str(not changes).lower()}


def files(layout: Layout) -> list[Path]:
    """The files that a run keeps of its project: its params, and `dvc.lock` if that can be read (it says so if not)."""
    lock = [layout.root / LOCK] if recorded_stages(layout.root) else []
    return [path for path in (layout.params, *lock) if path.is_file()]


def evaluation_tags(project: Path) -> dict[str, str]:
    """`git_state`, under names of an evaluation's own: the model's stays that of its training."""
    return {f"{_EVALUATED}{name}": value for name, value in git_state(project).items()}


def recorded_state(tags: Mapping[str, str]) -> dict[str, str]:
    """`git_state` of the tree whose params, `dvc.lock` and report a run holds: that of the last evaluation.

    Runs of earlier versions name only the tree of the training.
    """
    names = ("git.commit", "git.clean")
    found = {name: tags[f"{_EVALUATED}{name}"] for name in names if f"{_EVALUATED}{name}" in tags}
    return found or {name: tags[name] for name in names if name in tags}


def recorded_commit(tags: Mapping[str, str]) -> tuple[str, str] | None:
    """The commit of `recorded_state`, after the name of the tag that it comes from; None if there is none."""
    commit = recorded_state(tags).get("git.commit")
    own = f"{_EVALUATED}git.commit"
    return (own if own in tags else "git.commit", commit) if commit else None


def tags(params: Params, layout: Layout) -> dict[str, str]:
    """Tags of a run: its user, machine, code, params and packages."""
    found = {
        "flame.params_digest": params.digest,
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "flame.code": code_version(),  # `git.commit` is the project's, which may hold no code
        **git_state(layout.project),
        **{f"package.{name}": version for name in PACKAGES if (version := installed_version(name))},
    }
    try:
        found["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        found["mlflow.user"] = str(os.getuid())
    if digests := out_digests(layout.root):
        found["flame.dvc_digest"] = value_digest(digests)
    if layout.is_workspace:
        found["flame.workspace"] = layout.root.name
    return found


def dagster_tags() -> dict[str, str]:
    """Tags with the Dagster run and asset of this process; {} without Dagster."""
    opened = pipes.session()
    if opened is None:
        return {}
    here = settings()
    found = {
        "dagster.run_id": opened.run_id,
        "dagster.run_url": f"{here.ui_url(here.dagster_port)}/runs/{opened.run_id}",
    }
    if keys := opened.asset_keys if opened.is_asset_step else None:
        found["dagster.asset"] = keys[0]
        found["dagster.asset_url"] = f"{here.ui_url(here.dagster_port)}/assets/{keys[0]}"
    return found


def flat_params(params: Params, layout: Layout, trained: TrainParams) -> dict[str, str]:
    """{dotted key: value} of all stages and of the recipe, with what `auto` chose for the shards in `layout`."""
    content = params.model_dump(mode="json")
    content["ingest"] |= {
        name: value for name, value in read_chosen(layout.shards).items() if name in content["ingest"]
    }
    content["train"] = trained.model_dump(mode="json")
    return flatten(content)


def flatten(content: Mapping[str, Any]) -> dict[str, str]:
    """{dotted key: value as text} of nested mappings."""
    return dict(_flatten(content, ""))


def _flatten(value: Any, prefix: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [item for key, inner in value.items() for item in _flatten(inner, f"{prefix}{key}.")]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [(prefix.removesuffix("."), text)]


def datasets(params: Params, layout: Layout, reading: Reading = "facets") -> list[dict[str, Any]]:
    """The datasets a training read: name, digest, source (JSON) and profile (JSON), as MLflow's entities want them.

    Each is the folder of the training split in an out, which stays the same where only the rest of the out changes. Of
    the embeddings, only those of the reading that was trained on are described.
    """
    digests = out_digests(layout.root)
    parts = _training_parts(layout, digests)
    embeddings = training_folder(layout.train_embeddings, reading)
    manifest = read_manifest(embeddings)
    ledger: Counter[str] = Counter()
    for entry in read_ledger(layout.shards):
        ledger[f"{entry.outcome}: {entry.reason}"] += entry.count
    captions = layout.captions / CAPTION_MANIFEST
    described: list[tuple[str, Path, str, dict[str, Any], dict[str, Any]]] = [
        (
            "shards",
            layout.shards,
            read_index(layout.shards, "train").digest(),
            {"sources": read_sources(params, layout)},
            {"samples": {split: len(read_index(layout.shards, split)) for split in SPLITS}, "ledger": dict(ledger)},
        ),
        (
            "captions",
            layout.captions,
            manifest["captions"],
            {"captioners": json.loads(captions.read_text("utf-8"))["kinds"]},
            {},
        ),
        (
            "embeddings",
            layout.embeddings,
            file_sha256(embeddings / MANIFEST),
            {
                name: manifest[name]
                for name in ("llm", "layer", "center", "normalise", SENTENCE, "facets")
                if name in manifest
            },
            {"hidden": manifest["hidden"], "tokens": manifest["tokens"]},
        ),
    ]
    rows = []
    for name, folder, own, more, profile in described:
        out = folder.relative_to(layout.root).as_posix()
        digest = parts.get(out)
        source = {"path": f"{out}/{TRAIN}", "dvc": digest, "sha256": own, **more}
        rows.append(
            {
                "name": name,
                "digest": (digest or own)[:36],  # MLflow's limit, and the length of DVC's digest of a folder
                "source_type": "dvc" if digest else "local",
                "source": json.dumps(source, sort_keys=True, ensure_ascii=False),
                "profile": json.dumps(profile, sort_keys=True, ensure_ascii=False),
            }
        )
    return rows


def _training_parts(layout: Layout, digests: Mapping[str, str]) -> dict[str, str]:
    """{path of an out: DVC's digest of its training folder}, for outs whose listing is in DVC's cache."""
    if not digests:
        return {}
    try:
        cache = dvc_cache(layout) / "files" / "md5"
    except ResourceError as error:
        log.warning("DVC's digests of what the training reads are left out: %s", error)
        return {}
    found = {out: part_md5(digest, TRAIN, cache) for out, digest in digests.items()}
    return {out: digest for out, digest in found.items() if digest}


def read_sources(params: Params, layout: Layout) -> dict[str, Any]:
    """{name of a source: record of its download: package, version, licence, digests}."""
    found: dict[str, Any] = {}
    for name, source in sorted(params.sources.items()):
        record = layout.raw / name / SOURCE
        found[name] = json.loads(record.read_text("utf-8")) if record.is_file() else source.model_dump(mode="json")
    return found
