"""Stages that `dvc.yaml` has only if params have a section of the same name, such as `cluster`.

Such a section may be absent, and what its stage reads depends on its values, so the stage follows from the params
(`links.py` compares it with `dvc.yaml`). A new one is a function here and a line in `SECTIONS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_core.graph.versions import VERSIONS
from flame_core.layout import OPT_OUT, Layout
from flame_core.params import (
    AdaptLLMParams,
    CaptionLMParams,
    ClusterParams,
    CodesParams,
    ConceptFitParams,
    ConceptParams,
    DomainParams,
    FeaturesParams,
    LexicalParams,
    NoiseParams,
    Params,
    PromptsParams,
    ScoresParams,
    SelectParams,
    SemDedupParams,
    TuneParams,
    recipe_of,
)


def section_stages(layout: Layout, params: Params) -> dict[str, dict[str, Any]]:
    """{name: stage} of all sections that params have."""
    sections = {name: getattr(params, name) for name in SECTIONS}
    return {name: SECTIONS[name](layout, own) for name, own in sections.items() if own is not None}


def linked_place(layout: Layout, path: str) -> Path:
    """Paths in `data/` are of this run, whose stages may make them; others are relative to the project."""
    inside = Path(os.path.normpath(path)).parts[:1] == (layout.data.name,)
    return Path(os.path.normpath(layout.root / path if inside else layout.resolve(path)))


def relative(layout: Layout, places: Iterable[Path]) -> list[str]:
    """Paths as the stages of a run name them, sorted."""
    return sorted({Path(os.path.relpath(place, layout.root)).as_posix() for place in places})


def _stage(
    name: str, deps: Iterable[str], outs: Sequence[str], group: str, checks: Sequence[str], owner: str = "team:data"
) -> dict[str, Any]:
    """A stage that `flame <name>` runs and that depends on the section of its name."""
    dagster = {"group": group, "kinds": ["python"], "owners": [owner], "checks": list(checks)}
    return {
        "cmd": f"flame {name.replace('_', '-')}",
        "deps": sorted(set(deps)),
        "params": [name, {VERSIONS: [name, "outs"]}],
        "outs": list(outs),
        "meta": {"dagster": dagster},
    }


def _cluster(layout: Layout, cluster: ClusterParams) -> dict[str, Any]:
    given = relative(
        layout, (linked_place(layout, path) for path in (cluster.vectors.paths if cluster.vectors else []))
    )
    deps = ["data/captions/train", "data/embeddings/train", "data/shards", *given]
    checks = ["clusters_filled", "clusters_balanced", "clusters_large_enough"]
    return _stage("cluster", deps, ["data/sidecars/clusters"], "text", checks)


def _lexical(layout: Layout, lexical: LexicalParams) -> dict[str, Any]:
    deps = ["data/captions/train", "data/embeddings/train", "data/llm", "data/shards"]
    return _stage("lexical", deps, ["data/sidecars/lexical"], "text", ["words_overused", "words_recalled"])


def _prompts(layout: Layout, prompts: PromptsParams) -> dict[str, Any]:
    stored = [] if prompts.encoder else ["data/embeddings/train"]
    deps = ["data/captions/train", "data/llm", "data/shards", *stored]
    checks = ["prompts_reconstruct", "prompts_beat_chance", "prompts_llm_unchanged"]
    stage = _stage("prompts", deps, ["data/prompts"], "text", checks, "team:models")
    stage["meta"]["dagster"] |= {"kinds": ["pytorch"], "pool": "gpu"}
    read = ["text"] if prompts.encoder else []  # which captions; else by way of the embeddings
    return _with_params(stage, ["llm", *read, "evaluate.train_language"])


def _adapt_llm(layout: Layout, chosen: AdaptLLMParams) -> dict[str, Any]:
    deps = ["data/captions", "data/llm", "data/shards"]
    checks = ["adapter_learned", "adapter_llm_unchanged", "ceilings_kept"]
    own = _stage("adapt_llm", deps, [ADAPTER_OUT], "text", checks, "team:models")
    own["meta"]["dagster"] |= {"kinds": ["pytorch", "huggingface"], "pool": "gpu"}
    read = ["languages", "train_language", "class_prompts", "max_pictures", "recall_at"]
    return _with_params(own, ["llm", "text", *(f"evaluate.{name}" for name in read)])


ADAPTER_OUT = "data/llm-adapter"


def captioner_start(layout: Layout, chosen: CaptionLMParams) -> Path:
    """The folder of the model with which the training of a captioner begins."""
    name = recipe_of(chosen)
    return layout.model(name) if name else linked_place(layout, chosen.path or "")


def _caption_lm(layout: Layout, chosen: CaptionLMParams) -> dict[str, Any]:
    deps = ["data/captions", "data/llm", "data/shards", *relative(layout, [captioner_start(layout, chosen)])]
    stage = _stage("caption_lm", deps, ["data/captioner"], "model", CAPTIONER_CHECKS, "team:models")
    stage["meta"]["dagster"] |= {"kinds": ["pytorch"], "pool": "gpu"}
    return _with_params(stage, ["llm", "evaluate.train_language"])


CAPTIONER_CHECKS = ["captioner_llm_unchanged", "captioner_learned", "captioner_looks", "captions_differ"]


def _codes(layout: Layout, codes: CodesParams) -> dict[str, Any]:
    given = relative(layout, (linked_place(layout, path) for path in (codes.tower.file, codes.frozen) if path))
    model = [f"data/models/{codes.tower.recipe}"] if codes.tower.recipe else []
    made = codes.codebook if codes.frozen is None else None
    words = {"words": ["data/captions/train", "data/llm"], "vq": ["data/captions/train"]}.get(made or "", [])
    checks = ["codes_used", "codes_alive", "codes_repeatable", "codes_steady"]
    checks += ["codes_describe"] if made == "vq" else []
    texts, sidecar = (["data/embeddings/train"], ["data/sidecars/similarity"]) if codes.similarity else ([], [])
    deps = ["data/shards", *model, *words, *texts, *given]
    stage = _stage("codes", deps, ["data/codes", *sidecar], "data", checks)
    stage["meta"]["dagster"] |= {"kinds": ["pytorch"], "pool": "gpu"}
    read = {"words": ["llm", "evaluate.train_language"], "vq": ["evaluate.train_language"]}
    return _with_params(stage, read.get(made or "", []))


def _select(layout: Layout, select: SelectParams) -> dict[str, Any]:
    scores = [each.filter.scores for each in select.selections.values() if each.filter]
    given = relative(layout, (linked_place(layout, path) for path in [select.frozen, *scores] if path))
    counted = ["data/concepts"] if select.counted == "concepts" else []
    deps = ["data/captions/train", "data/codes", "data/embeddings/train", "data/shards", *counted, *given]
    checks = ["groups_filled", "groups_balanced", "budgets_met", "groups_steady", "captions_distinct"]
    return _with_params(_stage("select", deps, ["data/selections"], "data", checks), ["evaluate.train_language"])


def _with_params(stage: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The stage, which depends on further params."""
    return stage | {"params": [stage["params"][0], *names, *stage["params"][1:]]}


