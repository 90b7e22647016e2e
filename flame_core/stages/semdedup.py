"""semdedup: vectors of the training pictures -> `data/semdedup/`: a selection without semantic duplicates.

    flame semdedup

Only if params have a section `semdedup`. The folder holds

    kept.parquet        a selection that recipes can name: key, cluster, cosine to the most similar earlier one
    removed.parquet     key, cluster, cosine, and the key `twin` of that earlier one
    semdedup.json       how many samples, and how many other thresholds would leave

Clusters are those of the stage `cluster` (`clustering/`), comparisons those of `selections/semantic_duplicates.py`.
Both are units of the work cache, so a killed run continues.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import load_file, save_file

from flame_core import gates
from flame_core.clustering.pipeline import SCORES, Clustering
from flame_core.clustering.size_checks import size_checks
from flame_core.clustering.sources import SidecarVectors, require_dims
from flame_core.data.contact_sheet import sheet_of
from flame_core.data.shards import INDEX, Index, PictureReader, read_index
from flame_core.data.sidecars import VALUES
from flame_core.digest import json_bytes
from flame_core.errors import InputError, ParamsError
from flame_core.files.parquet_bytes import parquet_bytes
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.params import Params, SemDedupParams
from flame_core.reporting import facts, picture, progress
from flame_core.selections.semantic_duplicates import compare, keeping_order
from flame_core.verification import DIGESTS, verify
from flame_core.work import UnitRecord, WorkCache, gather

STAGE = "semdedup"
KEPT, REMOVED, ABOUT = "kept.parquet", "removed.parquet", "semdedup.json"
_NUMBERS = 2**26  # of the vectors that a unit holds, unless one cluster has more: 512 MB
_THRESHOLDS = (0.8, 0.9, 0.95, 0.97, 0.99)  # that semdedup.json tells of
_FILE, _LABEL = "compared.safetensors", "label"


def run(params: Params, layout: Layout) -> None:
    """Remove semantic duplicates as the section `semdedup` says, or continue."""
    chosen = params.semdedup
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `semdedup`: write `semdedup: {{clusters: 64}}`")
    folder = linked_place(layout, chosen.vectors)
    if not folder.is_dir():
        raise InputError(f"semdedup.vectors: {folder} does not exist; `flame features` stores vectors")
    for source in (layout.shards, folder):
        gates.require(source)
    verified = verify({layout.shards: [INDEX], **({folder: ["*"]} if (folder / DIGESTS).is_file() else {})})
    index = read_index(layout.shards, "train")
    if len(index) < chosen.clusters:
        raise InputError(f"semdedup.clusters is {chosen.clusters}, and the training split has {len(index)} samples")
    vectors = SidecarVectors(folder, "sidecar", index)
    require_dims("semdedup.dims", chosen.dims, vectors, min(len(index), chosen.fit_samples))
    cache = WorkCache(layout.work, STAGE)
    labels, scores = _clustered(chosen, vectors, index, cache)
    table = _compared(chosen, vectors, index, labels, scores, cache)
    removed = table.column("cosine").to_numpy() > chosen.threshold
    sizes = np.bincount(labels, minlength=chosen.clusters)
    checks = semdedup_checks(sizes, float(1.0 - removed.mean()), chosen)
    left = {f"{each:g}": int((table.column("cosine").to_numpy() <= each).sum()) for each in _THRESHOLDS}
    about = {
        "index": index.digest(),
        "vectors": vectors.digest,
        "samples": len(index),
        "kept": int((~removed).sum()),
        "kept at": left,
        "largest cluster": int(sizes.max()),
    }
    contents = {
        KEPT: parquet_bytes(table.filter(pa.array(~removed)).drop_columns(["twin"])),
        REMOVED: parquet_bytes(table.filter(pa.array(removed))),
        ABOUT: json_bytes(about),
        gates.CHECKS: gates.to_bytes(checks),
    }
    gather(layout.semdedup, layout.state, {}, contents)
    facts(
        STAGE,
        {
            "samples": len(index),
            "kept": f"{about['kept']:,} ({about['kept'] / len(index):.1%}) at a cosine of {chosen.threshold:g}",
            "would be kept": ", ".join(f"{number:,} at {each}" for each, number in left.items()),
            "clusters": f"{chosen.clusters:,}, {(sizes == 0).sum():,} empty, largest {sizes.max():,}",
            "verified": verified,
        },
    )
    gates.warn(checks)
    if removed.any():
        picture("removed pictures, each beside its twin", lambda: _sheet(layout, index, table, removed), "jpeg")


def _clustered(
    chosen: SemDedupParams, vectors: SidecarVectors, index: Index, cache: WorkCache
) -> tuple[np.ndarray, np.ndarray]:
    """The cluster [N] of each sample of the index, and its similarity [N] to the centroid."""
    units = Clustering(chosen, vectors, index, cache, _LABEL).run().labels
    rows = index.table.column("row").to_numpy()
    labels, scores = np.empty(len(index), np.int64), np.empty(len(index), np.float32)
    for shard, own in index.spans().items():
        here = slice(own.start, own.stop)
        labels[here] = load_file(units[shard].file(f"{_LABEL}.safetensors"))[VALUES][rows[here]]
        scores[here] = load_file(units[shard].file(f"{SCORES}.safetensors"))[VALUES][rows[here]]
    return labels, scores


def _compared(
    chosen: SemDedupParams,
    vectors: SidecarVectors,
    index: Index,
    labels: np.ndarray,
    scores: np.ndarray,
    cache: WorkCache,
) -> pa.Table:
    """Key, cluster, cosine and twin of every sample, in the index's order."""
    keys, places = index.table.column("key"), _Places.of(index)
    cosine, twin = np.full(len(index), -1.0), np.full(len(index), -1, np.int64)
    identities = {shard: vectors.identity(shard) for shard in index.shard_sizes()}
    members = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[members], np.arange(chosen.clusters + 1))
    with progress("compare", len(index), "pictures") as bar:
        for first, last in _groups(bounds, vectors.dims):
            own = members[bounds[first] : bounds[last]]
            parts = [members[bounds[k] : bounds[k + 1]] for k in range(first, last)]
            order = [
                part[keeping_order(scores[part], _taken(keys, part), farthest=chosen.keep == "farthest")]
                for part in parts
            ]

            def write(folder: Path, own: np.ndarray = own, order: Sequence[np.ndarray] = order) -> UnitRecord:
                x = places.read(vectors, own)
                place = {int(sample): number for number, sample in enumerate(own)}
                found = [compare(x[[place[int(sample)] for sample in part]]) for part in order]
                arrays = {
                    "cosine": np.concatenate([each.cosine for each in found]),
                    "twin": np.concatenate([each.twin for each in found]),
                }
                save_file(arrays, folder / _FILE)
                return UnitRecord({"pictures": len(own)})

            inputs = {
                "compare": {shard: identities[shard] for shard in places.shards_of(own)},
                "samples": [place for part in order for place in places.named(part)],
                "clusters": [len(part) for part in order],
            }
            arrays = load_file(cache.get(inputs, write).file(_FILE))
            start = 0
            for part in order:
                cosine[part] = arrays["cosine"][start : start + len(part)]
                twins = arrays["twin"][start : start + len(part)]
                twin[part] = np.where(twins >= 0, part[np.maximum(twins, 0)], -1) if len(part) else twins
                start += len(part)
            bar.advance(len(own))
    content = {
        "key": keys,
        "cluster": pa.array(labels, pa.int32()),
        "cosine": pa.array(cosine, pa.float64()),
        "twin": keys.take(pa.array(twin, mask=twin < 0)),
    }
    return pa.table(content)


