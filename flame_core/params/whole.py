"""All of `params.yaml`, and how to read it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from os.path import normpath
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pydantic import Field, ValidationInfo, model_validator

from flame_core.digest import value_digest
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.names import Name, require_name, shown
from flame_core.params.captions import CaptionParams, IngestParams
from flame_core.params.changed_values import changed_values
from flame_core.params.clustering import ClusterParams
from flame_core.params.codes import CodesParams, SelectParams
from flame_core.params.concepts import HELD_OUT_CLASSES, ConceptFitParams, ConceptParams
from flame_core.params.evaluation import EvaluateParams
from flame_core.params.lexical import LexicalParams
from flame_core.params.noise import NoiseParams
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
from flame_core.params.recipe_files import known_recipes, read_placed_recipe, recipe_file
from flame_core.params.sampling import COUNTED
from flame_core.params.section import Section, refuse
from flame_core.params.sources import Source
from flame_core.params.storage import StorageParams
from flame_core.params.text import LLMParams, TextParams
from flame_core.params.training import ModelLink, TrainParams
from flame_core.params.tuning import DomainParams, TuneParams
from flame_core.params.validation import Fault, examine, not_valid, read_placed
from flame_core.params.yaml_text import Placed

Misfit = tuple[tuple[str, ...], str]  # a key, and why its value does not fit to others


class Params(Section):
    """`params.yaml`; `train` holds the recipes it names, overrides applied."""

    sources: dict[Name, Source] = Field(min_length=1)
    ingest: IngestParams = IngestParams()
    caption: CaptionParams = CaptionParams()
    llm: LLMParams
    text: TextParams
    cluster: ClusterParams | None = Field(
        default=None, description="labels of the training samples; null: no such stage"
    )
    lexical: LexicalParams | None = Field(
        default=None, description="words of the training captions; null: no such stage"
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
    noise: NoiseParams | None = Field(
        default=None, description="an order by which samples swap texts; null: no such stage"
    )
    domains: dict[Name, DomainParams] | None = Field(
        default=None, description="labelled pictures of other domains; null: no such stage"
    )
    tune: TuneParams | None = Field(default=None, description="heads on frozen features; null: no such stage")
    recipes: list[Name] = Field(min_length=1)
    train: dict[str, TrainParams]
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
                *self._impossible_clusters(),
                *self._impossible_words(),
                *self._impossible_concepts(),
                *self._impossible_fits(),
                *self._impossible_sources(),
                *self._impossible_selections(),
                *self._impossible_heads(),
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

    def _impossible_clusters(self) -> Iterator[Misfit]:
        if (cluster := self.cluster) is None or cluster.vectors is not None:
            return
        if missing := [kind for kind in cluster.kinds or [] if kind not in self.text.train_kinds]:
            yield ("cluster", "kinds"), f"cluster.kinds has {missing}, which text.train_kinds does not embed"
        if cluster.reading == "sentence" and self.text.sentence is None:
            yield ("cluster", "reading"), "cluster.reading is sentence, and text.sentence is null: say there how"

    def _impossible_words(self) -> Iterator[Misfit]:
        if self.lexical is None:
            return
        if missing := [kind for kind in self.lexical.kinds if kind not in self.text.train_kinds]:
            yield ("lexical", "kinds"), f"lexical.kinds has {missing}, which text.train_kinds does not embed"
        sentence = self.text.sentence
        if sentence is None or sentence.read != "last" or not sentence.final_norm:
            yield (
                ("lexical",),
                "lexical needs text.sentence with read: last, final_norm: true and the LLM's last layer: words come "
                "from what the LLM would say next",
            )
        if self.text.center != "none":
            yield ("text", "center"), "lexical needs text.center none; lexical.center removes what captions share"

    def _impossible_concepts(self) -> Iterator[Misfit]:
        if (concepts := self.concepts) is None:
            return
        known = {HELD_OUT_CLASSES, *self.evaluate.benchmarks.names}
        if strange := [name for name in concepts.benchmarks if name not in known]:
            yield (
                ("concepts", "benchmarks"),
                f"concepts.benchmarks has {strange}; known are {', '.join(sorted(known))} (those of "
                "evaluate.benchmarks.names)",
            )
        if concepts.nouns is not None and self.evaluate.train_language.partition("_")[0] != "en":
            yield ("concepts", "nouns"), "concepts.nouns are found in English captions only: give a file of concepts"
        if concepts.tower is not None and concepts.tower not in self.train:
            yield (
                ("concepts", "images", "tagger", "recipe"),
                f"concepts.images.tagger: {concepts.tower} is not among the recipes; list it under recipes",
            )
        elif concepts.tower is not None and self.train[concepts.tower].sampling.source in COUNTED:
            yield (
                ("concepts", "images", "tagger", "recipe"),
                f"concepts.images.tagger: {concepts.tower} draws its samples by these counts, so neither can be first; "
                "take another recipe",
            )

    def _impossible_fits(self) -> Iterator[Misfit]:
        if (fit := self.concept_fit) is None:
            return
        if self.concepts is None:
            yield ("concept_fit",), "concept_fit reads what the section concepts makes: write that section too"
        elif fit.frequency != "text" and self.concepts.images is None:
            yield (
                ("concept_fit", "frequency"),
                f"concept_fit.frequency is {fit.frequency}: say in concepts.images how pictures are tagged",
            )
        for name in fit.recipes:
            if name not in self.train:
                yield (
                    ("concept_fit", "recipes"),
                    f"concept_fit.recipes: {name} is not among the recipes; list it under recipes",
                )

    def _impossible_heads(self) -> Iterator[Misfit]:
        if (tune := self.tune) is None:
            return
        known: list[tuple[str, list[str], Collection[str], str]] = [
            ("recipes", tune.recipes, self.train, "recipes"),
            ("probed", tune.probed, self.train, "recipes"),
            ("baselines", tune.baselines, self.evaluate.baselines, "evaluate.baselines"),
            ("domains", tune.domains, self.domains or {}, "domains"),
        ]
        for key, names, there, where in known:
            if missing := sorted(set(names) - set(there)):
                yield ("tune", key), f"tune.{key} has {', '.join(missing)}, which {where} does not list"

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

    def _impossible_selections(self) -> Iterator[Misfit]:
        if self.select is not None and self.codes is None:
            yield ("select",), "select clusters what the stage `codes` makes: write a section codes as well"
        if self.select is not None and self.select.counted == "concepts" and self.concepts is None:
            yield (
                ("select", "counted"),
                "select.counted is concepts, which the stage `concepts` counts: write its section",
            )
        for section, out in ((self.codes, "codes"), (self.select, "selections")):
            if section is not None and section.frozen is not None and normpath(section.frozen) == f"data/{out}":
                key = "codes" if out == "codes" else "select"
                yield (key, "frozen"), f"{key}.frozen is this run's own out: copy it elsewhere, and name the copy"
        if self.codes is None or (tower := self.codes.tower.recipe) is None:
            return
        if tower not in self.train:
            yield ("codes", "tower", "recipe"), f"codes.tower: {tower} is not among the recipes; list it under recipes"
            return
        chain = [tower]
        while (teacher := teacher_recipe(self.train[chain[-1]])) in self.train and teacher not in chain:
            chain.append(str(teacher))
        for name in chain:
            selection = self.train[name].selection
            if selection is not None and PurePosixPath(normpath(selection)).parts[:2] == ("data", "selections"):
                yield (
                    ("codes", "tower", "recipe"),
                    f"codes.tower is {tower}, and {name} is trained on a selection by these codes, so neither can be "
                    "first: take another tower, or train that recipe on all samples",
                )


_ROLE = {"teacher": "teacher", "inherit": "source of weights"}


def recipe_of(link: ModelLink | None) -> str | None:
    """The recipe whose model is linked to, however it is named; None of a folder from elsewhere."""
    if link is None or link.path is None:
        return link and link.recipe
    parts = PurePosixPath(normpath(link.path)).parts
    return parts[2] if parts[:2] == ("data", "models") and len(parts) == 3 else None


def recipe_sources(recipe: TrainParams) -> dict[str, str]:
    """{`teacher`, `inherit`: the recipe whose model that is}."""
    found = {"teacher": recipe_of(recipe.teacher), "inherit": recipe_of(recipe.inherit)}
    return {what: name for what, name in found.items() if name is not None}


def teacher_recipe(recipe: TrainParams) -> str | None:
    """The recipe whose model a recipe learns from, however it is named; None of a folder from elsewhere."""
    return recipe_of(recipe.teacher)


class Examined(NamedTuple):
    """Params that were read.

    Attributes:
        params: None if anything is wrong.
        faults: all that is wrong, each with its place.
        places: where everything was written.
        usable: the params without the wrong values, for further checks; None if too little is left.
    """

    params: Params | None
    faults: list[str]
    places: Places
    usable: Params | None


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
    return Examined(None, list(faults), places, params or _without(content, found))


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
