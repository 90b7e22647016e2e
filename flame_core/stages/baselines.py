"""baselines: other people's models -> `data/baselines/<name>/`, measured like our own.

metrics.json, results.json, outcomes.parquet     the held-out split (not for models without texts)
benchmarks.json, benchmarks/*.json               all benchmarks (`suite.benchmark_results`)
"""

from __future__ import annotations

from flame_core import gates
from flame_core.data.shards import INDEX
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.reporting import facts
from flame_core.text.manifest import MANIFEST
from flame_core.verification import Verified, verify
from flame_core.work import gather


def run(params: Params, layout: Layout) -> None:
    """Measure every model of `evaluate.baselines`; without any, the out holds only its (empty) checks."""
    for source in (layout.shards, layout.captions, layout.embeddings):
        gates.require(source)
    contents = {gates.CHECKS: gates.to_bytes([])}
    names = params.evaluate.baselines
    shown: dict[str, Verified] = {}
    if names:
        from flame_core.suite.baselines import measure
        from flame_core.tracking.benchmarks import track_baselines

        shown = {
            "verified": verify(
                {layout.shards: [INDEX, "val/*"], layout.captions: ["val/*"], layout.embeddings: [MANIFEST]}
            )
        }
        gather(layout.baselines, layout.state, {}, contents | measure(params, layout))
        track_baselines(params, layout)
    else:
        gather(layout.baselines, layout.state, {}, contents)
    facts("baselines", {"models": ", ".join(names) or "none (evaluate.baselines)", **shown})
