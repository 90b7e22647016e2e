"""What a report says about a run besides its measurements: the model, its training, the data."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq

from flame_core.data.ledger import read_ledger
from flame_core.data.shards import SPLITS, read_index
from flame_core.digest import file_sha256
from flame_core.layout import Layout
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.params import CaptionKind, Params, TrainParams

_PATCHES = "backbone.patch_embed.proj.weight"
_BLOCK = re.compile(r"backbone\.blocks\.(\d+)\.")
KINDS: tuple[CaptionKind, ...] = get_args(CaptionKind)


@dataclass(frozen=True)
class TowerShape:
    """A vision transformer as its weights have it: side of a patch in pixels, width in dimensions, number of blocks."""

    patch: int
    width: int
    depth: int


@dataclass(frozen=True)
class RunFacts:
    """Facts of one run.

    Attributes:
        recipe: name of the recipe.
        params: the run's; the report shows those that its stage depends on.
        manifest: the embedding store's.
        config: `config.json` of the model.
        training: rows of the training's `metrics.jsonl`.
        parameters: number of trained weights.
        tower: its shape; None if it is built otherwise than a plain vision transformer.
        weights_sha256: of `model.safetensors`.
        pictures: pictures by split.
        captions: (kind, origin, number in training, number in validation) of captions.
        ledger: (outcome, reason, number) of pairs that did not become samples unchanged.
    """

    recipe: str
    params: Params
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    training: Sequence[Mapping[str, Any]]
    parameters: int
    tower: TowerShape | None
    weights_sha256: str
    pictures: Mapping[str, int]
    captions: Sequence[tuple[str, str, int, int]]
    ledger: Sequence[tuple[str, str, int]]

    @property
    def trained(self) -> TrainParams:
        """The recipe as it was trained, with values in place of `auto`."""
        written = self.params.train[self.recipe]
        return written.fitted(self.config["samples"]) if written.automatic else written


def read_run_facts(params: Params, layout: Layout, recipe: str, manifest: Mapping[str, Any]) -> RunFacts:
    """The facts of a run, read from outs that evaluation reads anyway."""
    model = layout.model(recipe)
    log = (model / "metrics.jsonl").read_text("utf-8")
    return RunFacts(
        recipe=recipe,
        params=params,
        manifest=manifest,
        config=json.loads((model / CONFIG).read_text("utf-8")),
        training=[json.loads(line) for line in log.splitlines()],
        parameters=count_parameters(model / WEIGHTS),
        tower=tower_shape(model / WEIGHTS),
        weights_sha256=file_sha256(model / WEIGHTS),
        pictures={split: len(read_index(layout.shards, split)) for split in SPLITS},
        captions=captions_by_origin(layout.captions),
        ledger=ledger_by_reason(layout.shards),
    )


def count_parameters(weights: Path) -> int:
    """Number of values in a safetensors file, from its header."""
    return sum(prod(shape) for shape in tensor_shapes(weights).values())


def tower_shape(weights: Path) -> TowerShape | None:
    """The shape of the vision transformer in a safetensors file, from its header; None if it has other parts."""
    shapes = tensor_shapes(weights)
    blocks = {found[1] for name in shapes if (found := _BLOCK.match(name))}
    patches = shapes.get(_PATCHES, [])  # [C, 3, P, P]
    if not blocks or len(patches) != 4 or patches[2] != patches[3]:
        return None
    return TowerShape(patch=patches[2], width=patches[0], depth=len(blocks))


def tensor_shapes(weights: Path) -> dict[str, list[int]]:
    """{name of a tensor: shape} of a safetensors file, from its header."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}


def captions_by_origin(captions: Path) -> list[tuple[str, str, int, int]]:
    """(kind, origin, number in training, number in validation), the source's own captions first."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for split in SPLITS:
        for path in sorted((captions / split).glob("*.parquet")):
            table = pq.read_table(path, columns=["kind", "provenance"])
            for row in table.group_by(["kind", "provenance"]).aggregate([([], "count_all")]).to_pylist():
                counts.setdefault((row["kind"], row["provenance"]), Counter())[split] += row["count_all"]
    ordered = sorted(counts.items(), key=lambda item: (KINDS.index(item[0][0]), item[0][1]))
    return [(kind, origin, count["train"], count["val"]) for (kind, origin), count in ordered]


def ledger_by_reason(shards: Path) -> list[tuple[str, str, int]]:
    """(outcome, reason, number) of ingest's ledger, most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    for entry in read_ledger(shards):
        counts[entry.outcome, entry.reason] += entry.count
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(outcome, reason, count) for (outcome, reason), count in ordered]