def _groups(bounds: np.ndarray, dims: int) -> Iterator[tuple[int, int]]:
    """(first, last) cluster, not included, of the units: as many clusters as fit into memory."""
    first, clusters = 0, len(bounds) - 1
    for k in range(1, clusters + 1):
        if k == clusters or (bounds[k + 1] - bounds[first]) * dims > _NUMBERS:
            if bounds[k] > bounds[first]:
                yield first, k
            first = k


@dataclass(frozen=True)
class _Places:
    """Where the samples of an index are: names of the shards, and by sample [N] the number of its shard and its row."""

    names: list[str]
    shards: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, index: Index) -> _Places:
        spans = index.spans()
        shards = np.repeat(np.arange(len(spans)), [len(own) for own in spans.values()])
        return cls(list(spans), shards, index.table.column("row").to_numpy())

    def shards_of(self, samples: np.ndarray) -> list[str]:
        """The names of the shards of some samples, sorted."""
        return sorted(self.names[shard] for shard in np.unique(self.shards[samples]).tolist())

    def named(self, samples: np.ndarray) -> list[list[str | int]]:
        """[shard, row] of each sample."""
        own = zip(self.shards[samples].tolist(), self.rows[samples].tolist(), strict=True)
        return [[self.names[shard], row] for shard, row in own]

    def read(self, vectors: SidecarVectors, samples: np.ndarray) -> np.ndarray:
        """The vectors [n, D] of some samples, at least one."""
        shards, rows = self.shards[samples], self.rows[samples]
        x, order = np.empty((len(samples), vectors.dims)), np.argsort(shards, kind="stable")
        for here in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
            x[here] = vectors.read(self.names[shards[here[0]]], rows[here].tolist())
        return x


def _taken(keys: pa.ChunkedArray, samples: np.ndarray) -> list[str]:
    return keys.take(pa.array(samples)).to_pylist()


def _sheet(layout: Layout, index: Index, table: pa.Table, removed: np.ndarray) -> bytes:
    """Pairs of removed pictures and their twins, the least similar first."""
    gone = np.flatnonzero(removed)
    cosine = table.column("cosine").to_numpy()[gone]
    chosen = gone[np.argsort(cosine, kind="stable")[:16]]
    options = pc.SetLookupOptions(value_set=table.column("key"))
    twins = pc.call_function("index_in", [table.column("twin").take(pa.array(chosen))], options).to_pylist()
    reader = PictureReader(layout.shards)
    pairs = [number for pair in zip(chosen.tolist(), twins, strict=True) for number in pair]
    return sheet_of([reader.jpeg(index[number]) for number in pairs], 8)


def semdedup_checks(sizes: np.ndarray, kept: float, chosen: SemDedupParams) -> list[gates.Check]:
    """Checks of the number of samples [K] per cluster, and of the share that is kept."""
    limits = chosen.gates
    return [
        *size_checks("semdedup", sizes, limits),
        gates.Check(
            "semdedup_kept",
            kept >= limits.min_kept,
            "share of the samples that are kept",
            value=round(kept, 6),
            threshold=limits.min_kept,
        ),
    ]
