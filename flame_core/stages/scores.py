"""scores: training samples and models of the user's -> a sidecar of numbers per scorer, and selections by them.

    flame scores

Only if params have a section `scores` (docs/selection.md). `data/sidecars/score-<scorer>` holds a number per training
sample (docs/sidecars.md), and `data/scores/`

    <selection>.parquet   the keys that meet its rules, with their scores
    scores.json           how each score is spread, what it was made with, and what each selection keeps
    scores.html           the same for readers, with pictures

The unit of work is a shard's scores by one scorer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from flame_core import gates
from flame_core.captions.table import captions_at
from flame_core.data.contact_sheet import sheet_of
from flame_core.data.shards import INDEX, Index, IndexRow, PictureReader, read_index
from flame_core.data.sidecars import VALUES, gather_sidecar, write_values
from flame_core.digest import json_bytes
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.pages.scores import Kept, extremes, quantiles, scores_page
from flame_core.params import Params, ScoresParams
from flame_core.params.scores import ModelScorerParams, ScorerParams, ScoreRule, TowerScorerParams
from flame_core.processes.engines import map_units
from flame_core.quantities import share_text
from flame_core.reporting import facts, picture
from flame_core.scoring.open_scorer import open_scorer, release_scorers
from flame_core.scoring.score_rules import meeting, selected_file
from flame_core.scoring.scorers import checked_scores
from flame_core.text.manifest import MANIFEST
from flame_core.text.store import CENTER
from flame_core.verification import read_digests, verify
from flame_core.work import Unit, UnitRecord, WorkCache, gather

STAGE = "scores"
PAGE, ABOUT = "scores.html", "scores.json"
_COLUMNS = 8  # of the sheet of pictures in Dagster


@dataclass(frozen=True)
class ScoreTask:
    """A shard whose samples one scorer scores; the result is the unit `digest`."""

    name: str
    scorer: ScorerParams
    rows: Index
    language: str
    layout: Layout
    digest: str
    work: WorkCache


def run(params: Params, layout: Layout) -> None:
    """Score the training samples as the section `scores` says, or continue."""
    chosen = params.scores
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `scores`: write one, with `scorers` and `selections`")
    wanted = _wanted(chosen, layout)
    for source in wanted:
        gates.require(source)
    verified = verify(wanted)
    index = read_index(layout.shards, "train")
    samples = index.in_order()
    rows = samples.by_shard()
    language = params.evaluate.train_language
    units: dict[str, dict[str, Unit]] = {}
    identities: dict[str, dict[str, Any]] = {}
    try:
        for name, own in chosen.scorers.items():
            identities[name] = open_scorer(name, own, layout, language).identity
            units[name] = _scored(name, own, identities[name], rows, language, layout)
    finally:
        release_scorers()
    keys = list(samples.keys())
    scores = {
        name: np.concatenate([load_file(unit.file(f"score-{name}.safetensors"))[VALUES] for unit in own.values()])
        for name, own in units.items()
    }
    selected = {name: meeting(name, rules, scores, keys) for name, rules in chosen.selections.items()}
    checks = scores_checks(scores, selected, chosen)
    for name, own in units.items():
        gather_sidecar(layout.score(name), layout.state, own, index, STAGE, {"scorer": identities[name]})
    told = [
        Kept(name, _told(chosen.selections[name]), int(own.sum()), float(own.mean())) for name, own in selected.items()
    ]
    about = {
        "index": index.digest(),
        "samples": len(keys),
        "scorers": {name: {**identities[name], **_spread(own)} for name, own in scores.items()},
        "selections": {each.name: {"rules": each.rules, "samples": each.samples} for each in told},
    }
    contents = {
        f"{name}.parquet": selected_file(own, keys, {each: scores[each] for each in chosen.selections[name]})
        for name, own in selected.items()
    }
    contents |= {ABOUT: json_bytes(about), PAGE: _page(scores, chosen, told, samples, language, layout).encode()}
    gather(layout.scores, layout.state, {}, {**contents, gates.CHECKS: gates.to_bytes(checks)})
    computed = sum(unit.computed for own in units.values() for unit in own.values())
    facts(
        STAGE,
        {
            "samples": len(keys),
            **{name: f"{own.mean():.4g}, from {own.min():.4g} to {own.max():.4g}" for name, own in scores.items()},
            **{each.name: f"{each.samples:,} ({share_text(each.share)}): {each.rules}" for each in told},
            "computed now": f"{computed} of {len(rows) * len(units)} shards",
            "page": layout.scores / PAGE,
            "verified": verified,
        },
    )
    gates.warn(checks)
    picture("pictures with the lowest and the highest scores", lambda: _sheet(scores, samples, layout), "jpeg")


def _wanted(chosen: ScoresParams, layout: Layout) -> dict[Path, list[str]]:
    """What is verified before it is read."""
    wanted = {layout.shards: [INDEX, "train/*"], layout.captions: ["train/*"]}  # the page shows both
    if chosen.towers:
        wanted[layout.train_embeddings] = ["[0-9]*", MANIFEST, CENTER]
        wanted |= {layout.model(recipe): ["*"] for recipe in chosen.towers}
    return wanted


def _scored(
    name: str,
    scorer: ScorerParams,
    identity: Mapping[str, Any],
    rows: Mapping[str, Index],
    language: str,
    layout: Layout,
) -> dict[str, Unit]:
    """{shard: the unit with its scores}."""
    work = WorkCache(layout.work, STAGE)
    read = _read(scorer, rows, layout)
    digests = {shard: work.digest({"scorer": identity, "name": name, **own}) for shard, own in read.items()}
    units = work.find_all(digests)
    tasks = {
        shard: ScoreTask(name, scorer, own, language, layout, digests[shard], work)
        for shard, own in rows.items()
        if shard not in units
    }
    done = map_units(score_shard, list(tasks.values()), 1, f"score {name}", "shards", gpu=True)  # one model, one device
    units |= dict(zip(tasks, done, strict=True))
    return {shard: units[shard] for shard in rows}


def _read(scorer: ScorerParams, shards: Iterable[str], layout: Layout) -> dict[str, dict[str, Any]]:
    """{shard: digests of what a scorer reads of it, besides its model}."""
    pictures = read_digests(layout.shards)
    found: dict[str, dict[str, Any]] = {shard: {"shard": pictures[shard]} for shard in shards}
    if isinstance(scorer, ModelScorerParams):
        captions = read_digests(layout.captions)
        for shard, own in found.items():
            own["captions"] = captions[Path(shard).with_suffix(".parquet").as_posix()]
    if isinstance(scorer, TowerScorerParams):
        texts = read_digests(layout.train_embeddings)
        for shard, own in found.items():
            own["texts"] = [texts[Path(shard).with_suffix(".safetensors").name], texts.get(CENTER)]
    return found


def score_shard(task: ScoreTask) -> Unit:
    """Score the samples of one shard and publish the result as its unit.

    Raises:
        InputError: a sample cannot be scored; names it.
        ComputationError: a score is no number.
    """

    def write(folder: Path) -> UnitRecord:
        scorer = open_scorer(task.name, task.scorer, task.layout, task.language)
        rows = list(task.rows)
        write_values(folder, f"score-{task.name}", checked_scores(task.name, scorer, rows))
        return UnitRecord({"samples": len(rows)})

    return task.work.compute(task.digest, write)


def scores_checks(
    scores: Mapping[str, np.ndarray], selected: Mapping[str, np.ndarray], chosen: ScoresParams
) -> list[gates.Check]:
    """Checks that scores tell samples apart, and that selections are not nearly empty."""
    same = sorted(name for name, own in scores.items() if len(own) > 1 and own.min() == own.max())
    shares = {name: float(own.mean()) for name, own in selected.items()}
    least = min(shares, key=shares.__getitem__) if shares else None
    return [
        gates.Check(
            "scores_differ",
            not same,
            "scorers that give all samples the same score" + (f": {', '.join(same)}" if same else ""),
            value=len(same),
            threshold=0,
            blocking=False,
        ),
        gates.Check(
            "scores_kept",
            least is None or shares[least] >= chosen.gates.min_kept,
            "smallest share of the samples that a selection keeps" + (f": {least}" if least else ""),
            value=None if least is None else round(shares[least], 6),
            threshold=chosen.gates.min_kept,
        ),
    ]


def _spread(scores: np.ndarray) -> dict[str, Any]:
    return {
        "mean": float(scores.mean(dtype=np.float64)),
        "min": float(scores.min()),
        "max": float(scores.max()),
        "quantiles": quantiles(scores),
    }


def _told(rules: Mapping[str, ScoreRule]) -> str:
    """The rules in words."""
    parts = []
    for scorer, rule in rules.items():
        parts += [f"{scorer} >= {rule.min:g}"] if rule.min is not None else []
        parts += [f"{scorer} <= {rule.max:g}"] if rule.max is not None else []
        parts += [f"the top {share_text(rule.top)} of {scorer}"] if rule.top is not None else []
    return ", ".join(parts)


def _page(
    scores: Mapping[str, np.ndarray],
    chosen: ScoresParams,
    told: Sequence[Kept],
    samples: Sequence[IndexRow],
    language: str,
    layout: Layout,
) -> str:
    reader = PictureReader(layout.shards)

    def captions(wanted: Sequence[int]) -> dict[int, str]:
        shown = [samples[number] for number in wanted]
        places = {(row.shard, row.row): number for row, number in zip(shown, wanted, strict=True)}
        texts = captions_at(places, layout.captions, "raw", language)
        return {places[place]: text for place, text in texts.items()}

    kinds = {name: each.kind for name, each in chosen.scorers.items()}
    return scores_page(scores, kinds, told, lambda number: reader.jpeg(samples[number]), captions)


def _sheet(scores: Mapping[str, np.ndarray], samples: Sequence[IndexRow], layout: Layout) -> bytes:
    """Two lines per scorer: the lowest, then the highest scores."""
    reader = PictureReader(layout.shards)
    shown = [number for own in scores.values() for end in extremes(own, _COLUMNS) for number in end]
    return sheet_of([reader.jpeg(samples[number]) for number in shown], _COLUMNS)
