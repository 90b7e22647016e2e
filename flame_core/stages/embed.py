"""embed: captions -> `data/embeddings/`, vectors of training samples and of the texts that evaluation needs.

The LLM is loaded only if a file of the store is not in the work cache; no later stage loads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core import gates
from flame_core.adapting.origin import learned_from
from flame_core.captions.table import Caption
from flame_core.data.shards import INDEX, read_index, shard_names
from flame_core.digest import json_bytes, value_digest
from flame_core.errors import ParamsError, ResourceError
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
from flame_core.suite.collection import CUT_TEXTS, Collected, collect, cut_texts, digests
from flame_core.suite.collection import jobs as benchmark_jobs
from flame_core.text import store
from flame_core.text.diagnostics import anisotropy, nearest
from flame_core.text.embedding import STAGE, TEXTS_FILE, EmbedTask, embed_files
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
from flame_core.text.llm_adapter import require_adapter
from flame_core.text.manifest import MANIFEST, captions_digest, template_content
from flame_core.text.sentence import SENTENCE
from flame_core.text.store import CUT_SENTENCES
from flame_core.text.training_part import Survey, reading_part, survey, training_part
from flame_core.verification import Verified, read_digests, verify
from flame_core.work import Unit, WorkCache, gather

if TYPE_CHECKING:
    from flame_core.text.facets import FacetTokenizer

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
    counts = {job.name: sum(tokens.count(kind, texts) for kind, texts in job.texts.items()) for job in jobs}

    units, rate, of_llm = compute_jobs(params, layout, jobs, identities, counts)
    computed = sum(unit.computed for unit in units.values())
    files = store_files(jobs, units)
    samples = Counter(read_index(layout.shards, "train").shard_sizes())
    misaligned: set[str] = set()
    surveys: dict[Reading, Survey] = {}
    for reading in identities:
        own = [job for job in jobs if job.trains and job.reading == reading]
        surveys[reading] = survey(own, units)
        embedded = {job.shard: _rows(job, params) for job in own}
        misaligned |= {shard for shard in samples | embedded if samples[shard] != embedded.get(shard)}
    sample = surveys["facets"].sample
    made = {
        **identities["facets"],
        "template": template_content(params),
        "center": params.text.center,
        "facets": facet_names(params.text),
        "hidden": int(sample.shape[-1]),
    }
    manifest = {
        **made,
        "text_facets": [f"{k}/{j}" for k, v in params.text.template.items() for j in range(1, len(v.facets) + 1)],
        "captions": captions_digest(layout.captions),
        "tokens": sum(counts[job.name] for job in jobs if not job.of_benchmark),
        "files": {name: units[job.name].sha256[path.name] for name, (job, path) in sorted(files.items())},
        "report": {"anisotropy": anisotropy(sample)},
    }
    if sentences := surveys.get("sentence"):
        manifest |= {name: identities["sentence"][name] for name in (SENTENCE, "sentence_hash")}
        spread = anisotropy(sentences.sample)
        manifest["report"]["sentences"] = {name: spread[name] for name in ("mean_cosine", "top_direction_energy")}
    if collected:
        manifest["benchmarks"] = digests(collected)
    cut = cut_texts(collected, tokens)
    if cut:
        manifest[CUT_TEXTS] = cut
    if tokens.sentence is not None and (cut_sentences := cut_texts(collected, tokens.sentence)):
        manifest[CUT_SENTENCES] = cut_sentences
    wrong = [row for each in surveys.values() for row in each.wrong]
    checks = _check(params, wrong, sorted(misaligned), manifest)
    contents = {MANIFEST: json_bytes(manifest), gates.CHECKS: gates.to_bytes(checks)}
    training = {gates.CHECKS: contents[gates.CHECKS], store.TOKENIZER: tokenizer_bytes(tokenizer)}
    for reading, found in surveys.items():
        of_sentences = {**identities[reading], "center": params.text.center, "facets": sentence_names(params.text)}
        trained = {
            **(made if reading == "facets" else of_sentences),
            "hidden": made["hidden"],
            "captions": captions_digest(layout.captions, store.TRAIN),
            "tokens": sum(counts[job.name] for job in jobs if job.trains and job.reading == reading),
        }
        training |= reading_part(reading, trained, manifest["files"], found)
    contents |= training_part(manifest["files"], training)
    if params.text.center == "per_language":
        found_at = {job.name: units[job.name].file(TEXTS_FILE) for job in jobs if not job.trains}
        contents |= language_files(jobs, found_at, captions, evaluated_languages(params.evaluate, captions))
    paths = {name: path for name, (_, path) in files.items()}
    gather(layout.embeddings, layout.state, paths, contents, manifest["files"])
    facts(
        "embed",
        {
            "LLM": f"{params.llm.name}, layer {params.text.layer}",
            **_sentence_facts(params, manifest),
            "tokens": sum(counts.values()),
            "tokens per second": rate,
            "files computed / found": f"{computed} / {len(units) - computed}",
            **benchmark_facts(collected, cut),
            **manifest["report"]["anisotropy"],
            "verified": verified + of_llm,
        },
    )
    gates.warn(checks)
    table("nearest captions by facet", ["caption", "facet", "nearest", "cosine"], _neighbours(params, jobs, sample))


def store_identities(
    params: Params, source: dict[str, Any], tokens: FacetTokenizer, adapter: str | None
) -> dict[Reading, dict[str, Any]]:
    """What vectors depend on besides their texts, for each reading that params have.

    Args:
        params: of the run.
        source: what `fetch` recorded about the LLM.
        tokens: that read captions.
        adapter: digest of the LLM's adapters, if it has any.
    """
    from flame_core.text.identity import encoder_identity, sentence_identity

    found: dict[Reading, dict[str, Any]] = {"facets": encoder_identity(params, source, tokens.template_hash, adapter)}
    if tokens.sentence is not None:
        found["sentence"] = sentence_identity(params, source, tokens.sentence.digest, adapter)
    return found


def run_identities(
    params: Params, layout: Layout, source: dict[str, Any], tokens: FacetTokenizer
) -> dict[Reading, dict[str, Any]]:
    """`store_identities` with the LLM's adapters, if this run has any.

    Raises:
        InputError: the adapters are missing, damaged, or follow from something else than this run.
        GateError: they failed a check.
    """
    plain = store_identities(params, source, tokens, None)
    if params.adapt_llm is None:
        return plain
    origin = learned_from(params, layout, value_digest(source["files"]), plain)
    return store_identities(params, source, tokens, require_adapter(layout, origin))


def compute_jobs(
    params: Params,
    layout: Layout,
    jobs: Sequence[Job],
    identities: Mapping[Reading, dict[str, Any]],
    counts: dict[str, int],
    adapter: Path | None = None,
) -> tuple[dict[str, Unit], float | str, Verified]:
    """({job name: finished unit}, tokens per second or why there are none, what was verified of the LLM).

    `adapter`: folder of the LLM's adapters, if it has any; None: those of this run.

    Raises:
        ParamsError: the files that are not in the work cache take more tokens than `text.max_tokens`.
        InputError: the LLM's folder is damaged; nothing was computed with it.
    """
    cache = WorkCache(layout.work, STAGE)
    digests = {
        job.name: cache.digest({**identities[job.reading], "trains": job.trains, "texts": job.texts}) for job in jobs
    }
    units = {name: unit for name, digest in digests.items() if (unit := cache.find(digest))}
    missing = [
        EmbedTask(digest=digests[job.name], job=job, tokens=counts[job.name]) for job in jobs if job.name not in units
    ]
    if not missing:
        return units, "all found in the work cache", Verified(0, 0, 0)
    _require_budget({task.job.name: task.tokens for task in missing}, params)
    verified = verify({layout.llm: [f"{params.llm.name}/*"]})
    rate = embed_files(missing, params, layout, adapter)
    for task in missing:
        if (unit := cache.find(task.digest)) is None:
            raise ResourceError(
                f"{cache.folder}: {task.job.name} was lost as soon as it was written; is the disk sound?"
            )
        units[task.job.name] = replace(unit, computed=True)
    return units, rate, verified


def all_but_weights(params: Params, layout: Layout) -> list[str]:
    """The LLM's files in `data/llm` that are always read; its weights are verified only before they are used."""
    own = f"{params.llm.name}/"
    return [name for name in read_digests(layout.llm) if name.startswith(own) and not name.endswith(".safetensors")]


