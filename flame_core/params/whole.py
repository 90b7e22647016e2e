"""All of `params.yaml`, and how to read it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationInfo, model_validator

from flame_core.digest import value_digest
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.names import Name, require_name, shown
from flame_core.params.adapt_llm import AdaptLLMParams
from flame_core.params.alignment import ProbeParams
from flame_core.params.caption_lm import CaptionLMParams
from flame_core.params.captions import NAMING_SOURCES, CaptionParams, IngestParams, TableCaptioner
from flame_core.params.changed_values import changed_values
from flame_core.params.clustering import ClusterParams
from flame_core.params.codes import CodesParams, SelectParams
from flame_core.params.concepts import ConceptFitParams, ConceptParams
from flame_core.params.evaluation import EvaluateParams
from flame_core.params.features import FeaturesParams
from flame_core.params.lexical import LexicalParams
from flame_core.params.model_links import recipe_sources
from flame_core.params.noise import NoiseParams
from flame_core.params.optional_sections import Misfit, optional_section_misfits
from flame_core.params.overlay import (
    by_objective_faults,
    by_recipe_faults,
    foreign_keys,
    lay_over,
    objective_name,
    overlay_of,
)
from flame_core.params.places import Places, short
from flame_core.params.promotion import PromoteParams
from flame_core.params.prompts import PromptsParams
from flame_core.params.recipe_files import known_recipes, read_placed_recipe, recipe_file
from flame_core.params.scores import ScoresParams
from flame_core.params.section import Section, refuse
from flame_core.params.semdedup import SemDedupParams
from flame_core.params.sources import Source
from flame_core.params.storage import StorageParams
from flame_core.params.text import LLMParams, TextParams
from flame_core.params.training import TrainParams
from flame_core.params.tuning import DomainParams, TuneParams
from flame_core.params.validation import Fault, examine, not_valid, read_placed
from flame_core.params.yaml_text import Placed


class Params(Section):
    """`params.yaml`; `train` holds the recipes it names, overrides applied."""

    sources: dict[Name, Source] = Field(
        min_length=1, description="{name: source}; its name is part of the keys of its samples"
    )
    ingest: IngestParams = IngestParams()
    caption: CaptionParams = CaptionParams()
    llm: LLMParams
    text: TextParams
    adapt_llm: AdaptLLMParams | None = Field(
        default=None, description="the LLM learns to embed captions before it reads any; null: no such stage"
    )
    cluster: ClusterParams | None = Field(
        default=None, description="labels of the training samples; null: no such stage"
    )
    lexical: LexicalParams | None = Field(
        default=None, description="words of the training captions; null: no such stage"
    )
    prompts: PromptsParams | None = Field(
        default=None, description="soft prompts that make the LLM write a caption; null: no such stage"
    )
    concepts: ConceptParams | None = Field(
        default=None, description="counts of concepts in captions and pictures; null: no such stage"
    )
    concept_fit: ConceptFitParams | None = Field(
        default=None, description="accuracy over the frequency of concepts; null: no such stage"
    )
    codes: CodesParams | None = Field(default=None, description="codes of the pictures' patches; null: no such stage")
    select: SelectParams | None = Field(
        default=None, description="selections of keys by the codes; null: no such stage"
    )
    features: FeaturesParams | None = Field(
        default=None, description="vectors of the pictures by a frozen tower; null: no such stage"
    )
    noise: NoiseParams | None = Field(
        default=None, description="an order by which samples swap texts; null: no such stage"
    )
    domains: dict[Name, DomainParams] | None = Field(
        default=None, description="labelled pictures of other domains; null: no such stage"
    )
    tune: TuneParams | None = Field(default=None, description="heads on frozen features; null: no such stage")
    caption_lm: CaptionLMParams | None = Field(
        default=None, description="a captioner of pictures, trained through the LLM; null: no such stage"
    )
    probe: ProbeParams | None = Field(default=None, description="what `flame probe` compares; null: nothing")
    semdedup: SemDedupParams | None = Field(
        default=None, description="a selection without semantic duplicates; null: no such stage"
    )
    scores: ScoresParams | None = Field(
        default=None, description="scores of the training samples by models; null: no such stage"
    )
    recipes: list[Name] = Field(
        min_length=1, description="names of files in recipes/: which recipes are trained, evaluated and compared"
    )
    train: dict[str, TrainParams] = Field(
        description="values laid over every recipe; by_objective and by_recipe lay them over some"
    )
    evaluate: EvaluateParams = EvaluateParams()
    promote: PromoteParams = PromoteParams()
    storage: StorageParams = StorageParams()

    @property
    def digest(self) -> str:
        """Identifies these params in workspaces, Dagster and MLflow; a new field with a default does not change it."""
        return value_digest(changed_values(self))[:12]

    @model_validator(mode="after")
    def _parts_fit_together(self, info: ValidationInfo) -> Params:
        refuse(
            [
                *self._shared_names(),
                *self._captions_not_embedded(),
                *self._tables_without_a_source(),
                *self._columns_not_kept(),
                *self._impossible_sources(),
                *optional_section_misfits(self),
            ],
            info,
        )
        return self

    def _shared_names(self) -> Iterator[Misfit]:
        for name in sorted(set(self.recipes) & set(self.evaluate.baselines)):
            yield (
                ("evaluate", "baselines", name),
                f"evaluate.baselines: {name} is the name of a recipe; choose another",
            )

    def _captions_not_embedded(self) -> Iterator[Misfit]:
        for name, recipe in self.train.items():
            if missing := [kind for kind in recipe.kinds if kind not in self.text.train_kinds]:
                yield (
                    ("train", name, "kinds"),
                    f"recipe {name} draws from {missing}, which text.train_kinds does not embed",
                )
            if recipe.reading == "sentence" and self.text.sentence is None:
                yield (
                    ("train", name, "reading"),
                    f"recipe {name} has reading: sentence, and text.sentence is null: say there how they are read, "
                    "or train on facets",
                )

    def _tables_without_a_source(self) -> Iterator[Misfit]:
        for kind, chosen in self.caption.tables:
            for key, said in self._source_faults(chosen):
                yield ("caption", kind, key), said

    def _columns_not_kept(self) -> Iterator[Misfit]:
        for kind, chosen in self.caption.columns:
            kept = {name for source in self.sources.values() for name in getattr(source, "keep_columns", ())}
            if chosen.column not in kept:
                others = f" (kept: {', '.join(sorted(kept))})" if kept else ""
                said = f"no source keeps {chosen.column!r}{others}: add it to `keep_columns` of the source that has it"
                yield ("caption", kind, "column"), said

    def _source_faults(self, chosen: TableCaptioner) -> Iterator[tuple[str, str]]:
        kinds = NAMING_SOURCES.get(chosen.match, ())
        named = [source for source, _ in chosen.tables if source is not None]
        own = [name for name, each in self.sources.items() if not kinds or each.kind in kinds]
        if named and not kinds:
            yield (
                "path",
                f"match: {chosen.match} says which sample it is, of any source: name one table or folder",
            )
        elif kinds and not own:
            yield (
                "match",
                f"match: {chosen.match} finds the samples of a source of kind {' or '.join(kinds)}, and there is none; "
                "name them by key or sha256",
            )
        elif strange := [name for name in named if name not in own]:
            yield "path", f"{', '.join(strange)} is no source that has such samples; these have: {', '.join(own)}"
        elif chosen.match == "image" and not named and len(own) > 1:
            tables = ", ".join(f"{name}: <its table>" for name in own)
            yield "path", f"files of several sources may have the same name: say which table is whose, {{{tables}}}"

    def _impossible_sources(self) -> Iterator[Misfit]:
        for name, recipe in self.train.items():
            for what, source in recipe_sources(recipe).items():
                key = ("train", name, what)
                if source not in self.train:
                    yield (
                        key,
                        f"recipe {name}: its {_ROLE[what]} {source} is not among the recipes; list it under recipes",
                    )
                elif way := self._way(source, name):
                    circle = " needs ".join([name, *way])
                    yield key, f"recipe {name}: {circle}, so none can be trained first"

    def _way(self, start: str, to: str) -> list[str]:
        """The recipes from `start` to `to`, each of which needs the next; none if there is no such way."""
        ways = [[start]]
        for way in ways:  # which grows
            if way[-1] == to:
                return way
            following = recipe_sources(self.train[way[-1]]).values() if way[-1] in self.train else ()
            ways += [[*way, each] for each in following if each not in way]
        return []


_ROLE = {"teacher": "teacher", "inherit": "source of weights"}


class Examined(NamedTuple):
    """Params that were read.

    Attributes:
        params: None if anything is wrong.
        faults: all that is wrong, each with its place.
        places: where everything was written.
        usable: the params without the wrong values, for further checks; None if too little is left.
        wrong: the sections that hold wrong values, of which `usable` may lack what they should say.
    """

    params: Params | None
    faults: list[str]
    places: Places
    usable: Params | None
    wrong: frozenset[str] = frozenset()


def load_params(layout: Layout) -> Params:
    """Read and validate `params.yaml` and the recipes it names.

    Raises:
        ParamsError: names the file, and of every mistake the line, the key and what is accepted.
    """
    placed = read_placed(layout.params, short(layout.params))
    return parse_params(placed.value, layout.params, layout.recipes, placed)


def parse_params(raw: dict[str, Any], path: Path, recipes: Path, placed: Placed | None = None) -> Params:
    """Validate the content of a params file; messages name `path`, recipe files are in the folder `recipes`."""
    places = Places.without_lines(raw, path) if placed is None else Places(short(path), placed.lines)
    found = examine_params(raw, recipes, places)
    faults = [*(placed.twice if placed else []), *found.faults]
    if found.params is None or faults:
        raise not_valid(path, faults)
    return found.params


def examine_params(raw: dict[str, Any], recipes: Path, places: Places) -> Examined:
    """All that is wrong with the content of a params file and the recipes that it names.

    Args:
        raw: the content, overrides applied.
        recipes: folder of the recipes' files.
        places: where the content was written; those of the recipes are added.
    """
    faults: dict[str, None] = {}  # the same mistake is found for every recipe that it is laid over

    def note(fault: Fault) -> None:
        place = str(places.find(fault.key, missing=fault.missing))
        faults.setdefault(f"{place}: {fault.message}")

    overrides = raw.get("train") or {}
    if not isinstance(overrides, dict):
        note(Fault(("train",), "must be a mapping of values that override the recipes"))
        overrides = {}
    for fault in (*by_objective_faults(overrides), *by_recipe_faults(overrides, known_recipes(recipes))):
        note(fault)
    trains: dict[str, Any] = {}
    names = raw.get("recipes") or []
    for number, name in enumerate(names if isinstance(names, list) else []):
        try:
            trains[str(name)] = _train_content(str(name), recipes, overrides, places, note, faults)
        except ParamsError as error:
            note(Fault(("recipes", str(number)), str(error)))
    if not names:
        for fault in examine(TrainParams, lay_over({}, overlay_of(overrides, "")))[1]:
            note(fault._replace(key=("train", *fault.key)))
    content = {**raw, "train": trains}
    params, found = examine(Params, content)
    for fault in found:
        note(fault)
    if not faults:
        return Examined(params, [], places, params)
    wrong = frozenset(fault.key[0] for fault in found if fault.key)
    return Examined(None, list(faults), places, params or _without(content, found), wrong)


def _train_content(
    name: str,
    recipes: Path,
    overrides: dict[str, Any],
    places: Places,
    note: Callable[[Fault], None],
    faults: dict[str, None],
) -> dict[str, Any]:
    """A recipe's content under `train`; notes its mistakes.

    Raises:
        ParamsError: there is no such recipe, or its file cannot be read.
    """
    try:
        file = recipe_file(recipes, require_name(name))
    except ValueError as error:
        raise ParamsError(f"{shown(name)}: {error}") from None
    if not file.is_file():
        known = ", ".join(known_recipes(recipes)) or "none"
        raise ParamsError(f"{short(file)} does not exist (known recipes: {known})")
    placed = read_placed_recipe(file)
    faults.update(dict.fromkeys(placed.twice))
    overrides = overlay_of(overrides, name)
    own = Places(short(file), placed.lines)
    places.add_recipe(name, own, objective_name(placed.value, overrides) or "")
    for fault in examine(TrainParams, placed.value)[1]:
        faults.setdefault(f"{own.find(fault.key, missing=fault.missing)}: {fault.message}")
    for key, message in foreign_keys(placed.value, overrides):
        note(Fault(("train", "objective", key), f"{short(file)} {message}"))
    return lay_over(placed.value, overrides)


def _without(content: dict[str, Any], faults: list[Fault]) -> Params | None:
    """The params without the values at fault, which their defaults replace; None if that is not enough."""
    kept = copy.deepcopy(content)
    for fault in faults:
        here: Any = kept
        way: list[tuple[Any, Any]] = []
        for part in fault.key:  # tags of unions are no keys
            at: Any = int(part) if isinstance(here, list) and part.isdecimal() else part
            if (isinstance(here, dict) and at in here) or (isinstance(here, list) and isinstance(at, int)):
                way.append((here, at))
                here = here[at]
        if way and not fault.is_misfit and not fault.missing:
            section, key = (
                way[-1]
                if isinstance(way[-1][0], dict)
                else next((pair for pair in reversed(way) if isinstance(pair[0], dict)), way[-1])
            )
            section.pop(key, None)
    return examine(Params, kept, lenient=True)[0]
