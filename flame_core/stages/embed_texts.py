"""embed-texts: add the texts of new benchmarks to the store, and change nothing else.

The fast path of `embed`: it keeps the existing store, does not verify or read its training embeddings again, and the
result is byte for byte what `flame embed` would make from the same params and data
(docs/decisions/benchmark-texts.md). The command then records it in DVC, which would else bring back the old store. So a
store that lacks other texts, such as those of a new language, is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow.parquet as pq

from flame_core import gates
from flame_core.adapting.origin import run_identities
from flame_core.data.shards import INDEX
from flame_core.digest import json_bytes
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.measuring.texts import (
    class_names,
    evaluated_languages,
    evaluation_texts,
    read_classes,
    read_validation_captions,
)
from flame_core.params import Params
from flame_core.reporting import facts
from flame_core.suite.collection import RECORDED, collect, jobs, recorded, shown
from flame_core.text.jobs import BENCHMARK, Job, sentence_jobs, text_jobs
from flame_core.text.language_means import LANGUAGE_FILES, language_jobs
from flame_core.text.manifest import MANIFEST, read_manifest, require_fit
from flame_core.text.sentence import SENTENCE
from flame_core.text.store import CENTER, TOKENIZER, TRAIN
from flame_core.text.store_units import all_but_weights, compute_jobs, store_files, token_counts
from flame_core.verification import DIGESTS, read_digests, verify
from flame_core.work import gather


def run(params: Params, layout: Layout) -> None:
    """Embed the missing texts of the configured benchmarks, and rewrite the store with them.

    Raises:
        InputError: the store was made with other params or inputs; `flame embed` makes it again.
    """
    from flame_core.text.facets import FacetTokenizer
    from flame_core.text.llm import load_tokenizer, read_source

    gates.require(layout.embeddings)
    names = [MANIFEST, CENTER, TOKENIZER, gates.CHECKS, DIGESTS, f"{SENTENCE}/{MANIFEST}", f"{SENTENCE}/{CENTER}"]
    small = [*(f"{TRAIN}/{name}" for name in names), *LANGUAGE_FILES]
    verified = verify(
        {
            layout.embeddings: [MANIFEST, gates.CHECKS, *small, "texts/*.parquet"],
            layout.captions: ["*.parquet"],  # the manifest holds their digest
            layout.shards: [INDEX, "val/*"],
            layout.llm: all_but_weights(params, layout),
        }
    )
    manifest = read_manifest(layout.embeddings)
    require_fit(manifest, params, layout)
    folder = layout.llm / params.llm.name
    tokens = FacetTokenizer(load_tokenizer(folder, params.llm), params.text)
    identities = run_identities(params, layout, read_source(folder), tokens)
    identity = {**identities.get("sentence", {}), **identities["facets"]}
    if wrong := [name for name, value in identity.items() if manifest.get(name) != value]:
        raise InputError(f"{layout.embeddings}: {', '.join(wrong)} differ from this run; run `flame embed`")
    _require_texts(params, layout, manifest["files"])
    collected = collect(params, layout)
    planned = jobs(collected)
    planned += sentence_jobs(planned, params.text)
    units, rate, of_llm = compute_jobs(params, layout, planned, identities, tokens)

    new = store_files(planned, units)
    kept = [name for name in manifest["files"] if not name.startswith(BENCHMARK)]
    sha256 = {name: manifest["files"][name] for name in kept}
    sha256 |= {name: units[job.name].sha256[path.name] for name, (job, path) in new.items()}
    manifest = {name: value for name, value in manifest.items() if name not in RECORDED}
    manifest |= {"files": dict(sorted(sha256.items())), **recorded(collected, tokens)}
    known = read_digests(layout.embeddings)
    whole = [name for name in (gates.CHECKS, *small) if name in known]
    files = {name: layout.embeddings / name for name in [*kept, *whole]}
    files |= {name: path for name, (_, path) in new.items()}
    sha256 |= {name: known[name] for name in whole}
    gather(layout.embeddings, layout.state, files, {MANIFEST: json_bytes(manifest)}, sha256)
    facts(
        "embed-texts",
        {
            "tokens": sum(token_counts(planned, units, tokens).values()),
            "tokens per second": rate,
            **shown(collected, manifest),
            "verified": verified + of_llm,
        },
    )


def _require_texts(params: Params, layout: Layout, files: Iterable[str]) -> None:
    """Refuse a store with other texts for the held-out split than `flame embed` would now read.

    Raises:
        InputError: names the file of the store.
    """
    captions = read_validation_captions(layout.captions, params.evaluate)
    planned = text_jobs(layout.captions, evaluation_texts(params, captions, class_names(read_classes(layout.shards))))
    if params.text.center == "per_language":
        planned += language_jobs(layout.captions, evaluated_languages(params.evaluate, captions)[1:])
    wanted = {f"{job.name}.parquet": job for job in planned + sentence_jobs(planned, params.text)}
    stored = {name for name in files if name.endswith(".parquet") and not name.startswith(BENCHMARK)}
    for name in sorted(wanted.keys() | stored):
        if (
            name not in wanted
            or name not in stored
            or pq.read_table(layout.embeddings / name).to_pylist() != _rows(wanted[name])
        ):
            raise InputError(
                f"{layout.embeddings / name}: the store was made with another evaluate.languages, train_language, "
                "max_pictures or class_prompts, and `flame embed-texts` adds only benchmarks: run `flame run embed`"
            )


def _rows(job: Job) -> list[dict[str, Any]]:
    return [{"kind": kind, "row": i, "text": text} for kind, own in job.texts.items() for i, text in enumerate(own)]
