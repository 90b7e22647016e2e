"""domains: sources of the section `domains` -> `data/domains/<name>/`: labelled pictures that no model is trained on.

    flame domains

A folder holds `00000.jpg`, ... and `labels.json`, which says of each file the key and the class. Pictures are prepared
as `ingest` prepares those of the shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from flame_core import gates
from flame_core.data.contact_sheet import sheet_of
from flame_core.data.picture_decoding import PictureError, read_picture
from flame_core.data.sources import RawPair, open_source
from flame_core.data.sources.listing import read_pairs
from flame_core.digest import json_bytes, text_sha256
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import DomainParams, IngestParams, Params, changed_values
from flame_core.reporting import facts, picture, progress
from flame_core.tuning.labelled import LABELS
from flame_core.work import Unit, UnitRecord, WorkCache, gather

STAGE = "domains"
_PREPARES = ("max_pixels", "max_side", "jpeg_quality")  # values of `ingest` that a prepared picture depends on
_SHOWN = 32  # pictures of a domain
_NAMED = 20  # categories and keys in a check


def run(params: Params, layout: Layout) -> None:
    """Fetch and choose the pictures of all domains.

    Raises:
        InputError: a source has no picture of a wanted class.
    """
    if not params.domains:
        raise ParamsError(
            f"{layout.params} has no section `domains`: write "
            "`domains: {<name>: {source: {kind: folder, path: <folder>}}}`"
        )
    cache = WorkCache(layout.work, STAGE)
    files: dict[str, Path] = {}
    sha256: dict[str, str] = {}
    checks: list[gates.Check] = []
    told: dict[str, str] = {}
    shown: list[Path] = []
    for name, domain in sorted(params.domains.items()):
        source = open_source(domain.source, layout, f"{STAGE}/{name}")
        listed = source.download(WorkCache(layout.work, "download"))
        pairs = read_pairs(listed.folder, source.pictures(listed.folder))
        chosen, categories = choose(pairs, domain)
        if not chosen:
            raise InputError(
                f"domain {name}: none of its {len(pairs):,} pictures is of a class of domains.{name}.classes; its "
                f"categories are {', '.join(category for category, _ in categories.most_common(_NAMED)) or 'none'}"
            )
        unit = _unit(cache, chosen, params.ingest, name)
        files |= {f"{name}/{file}": unit.file(file) for file in unit.names()}
        sha256 |= {f"{name}/{file}": digest for file, digest in unit.sha256.items()}
        checks += domain_checks(name, domain, chosen, unit)
        counts = Counter(label for _, label in chosen)
        told[name] = f"{unit.record.counts['pictures']:,} pictures of {len(counts)} classes, {len(pairs):,} listed"
        own = [unit.file(file) for file in unit.names() if file != LABELS]
        shown += [own[place * len(own) // min(len(own), _SHOWN)] for place in range(min(len(own), _SHOWN))]
    gather(layout.domains, layout.state, files, {gates.CHECKS: gates.to_bytes(checks)}, sha256)
    facts(STAGE, told)
    gates.warn(checks)
    picture("pictures", lambda: sheet_of([path.read_bytes() for path in shown]), "jpeg")


def choose(pairs: Sequence[RawPair], domain: DomainParams) -> tuple[list[tuple[RawPair, str]], Counter[str]]:
    """(pictures with their classes, in the source's order; how many pictures each category has)."""
    categories: Counter[str] = Counter()
    by_class: dict[str, list[RawPair]] = {}
    for pair in pairs:
        if pair.image is None or not pair.category:
            continue
        categories[pair.category] += 1
        if (label := class_of(pair.category, domain.classes)) is not None:
            by_class.setdefault(label, []).append(pair)
    kept: dict[str, str] = {}
    for label, own in by_class.items():
        own.sort(key=lambda pair: text_sha256(f"domain {domain.seed} {pair.key}"))
        kept |= {pair.key: label for pair in own[: domain.per_class]}
    return [(pair, kept[pair.key]) for pair in pairs if pair.key in kept], categories


def class_of(category: str, classes: Mapping[str, str] | None) -> str | None:
    """The class of a category such as animals/birds; None if it has none."""
    parts = category.split("/")
    if classes is None:
        return parts[0].strip() or None
    fits = ("/".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((classes[each] for each in fits if each in classes), None)


def _unit(cache: WorkCache, chosen: Sequence[tuple[RawPair, str]], ingest: IngestParams, name: str) -> Unit:
    """The prepared pictures of a domain; what else its source lists changes nothing."""

    def write(folder: Path) -> UnitRecord:
        rows, failures = [], {}
        with progress(f"pictures of {name}", len(chosen), "pictures") as bar:
            for pair, label in chosen:
                assert pair.image is not None
                content = pair.image.read()
                try:
                    jpeg = read_picture(content, ingest).jpeg or content
                except PictureError as error:
                    failures[pair.key] = f"{error.reason}: {error.detail}"
                else:
                    file = f"{len(rows):05}.jpg"
                    (folder / file).write_bytes(jpeg)
                    rows.append({"file": file, "key": pair.key, "class": label})
                bar.advance()
        (folder / LABELS).write_bytes(json_bytes({"pictures": rows}))
        return UnitRecord({"pictures": len(rows)}, failures)

    prepares = {name: value for name, value in changed_values(ingest).items() if name in _PREPARES}
    content = [[pair.key, pair.image.sha256 if pair.image else "", label] for pair, label in chosen]
    return cache.get({"chosen": content, "ingest": prepares}, write)


def domain_checks(
    name: str, domain: DomainParams, chosen: Sequence[tuple[RawPair, str]], unit: Unit
) -> list[gates.Check]:
    """That every wanted class has a picture, and every picture could be read."""
    empty = sorted(set((domain.classes or {}).values()) - {label for _, label in chosen})
    failures = unit.record.failures
    return [
        gates.Check(
            f"domain_classes/{name}",
            not empty,
            "wanted classes without a picture",
            value=len(empty),
            threshold=0,
            blocking=False,
            keys=empty[:_NAMED],
        ),
        gates.Check(
            f"domain_readable/{name}",
            not failures,
            "pictures that cannot be read",
            value=len(failures),
            threshold=0,
            blocking=False,
            keys=sorted(failures)[:_NAMED],
        ),
    ]
