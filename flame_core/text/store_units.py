"""The files of a store as units of the work cache: found there, or computed by the LLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_core.errors import ParamsError, ResourceError
from flame_core.layout import Layout
from flame_core.params import Params, Reading
from flame_core.text.embedding import STAGE, TOKENS, EmbedTask, embed_files
from flame_core.text.jobs import Job
from flame_core.verification import Verified, read_digests, verify
from flame_core.work import Unit, WorkCache

if TYPE_CHECKING:
    from flame_core.text.facets import FacetTokenizer


def compute_jobs(
    params: Params,
    layout: Layout,
    jobs: Sequence[Job],
    identities: Mapping[Reading, dict[str, Any]],
    tokens: FacetTokenizer,
    adapter: Path | None = None,
) -> tuple[dict[str, Unit], float | str, Verified]:
    """({job name: finished unit}, tokens per second or why there are none, what was verified of the LLM).

    `adapter`: folder of the LLM's adapters, if it has any; None: those of this run.

    Raises:
        ParamsError: the files that are not in the work cache take more tokens than `text.max_tokens`.
        InputError: the LLM's folder is damaged; nothing was computed with it.
    """
    cache = WorkCache(layout.work, STAGE)
    digests = {job.name: cache.digest({**identities[job.reading], **_identity(job)}) for job in jobs}
    units = cache.find_all(digests)
    missing = [
        EmbedTask(digest=digests[job.name], job=job, tokens=_count(job, tokens))
        for job in jobs
        if job.name not in units
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


def _identity(job: Job) -> dict[str, Any]:
    """What a job's file depends on beside how texts are read."""
    own = {"trains": job.trains, "texts": job.texts}
    ordered = job.trains and len(job.texts) > 1  # then the vectors of a sample stand in the order of the kinds
    return own | ({"kinds": list(job.texts)} if ordered else {})


def token_counts(jobs: Sequence[Job], units: Mapping[str, Unit], tokens: FacetTokenizer) -> dict[str, int]:
    """{job name: tokens that the LLM reads}, as the units tell; those of units that do not tell are counted."""
    told = {job.name: units[job.name].record.counts.get(TOKENS) for job in jobs}
    return {job.name: _count(job, tokens) if (own := told[job.name]) is None else own for job in jobs}


def _count(job: Job, tokens: FacetTokenizer) -> int:
    return sum(tokens.count(kind, texts) for kind, texts in job.texts.items())


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
