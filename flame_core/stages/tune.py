"""tune: models, labelled pictures -> `data/heads/`: small heads on frozen features, and how well they carry over.

    flame tune

`heads.json` and `heads.html` have all numbers. `<model>/head.safetensors` and `<model>/config.json` are the head with
the best accuracy on the validation part, for `flame classify`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flame_core import gates
from flame_core.data.shards import INDEX
from flame_core.digest import json_bytes
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.pages.heads import heads_chart, heads_page
from flame_core.params import HeadPreset, Params, TuneParams
from flame_core.reporting import facts, picture
from flame_core.settings import settings
from flame_core.tracking.run import track_stage
from flame_core.tuning.checks import tune_checks
from flame_core.tuning.features import Features
from flame_core.tuning.labelled import read_within
from flame_core.tuning.protocol import TEST, Protocol, Study
from flame_core.tuning.records import head_config, head_metrics, heads_record
from flame_core.verification import verify
from flame_core.work import gather

if TYPE_CHECKING:
    from flame_core.suite.models.model import Model

STAGE = "tune"
PAGE, RECORD = "heads.html", "heads.json"
HEAD, CONFIG = "head.safetensors", "config.json"


def run(params: Params, layout: Layout) -> None:
    """Train and test the heads that the section `tune` asks for, or continue."""
    chosen = params.tune
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `tune`: write `tune: {{recipes: [{params.recipes[0]}]}}`")
    recipes = [*chosen.recipes, *chosen.probed]
    sources = [*map(layout.model, recipes)]
    sources += [layout.shards] if chosen.benchmark is None else []
    sources += [layout.domains] if chosen.domains else []
    for source in sources:
        gates.require(source)
    wanted = {layout.model(name): ["*"] for name in recipes}
    if chosen.benchmark is None:
        wanted[layout.shards] = [INDEX, "train/*", "val/*"]
    if chosen.domains:
        wanted[layout.domains] = [f"{name}/*" for name in chosen.domains]
    verified = verify(wanted)
    within = read_within(params, chosen, layout)
    protocol = Protocol(chosen, within, layout.work)
    studies: list[Study] = []
    noise: dict[str, float] = {}
    files: dict[str, Path] = {}
    contents: dict[str, bytes] = {}
    for name in (*chosen.recipes, *chosen.baselines, *chosen.probed):
        model = _open(params, chosen, layout, name)
        presets: list[HeadPreset] = ["lp"] if name in chosen.probed else chosen.presets
        study = protocol.study(Features(model, chosen.features, layout.work), presets)
        studies.append(study)
        if name in recipes:
            config = json.loads((layout.model(name) / CONFIG).read_text("utf-8"))
            noise[name] = float(config["recipe"].get("noise", 0.0))
        files[f"{name}/{HEAD}"] = study.best.runs[0].file
        contents[f"{name}/{CONFIG}"] = json_bytes(head_config(study, model.identity, chosen, within))
    checks = list(tune_checks(studies, within))
    record = heads_record(studies, within, noise)
    contents |= {RECORD: json_bytes(record), PAGE: heads_page(record, checks).encode()}
    gather(layout.heads, layout.state, files, {**contents, gates.CHECKS: gates.to_bytes(checks)})
    for study in studies:
        if study.name in recipes:
            track_stage(layout, study.name, STAGE, head_metrics(study, list(within.beyond)))
    facts(
        STAGE,
        {
            "classes": ", ".join(within.classes),
            "train / validation / test": f"{len(within.train):,} / {len(within.validation):,} / {len(within.test):,}",
            **{
                study.name: f"{study.best.preset}, {study.best.mean(TEST, 'accuracy'):.1%} within"
                + _told(study.best.beyond(list(within.beyond)))
                for study in studies
            },
            "page": layout.heads / PAGE,
            "verified": verified,
        },
    )
    gates.warn(checks)
    picture("heads", lambda: heads_chart(record), "svg+xml")


def _told(beyond: float | None) -> str:
    return "" if beyond is None else f", {beyond:.1%} beyond"


def _open(params: Params, chosen: TuneParams, layout: Layout, name: str) -> Model:
    device = settings().torch_device()
    if name in chosen.baselines:
        from flame_core.suite.models.model import open_model
        from flame_core.suite.models.source import in_project

        return open_model(name, in_project(params.evaluate.baselines[name], layout), device)
    from flame_core.suite.models.trained import TrainedModel
    from flame_core.vision.image_encoder import load_encoder

    def no_texts(kind: str, texts: Sequence[str]) -> np.ndarray:
        raise AssertionError("heads read pictures only")

    return TrainedModel(name, load_encoder(layout.model(name), device), layout.model(name), no_texts)