def store_files(jobs: Sequence[Job], units: dict[str, Unit]) -> dict[str, tuple[Job, Path]]:
    """{name in the store: (job, file of its unit)}."""
    return {
        f"{job.name}{Path(name).suffix}": (job, units[job.name].file(name))
        for job in jobs
        for name in units[job.name].names()
    }


def benchmark_facts(collected: Sequence[Collected], cut: Mapping[str, int]) -> dict[str, str]:
    """What to show about the configured benchmarks."""
    if not collected:
        return {}
    there = [each.benchmark.name for each in collected if each.content]
    missing = [f"{each.benchmark.name} ({each.why})" for each in collected if not each.content]
    found = {"benchmarks": ", ".join(there) or "none", "not available": ", ".join(missing) or "none"}
    if cut:
        found["cut at text.max_caption_tokens"] = ", ".join(f"{count:,} texts of {name}" for name, count in cut.items())
    return found


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


def _require_budget(counts: Mapping[str, int], params: Params) -> None:
    """Refuse to embed more than `text.max_tokens` tokens, before anything is computed; what is stored costs nothing.

    Args:
        counts: {job: tokens} of the files that are not in the work cache.
        params: sets the limit.
    """
    limit, tokens = params.text.max_tokens, sum(counts.values())
    if limit is not None and tokens > limit:
        largest = max(counts, key=lambda name: counts[name])
        raise ParamsError(
            f"embedding takes {tokens:,} more tokens ({counts[largest]:,} of them for {largest}), but text.max_tokens "
            f"is {limit:,}: raise it (text.max_tokens: {_round_up(tokens):_}, or null for any number), or lower "
            "evaluate.max_pictures, evaluate.languages, evaluate.benchmarks or text.train_kinds"
        )


def _round_up(tokens: int) -> int:
    """To two digits, as people write a limit."""
    unit = 10 ** max(len(str(tokens)) - 2, 0)
    return -(-tokens // unit) * unit


def _neighbours(params: Params, jobs: Sequence[Job], sample: np.ndarray) -> list[list[str]]:
    """For a few training samples and each facet, the nearest other caption of the same kind."""
    facets: list[list[str]] = []  # the captions of each facet, in order: [K][N]
    for kind in params.text.train_kinds:
        count = captions_a_sample(kind, params.text)
        for i in range(count):
            texts = [text for job in jobs if job.trains and kind in job.texts for text in job.texts[kind][i::count]]
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


def _check(params: Params, wrong: list[str], misaligned: list[str], manifest: dict[str, Any]) -> list[gates.Check]:
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
