"""Definitions of benchmarks as data, and finding one by its name or file.

A definition says where the data are, their layout, the task, and published figures. To add a benchmark, add a YAML
file; those of this package are in `suite/benchmarks/`. An entry of `evaluate.benchmarks.names` is the name of such a
file or the path of another one, and may have a prompt mode after an `@`: `urban-1k`, `urban-1k@single`,
`mine/birds.yaml`.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import reduce
from importlib.resources import as_file, files
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from flame_core.errors import ParamsError
from flame_core.language_names import is_language
from flame_core.names import DottedName, LanguageCode, did_you_mean, expanded
from flame_core.params.section import CaptionKind, Positive, Section
from flame_core.params.validation import read_yaml, validate
from flame_core.suite.score import MEAN
from flame_core.suite.tasks import TASKS
from flame_core.suite.tasks.task import TaskParams

LayoutName = Literal[
    "captions_jsonl",
    "clip_benchmark",
    "crossmodal3600",
    "dci",
    "docci",
    "held_out",
    "image_folder",
    "karpathy",
    "masks",
    "sharegpt4v",
    "sugarcrepe",
    "urban1k",
    "winoground",
]
PromptMode = Literal["single", "facets", "reference"]
PROMPT_MODES: tuple[PromptMode, ...] = get_args(PromptMode)
DEFAULT_SPLIT = "test"
_FILES = frozenset({"images", "annotations"})
USED: dict[LayoutName, frozenset[str]] = {  # keys of `data` that each layout reads
    "captions_jsonl": _FILES,
    "clip_benchmark": frozenset({"split"}),
    "crossmodal3600": _FILES,
    "dci": _FILES,
    "docci": _FILES | {"split"},
    "held_out": frozenset(),
    "image_folder": frozenset({"split"}),
    "karpathy": _FILES | {"split"},
    "masks": _FILES,
    "sharegpt4v": _FILES | {"first"},
    "sugarcrepe": _FILES,
    "urban1k": _FILES,
    "winoground": _FILES,
}


class DataParams(Section):
    """Where the data of a benchmark are, below `evaluate.benchmarks.data`."""

    layout: LayoutName
    path: str = Field(description="folder of the benchmark")
    split: str = DEFAULT_SPLIT
    images: str | None = Field(default=None, description="folder of the pictures, if not the layout's default")
    annotations: str | None = Field(default=None, description="file or folder that says what the pictures show")
    first: Positive | None = Field(default=None, description="use only this many entries, from the start; null: all")
    obtain: str = Field(description="what to fetch and from where, if the data are missing")

    @model_validator(mode="after")
    def _keys_mean_something(self) -> DataParams:
        for key, default in (("images", None), ("annotations", None), ("split", DEFAULT_SPLIT), ("first", None)):
            if getattr(self, key) != default and key not in USED[self.layout]:
                known = ", ".join(sorted(USED[self.layout])) or "none"
                raise ValueError(f"layout {self.layout} has no use for {key} (it reads {known}); leave it out")
        return self


if TYPE_CHECKING:
    AnyTaskParams = TaskParams
else:  # a union of all tasks' params, discriminated by `kind`
    AnyTaskParams = Annotated[reduce(or_, (task.params for task in TASKS.values())), Field(discriminator="kind")]


class Published(Section):
    """Figures that somebody published under this protocol."""

    model: str
    percent: dict[str, Annotated[float, Field(ge=0, le=100)]] = Field(
        min_length=1, description="values by metric, named as in results, such as text_retrieval_recall@1"
    )
    language: str = Field(default="", description="`mean` for the mean over languages; empty: the first language")
    source: str


class Benchmark(Section):
    """One evaluation benchmark."""

    name: DottedName
    title: str
    task: AnyTaskParams
    data: DataParams
    languages: list[LanguageCode] = Field(default=["en"], min_length=1)
    prompt: PromptMode = Field(
        default="single",
        description="single: the first facet of the raw template; facets: the mean over facets of the similarity, each "
        "facet normalised; reference: as FLAME's code does, the mean of the facets before normalisation",
    )
    template: CaptionKind = Field(default="long", description="template of `text.template` whose facets are used")
    long_text: bool = Field(default=False, description="its texts are longer than CLIP's 77 tokens")
    published: list[Published] = Field(default=[], description="figures to compare with")

    @field_validator("languages")
    @classmethod
    def _languages_exist(cls, languages: list[str]) -> list[str]:
        unknown = [code for code in languages if not is_language(code)]
        if unknown:
            raise ValueError(f"unknown language code(s) {', '.join(unknown)}: use ISO 639 codes, such as en, zh or fil")
        return languages

    @model_validator(mode="after")
    def _one_language_where_one_is_asked(self) -> Benchmark:
        if TASKS[self.task.kind].one_language and len(self.languages) > 1:
            raise ValueError(
                f"task {self.task.kind} asks in one language, but languages are {', '.join(self.languages)}"
            )
        return self

    @model_validator(mode="after")
    def _tests_on_what_it_did_not_train_on(self) -> Benchmark:
        if TASKS[self.task.kind].training_split(self.task) == self.data.split:
            raise ValueError(
                f"task.train_split and data.split are both {self.data.split!r}, so it would train on pictures of the "
                "test: name two splits"
            )
        return self

    @model_validator(mode="after")
    def _templates_are_of_its_languages(self) -> Benchmark:
        stray = sorted(self.task.prompt_languages() - set(self.languages))
        if stray:
            raise ValueError(f"templates in {', '.join(stray)}, but languages are {', '.join(self.languages)}")
        return self

    @model_validator(mode="after")
    def _figures_are_of_its_languages(self) -> Benchmark:
        stray = sorted({figure.language for figure in self.published} - {"", MEAN, *self.languages})
        if stray:
            raise ValueError(f"published figures in {', '.join(stray)}, but languages are {', '.join(self.languages)}")
        return self

    @model_validator(mode="after")
    def _figures_are_of_its_metrics(self) -> Benchmark:
        known = TASKS[self.task.kind].metrics(self.task)
        given = (name for figure in self.published for name in figure.percent)
        if stray := sorted({name for name in given if name.rpartition("/")[2] not in known}):
            raise ValueError(f"published figures of {', '.join(stray)}, but the task gives {', '.join(known)}")
        return self

    @property
    def text_kind(self) -> str:
        """The kind under which the store keeps its texts."""
        match self.prompt:
            case "single":
                return "raw"
            case "facets":
                return self.template
            case "reference":
                return f"{self.template}@reference"


def shipped() -> dict[str, Path]:
    """{name: file} of the benchmarks in this package."""
    with as_file(files("flame_core.suite") / "benchmarks") as folder:
        return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def own_definition(entry: str, root: Path) -> Path | None:
    """The file that an entry of `evaluate.benchmarks.names` names; None if it is the name of one in this package."""
    name = entry.partition("@")[0]
    return root / expanded(name) if name.endswith((".yaml", ".yml")) else None


def load_benchmark(entry: str, root: Path) -> Benchmark:
    """The benchmark of an entry of `evaluate.benchmarks.names`; relative paths start at `root`.

    Raises:
        ParamsError: there is no such benchmark, or its file is wrong; names the key and what is accepted.
    """
    name, _, mode = entry.partition("@")
    if (path := own_definition(entry, root)) is not None:
        if not path.is_file():
            raise ParamsError(f"{path} does not exist", key="evaluate.benchmarks.names")
    else:
        known = shipped()
        if name not in known:
            hint = did_you_mean(name, known)
            raise ParamsError(
                f"no benchmark {name!r};{hint} known: {', '.join(known)}; or the path of a .yaml file",
                key="evaluate.benchmarks.names",
            )
        path = known[name]
    content = {"name": path.stem, **read_yaml(path)}
    if mode:
        if mode not in PROMPT_MODES:
            raise ParamsError(f"{entry}: prompt modes are {', '.join(PROMPT_MODES)}", key="evaluate.benchmarks.names")
        content |= {"prompt": mode, "name": f"{content['name']}.{mode}"}
    return validate(Benchmark, content, path)


def load_benchmarks(entries: list[str], root: Path) -> list[Benchmark]:
    """All of them, in order.

    Raises:
        ParamsError: as in `load_benchmark`, or two have the same name.
    """
    found = [load_benchmark(entry, root) for entry in entries]
    names = [benchmark.name for benchmark in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ParamsError(f"more than one benchmark is called {', '.join(twice)}", key="evaluate.benchmarks.names")
    return found


def lacking_template(benchmark: Benchmark, entry: str, templates: Collection[str]) -> str | None:
    """What to do about a benchmark whose prompts `templates` (those of `text.template`) lack; None if it has them."""
    needed = benchmark.text_kind.partition("@")[0]
    if needed in templates:
        return None
    return (
        f"{entry} asks facets of the {needed!r} template, which is not in text.template: add it there, or write "
        f"{entry.partition('@')[0]}@single"
    )
