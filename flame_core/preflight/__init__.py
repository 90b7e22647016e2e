"""What can be found wrong before anything is computed: `flame params check`.

`check` reads the params as they were written, and looks at what they name as far as it is there: sources
(`sources`, `data_look`), languages, benchmarks, the LLM's layers and the sizes of models (`values`), recipes
(`training.recipe_check`), whether teachers, sidecars and selections are of the shards that are there (`linked_data`),
and whether the params fit the data (`data_look`, `data_fit`; warnings). A mistake has the file, line and key where it
was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flame_core.data.shards import INDEX
from flame_core.errors import ParamsError
from flame_core.graph.links import require_links
from flame_core.layout import Layout
from flame_core.params import Params, load_params
from flame_core.params.validation import Fault
from flame_core.params.whole import examine_params
from flame_core.preflight.benchmarks import benchmark_data
from flame_core.preflight.data_fit import chosen_values, data_warnings
from flame_core.preflight.data_look import look, place_of
from flame_core.preflight.linked_data import linked_data_faults
from flame_core.preflight.sources import source_faults
from flame_core.preflight.values import value_faults
from flame_core.workspace import runs_in_workspace, workspace_of, written_params


@dataclass(frozen=True)
class Checked:
    """What `check` found.

    Attributes:
        source: the file that was checked.
        params: None if anything is wrong.
        faults: mistakes, each with its place; a run would fail.
        warnings: what a run would do, and its user may not want.
        chosen: {param that is `auto`: the value that it stands for, as far as the data are known}.
    """

    source: Path
    params: Params | None
    faults: list[str]
    warnings: list[str]
    chosen: dict[str, str] = field(default_factory=dict)


def check(layout: Layout, overrides: Sequence[str] = (), preset: str | Path | None = None) -> Checked:
    """All mistakes in the params of a run, and warnings if there are none.

    Raises:
        ParamsError: a file or an override is no YAML, or there is no such preset.
    """
    written = written_params(layout, overrides, preset)
    examined = examine_params(written.content, layout.recipes, written.places)
    faults = [*written.faults, *examined.faults]
    if examined.usable is None:
        return Checked(written.source, None, faults, [])
    params = examined.usable
    in_workspace = runs_in_workspace(params, overrides, preset)
    run = workspace_of(layout, params) if in_workspace else layout

    def placed(fault: Fault) -> str:
        return f"{examined.places.find(fault.key, missing=fault.missing)}: {fault.message}"

    found = (*source_faults(params, run), *value_faults(params, run))
    faults += [placed(fault) for fault in found if fault.section not in examined.wrong]
    if faults:
        return Checked(written.source, None, list(dict.fromkeys(faults)), [])
    if not in_workspace:  # a workspace gets its links when it is opened
        try:
            require_links(layout, params)
        except ParamsError as error:
            return Checked(written.source, None, [str(error)], [])
    with_data = _with_data(params, run, layout)
    damaged, missing = benchmark_data(params, with_data)
    if faults := [placed(fault) for fault in damaged]:
        return Checked(written.source, None, faults, [])
    seen = look(params, with_data)
    if faults := [placed(Fault(place_of(params, name), why)) for name, why in seen.refused.items()]:
        return Checked(written.source, None, faults, [])
    of_data = linked_data_faults(params, with_data) if seen.exact else []
    if faults := [placed(each.fault) for each in of_data if not each.may_change]:
        return Checked(written.source, None, faults, [])
    warnings = [placed(each.fault) for each in of_data]
    warnings += [placed(warning) for warning in (*data_warnings(params, with_data, seen), *missing)]
    return Checked(written.source, params, [], list(dict.fromkeys(warnings)), chosen_values(params, with_data, seen))


def _with_data(params: Params, run: Layout, layout: Layout) -> Layout:
    """Where the data of the run are: in its workspace, or in the project if that has the same sources and split."""
    if run == layout or (run.shards / INDEX).is_file():
        return run
    try:
        own = load_params(layout)
    except ParamsError:
        return run
    return layout if (own.sources, own.ingest) == (params.sources, params.ingest) else run
