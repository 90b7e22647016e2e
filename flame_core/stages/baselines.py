"""baselines: other people's models -> `data/baselines/<name>/`, measured like our own.

metrics.json, results.json, outcomes.parquet     the held-out split (not for models without texts)
benchmarks.json, benchmarks/*.json               all benchmarks (`suite.benchmark_results`)
"""

from __future__ import annotations

from collections.abc import Mapping

from flame_core import gates
from flame_core.data.shards import INDEX
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.reporting import facts
from flame_core.text.manifest import MANIFEST
from flame_core.verification import verify
from flame_core.work import WorkCache, gather

STAGE = "baselines"


def run(params: Params, layout: Layout) -> None:
    """Measure every model of `evaluate.baselines`; without any, the out holds only its checks.

    Models that cannot be read are named by a check and left out.
    """
    for source in (layout.shards, layout.captions, layout.embeddings):
        gates.require(source)
    names = params.evaluate.baselines
    if not names:
        gather(layout.baselines, layout.state, {}, {gates.CHECKS: gates.to_bytes([check({})])})
        facts(STAGE, {"models": "none (evaluate.baselines)"})
        return
    from flame_core.suite.baselines import measure
    from flame_core.tracking.benchmarks import track_baselines

    verified = verify({layout.shards: [INDEX, "val/*"], layout.captions: ["val/*"], layout.embeddings: [MANIFEST]})
    found = measure(params, layout, WorkCache(layout.work, STAGE))
    files = {f"{name}/{file}": unit.file(file) for name, unit in found.units.items() for file in unit.names()}
    sha256 = {f"{name}/{file}": digest for name, unit in found.units.items() for file, digest in unit.sha256.items()}
    checks = [check(found.unread)]
    gather(layout.baselines, layout.state, files, {gates.CHECKS: gates.to_bytes(checks)}, sha256)
    track_baselines(params, layout)
    kept = [name for name, unit in found.units.items() if not unit.computed]
    facts(STAGE, {"models": ", ".join(found.units), "from the work cache": ", ".join(kept), "verified": verified})
    gates.warn(checks)


def check(unread: Mapping[str, str]) -> gates.Check:
    """Whether all baselines could be read; the results of the others count without them."""
    told = "".join(f"; {name}: {why}" for name, why in unread.items())
    return gates.Check(
        "baselines_read",
        passed=not unread,
        description=f"models of evaluate.baselines that cannot be read{told}",
        value=len(unread),
        threshold=0,
        blocking=False,
    )
