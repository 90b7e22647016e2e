"""What a task of the suite is: one object that says all about it, so that nothing else tells tasks apart.

A new task is a module here with the class of its params and its object, and a line in `TASKS`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from flame_core.params.section import Section
from flame_core.suite.content import Content
from flame_core.suite.encoding import Vectors
from flame_core.suite.score import Score


class TaskParams(Section):
    """What a benchmark's definition says of its task; `kind` is the task's name in `TASKS`."""

    kind: Any  # of each task the literal that is its name

    def prompt_languages(self) -> set[str]:
        """Languages that these params hold prompts in."""
        return set()


P = TypeVar("P", bound=TaskParams)
C = TypeVar("C", bound=Content)


@dataclass(frozen=True)
class Asked(Generic[P, C]):
    """What one benchmark asks of a model.

    Attributes:
        benchmark: its name.
        params: those of its task.
        content: its data.
        languages: those that its definition names.
        training: the data of `Task.training_split`.
    """

    benchmark: str
    params: P
    content: C
    languages: Sequence[str]
    training: C | None = None


class Task(Protocol[P, C]):
    """A task; whoever implements it derives from it and overrides what is not as here.

    Attributes:
        params: the class of its params.
        wanted: the content that it works on; a layout that makes another cannot be used.
        wanted_is: that content in words.
        exported_as: its name in the tables of CLIP_benchmark.
        one_language: it asks in one language only.
        overview: the chart over several benchmarks that its headline goes into.
        titles: {metric without its group: what readers call it}, where they do not call it by its name.
    """

    params: type[P]
    wanted: type[C]
    wanted_is: ClassVar[str]
    exported_as: ClassVar[str]
    one_language: ClassVar[bool] = False
    overview: ClassVar[Literal["data sets", "text lengths"] | None] = None
    titles: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def texts(self, params: P, content: C) -> list[str]:
        """The texts that have to be embedded, each once, in a stable order."""
        ...

    @abstractmethod
    def measure(self, asked: Asked[P, C], vectors: Vectors) -> Iterator[tuple[str, Score | None]]:
        """(language, its score), one after another; None for a language that the data have no text in.

        Raises:
            NotOffered: the model cannot do it.
            InputError: a picture cannot be decoded, a text is not in the store, or the data do not fit together.
        """
        ...

    @abstractmethod
    def headline(self, params: P) -> list[str]:
        """The metrics that people read first, by which models are compared."""
        ...

    def training_split(self, params: P) -> str | None:
        """The split that is trained on, where anything is."""
        return None

    def counts_ties(self, params: P) -> bool:
        """Whether a model that sees no difference may be right; the report says so."""
        return False

    def title(self, metric: str) -> str:
        """A metric for readers."""
        return self.titles.get(metric, metric)
