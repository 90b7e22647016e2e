"""`flame probe`: which LLM, at which layer, fits which tower, before anything is trained.

The params' section `probe` says what is compared (docs/probe.md). `data/probe/` then holds

    probe.html   the page
    probe.json   all numbers, the params, and what every LLM and tower is
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flame_core.alignment.results import Found
    from flame_core.layout import Layout
    from flame_core.params import Params
    from flame_core.params.alignment import ProbeParams

PAGE, RESULTS = "probe.html", "probe.json"


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(rich_help_panel="Results")(probe)


def probe(
    overrides: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a param: probe.pairs=500")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Params of a preset, on the data of `flame run --preset NAME`.")
    ] = None,
) -> None:
    """Compare LLMs and towers by a small linear map on stored vectors; needs a section `probe` in the params."""
    from flame_core.errors import InputError
    from flame_core.graph.versions import require_versions
    from flame_core.layout import Layout
    from flame_core.reporting import starting
    from flame_core.workspace import resolve_params, workspace_of

    starting("flame probe")
    layout = Layout.find()
    require_versions(layout)
    params = resolve_params(layout, overrides or [], preset).params
    if preset is not None:
        of_data = [each for each in overrides or [] if re.split("[.=]", each)[0] != "probe"]
        layout = workspace_of(layout, resolve_params(layout, of_data, preset).params)
        if not layout.captions.is_dir():
            asked = shlex.join(
                ["flame", "run", "--preset", preset, *(part for each in of_data for part in ("-s", each))]
            )
            raise InputError(f"{layout.captions} is missing: run `{asked} caption`, and `features` for stored vectors")
    run(params, layout)


def run(params: Params, layout: Layout) -> None:
    """Measure what the section `probe` names, and write the page.

    Raises:
        ParamsError: there is no such section.
        InputError: pairs, an LLM or a tower are missing or do not fit.
        ResourceError: an LLM cannot be fetched.
    """
    from flame_core.alignment.measure import score
    from flame_core.alignment.pairs import draw_pairs
    from flame_core.alignment.picture_vectors import picture_vectors
    from flame_core.alignment.results import summarise
    from flame_core.alignment.text_vectors import LayerTexts
    from flame_core.data.shards import INDEX, read_index
    from flame_core.digest import json_bytes
    from flame_core.errors import FlameError, ParamsError
    from flame_core.pages.alignment import probe_page
    from flame_core.reporting import progress
    from flame_core.verification import verify
    from flame_core.work import gather

    chosen = params.probe
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `probe`: `flame docs probe` says how to write one")
    verify({layout.shards: [INDEX], layout.captions: ["train/*"]})
    index = read_index(layout.shards, "train")
    pairs = draw_pairs(index, layout.captions, params.evaluate.train_language, chosen.pairs, chosen.seed)

    def named(key: str, make: Any) -> Any:
        try:
            return make()
        except FlameError as error:
            raise type(error)(f"probe.{key}: {error}") from error

    towers = {
        name: named(f"towers.{name}", lambda tower=tower: picture_vectors(tower, pairs, index, params, layout))
        for name, tower in chosen.towers.items()
    }
    llms = {
        name: named(f"llms.{name}", lambda name=name, asked=asked: LayerTexts(name, asked, params, layout))
        for name, asked in chosen.llms.items()
    }
    scores, captions = {}, [pair.text for pair in pairs]
    for name, llm in llms.items():
        texts = named(f"llms.{name}", lambda llm=llm: llm.read(captions))
        with progress(f"maps of {name}", len(texts) * len(towers), "layers") as bar:
            for tower, (pictures, _) in towers.items():
                scores[tower, name] = score(pictures, texts, chosen, bar.advance)
    found = summarise(
        {(tower, name): scores[tower, name] for tower in towers for name in llms},
        {name: llm.depth for name, llm in llms.items()},
        chosen,
    )
    record = {
        "params": chosen.model_dump(mode="json"),
        "llms": {name: {"digest": llm.digest, "source": llm.source, "depth": llm.depth} for name, llm in llms.items()},
        "towers": {name: about for name, (_, about) in towers.items()},
        "found": found.to_json(),
    }
    page = probe_page(found, chosen, {name: llm.source for name, llm in llms.items()})
    gather(layout.probe, layout.state, {}, {PAGE: page.encode(), RESULTS: json_bytes(record)})
    _show(found, chosen, layout)


def _show(found: Found, chosen: ProbeParams, layout: Layout) -> None:
    from flame_core.reporting import facts, table

    k = chosen.recall_at[-1]
    columns = ["tower", "LLM", "best layer", f"recall@{k}", "interval", "mutual neighbours", "interval"]
    rows = [
        [
            fit.tower,
            fit.llm,
            f"{fit.best} of {fit.depth}",
            *(f"{fit.recall[-1].value:.1%}", f"{fit.recall[-1].low:.1%} to {fit.recall[-1].high:.1%}"),
            *(f"{fit.neighbours.value:.1%}", f"{fit.neighbours.low:.1%} to {fit.neighbours.high:.1%}"),
        ]
        for fit in found.fits
    ]
    table(f"{found.pairs:,} pairs, found among {found.gallery:,}; the best LLM of a tower first", columns, rows)
    told = {
        f"{each.tower}: {each.ahead} before {each.behind}": f"{each.by.value * 100:+.1f} points "
        f"({each.by.low * 100:+.1f} to {each.by.high * 100:+.1f})"
        f"{'' if each.is_clear else ': not told apart on these pairs'}"
        for each in found.differences
    }
    chance = f"recall@{k} {k / found.gallery:.1%}, mutual neighbours {chosen.neighbours / (found.pairs - 1):.1%}"
    facts("probe", {**told, "by chance": chance, "page": layout.probe / PAGE})
