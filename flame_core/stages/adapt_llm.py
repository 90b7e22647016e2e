"""adapt_llm: captions, the LLM -> `data/llm-adapter/`: LoRA adapters with which the LLM embeds captions (LLM2CLIP).

    flame adapt-llm

Only if params have a section `adapt_llm`; no picture is read, and the LLM's files keep their bytes. The folder holds
the two files of `peft`, `manifest.json` (what the adapters follow from), `metrics.jsonl` with a row per step,
`ceilings.json` and `adapter.html`: text-to-text recall by language without and with the adapters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flame_core import gates
from flame_core.adapting.ceilings import Ceilings, changes, mean_but, measured_ceilings
from flame_core.adapting.origin import learned_from
from flame_core.data.shards import INDEX
from flame_core.digest import json_bytes, value_digest
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.measuring.texts import class_names, evaluation_texts, read_classes, read_validation_captions
from flame_core.model_files import METRICS
from flame_core.pages.llm_adapter import adapter_page
from flame_core.params import AdaptLLMParams, Params
from flame_core.reporting import facts, table
from flame_core.settings import settings
from flame_core.text.identity import store_identities
from flame_core.text.jobs import sentence_jobs, text_jobs
from flame_core.text.llm_adapter import ADAPTER_FILES, MANIFEST, adapter_digest
from flame_core.text.store_units import compute_jobs
from flame_core.verification import verify
from flame_core.work import WorkCache, gather

if TYPE_CHECKING:
    from flame_core.adapting.contrast import HeldOut
    from flame_core.adapting.pairs import CaptionPairs

STAGE = "adapt_llm"
PAGE, CEILINGS = "adapter.html", "ceilings.json"


def run(params: Params, layout: Layout) -> None:
    """Train the adapters that the section `adapt_llm` asks for, or continue; then measure what they change."""
    from flame_core.adapting.adapted import Adapting
    from flame_core.adapting.fit import ends
    from flame_core.adapting.pairs import read_pairs
    from flame_core.text.facets import FacetTokenizer
    from flame_core.text.llm import load_tokenizer, read_source

    chosen = params.adapt_llm
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `adapt_llm`: write `adapt_llm: {{steps: 500}}`")
    gates.require(layout.captions)
    own = f"{params.llm.name}/*"
    verified = verify({layout.captions: ["*.parquet"], layout.shards: [INDEX, "val/*"], layout.llm: [own]})
    folder = layout.llm / params.llm.name
    source = read_source(folder)
    llm = value_digest(source["files"])
    tokens = FacetTokenizer(load_tokenizer(folder, params.llm), params.text)
    pairs = read_pairs(chosen, layout.captions, params.evaluate.train_language)
    origin = learned_from(params, layout, llm, store_identities(params, source, tokens, None))
    unit = Adapting(
        params=chosen,
        text=params.text,
        llm_params=params.llm,
        folder=folder,
        llm=(params.llm.name, llm),
        pairs=pairs,
        inputs=origin,
        cache=WorkCache(layout.work, STAGE),
        device=settings().torch_device(),
    ).run()
    rows = [json.loads(line) for line in unit.file(METRICS).read_text("utf-8").splitlines()]
    first, last = ends(rows)

    captions = read_validation_captions(layout.captions, params.evaluate)
    jobs = text_jobs(layout.captions, evaluation_texts(params, captions, class_names(read_classes(layout.shards))))
    if chosen.reading == "sentence":
        jobs = sentence_jobs(jobs, params.text)
    ceilings: dict[str, Ceilings] = {}
    plain = params.model_copy(update={STAGE: None})
    for when, with_params, digest in (("before", plain, None), ("after", params, adapter_digest(unit.folder))):
        identities = store_identities(with_params, source, tokens, digest)
        units, _, of_llm = compute_jobs(with_params, layout, jobs, identities, tokens, unit.folder)
        verified += of_llm
        ceilings[when] = measured_ceilings(params.evaluate, captions, jobs, units, chosen.reading)

    name = f"recall@{max(params.evaluate.recall_at)}"
    checks = adapter_checks(
        chosen, first.loss, last.loss, ceilings, name, unchanged=not unit.record.counts["llm_changed"]
    )
    figures = _figures(pairs, first, last, ceilings, name, params.evaluate.train_language)
    files = {name: unit.file(name) for name in (*ADAPTER_FILES, METRICS)}
    measured = {**ceilings, "held_out": {"before": vars(first), "after": vars(last)}}
    contents = {
        MANIFEST: json_bytes({"name": params.llm.name, **origin, "adapter": adapter_digest(unit.folder)}),
        CEILINGS: json_bytes(measured),
        PAGE: adapter_page(ceilings["before"], ceilings["after"], [row["loss"] for row in rows], figures).encode(),
        gates.CHECKS: gates.to_bytes(checks),
    }
    gather(layout.llm_adapter, layout.state, files, contents)
    facts(
        STAGE,
        {
            "LLM": f"{params.llm.name}, layer {origin['reads']['layer']}",
            **figures,
            "from": "trained now" if unit.computed else "the work cache",
            "page": layout.llm_adapter / PAGE,
            "verified": verified,
        },
    )
    gates.warn(checks)
    _tell_recall(ceilings, name)


def _figures(
    pairs: CaptionPairs, first: HeldOut, last: HeldOut, ceilings: Mapping[str, Ceilings], name: str, language: str
) -> dict[str, str]:
    """What the training changed: losses of held-out pairs, and recall `name` in the training language and others."""
    return {
        "pictures learned / held out": f"{len(pairs.learned):,} / {len(pairs.held_out):,}",
        "loss of held-out pairs": f"{first.loss:.3f} -> {last.loss:.3f}",
        "held-out pairs found first": f"{first.recall:.1%} -> {last.recall:.1%} of {len(pairs.test)}",
        f"{name}, {language}": _arrow([own.get(language, {}).get(name) for own in ceilings.values()]),
        f"{name}, mean of other languages": _arrow([mean_but(own, name, language) for own in ceilings.values()]),
    }


def _tell_recall(ceilings: Mapping[str, Ceilings], name: str) -> None:
    """Recall `name` by language, before and after."""
    risen = changes(ceilings["before"], ceilings["after"], name)
    table(
        f"{name} of texts by language",
        ["language", "before", "after", "change"],
        [
            [language, f"{ceilings['before'][language][name]:.3f}", f"{own[name]:.3f}", f"{risen[language]:+.3f}"]
            for language, own in ceilings["after"].items()
        ],
    )


def _arrow(values: list[float | None]) -> str:
    return " -> ".join("none" if value is None else f"{value:.1%}" for value in values)


def adapter_checks(
    chosen: AdaptLLMParams, first: float, last: float, ceilings: dict[str, Ceilings], name: str, *, unchanged: bool
) -> list[gates.Check]:
    """Checks of adapters: losses of held-out pairs `first` and `last`, and the recall `name` of the ceilings."""
    gain = 1 - last / first
    risen = changes(ceilings["before"], ceilings["after"], name)
    worst = min(risen.values(), default=0.0)
    return [
        gates.Check(
            "adapter_learned",
            gain > chosen.gates.min_gain,
            "by what share the loss of held-out captions fell",
            value=gain,
            threshold=chosen.gates.min_gain,
        ),
        gates.Check(
            "adapter_llm_unchanged",
            unchanged,
            "the LLM's own weights after training, against those before",
            value=unchanged,
            threshold=True,
        ),
        gates.Check(
            "ceilings_kept",
            worst >= -chosen.gates.max_ceiling_drop,
            f"change of {name} between texts in the language that lost most",
            value=worst,
            threshold=-chosen.gates.max_ceiling_drop,
            blocking=False,
            keys=[language for language, change in risen.items() if change < -chosen.gates.max_ceiling_drop],
        ),
    ]