def _concepts(layout: Layout, concepts: ConceptParams) -> dict[str, Any]:
    deps = {"data/captions", "data/shards", *relative(layout, (linked_place(layout, path) for path in concepts.paths))}
    if (recipe := concepts.tower) is not None:
        deps |= {"data/embeddings", f"data/models/{recipe}"}
    outs = ["data/concepts", *(["data/sidecars/concept-weights"] if concepts.weights else [])]
    labelled = concepts.images is not None and concepts.images.labels is not None
    checks = [*CONCEPT_CHECKS, *(["concept_thresholds_calibrated"] if labelled else [])]
    own = _stage("concepts", deps, outs, "data", checks)
    read = ["evaluate.train_language", *(["evaluate.benchmarks"] if concepts.suite_benchmarks else [])]
    return _with_params(own, read)


def _concept_fit(layout: Layout, fit: ConceptFitParams) -> dict[str, Any]:
    reports = (f"data/reports/{name}" for name in fit.recipes)
    deps = ["data/captions", "data/concepts", "data/shards", *reports]
    own = _stage("concept_fit", deps, ["data/concept-fit"], "evaluation", ["concept_fit_points"])
    return _with_params(own, ["evaluate"])


CONCEPT_CHECKS = [
    "concept_counts_joint",
    "concept_shards_complete",
    "concept_shards_add_up",
    "concepts_found",
    "concept_words_known",
    "concept_sides_agree",
    "concept_pairs_aligned",
]


