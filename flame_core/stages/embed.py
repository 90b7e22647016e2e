"""embed: captions -> `data/embeddings/`, vectors of training samples and of the texts that evaluation needs.

The LLM is loaded only if a file of the store is not in the work cache; no later stage loads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, islice
from textwrap import shorten
from typing import Any

import numpy as np

from flame_core import gates
from flame_core.adapting.origin import run_identities
from flame_core.captions.table import Caption
from flame_core.data.shards import INDEX, read_index, shard_names
from flame_core.digest import json_bytes
from flame_core.layout import Layout
from flame_core.measuring.texts import (
    class_names,
    evaluated_languages,
    evaluation_texts,
    read_classes,
    read_validation_captions,
)
from flame_core.params import Params, Reading
from flame_core.reporting import facts, table
from flame_core.suite.collection import collect, recorded, shown
from flame_core.suite.collection import jobs as benchmark_jobs
from flame_core.text import store
from flame_core.text.diagnostics import anisotropy, nearest
from flame_core.text.embedding import TEXTS_FILE
from flame_core.text.jobs import (
    Job,
    captions_a_sample,
    facet_names,
    sentence_jobs,
    sentence_names,
    text_jobs,
    training_job,
)
from flame_core.text.language_means import language_files, language_jobs
from flame_core.text.manifest import MANIFEST, captions_digest, template_content
from flame_core.text.sentence import SENTENCE
from flame_core.text.store_units import all_but_weights, compute_jobs, store_files, token_counts
from flame_core.text.training_part import Survey, reading_part, survey, training_part
from flame_core.verification import verify
from flame_core.work import gather

_SHOWN_SAMPLES = 3  # whose nearest captions are shown


def run(params: Params, layout: Layout) -> None:
    """Embed what is missing, then gather the store, its manifest and its checks."""
    from flame_core.text.facets import FacetTokenizer
    from flame_core.text.llm import load_tokenizer, read_source, tokenizer_bytes

    gates.require(layout.captions)
    verified = verify(
        {
            layout.captions: ["*.parquet"],
            layout.shards: [INDEX, "val/*"],
            layout.llm: all_but_weights(params, layout),
        }
    )
    captions = read_validation_captions(layout.captions, params.evaluate)
    collected = collect(params, layout)
    jobs = plan_jobs(params, layout, captions) + benchmark_jobs(collected)
    if params.text.center == "per_language":
        others = evaluated_languages(params.evaluate, captions)[1:]  # without that of training
        jobs += language_jobs(layout.captions, others)
    jobs += sentence_jobs(jobs, params.text)
    folder = layout.llm / params.llm.name
    tokenizer = load_tokenizer(folder, params.llm)
    tokens = FacetTokenizer(tokenizer, params.text)
    identities = run_identities(params, layout, read_source(folder), tokens)
    units, rate, of_llm = compute_jobs(params, layout, jobs, identities, tokens)
    counts = token_counts(jobs, units, tokens)
    files = store_files(jobs, units)
    trained: dict[Reading, list[Job]] = {
        reading: [job for job in jobs if job.trains and job.reading == reading] for reading in identities
    }
    surveys: dict[Reading, Survey] = {reading: survey(own, units) for reading, own in trained.items()}
    manifest = {
        **_made(params, identities["facets"], surveys["facets"]),
        "text_facets": [f"{k}/{j}" for k, v in params.text.template.items() for j in range(1, len(v.facets) + 1)],
        "captions": captions_digest(layout.captions),
        "tokens": sum(counts[job.name] for job in jobs if not job.of_benchmark),
        "files": {name: units[job.name].sha256[path.name] for name, (job, path) in sorted(files.items())},
        **_report(identities, surveys),
        **recorded(collected, tokens),
    }
    checks = _check(params, surveys, _misaligned(params, layout, trained), manifest)
    contents = {MANIFEST: json_bytes(manifest), gates.CHECKS: gates.to_bytes(checks)}
    training = {gates.CHECKS: contents[gates.CHECKS], store.TOKENIZER: tokenizer_bytes(tokenizer)}
    for reading, surveyed in surveys.items():
        about = {
            **_made(params, identities[reading], surveyed, reading),
            "captions": captions_digest(layout.captions, store.TRAIN),
            "tokens": sum(counts[job.name] for job in trained[reading]),
        }
        training |= reading_part(reading, about, manifest["files"], surveyed)
    contents |= training_part(manifest["files"], training)
    if params.text.center == "per_language":
        found_at = {job.name: units[job.name].file(TEXTS_FILE) for job in jobs if not job.trains}
        contents |= language_files(jobs, found_at, captions, evaluated_languages(params.evaluate, captions))
    paths = {name: path for name, (_, path) in files.items()}
    gather(layout.embeddings, layout.state, paths, contents, manifest["files"])
    computed = sum(unit.computed for unit in units.values())
    facts(
        "embed",
        {
            "LLM": f"{params.llm.name}, layer {params.text.layer}",
            **_sentence_facts(params, manifest),
            "tokens": sum(counts.values()),
            "tokens per second": rate,
            "files computed / found": f"{computed} / {len(units) - computed}",
            **shown(collected, manifest),
            **manifest["report"]["anisotropy"],
            "verified": verified + of_llm,
        },
    )
    gates.warn(checks)
    neighbours = _neighbours(params, jobs, surveys["facets"].sample)
    table("nearest captions by facet", ["caption", "facet", "nearest", "cosine"], neighbours)


def _made(params: Params, identity: Mapping[str, Any], surveyed: Survey, reading: Reading = "facets") -> dict[str, Any]:
    """What a manifest says of a reading: what its vectors depend on besides texts, and their shape."""
    of_facets = reading == "facets"
    return {
        **identity,
        **({"template": template_content(params)} if of_facets else {}),
        "center": params.text.center,
        "facets": facet_names(params.text) if of_facets else sentence_names(params.text),
        "hidden": int(surveyed.sample.shape[-1]),
    }


def _report(identities: Mapping[Reading, Mapping[str, Any]], surveys: Mapping[Reading, Survey]) -> dict[str, Any]:
    """How training vectors lie in space, by reading, and how sentences are read."""
    report: dict[str, Any] = {"anisotropy": anisotropy(surveys["facets"].sample)}
    if "sentence" not in surveys:
        return {"report": report}
    spread = anisotropy(surveys["sentence"].sample)
    report["sentences"] = {name: spread[name] for name in ("mean_cosine", "top_direction_energy")}
    return {"report": report, **{name: identities["sentence"][name] for name in (SENTENCE, "sentence_hash")}}


def _misaligned(params: Params, layout: Layout, trained: Mapping[Reading, Sequence[Job]]) -> list[str]:
    """Training shards that have another number of samples than a reading has rows."""
    samples = read_index(layout.shards, "train").shard_sizes()
    wrong: set[str] = set()
    for own in trained.values():
        rows = {job.shard: _rows(job, params) for job in own}
        wrong |= {shard for shard in samples | rows if samples.get(shard) != rows.get(shard)}
    return sorted(wrong)


def _sentence_facts(params: Params, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What to show about the sentences, if any are read."""
    if params.text.sentence is None:
        return {}
    spread = {f"sentences: {name}": value for name, value in manifest["report"]["sentences"].items()}
    return {"sentences": f"{params.text.sentence.read} of layer {params.text.sentence_layer}", **spread}


