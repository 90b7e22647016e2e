"""What stages read from this machine that neither params nor another stage of the project holds.

    download, domains       the files of local sources
    fetch_llm               an LLM of `path:...`
    caption                 the model of a captioner `rewrite` or `vlm` of `path:...`; a table outside of `data/`
    concepts, scores        models of other projects (`suite/models/source.py`); data of benchmarks
    embed                   data of benchmarks, and definitions of one's own
    train@<recipe>          a teacher of another project
    baselines, tune         models of other projects; benchmarks that only they read

A weight that `dvc.yaml` names as a dep is none of these: DVC compares it (`graph/links.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from flame_core.captions.tables.places import is_of_the_run, table_place
from flame_core.data.buckets.bucket import is_address
from flame_core.data.sources.accounting import Problems, Unused
from flame_core.data.sources.table_files import table_files
from flame_core.data.sources.walk import Walk
from flame_core.errors import InputError, ParamsError
from flame_core.layout import ROOT_MARKS, Layout, outside_projects
from flame_core.names import expanded
from flame_core.params import (
    DebianSource,
    FolderSource,
    HubSource,
    Params,
    RewriteCaptioner,
    Source,
    UrlsSource,
    VLMCaptioner,
    WebdatasetSource,
)

FileState = tuple[str, int, int]  # name, size, time of the last change


@dataclass(frozen=True)
class OutsideInput:
    """What a stage reads by one name: what params say of it, and its files on this machine, sorted."""

    said: Any
    files: list[FileState]


Inputs = dict[str, OutsideInput]


@dataclass(frozen=True)
class OutsideStage:
    """A stage that reads from this machine.

    Attributes:
        out: what it makes.
        command: in `dvc.yaml`, as DVC writes it out and keeps it in its run cache.
        inputs: looks what it reads from this machine.
        follows: whether it also reads what other stages make.
        does_without: whether it leaves out what is not there, such as data of benchmarks.
    """

    out: Path
    command: str
    inputs: Callable[[], Inputs]
    follows: bool = True
    does_without: bool = False


def outside_stages(params: Params, layout: Layout) -> dict[str, OutsideStage]:
    """{name of the stage in `dvc.yaml`: what it reads}."""

    def stage(out: Path, command: str, inputs: Callable[[Params, Layout], Inputs], **traits: bool) -> OutsideStage:
        return OutsideStage(out, command, partial(inputs, params, layout), **traits)

    found = {
        "download": stage(layout.raw, "flame download", _of_sources, follows=False),
        "fetch_llm": stage(layout.llm, "flame fetch-llm", _of_llm, follows=False),
        "domains": stage(layout.domains, "flame domains", _of_domains, follows=False),
        "caption": stage(layout.captions, "flame caption", _of_captioners),
        "concepts": stage(layout.concepts, "flame concepts", _of_concepts),
        "scores": stage(layout.scores, "flame scores", _of_scorers),
        "embed": stage(layout.embeddings, "flame embed", _of_evaluations, does_without=True),
        "baselines": stage(layout.baselines, "flame baselines", _of_baselines, does_without=True),
        "tune": stage(layout.heads, "flame tune", _of_heads),
    }
    for name, recipe in params.train.items():
        if recipe.teacher is not None and (source := recipe.teacher.model) is not None:
            inputs = partial(_models, {"teacher": source}, layout)
            found[f"train@{name}"] = OutsideStage(layout.model(name), f"flame train --recipe {name}", inputs)
    return found


def local_files(sources: Mapping[str, Source], layout: Layout) -> dict[str, list[FileState]]:
    """{source of this machine: its files, sorted}."""
    return {
        name: sorted(set(_source_files(source, layout)))
        for name, source in sources.items()
        if not isinstance(source, DebianSource | HubSource) and not is_address(source.path)
    }


def _source_files(source: FolderSource | UrlsSource | WebdatasetSource, layout: Layout) -> Iterator[FileState]:
    """The files of a source's folder or list, those behind links that it follows, and what it reads beside them."""
    place = layout.resolve(source.path)
    yield from _files(place)
    match source:
        case FolderSource():
            if source.links == "anywhere" and place.is_dir():
                linked = Walk(place, True, Problems(), Unused()).files
                yield from _states(place, (place / name for name in linked))
            if source.table is not None and _leads_out(source.table):
                yield from _files(place / expanded(source.table))
        case WebdatasetSource():
            yield from _states(place, outside_projects(place, source.shards))
        case UrlsSource():
            for listed in source.opt_out.lists:
                yield from _files(layout.resolve(listed))


def _leads_out(table: str) -> bool:
    return expanded(table).is_absolute() or ".." in PurePosixPath(table).parts


def _of(sources: Mapping[str, Source], layout: Layout) -> Inputs:
    files = local_files(sources, layout)
    return {name: OutsideInput(source.model_dump(mode="json"), files.get(name, [])) for name, source in sources.items()}


def _of_sources(params: Params, layout: Layout) -> Inputs:
    return _of(params.sources, layout)


