"""evaluate@<recipe>: model, embeddings, shards, captions, its captioner if any -> `data/reports/<recipe>/`.

metrics.json, results.json, outcomes.parquet    for programs (`measuring.results`)
benchmarks.json, benchmarks/*.json              every benchmark and language (`suite.benchmark_results`)
report.html, plots/*.svg                        for readers
training_twins.parquet                          training pictures that look like those of benchmarks, if asked for
checks.json                                     quality gates
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from flame_core import gates
from flame_core.data.ledger import LEDGER
from flame_core.data.shards import INDEX, PictureReader
from flame_core.layout import Layout
from flame_core.measuring.held_out import HeldOut, measure, measured_from
from flame_core.measuring.measures import checks, headline_k
from flame_core.measuring.results import result_files
from flame_core.measuring.spectra import Bounds, Spectra, both, spectrum_checks, spectrum_metrics
from flame_core.measuring.spectrum import gram
from flame_core.model_files import CONFIG
from flame_core.pages.captions_section import PREFIX, captions_shown
from flame_core.pages.charts import standalone
from flame_core.pages.report import render_report, report_charts
from flame_core.pages.run_facts import read_run_facts
from flame_core.pages.words_section import words_shown
from flame_core.params import Params, recipe_of
from flame_core.patches.meaning import read_meaning
from flame_core.reporting import facts, picture
from flame_core.soft_prompts import RECORD
from flame_core.suite.benchmark_results import benchmark_files
from flame_core.suite.contamination import TWINS, find_twins, twins_checks, twins_file
from flame_core.suite.recipe_benchmarks import recipe_results
from flame_core.text.llm import SOURCE
from flame_core.tracking.evaluation import track_evaluation
from flame_core.verification import verify
from flame_core.work import gather

REPORT = "report.html"


def run(params: Params, layout: Layout, recipe: str) -> None:
    """Measure one recipe's model on the held-out split and write its report."""
    describes = params.caption_lm is not None and recipe_of(params.caption_lm) == recipe
    captioner = [layout.captioner] if describes else []
    sources = (layout.shards, layout.captions, layout.embeddings, layout.model(recipe), *captioner)
    for source in sources:
        gates.require(source)
    llm = [f"{params.llm.name}/*"] if (layout.llm / params.llm.name / SOURCE).is_file() else []
    verified = verify(
        {
            **measured_from(layout),
            layout.shards: [INDEX, LEDGER, "val/*", *(["train/*"] if params.evaluate.looks_disjoint else [])],
            layout.model(recipe): ["*"],
            **({layout.llm: llm} if llm else {}),  # its output matrix names the meaning of patches
            **{folder: [CONFIG, RECORD] for folder in captioner},
        }
    )
    held_out = measure(params, layout, layout.model(recipe))
    evaluation, store = held_out.evaluation, held_out.store
    verdict = checks(evaluation, params.evaluate)
    spectra = _spectra(params, held_out)
    if params.evaluate.spectrum is not None:
        verdict += spectrum_checks(spectra, Bounds(params.evaluate.spectrum.max_top_share))
        evaluation = replace(evaluation, metrics=dict(sorted((evaluation.metrics | spectrum_metrics(spectra)).items())))
    written = captions_shown(layout.captioner, layout.model(recipe), evaluation.keys) if describes else None
    if written:
        own = {f"{PREFIX}{name}": value for name, value in written.metrics.items()}
        evaluation = replace(evaluation, metrics=dict(sorted((evaluation.metrics | own).items())))
    twins: dict[str, bytes] = {}
    if params.evaluate.looks_disjoint is not None:
        found = find_twins(params, layout, params.evaluate.looks_disjoint)
        verdict += twins_checks(found, params.evaluate.looks_disjoint)
        twins = {TWINS: twins_file(found)}
    before = [check for source in sources for check in gates.read(source) if not check.passed]  # none of them blocks
    about = read_run_facts(params, layout, recipe, store.manifest)
    reader = PictureReader(layout.shards)

    def jpeg(row: int) -> bytes:
        return reader.jpeg(held_out.rows[row])

    benchmark_results = recipe_results(params, layout, recipe, held_out)
    meaning = read_meaning(params, layout, held_out, jpeg)
    page = render_report(
        evaluation,
        about,
        [*verdict, *before],
        held_out.captions,
        held_out.texts.lookup,
        jpeg,
        benchmark_results=benchmark_results,
        meaning=meaning,
        words=words_shown(held_out, headline_k(params.evaluate), jpeg),
        spectra=spectra,
        written=written,
    )
    plots = {f"plots/{name}.svg": standalone(svg) for name, svg in report_charts(evaluation, about).items()}
    contents = {REPORT: page.encode(), gates.CHECKS: gates.to_bytes(verdict), **twins}
    contents |= benchmark_files(benchmark_results, recipe, "flame")
    gather(layout.report(recipe), layout.state, {}, {**plots, **result_files(evaluation, recipe), **contents})
    track_evaluation(params, layout, recipe, evaluation, benchmark_results, about, held_out.texts)
    facts(
        f"evaluate@{recipe}",
        {
            **{name: evaluation.metrics[name] for name in evaluation.headline},
            "gates": gates.verdict(verdict),
            "report": layout.report(recipe) / REPORT,
            "verified": verified,
        },
    )
    gates.warn(verdict)
    for name, svg in plots.items():
        picture(Path(name).stem, partial(bytes, svg), "svg+xml")


def _spectra(params: Params, held_out: HeldOut) -> Spectra:
    """Spectra of the pictures' vectors and their captions', as far as `evaluate.spectrum` asks for them.

    Captions are those in the training language, each as the vector by which a picture is found: of the single prompt.
    """
    if params.evaluate.spectrum is None:
        return {}
    texts = held_out.evaluation.languages[params.evaluate.train_language].pairing.texts
    vectors = {"pictures": held_out.evaluation.z, "texts": held_out.texts.lookup("raw", texts)[:, 0]}
    return {name: both(gram(each)) for name, each in vectors.items()}