def plan_jobs(params: Params, layout: Layout, captions: Sequence[Caption]) -> list[Job]:
    """The jobs that make the store: training shards, and texts for the evaluation of these captions."""
    wanted = evaluation_texts(params, captions, class_names(read_classes(layout.shards)))
    names = shard_names(layout.shards, "train")
    training = [training_job(layout.captions, name, params.text, params.evaluate.train_language) for name in names]
    return training + text_jobs(layout.captions, wanted)


def _neighbours(params: Params, jobs: Sequence[Job], sample: np.ndarray) -> list[list[str]]:
    """For a few training samples and each facet, the nearest other caption of the same kind."""
    facets: list[list[str]] = []  # of each facet the captions of the samples, in order: [K][N]
    for kind in params.text.train_kinds:
        count = captions_a_sample(kind, params.text)
        for i in range(count):
            own = (job.texts[kind][i::count] for job in jobs if job.trains and kind in job.texts)
            texts = list(islice(chain.from_iterable(own), len(sample)))
            facets += [texts] * len(params.text.template[kind].facets)
    rows = sorted({len(sample) * i // _SHOWN_SAMPLES for i in range(_SHOWN_SAMPLES)}) if len(sample) > 1 else []
    found, cosines = nearest(sample, rows)
    return [
        [shorten(facets[k][row], 90), name, shorten(facets[k][found[r, k]], 90), f"{cosines[r, k]:.3f}"]
        for r, row in enumerate(rows)
        for k, name in enumerate(facet_names(params.text))
    ]


def _rows(job: Job, params: Params) -> int:
    """How many samples a training job embeds."""
    kind, texts = next(iter(job.texts.items()))
    return len(texts) // captions_a_sample(kind, params.text)


def _check(
    params: Params, surveys: Mapping[Reading, Survey], misaligned: list[str], manifest: Mapping[str, Any]
) -> list[gates.Check]:
    wrong = [row for each in surveys.values() for row in each.wrong]
    cosine = manifest["report"]["anisotropy"]["facet_cosine"]
    highest = params.text.gates.max_facet_cosine
    return [
        gates.Check(
            "embeddings_unit_norm",
            not wrong,
            "training embeddings are finite and of length 1",
            value=len(wrong),
            threshold=0,
            keys=wrong[:20],
        ),
        gates.Check(
            "embeddings_aligned",
            not misaligned,
            "every training shard has one row of embeddings a sample",
            value=len(misaligned),
            threshold=0,
            keys=misaligned[:20],
        ),
        gates.Check(
            "facets_differ",
            len(manifest["facets"]) == 1 or cosine <= highest,
            "mean cosine between different facets of a caption",
            value=cosine,
            threshold=highest,
        ),
    ]