def _of_domains(params: Params, layout: Layout) -> Inputs:
    return _of({name: domain.source for name, domain in (params.domains or {}).items()}, layout)


def _of_llm(params: Params, layout: Layout) -> Inputs:
    return {params.llm.name: OutsideInput(params.llm.model_dump(mode="json"), _of_path(params.llm.source, layout))}


def _of_captioners(params: Params, layout: Layout) -> Inputs:
    chosen = {"caption.short": params.caption.short, "caption.long": params.caption.long}
    models: Inputs = {
        key: OutsideInput(captioner.model_dump(mode="json"), _of_path(captioner.model, layout))
        for key, captioner in chosen.items()
        if isinstance(captioner, RewriteCaptioner | VLMCaptioner)
    }
    tables: Inputs = {}
    for kind, captioner in params.caption.tables:
        places = (table_place(layout, path) for _, path in captioner.tables)
        files = sorted(each for place in places if not is_of_the_run(layout, place) for each in _tables(place))
        tables[f"caption.{kind}"] = OutsideInput(captioner.model_dump(mode="json"), files)
    return models | tables


def _tables(place: Path) -> Iterator[FileState]:
    """A table, or those directly in a folder."""
    with suppress(InputError, OSError):
        yield from _states(place, table_files(place, "table"))


def _of_concepts(params: Params, layout: Layout) -> Inputs:
    if params.concepts is None:
        return {}
    source = getattr(params.concepts.images and params.concepts.images.tagger, "source", None)
    tagger = _models({} if source is None else {"concepts.images.tagger": source}, layout)
    return _benchmarks(params.concepts.suite_benchmarks, params, layout) | tagger


def _of_scorers(params: Params, layout: Layout) -> Inputs:
    scorers = {} if params.scores is None else params.scores.scorers
    sources = {f"scores.scorers.{name}": getattr(scorer, "source", None) for name, scorer in scorers.items()}
    return _models({name: source for name, source in sources.items() if source is not None}, layout)


def _of_evaluations(params: Params, layout: Layout) -> Inputs:
    return _benchmarks(params.evaluate.benchmarks.names, params, layout)


def _of_baselines(params: Params, layout: Layout) -> Inputs:
    chosen = params.evaluate
    return _benchmarks(chosen.benchmarks.only_baselines, params, layout) | _models(_named(chosen.baselines), layout)


def _of_heads(params: Params, layout: Layout) -> Inputs:
    if params.tune is None:
        return {}
    entries = [*([] if params.tune.benchmark is None else [params.tune.benchmark]), *params.tune.beyond]
    known = {name: source for name, source in params.evaluate.baselines.items() if name in params.tune.baselines}
    return _benchmarks(entries, params, layout) | _models(_named(known), layout)


def _named(baselines: Mapping[str, str]) -> dict[str, str]:
    return {f"evaluate.baselines.{name}": source for name, source in baselines.items()}


def _models(sources: Mapping[str, str], layout: Layout) -> Inputs:
    """{key of the params: the files of a model of another project that lies on this machine}."""
    from flame_core.suite.models.source import local_place

    places = {key: local_place(source, layout) for key, source in sources.items()}
    return {
        key: OutsideInput(sources[key], sorted(_files(place))) for key, place in places.items() if place is not None
    }


def _benchmarks(entries: Iterable[str], params: Params, layout: Layout) -> Inputs:
    """{benchmark: its data, if they are there, and its definition, if it is not of this package}.

    Of a wrong definition its stage tells.
    """
    if not entries:
        return {}
    from flame_core.suite.definition import load_benchmark, own_definition

    data = layout.resolve(params.evaluate.benchmarks.data)
    found: Inputs = {}
    for entry in entries:
        try:
            benchmark = load_benchmark(entry, layout.project)
        except ParamsError:
            continue
        files = [*_files(data / benchmark.data.path)]
        if files and (own := own_definition(entry, layout.project)) is not None:
            files += _files(own)
        found[f"benchmark {benchmark.name}"] = OutsideInput(entry, sorted(files))
    return found


def _of_path(source: str, layout: Layout) -> list[FileState]:
    """The files of a model `path:<place>`; none of another."""
    kind, _, path = source.partition(":")
    return sorted(_files(layout.resolve(path))) if kind == "path" else []


def _files(place: Path) -> Iterator[FileState]:
    """The files of a folder without those of projects in it, which sources leave out; or the file itself."""
    if not place.is_dir():
        yield from _states(place, (place,))
    for folder, folders, names in os.walk(place):
        above = Path(folder)
        if above != place and ROOT_MARKS.issubset(names):
            folders.clear()
        else:
            yield from _states(place, (above / name for name in names))


def _states(place: Path, paths: Iterable[Path]) -> Iterator[FileState]:
    for path in paths:
        try:
            if path.is_file():
                about = path.stat()
                name = path.relative_to(place).as_posix().encode("utf-8", "backslashreplace").decode()  # may be no text
                yield name, about.st_size, about.st_mtime_ns
        except OSError:
            continue  # it was removed meanwhile