def _noise(layout: Layout, noise: NoiseParams) -> dict[str, Any]:
    deps = ["data/captions/train", "data/shards"]
    own = _stage("noise", deps, ["data/sidecars/noise"], "data", ["noise_moves", "noise_tells"])
    return _with_params(own, ["evaluate.train_language"])


def _features(layout: Layout, features: FeaturesParams) -> dict[str, Any]:
    init = features.model.init
    given = [linked_place(layout, init.place)] if init is not None and init.kind == "path" else []
    deps = ["data/shards", *relative(layout, given)]
    own = _stage("features", deps, ["data/sidecars/features"], "data", ["features_differ"])
    own["meta"]["dagster"] |= {"kinds": ["pytorch"], "pool": "gpu"}
    return own


def _semdedup(layout: Layout, semdedup: SemDedupParams) -> dict[str, Any]:
    deps = ["data/shards", *relative(layout, [linked_place(layout, semdedup.vectors)])]
    checks = ["semdedup_filled", "semdedup_balanced", "semdedup_kept"]
    return _stage("semdedup", deps, ["data/semdedup"], "data", checks)


def _scores(layout: Layout, scores: ScoresParams) -> dict[str, Any]:
    given = relative(layout, (linked_place(layout, path) for path in scores.paths))
    towers = ["data/embeddings/train", *(f"data/models/{name}" for name in scores.towers)] if scores.towers else []
    sidecars = [f"data/sidecars/score-{name}" for name in sorted(scores.scorers)]
    deps = ["data/captions/train", "data/shards", *towers, *given]
    own = _stage("scores", deps, ["data/scores", *sidecars], "data", ["scores_differ", "scores_kept"])
    own["meta"]["dagster"] |= {"kinds": ["pytorch"], "pool": "gpu"}
    return _with_params(own, ["evaluate.train_language"])


def _domains(layout: Layout, domains: Mapping[str, DomainParams]) -> dict[str, Any]:
    forgotten = [OPT_OUT] if layout.opt_out.is_file() else []
    own = _stage("domains", forgotten, ["data/domains"], "data", ["domain_classes", "domain_readable"])
    own["meta"]["dagster"] |= {"pool": "network", "retries": {"max": 3, "delay_seconds": 30, "exit_codes": [5]}}
    return _with_params(own, ["ingest"])


def _tune(layout: Layout, tune: TuneParams) -> dict[str, Any]:
    deps = [f"data/models/{name}" for name in (*tune.recipes, *tune.probed)]
    deps += ["data/shards"] if tune.benchmark is None else []
    deps += ["data/domains"] if tune.domains else []
    own = _stage("tune", deps, ["data/heads"], "evaluation", TUNE_CHECKS, "team:models")
    read = ["evaluate.baselines"] if tune.baselines else []
    read += ["evaluate.benchmarks.data"] if tune.benchmark or tune.beyond else []
    own["meta"]["dagster"] |= {"kinds": ["pytorch"], "pool": "gpu"}
    return _with_params(own, read)


TUNE_CHECKS = [
    "tune_spectra",
    "tune_classes",
    "tune_learned",
    "tune_terms_active",
    "tune_svde_raised",
    "tune_lsvr_lowered",
    "tune_features_kept",
]
SECTIONS: Mapping[str, Callable[[Layout, Any], dict[str, Any]]] = {
    "adapt_llm": _adapt_llm,
    "cluster": _cluster,
    "lexical": _lexical,
    "prompts": _prompts,
    "concepts": _concepts,
    "concept_fit": _concept_fit,
    "codes": _codes,
    "select": _select,
    "features": _features,
    "noise": _noise,
    "domains": _domains,
    "tune": _tune,
    "caption_lm": _caption_lm,
    "semdedup": _semdedup,
    "scores": _scores,
}
