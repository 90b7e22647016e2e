"""The suite with one more task, in a separate process; `test_registry.py` runs it and reads `found.json`.

python -m tests.suite.tasks.naming_suite <folder> <definition.yaml>
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.params.evaluation import BenchmarksParams
from flame_core.suite.models.model import Model
from flame_core.suite.tasks import TASKS
from tests.measuring import world
from tests.suite.tasks.naming import NamingTask

TASKS["naming"] = NamingTask()  # the line in the registry; all that reads the registry is imported below
COLOURS = {"red": 0, "rot": 0, "green": 1, "blue": 2}


class Colours(Model):
    """Pictures by their mean colour, texts by their last word."""

    name, source, identity = "colours", "here", {"colours": 1}

    def pictures(self, pictures):
        means = [np.asarray(Image.open(io.BytesIO(each)).convert("RGB"), np.float32).mean((0, 1)) for each in pictures]
        return np.stack([mean / np.linalg.norm(mean) for mean in means])

    def texts(self, kind, texts):
        return np.eye(3, dtype=np.float32)[[COLOURS[text.split()[-1]] for text in texts]]


def measured(params: Params, layout: Layout) -> dict[str, Any]:
    """All that is made of the benchmark: texts, scores, files, MLflow's metrics, the report's rows and charts."""
    from flame_core.pages.benchmark_section import benchmark_section
    from flame_core.suite.benchmark_results import benchmark_files, read_benchmark_results
    from flame_core.suite.collection import collect, jobs
    from flame_core.suite.measurement import run_benchmarks
    from flame_core.tracking.benchmarks import benchmark_metrics
    from flame_core.tracking.history import headline

    collected = collect(params, layout)
    found = run_benchmarks(Colours(), collected, 0.95, layout.root / "work")
    report = layout.root / "report"
    for name, content in benchmark_files(found, "colours", "here").items():
        (report / name).parent.mkdir(parents=True, exist_ok=True)
        (report / name).write_bytes(content)
    section = benchmark_section({"colours": read_benchmark_results(report)})
    return {
        "embedded": [text for job in jobs(collected) for texts in job.texts.values() for text in texts],
        "missing": found[0].missing_languages,
        "metrics": benchmark_metrics(found),
        "headline": headline(params, layout)[-1],
        "rows": [[row.benchmark, row.metric, row.cells[0].value, row.chance] for row in section.rows],
        "charts": [title for title, _ in section.charts + section.languages],
        "task": json.loads((report / "benchmarks/mine_en.json").read_text())["task"],
    }


if __name__ == "__main__":
    root = Path(sys.argv[1])
    given = world.params(root)
    options = {"benchmarks": BenchmarksParams(names=sys.argv[2:])}
    given = given.model_copy(update={"evaluate": given.evaluate.model_copy(update=options)})
    try:
        found = measured(given, Layout(root, root))
    except ParamsError as error:
        found = {"error": str(error)}
    (root / "found.json").write_text(json.dumps(found))
