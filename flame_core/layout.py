"""Paths: the project root, the root of this run, and the outs of every stage below it.

A run happens either in the project itself or in a workspace, `.flame/runs/<params digest>/`, which has its
own `data/` and shares the project's work cache. Stages run with the root of the run as their
working directory; relative paths in params resolve against the project root.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path, PurePath

from flame_core.errors import InputError
from flame_core.names import expanded

STATE = ".flame"
OPT_OUT = "opt_out.parquet"  # written by `flame forget`
ROOT_MARKS = frozenset({"dvc.yaml", "params.yaml"})  # the files that make a folder the root of a run


@dataclass(frozen=True)
class Layout:
    """Folders of one run. `root` holds this run's `params.yaml` and `data/`, `project` the source tree."""

    root: Path
    project: Path

    @classmethod
    def find(cls, root: Path | None = None) -> Layout:
        """The layout of the run in `root`.

        By default that is the nearest folder, from the working directory upwards, with `dvc.yaml` and `params.yaml`.
        """
        try:
            root = _nearest(Path.cwd()) if root is None else root.resolve()
        except FileNotFoundError:
            raise InputError("the working directory does not exist any more: change to another one") from None
        runs = root.parent
        inside_workspace = runs.name == "runs" and runs.parent.name == STATE
        return cls(root=root, project=runs.parent.parent if inside_workspace else root)

    @property
    def is_workspace(self) -> bool:
        return self.root != self.project

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def opt_out(self) -> Path:
        """What must not be used: the project's own file, also for workspaces."""
        return self.project / OPT_OUT

    @property
    def recipes(self) -> Path:
        return self.root / "recipes"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def raw(self) -> Path:
        return self.data / "raw"

    @property
    def llm(self) -> Path:
        return self.data / "llm"

    @property
    def llm_adapter(self) -> Path:
        """What the LLM learned about embedding captions: LoRA adapters."""
        return self.data / "llm-adapter"

    @property
    def shards(self) -> Path:
        return self.data / "shards"

    @property
    def captions(self) -> Path:
        return self.data / "captions"

    @property
    def embeddings(self) -> Path:
        return self.data / "embeddings"

    @property
    def train_embeddings(self) -> Path:
        """The part of the embeddings that trainings read."""
        return self.embeddings / "train"

    @property
    def state(self) -> Path:
        """Work cache, workspaces and scratch space; shared by the project and its workspaces."""
        return self.project / STATE

    @property
    def work(self) -> Path:
        return self.state / "work"

    @property
    def comparison(self) -> Path:
        return self.data / "comparison"

    @property
    def clusters(self) -> Path:
        """Labels of the training samples, with the centroids."""
        return self.data / "sidecars" / "clusters"

    @property
    def lexical(self) -> Path:
        """Words of the training captions, with the lexicon."""
        return self.data / "sidecars" / "lexical"

    @property
    def prompts(self) -> Path:
        """The head that turns sentence vectors into soft prompts, and what the LLM writes from them."""
        return self.data / "prompts"

    @property
    def concepts(self) -> Path:
        """Counts of concepts in the training split, and the samples that have them."""
        return self.data / "concepts"

    @property
    def concept_weights(self) -> Path:
        """Weights of the training samples by their concepts."""
        return self.data / "sidecars" / "concept-weights"

    @property
    def concept_fit(self) -> Path:
        """Accuracy over the frequency of concepts."""
        return self.data / "concept-fit"

    @property
    def codes(self) -> Path:
        """Codes of the training pictures' patches, with the codebook."""
        return self.data / "codes"

    @property
    def similarity(self) -> Path:
        """How similar each training picture and its raw captions are."""
        return self.data / "sidecars" / "similarity"

    @property
    def selections(self) -> Path:
        """Lists of keys to train on, with the clusters that they were drawn from."""
        return self.data / "selections"

    @property
    def semdedup(self) -> Path:
        """The keys of the training samples without semantic duplicates."""
        return self.data / "semdedup"

    @property
    def scores(self) -> Path:
        """Selections of the training samples by their scores."""
        return self.data / "scores"

    def score(self, name: str) -> Path:
        """The numbers that a scorer gave the training samples."""
        return self.data / "sidecars" / f"score-{name}"

    @property
    def features(self) -> Path:
        """A frozen tower's vectors of the training pictures."""
        return self.data / "sidecars" / "features"

    @property
    def noise(self) -> Path:
        """The order of the training samples by which recipes with `noise` swap texts."""
        return self.data / "sidecars" / "noise"

    @property
    def domains(self) -> Path:
        """Labelled pictures of other domains."""
        return self.data / "domains"

    @property
    def probe(self) -> Path:
        """Which LLM fits which tower."""
        return self.data / "probe"

    @property
    def captioner(self) -> Path:
        """A model that writes captions of pictures, and what it writes about held-out ones."""
        return self.data / "captioner"

    @property
    def heads(self) -> Path:
        """Heads on frozen features, and how well they do within their domain and beyond it."""
        return self.data / "heads"

    @property
    def baselines(self) -> Path:
        return self.data / "baselines"

    def model(self, recipe: str) -> Path:
        return self.data / "models" / recipe

    def report(self, recipe: str) -> Path:
        return self.data / "reports" / recipe

    def resolve(self, path: str) -> Path:
        """A path from params; a relative one is relative to the project root."""
        return self.project / expanded(path)


def _nearest(folder: Path) -> Path:
    """The nearest root of a run above `folder`; `folder` itself if there is none."""
    return next((each for each in (folder, *folder.parents) if is_root(each)), folder)


def is_root(folder: Path) -> bool:
    """Whether a folder is the root of a run: a project or a workspace."""
    return all((folder / mark).is_file() for mark in ROOT_MARKS)


def outside_projects(folder: Path, pattern: str) -> Iterator[Path]:
    """What a pattern matches below a folder, without what lies in a project that only a wildcard of it meets."""
    named = folder.joinpath(*takewhile(lambda part: not set(part) & set("*?["), PurePath(pattern).parts[:-1]))
    in_project = cache(is_root)
    for path in folder.glob(pattern):
        if not any(in_project(each) for each in path.parents if each != named and each.is_relative_to(named)):
            yield path
