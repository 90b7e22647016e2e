"""A zero-shot head: the texts of classes as weights, so that an exported model classifies pictures without the LLM.

A class is the normalised mean of its normalised prompts, as in evaluation (`measuring.classification`). Its names come
from a file with one name per line, from a benchmark of class labels, or from the held-out split of the project.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flame_core.errors import InputError, ParamsError
from flame_core.measuring.classification import class_embeddings
from flame_core.measuring.texts import class_names, class_prompts, read_classes
from flame_core.names import expanded
from flame_core.params import EvaluateParams, load_params

if TYPE_CHECKING:
    from flame_core.layout import Layout
    from flame_core.model.loaded import Model

HELD_OUT = "held-out"


@dataclass(frozen=True)
class ZeroShot:
    """C classes.

    Attributes:
        names: of the classes.
        vectors: [C, D] in float32, unit length.
        prompts: the prompts of the first class, as an example.
    """

    names: list[str]
    vectors: np.ndarray
    prompts: list[str]


def zero_shot(model: Model, layout: Layout, asked: str, templates: Sequence[str]) -> ZeroShot:
    """The head for `asked`: a file of names, `held-out`, or the name of a benchmark.

    Args:
        model: its text side reads the prompts; the LLM is loaded if they are not stored.
        layout: of the project, whose params have the prompts and the place of benchmarks.
        asked: as typed.
        templates: prompts with {class}; empty: those of the benchmark, else `evaluate.class_prompts`.

    Raises:
        InputError: the file or the data of the benchmark cannot be read, or the LLM is needed and not here.
        ParamsError: there is no such file or benchmark, or a template lacks {class}.
    """
    if any("{class}" not in template for template in templates):
        raise ParamsError("--template: every template must contain {class}, such as 'a picture of {class}'")
    params = load_params(layout).evaluate if layout.params.is_file() else EvaluateParams()
    if templates:
        params = params.model_copy(update={"class_prompts": list(templates)})
    path = expanded(asked)
    if path.is_file() and path.suffix not in (".yaml", ".yml"):  # such a file is a benchmark
        return _of_names(model, params, names_of(path))
    if asked == HELD_OUT:
        return _held_out(model, layout, params, bool(templates))
    return _of_benchmark(model, layout, params, asked, templates)


def names_of(path: Path) -> list[str]:
    """The class names of a file, one per line; blank lines are left out.

    Raises:
        InputError: it is not UTF-8, or has fewer than two names or one twice; names the line.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"--classes {path} cannot be read as text in UTF-8: {error}") from None
    found: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = " ".join(line.split())
        if name in found:
            raise InputError(
                f"--classes {path}: line {number} has {name!r} again, which line {found[name]} has already"
            )
        if name:
            found[name] = number
    if len(found) < 2:
        raise InputError(f"--classes {path}: {len(found)} class names; write at least two, one per line")
    return list(found)


def _of_names(model: Model, params: EvaluateParams, names: list[str]) -> ZeroShot:
    return ZeroShot(names, class_embeddings(params, names, model.text_views), class_prompts(params, names[0]))


def _held_out(model: Model, layout: Layout, params: EvaluateParams, own_prompts: bool) -> ZeroShot:
    """The classes of the held-out split; a packaged model has them and their texts with it."""
    from flame_core.serving.package import CLASS_TENSOR, CLASSES, SERVING
    from flame_core.text.tensor_file import TensorFile

    if not (model.folder / SERVING).is_file():
        names = class_names(read_classes(layout.shards))
    else:
        names = json.loads((model.folder / SERVING).read_text("utf-8"))["classes"]
    if not names:
        raise InputError("--classes held-out: the held-out pictures have no categories; name a file of class names")
    if own_prompts or not (model.folder / CLASSES).is_file():
        return _of_names(model, params, names)
    return ZeroShot(names, TensorFile(model.folder / CLASSES).read(CLASS_TENSOR, slice(None)), [])


def _of_benchmark(
    model: Model, layout: Layout, params: EvaluateParams, asked: str, templates: Sequence[str]
) -> ZeroShot:
    """The classes of a benchmark in its first language, with its own templates if it has some."""
    from flame_core.measuring.facet_pairing import meets_whole
    from flame_core.suite.content import Labelled, NotAvailable
    from flame_core.suite.definition import load_benchmark
    from flame_core.suite.layouts import read_content
    from flame_core.suite.tasks.classification import ClassificationParams, class_vectors, prompts, templates_of

    try:
        benchmark = load_benchmark(asked, layout.project)
    except ParamsError as error:
        raise ParamsError(f"--classes {asked}: neither a file, nor {HELD_OUT}, nor a benchmark ({error})") from None
    if not isinstance(benchmark.task, ClassificationParams):
        raise ParamsError(f"--classes {asked}: a benchmark of {benchmark.task.kind} has no prompts of classes")
    kind = benchmark.text_kind
    if model.facets and not meets_whole(kind):
        raise ParamsError(
            f"--classes {asked}: its prompts are asked facet by facet, which no single weight per class does: "
            f"write --classes {asked.partition('@')[0]}@single"
        )
    try:
        content = read_content(benchmark, layout.resolve(params.benchmarks.data))
    except NotAvailable as error:
        raise InputError(f"--classes {asked}: {error}; {benchmark.data.obtain}") from None
    assert isinstance(content, Labelled)  # `read_content` refuses any other for this task
    language = benchmark.languages[0]
    names = content.names[language]
    own = [template.replace("{class}", "{c}") for template in templates]
    rows = prompts(names, own or templates_of(benchmark.task, content, language))
    facets = slice(1) if kind == "raw" else slice(None)  # as benchmarks are measured
    t = class_vectors(rows, lambda texts: model.text_views(kind, texts)[:, facets].mean(axis=1))
    return ZeroShot(list(names), t, rows[0])
