"""The interface of the suite's tasks: one object with everything about a task, so no other code distinguishes tasks.

To add a task, add a module here with the class of its params and its object, and a line in `TASKS`.
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
    """The task in a benchmark's definition; `kind` is its name in `TASKS`."""

    kind: Any  # in each task, the literal of its name

    def prompt_languages(self) -> set[str]:
        """Languages in which these params have prompts."""
        return set()


P = TypeVar("P", bound=TaskParams)
C = TypeVar("C", bound=Content)


@dataclass(frozen=True)
class Asked(Generic[P, C]):
    """One benchmark, as its task gets it.

    Attributes:
        benchmark: its name.
        params: of its task.
        content: its data.
        languages: those in its definition.
        training: the data of `Task.training_split`.
    """

    benchmark: str
    params: P
    content: C
    languages: Sequence[str]
    training: C | None = None


class Task(Protocol[P, C]):
    """A task; each one is a subclass that overrides what differs from these defaults.

    Attributes:
        params: the class of its params.
        wanted: the type of content that it needs; a layout with another type cannot be used.
        wanted_is: that content in words.
        exported_as: its name in the tables of CLIP_benchmark.
        one_language: whether its texts are in one language only.
        overview: the chart over several benchmarks that shows its headline.
        titles: {metric without its group: its name for readers}, if that differs from the metric's own name.
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
        """The texts that must be embedded, each once, in a stable order."""
        ...

    @abstractmethod
    def measure(self, asked: Asked[P, C], vectors: Vectors) -> Iterator[tuple[str, Score | None]]:
        """(language, its score), one after another; None for a language in which the data have no text.

        Raises:
            NotOffered: the model cannot do it.
            InputError: a picture cannot be decoded, a text is not in the store, or the data do not fit together.
        """
        ...

    @abstractmethod
    def headline(self, params: P) -> list[str]:
        """The metrics by which models are compared, shown first."""
        ...

    def metrics(self, params: P) -> list[str]:
        """All metrics that it can give, without the group before them."""
        return self.headline(params)

    def training_split(self, params: P) -> str | None:
        """The split to train on, if the task trains anything."""
        return None

    def counts_ties(self, params: P) -> bool:
        """Whether a model with equal vectors may count as right, which the report then says."""
        return False

    def title(self, metric: str) -> str:
        """A metric's name for readers."""
        return self.titles.get(metric, metric)
