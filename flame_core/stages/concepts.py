"""concepts: captions and pictures of the training split -> `data/concepts/`: how often each concept occurs.

    flame concepts

Only if params have a section `concepts` (docs/concepts.md). `concept_out.py` says what the folder holds. With
`concepts.weights`, the sidecar `data/sidecars/concept-weights` has a weight per sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flame_core import gates
from flame_core.concepts.bitmaps import read_bitmaps
from flame_core.concepts.concept_checks import calibration_check, concept_checks
from flame_core.concepts.concept_counts import Counts, ShardHits, count_shard
from flame_core.concepts.concept_out import (
    FREQUENCIES,
    MANIFEST,
    MISALIGNMENT,
    PAGE,
    Frequencies,
    hits_name,
)
from flame_core.concepts.concept_sources import read_concepts
from flame_core.concepts.concept_weights import weight_units
from flame_core.concepts.counting import HITS, STAGE, Captions, Counting, merged
from flame_core.concepts.lemmas import identity, identity_hash
from flame_core.concepts.open_tagger import open_tagger
from flame_core.concepts.tag_thresholds import THRESHOLDS, calibrate, read_labels
from flame_core.concepts.tags import thresholds_of
from flame_core.data.shards import INDEX, read_index
from flame_core.data.sidecars import gather_sidecar
from flame_core.digest import json_bytes
from flame_core.errors import ParamsError
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.pages.charts import standalone
from flame_core.pages.concepts import concept_page, rank_chart
from flame_core.params import ConceptParams, Params
from flame_core.params.concepts import HELD_OUT_CLASSES, TableTaggerParams
from flame_core.reporting import facts, picture
from flame_core.settings import settings
from flame_core.text.store import TRAIN
from flame_core.verification import read_digests, verify
from flame_core.work import Unit, gather


def run(params: Params, layout: Layout) -> None:
    """Count the concepts that the section `concepts` names, or continue."""
    chosen = params.concepts
    if chosen is None:
        raise ParamsError(
            f"{layout.params} has no section `concepts`: write `concepts: {{benchmarks: [{HELD_OUT_CLASSES}]}}`"
        )
    wanted = _wanted(chosen, layout)
    for source in wanted:
        gates.require(source)
    verified = verify(wanted)
    index = read_index(layout.shards, "train")
    counting = _counting(params, chosen, layout)
    concepts = read_concepts(params, layout, chosen, counting)
    text, patterns = counting.text(concepts, chosen.unknown)
    tagger = open_tagger(params, layout, chosen, concepts, counting, text)
    covered = np.zeros(len(concepts), bool) if tagger is None else tagger.covered
    thresholds, tags, calibrated = np.zeros(len(concepts)), None, None
    if tagger is not None and (images := chosen.images) is not None:
        labels = None
        if images.labels is not None:
            labels = read_labels(linked_place(layout, images.labels), concepts, index)
        file = None if images.thresholds is None else linked_place(layout, images.thresholds)
        thresholds_of(concepts, images.threshold, images.floor, file)  # refused before pictures are looked at
        tags = counting.tags(concepts, tagger, images.floor)
        if labels is not None:
            calibrated = calibrate(labels, tags, index, covered, images.floor)
        thresholds = thresholds_of(
            concepts, images.threshold, images.floor, file, calibrated.thresholds if calibrated else {}
        )
    units = counting.joined(text, chosen.mode, tags, covered, thresholds)
    found = Frequencies(concepts, patterns.unknown, merged(units), chosen.mode)
    recounted, counted = _recounted(units, chosen, covered, counting)
    checks = concept_checks(found, recounted, counting.sizes, counted, chosen.gates)
    if calibrated is not None:
        checks.append(calibration_check(calibrated, concepts.names, chosen.gates))
    manifest = {
        "normaliser": {
            **identity(params.evaluate.train_language),
            "sha256": identity_hash(params.evaluate.train_language),
        },
        "concepts": concepts.digest(),
        "captions": dict(counting.captions.sha256),
        "index": index.digest(),
        "kinds": list(chosen.kinds),
        "mode": chosen.mode,
        "unknown": chosen.unknown,
        "tagger": None if tagger is None else tagger.identity,
    }
    misaligned = found.counts.misalignment
    contents = {
        FREQUENCIES: found.to_bytes(),
        MISALIGNMENT: json_bytes({"counts": vars(misaligned), "rates": misaligned.rates() if tagger else None}),
        MANIFEST: json_bytes(manifest),
        PAGE: concept_page(found, thresholds if tagger else None).encode(),
        gates.CHECKS: gates.to_bytes(checks),
    }
    if calibrated is not None:
        contents[THRESHOLDS] = json_bytes(
            {concepts.names[number]: value for number, value in calibrated.thresholds.items()}
        )
    files = {hits_name(shard): unit.file(HITS) for shard, unit in units.items()}
    digests = {hits_name(shard): unit.sha256[HITS] for shard, unit in units.items()}
    gather(layout.concepts, layout.state, files, contents, digests)
    if chosen.weights is not None:
        weighted = weight_units(layout.work, units, counting.sizes, found.text, chosen.mode, chosen.weights)
        origin = {"concepts": concepts.digest(), "mode": chosen.mode, **chosen.weights.model_dump(mode="json")}
        gather_sidecar(layout.concept_weights, layout.state, weighted, index, STAGE, origin)
    facts(STAGE, {**_told(found, tagger is not None), "page": layout.concepts / PAGE, "verified": verified})
    gates.warn(checks)
    picture("concepts by rank", lambda: standalone(rank_chart(found)), "svg+xml")


def _wanted(chosen: ConceptParams, layout: Layout) -> dict[Path, list[str]]:
    """What is verified before it is read."""
    images = chosen.images
    pictures = images is not None and not isinstance(images.tagger, TableTaggerParams)
    shards = [INDEX, *(["train/*"] if pictures else []), *(["val/*"] if HELD_OUT_CLASSES in chosen.benchmarks else [])]
    wanted = {layout.shards: shards, layout.captions: ["train/*"]}
    if chosen.tower is not None:
        wanted |= {layout.embeddings: ["manifest.json", "texts/*", f"{TRAIN}/*"], layout.model(chosen.tower): ["*"]}
    return wanted


def _counting(params: Params, chosen: ConceptParams, layout: Layout) -> Counting:
    recorded, index = read_digests(layout.captions), read_index(layout.shards, "train")
    shards = sorted(index.shard_sizes())
    sha256 = {shard: recorded[Path(shard).with_suffix(".parquet").as_posix()] for shard in shards}
    captions = Captions(layout.captions, sha256, tuple(chosen.kinds), params.evaluate.train_language)
    pictures = read_digests(layout.shards)
    return Counting(captions, {shard: pictures[shard] for shard in shards}, index, layout.work, settings().workers)


def _recounted(
    units: Mapping[str, Unit], chosen: ConceptParams, covered: np.ndarray, counting: Counting
) -> tuple[Counts, dict[str, int]]:
    """The counts from the stored hits, and how many samples each shard was counted with."""
    total, counted = None, {}
    for shard, unit in units.items():
        sets = read_bitmaps(unit.file(HITS))
        hits = ShardHits(counting.sizes[shard], sets["bag"], sets["phrase"], sets.get("image"))
        own = count_shard(hits, chosen.mode, covered)
        total = own if total is None else total + own
        counted[shard] = unit.record.counts["samples"]
    assert total is not None
    return total, counted


def _told(found: Frequencies, tagged: bool) -> dict[str, Any]:
    text, names = found.text, found.concepts.names
    most = int(text.argmax())
    rates = found.counts.misalignment.rates()
    return {
        "samples": found.counts.misalignment.samples,
        "concepts": len(names),
        "never mentioned": int((text == 0).sum()),
        "median count": float(np.median(text)),
        "most frequent": f"{names[most]} ({text[most]:,})",
        **(
            {
                "in pictures": f"{int((found.counts.image > 0).sum()):,} of {int((found.counts.image >= 0).sum()):,}",
                "misaligned pairs": f"{rates['published']:.2%} (by Algorithm 1: {rates['algorithm']:.2%})",
            }
            if tagged
            else {}
        ),
    }
