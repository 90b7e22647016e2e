"""Counts what a captions file holds, and makes the quality checks from the counts of all files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flame_core.captions.captioner import KINDS, Failure, Kind
from flame_core.captions.table import Caption
from flame_core.data.shards import Sample
from flame_core.digest import value_digest
from flame_core.gates import Check
from flame_core.params import CaptionGates

_KEYS = 20  # failing keys named per check


def summarise(
    samples: Sequence[Sample], captions: Sequence[Caption], written: Mapping[Kind, Sequence[list[str] | Failure]]
) -> dict[str, Any]:
    """Counts of one shard's captions; `captions` are its rows, `written` the results of each kind's captioner."""
    return {
        "keys_sha256": value_digest([sample.key for sample in samples]),
        "samples": len(samples),
        "rows": len(captions),
        "languages": dict(Counter(caption.language for caption in captions if caption.kind == "raw")),
        "without_raw": [sample.key for sample in samples if not any(sample.meta["captions"].values())],
        "kinds": {kind: _summarise_kind(samples, texts) for kind, texts in written.items()},
    }


def _summarise_kind(samples: Sequence[Sample], texts: Sequence[list[str] | Failure]) -> dict[str, Any]:
    failed = [sample.key for sample, own in zip(samples, texts, strict=True) if isinstance(own, Failure)]
    written = [(sample, own) for sample, own in zip(samples, texts, strict=True) if not isinstance(own, Failure)]
    first = [(sample, own[0]) for sample, own in written]  # of several, trainings read this one if no more
    copied = [s.key for s, text in first if any(text in some for some in s.meta["captions"].values())]
    times = Counter(text for _, text in first)
    words = [len(text.split()) for _, own in written for text in own]
    commonest, count = times.most_common(1)[0] if times else ("", 0)
    repeated = [sample.key for sample, text in first if text == commonest] if count > 1 else []
    return {
        "captions": len(words),
        "failed": len(failed),
        "failed_keys": failed[:_KEYS],
        "copied": len(copied),
        "copied_keys": copied[:_KEYS],
        "repeated": len(repeated),
        "repeated_keys": repeated[:_KEYS],
        "words": {"min": min(words, default=0), "total": sum(words), "max": max(words, default=0)},
    }


def check(
    gates: CaptionGates, summaries: Mapping[str, Mapping[str, Any]], index: Mapping[str, Iterable[str]]
) -> list[Check]:
    """The checks of all captions files; `summaries` by shard, `index` the keys of each shard in the index."""
    aligned = {shard: value_digest(list(keys)) for shard, keys in index.items()}
    found = {shard: summary["keys_sha256"] for shard, summary in summaries.items()}
    misaligned = sorted(shard for shard in aligned.keys() | found.keys() if aligned.get(shard) != found.get(shard))
    without = [key for summary in summaries.values() for key in summary["without_raw"]]
    checks = [
        _none("samples_present", "shards whose captions are not those of the samples in the index", misaligned),
        _none("raw_present", "samples without a raw caption in any language", without),
    ]
    samples = sum(summary["samples"] for summary in summaries.values())
    lengths: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        parts = [summary["kinds"][kind] for summary in summaries.values() if kind in summary["kinds"]]
        if not parts:
            continue  # params chose no captioner for it
        lengths[kind] = _lengths(parts)
        failed = f"share of samples whose {kind} captioner failed"
        copied = f"share of {kind} captions that repeat a raw caption of their sample"
        repeated = f"share of {kind} captions that are the most frequent one of their shard"
        checks += [
            _fraction(f"{kind}_failed", failed, parts, "failed", samples, gates.max_failed_fraction),
            _fraction(f"{kind}_copied", copied, parts, "copied", samples, gates.max_identical_fraction),
            _fraction(f"{kind}_repeated", repeated, parts, "repeated", samples, gates.max_identical_fraction),
        ]
    languages = sum((Counter(summary["languages"]) for summary in summaries.values()), Counter())
    return [
        *checks,
        Check("caption_words", True, "words of a caption, by kind", lengths, blocking=False),
        Check("raw_languages", True, "raw captions by language", dict(languages), blocking=False),
    ]


def _none(name: str, description: str, offenders: Sequence[str]) -> Check:
    return Check(name, not offenders, description, len(offenders), 0, keys=list(offenders[:_KEYS]))


def _fraction(
    name: str, description: str, parts: Sequence[Mapping[str, Any]], field: str, samples: int, threshold: float
) -> Check:
    fraction = sum(part[field] for part in parts) / max(samples, 1)
    keys = [key for part in parts for key in part[f"{field}_keys"]]
    return Check(name, fraction <= threshold, description, fraction, threshold, keys=keys[:_KEYS])


def _lengths(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    words = [part["words"] for part in parts if part["captions"]]
    if not words:
        return {}
    mean = sum(some["total"] for some in words) / sum(part["captions"] for part in parts)
    return {"min": min(some["min"] for some in words), "mean": mean, "max": max(some["max"] for some in words)}
