"""evaluate@<recipe>: model, embeddings, shards, captions -> `data/reports/<recipe>/`.

metrics.json, results.json, outcomes.parquet    for programs (`evaluation.results`)
report.html, plots/*.svg                        for readers
checks.json                                     quality gates
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flame_core import gates
from flame_core.data.shards import PictureReader, read_index
from flame_core.evaluation.charts import standalone
from flame_core.evaluation.measures import checks, evaluate
from flame_core.evaluation.pictures import encode_pictures, require_same_space
from flame_core.evaluation.report import render_report, report_charts
from flame_core.evaluation.results import result_files
from flame_core.evaluation.run_facts import read_run_facts
from flame_core.evaluation.text_side import trained_texts
from flame_core.evaluation.texts import read_classes, read_validation_captions
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.reporting import facts, picture
from flame_core.settings import settings
from flame_core.text.manifest import require_fit
from flame_core.text.store import TextStore
from flame_core.work import gather

REPORT = "report.html"


def run(params: Params, layout: Layout, recipe: str) -> None:
    """Measure one recipe's model on the held-out split and write its report."""
    from flame_core.vision.tower import load_encoder

    for source in (layout.shards, layout.captions, layout.embeddings, layout.model(recipe)):
        gates.require(source)
    store = TextStore.open(layout.embeddings)
    require_fit(store.manifest, params, layout)
    lookup = trained_texts(layout.model(recipe)) or store.lookup
    captions = read_validation_captions(layout.captions, params.evaluate)
    chosen = {caption.key for caption in captions}
    rows = [row for row in read_index(layout.shards, "val") if row.key in chosen]
    encoder = load_encoder(layout.model(recipe), settings().torch_device())
    require_same_space(encoder.config, store.manifest, layout.model(recipe))
    encoded = encode_pictures(encoder, layout.shards, rows)  # [N, 1 + F, D]
    evaluation = evaluate(
        params,
        encoded[:, 0],
        [row.key for row in rows],
        captions,
        read_classes(layout.shards),
        lookup,
        store.manifest["report"]["ceilings"],
        encoded[:, 1:],
    )
    verdict = checks(evaluation, params.evaluate)
    about = read_run_facts(params, layout, recipe, store.manifest)
    reader = PictureReader(layout.shards)
    page = render_report(evaluation, about, verdict, captions, lookup, lambda row: reader.jpeg(rows[row]))
    plots = {f"plots/{name}.svg": standalone(svg) for name, svg in report_charts(evaluation, about).items()}
    contents = {REPORT: page.encode(), gates.CHECKS: gates.to_bytes(verdict)}
    gather(layout.report(recipe), layout.state, {}, {**plots, **result_files(evaluation, recipe), **contents})
    facts(
        f"evaluate@{recipe}",
        {
            **{name: evaluation.metrics[name] for name in evaluation.headline},
            "gates": "passed" if all(check.passed for check in verdict if check.blocking) else "failed",
            "report": layout.report(recipe) / REPORT,
        },
    )
    for name, svg in plots.items():
        picture(Path(name).stem, partial(bytes, svg), "svg+xml")
