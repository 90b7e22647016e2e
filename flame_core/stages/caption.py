"""caption: shards -> `data/captions/`: raw, short and long captions of every sample, aligned with the shards.

The unit of work is a shard. A captioner that generates text loads its model only if a shard is not in the work cache,
in a single process; without such a captioner, several processes share the shards. A chat server is asked about all
missing shards before, and captions that are there already are found before; the captions are made from the answers and
the texts.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

from flame_core import gates
from flame_core.captioning import trained
from flame_core.captions.captioner import KINDS, Captioner, Failure, Kind, Written
from flame_core.captions.generation import model_identity, model_name, release_models
from flame_core.captions.server.answers import Answers, answers_file
from flame_core.captions.server.asking import Server, ask
from flame_core.captions.server.captioner import LEDGER, LEDGERS, write_ledger
from flame_core.captions.server.captioner import ServerCaptioner as FromServer
from flame_core.captions.server.client import is_readable_on_the_way
from flame_core.captions.server.question import identity as server_identity
from flame_core.captions.summary import check, summarise
from flame_core.captions.table import MANIFEST, Caption, read_captions, write_captions
from flame_core.captions.tables.captioner import Found
from flame_core.captions.tables.captioner import identity as found_identity
from flame_core.captions.tables.search import FoundTexts, ShardTexts, find_texts
from flame_core.data.captions_text import primary_language
from flame_core.data.shards import INDEX, SPLITS, Sample, read_index, read_shard, shard_names
from flame_core.digest import file_sha256, json_bytes, text_sha256, write_json
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import Captioner as AnyCaptioner
from flame_core.params import (
    CaptionParams,
    ColumnCaptioner,
    FoundCaptioner,
    MetadataCaptioner,
    Params,
    RewriteCaptioner,
    ServerCaptioner,
    TableCaptioner,
    TrainedCaptioner,
    VLMCaptioner,
)
from flame_core.processes.engines import map_units
from flame_core.reporting import facts, table
from flame_core.settings import settings
from flame_core.verification import read_digests, verify
from flame_core.work import Unit, UnitRecord, WorkCache, gather

CAPTIONS = "captions.parquet"
SUMMARY = "summary.json"
log = logging.getLogger(__name__)
_WITHOUT_A_MODEL = ("metadata", "server", "table", "column")
_EXAMPLES, _SHOWN = 5, 500  # samples whose captions are shown, and characters of each


@dataclass(frozen=True)
class CaptionTask:
    """A shard whose captions become the unit `digest`."""

    shard: Path
    digest: str
    params: CaptionParams
    layout: Layout
    work: WorkCache
    texts: Mapping[Kind, ShardTexts]  # of the kinds that are there already


def run(params: Params, layout: Layout, *, retry_failed: bool = False) -> None:
    """Caption the shards that are missing, then gather the captions, their manifest and their checks.

    Raises:
        GateError: the shards failed a blocking check.
        InputError: shards, or a model that a captioner needs, are missing or damaged.
        ParamsError: a caption server is needed, and its address is not set, or it refuses the key or the model.
        ResourceError: memory, disk space or a package is missing, or a caption server does not answer.
    """
    gates.require(layout.shards)
    names = [name for split in SPLITS for name in shard_names(layout.shards, split)]
    if not names:
        raise InputError(f"{layout.shards} holds no shards: run `flame ingest` first")
    identify = cache(lambda spec: model_identity(spec, layout))  # hashes a model once, even if both kinds use it
    chosen = _chosen(params.caption)
    writers = {kind: describe(captioner, identify, layout) for kind, captioner in chosen.items()}
    work = WorkCache(layout.work, "caption", retry_failed=retry_failed)
    verified = verify({layout.shards: [INDEX, "*.tar"]})
    recorded = read_digests(layout.shards)
    shards = {name: recorded[name] for name in names}
    found = _found(chosen, params, layout)
    texts: dict[str, dict[Kind, ShardTexts]] = {
        name: {kind: each.shards[name] for kind, each in found.items()} for name in names
    }
    digests = {name: work.digest(_inputs(shards[name], writers, texts[name])) for name in names}
    units = work.find_all({digest: digest for digest in digests.values()})
    tasks = {
        digest: CaptionTask(layout.shards / name, digest, params.caption, layout, work, texts[name])
        for name, digest in digests.items()
        if digest not in units
    }
    _ask_servers(params.caption, layout, list(tasks.values()), retry_failed)
    generating = any(writer["captioner"] not in _WITHOUT_A_MODEL for writer in writers.values())
    workers = 1 if generating else settings().workers  # a model is loaded once, on one device
    try:
        done = map_units(caption_shard, list(tasks.values()), workers, "caption", "shards", gpu=generating)
        units |= dict(zip(tasks, done, strict=True))
    finally:
        release_models()
        trained.release()

    by_name = {name: units[digest] for name, digest in digests.items()}
    summaries = {name: json.loads(unit.file(SUMMARY).read_text("utf-8")) for name, unit in by_name.items()}
    checks = check(params.caption.gates, summaries, _index_keys(layout.shards))
    manifest = {
        "kinds": {
            "raw": {"captioner": "source"},
            **writers,
            **{kind: writers[kind] | {"sha256": each.files} for kind, each in found.items()},
        },
        "shards": {
            name: {
                "shard_sha256": shards[name],
                "captions_sha256": unit.sha256[CAPTIONS],
                "samples": summaries[name]["samples"],
                "rows": summaries[name]["rows"],
            }
            for name, unit in by_name.items()
        },
    }
    files = {Path(name).with_suffix(".parquet").as_posix(): unit.file(CAPTIONS) for name, unit in by_name.items()}
    ledgers = {name: unit for name, unit in by_name.items() if LEDGER in unit.sha256}
    files |= {_ledger(name): unit.file(LEDGER) for name, unit in ledgers.items()}
    contents = {MANIFEST: json_bytes(manifest), gates.CHECKS: gates.to_bytes(checks)}
    sha256 = {Path(name).with_suffix(".parquet").as_posix(): unit.sha256[CAPTIONS] for name, unit in by_name.items()}
    sha256 |= {_ledger(name): unit.sha256[LEDGER] for name, unit in ledgers.items()}
    gather(layout.captions, layout.state, files, contents, sha256)
    counts = [(f"{kind} {writers[kind]['captioner']}", each.counts) for kind, each in found.items()]
    rows = {f"{what}: {name}": number for what, each in counts for name, number in each.items()}
    facts("caption", {**_facts(by_name, len(tasks), checks), **rows, "verified": verified})
    gates.warn(checks)
    kinds = ["raw", *writers]
    table("sample captions", ["sample", *kinds], _examples(by_name[names[0]].file(CAPTIONS), kinds))


def _found(chosen: Mapping[Kind, AnyCaptioner], params: Params, layout: Layout) -> dict[Kind, FoundTexts]:
    """The texts that are there already, of the kinds that are."""
    sha256 = cache(file_sha256)  # hashes a table once, even if both kinds are in it
    return {
        kind: find_texts(f"caption.{kind}", captioner, params.sources, layout, sha256)
        for kind, captioner in chosen.items()
        if isinstance(captioner, FoundCaptioner)
    }


def _inputs(shard: str, writers: Mapping[str, Any], texts: Mapping[Kind, ShardTexts]) -> dict[str, Any]:
    """What the captions of a shard depend on."""
    own = {"texts": {kind: each.sha256 for kind, each in texts.items()}} if texts else {}
    return {"shard": shard, "writers": dict(writers), **own}


def _ask_servers(params: CaptionParams, layout: Layout, tasks: Sequence[CaptionTask], again: bool) -> None:
    """Have the answers for these shards, if a server writes a kind."""
    captioners = [chosen for chosen in _chosen(params).values() if isinstance(chosen, ServerCaptioner)]
    if not captioners or not tasks:
        return
    given = settings()
    key = given.caption_key.get_secret_value() if given.caption_key else None
    address = given.caption_server
    server = Server(address, key, given.caption_requests, given.caption_timeout) if address else None
    if key and address and is_readable_on_the_way(address):
        log.warning("FLAME_CAPTION_KEY is sent over http, so everyone on the way to %s can read it", address)
    sizes = read_index(layout.shards).shard_sizes()
    shards = {task.shard.relative_to(layout.shards).as_posix(): task.shard for task in tasks}
    samples = sum(sizes.get(name, 0) for name in shards)
    opened = lambda: Answers(answers_file(layout))  # noqa: E731
    ask(list(shards.values()), captioners, opened, server, samples=samples, again=again)


def _ledger(shard: str) -> str:
    return f"{LEDGERS}/{Path(shard).with_suffix('.parquet').as_posix()}"


def _examples(path: Path, kinds: Sequence[str]) -> list[list[str]]:
    """The first samples of a captions file: key, and the first caption of each kind."""
    samples: dict[str, dict[str, str]] = {}
    for caption in read_captions(path):
        samples.setdefault(caption.key, {}).setdefault(caption.kind, caption.text)
    some = list(samples.items())[:_EXAMPLES]
    return [[key, *(shorten(texts.get(kind, ""), _SHOWN, placeholder=" ...") for kind in kinds)] for key, texts in some]


def caption_shard(task: CaptionTask) -> Unit:
    """Write the captions of one shard and publish them as its unit.

    Raises:
        InputError: the shard is damaged, or a captioner's model cannot be used.
    """
    return task.work.compute(task.digest, lambda folder: _write(task, folder))


def open_captioners(params: CaptionParams, layout: Layout) -> dict[Kind, Captioner]:
    """The captioner of each kind in params that writes by itself. A model is loaded only with the first shard."""
    from flame_core.captions import metadata, rewrite, vlm
    from flame_core.captions.appearance import measure_jpeg

    measured = cache(measure_jpeg)  # a picture is measured once for both kinds
    captioners: dict[Kind, Captioner] = {}
    for kind, chosen in _chosen(params).items():
        match chosen:
            case MetadataCaptioner():
                captioners[kind] = metadata.MetadataCaptioner(kind, measured)
            case RewriteCaptioner():
                captioners[kind] = rewrite.RewriteCaptioner(chosen, layout)
            case VLMCaptioner():
                captioners[kind] = vlm.VLMCaptioner(chosen, layout)
            case TrainedCaptioner():
                captioners[kind] = trained.TrainedCaptioner(chosen, layout)
            case ServerCaptioner() | TableCaptioner() | ColumnCaptioner():
                pass
    return captioners


def describe(captioner: AnyCaptioner, identify: Callable[[str], str], layout: Layout) -> dict[str, Any]:
    """What a captioner's texts depend on, for a unit's digest and the manifest: no paths, and digests of prompts."""
    match captioner:
        case MetadataCaptioner():
            return captioner.model_dump()
        case TrainedCaptioner():
            return trained.identity(captioner, layout)
        case ServerCaptioner():
            return server_identity(captioner)
        case TableCaptioner() | ColumnCaptioner():
            return found_identity(captioner)
    return {
        **captioner.model_dump(exclude={"model", "prompt"}),
        "model": model_name(captioner.model),
        "model_sha256": identify(captioner.model),
        "prompt_sha256": text_sha256(captioner.prompt),
    }


def _chosen(params: CaptionParams) -> dict[Kind, AnyCaptioner]:
    return {kind: captioner for kind in KINDS if (captioner := getattr(params, kind))}


def _write(task: CaptionTask, folder: Path) -> UnitRecord:
    samples = list(read_shard(task.shard))
    captions: list[Caption] = []
    failures: dict[str, str] = {}
    written = _written(task, samples)
    for row, sample in enumerate(samples):
        captions += _raw(row, sample)
        reasons = []
        for kind, each in written.items():
            texts = each.texts[row]
            if isinstance(texts, Failure):
                reasons.append(f"{kind}: {texts.reason}")
                continue
            provenance = each.provenances[row]
            captions += [Caption(row, sample.key, kind, text, each.language, provenance) for text in texts]
        if reasons:
            failures[sample.key] = "; ".join(reasons)
    write_captions(folder / CAPTIONS, captions)
    write_json(folder / SUMMARY, summarise(samples, captions, {kind: each.texts for kind, each in written.items()}))
    if asked := [row for each in written.values() for row in each.ledger]:
        write_ledger(folder / LEDGER, asked)
    return UnitRecord({"samples": len(samples), **Counter(caption.kind for caption in captions)}, failures)


def _written(task: CaptionTask, samples: Sequence[Sample]) -> dict[Kind, Written]:
    """What the captioner of each kind wrote."""
    captioners = open_captioners(task.params, task.layout)
    written: dict[Kind, Written] = {}
    for kind, chosen in _chosen(task.params).items():
        if isinstance(chosen, ServerCaptioner):
            with closing(Answers(answers_file(task.layout))) as answers:
                written[kind] = FromServer(chosen, kind, answers).write(samples)
        elif isinstance(chosen, FoundCaptioner):
            written[kind] = Found(chosen, task.texts[kind]).write(samples)
        else:
            written[kind] = Written.by(captioners[kind], samples)
    return written


def _raw(row: int, sample: Sample) -> Iterator[Caption]:
    """The source's own captions: those of the primary language first, then the other languages by code."""
    captions: dict[str, list[str]] = sample.meta["captions"]
    first = primary_language(captions) if captions else ""
    for language in sorted(captions, key=lambda code: (code != first, code)):
        for text in captions[language]:
            yield Caption(row, sample.key, "raw", text, language, f"source:{sample.meta['source']}")


def _index_keys(shards: Path) -> dict[str, Iterator[str]]:
    return {shard: own.keys() for shard, own in read_index(shards).by_shard().items()}


def _facts(units: Mapping[str, Unit], computed: int, checks: Sequence[gates.Check]) -> dict[str, Any]:
    counts = sum((Counter(unit.record.counts) for unit in units.values()), Counter())
    reasons = Counter(reason for unit in units.values() for reason in unit.record.failures.values())
    values: dict[str, Any] = {
        "shards": f"{len(units)} ({computed} computed, {len(units) - computed} found)",
        **{name if name == "samples" else f"{name} captions": count for name, count in counts.items()},
    }
    values |= {f"failed: {reason}": count for reason, count in reasons.most_common(5)}
    failed = [check.name for check in checks if not check.passed]
    return values | ({"failed checks": ", ".join(failed)} if failed else {})
