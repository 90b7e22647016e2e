"""A task that the suite does not have: which of the captions in a language does a picture choose?

`naming_suite.py` adds its line to the registry, and a task needs nothing more besides its module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np

from flame_core.measuring.intervals import ratio
from flame_core.suite.content import Captioned
from flame_core.suite.encoding import Vectors
from flame_core.suite.score import Score
from flame_core.suite.tasks.task import Asked, Task, TaskParams


class NamingParams(TaskParams):
    kind: Literal["naming"]
    question: str = "is it {}"


class NamingTask(Task[NamingParams, Captioned]):
    params = NamingParams
    wanted = Captioned
    wanted_is = "pictures with captions"
    exported_as = "naming"
    titles: ClassVar[Mapping[str, str]] = {"named": "own name first"}

    def texts(self, params: NamingParams, content: Captioned) -> list[str]:
        rows = (params.question.format(text) for rows in content.captions.values() for _, text in rows)
        return list(dict.fromkeys(rows))

    def measure(self, asked: Asked[NamingParams, Captioned], vectors: Vectors) -> Iterator[tuple[str, Score | None]]:
        z, encode = vectors.paired(asked.content.pictures)
        for language in asked.languages:
            rows = asked.content.captions.get(language)
            if not rows:
                yield language, None
                continue
            t = encode([asked.params.question.format(text) for _, text in rows])
            own = np.array([picture for picture, _ in rows])
            named = (z[own] @ t.T).argmax(axis=1) == np.arange(len(rows))
            score = Score(language, facts={"pictures": len(z)})
            score.add("named", ratio(named.astype(float), np.ones(len(rows))), 1 / len(rows))
            yield language, score

    def headline(self, params: NamingParams) -> list[str]:
        return ["named"]
