"""The names of concepts that the section `concepts` asks for, from classes of benchmarks, nouns and a file."""

from __future__ import annotations

from flame_core.concepts.concept_list import ConceptList, Given, concept_list, of_classes, of_file
from flame_core.concepts.counting import Counting
from flame_core.errors import InputError
from flame_core.graph.section_stages import linked_place
from flame_core.layout import Layout
from flame_core.measuring.texts import class_name, class_names, read_classes
from flame_core.params import ConceptParams, Params
from flame_core.params.concepts import HELD_OUT_CLASSES


def read_concepts(params: Params, layout: Layout, chosen: ConceptParams, counting: Counting) -> ConceptList:
    """The concepts of a run.

    Raises:
        InputError: a benchmark has no classes or is not there, a name has no lemma, or there is no name at all.
    """
    language = params.evaluate.train_language
    given: list[Given] = []
    if HELD_OUT_CLASSES in chosen.benchmarks:
        given += of_classes({HELD_OUT_CLASSES: held_out_classes(layout)}, {HELD_OUT_CLASSES: str(layout.shards)})
    for name in chosen.suite_benchmarks:
        given += _of_benchmark(params, layout, name)
    if chosen.nouns is not None:
        given += [Given(noun, "nouns", "captions") for noun in counting.nouns(chosen.nouns)]
    if chosen.file is not None:
        given += of_file(linked_place(layout, chosen.file))
    return concept_list(given, language)


def held_out_classes(layout: Layout) -> list[str]:
    """The categories of the held-out pictures, as they are prompted.

    Raises:
        InputError: there are fewer than two.
    """
    names = [class_name(name) for name in class_names(read_classes(layout.shards))]
    if not names:
        raise InputError(
            f"{layout.shards}: the held-out pictures have fewer than two categories, so {HELD_OUT_CLASSES} gives no "
            "concepts: take it out of concepts.benchmarks"
        )
    return names


def _of_benchmark(params: Params, layout: Layout, entry: str) -> list[Given]:
    from flame_core.suite.content import Labelled, NotAvailable
    from flame_core.suite.definition import load_benchmark
    from flame_core.suite.layouts import read_content

    benchmark = load_benchmark(entry, layout.project)
    try:
        content = read_content(benchmark, layout.resolve(params.evaluate.benchmarks.data))
    except NotAvailable as error:
        raise InputError(f"concepts.benchmarks: {entry} is not available: {error}. {benchmark.data.obtain}") from None
    language = params.evaluate.train_language
    if not isinstance(content, Labelled) or language not in content.names:
        what = f"no class names in {language}" if isinstance(content, Labelled) else "no classes"
        raise InputError(f"concepts.benchmarks: {entry} has {what}: take it out of the list")
    place = f"benchmark {benchmark.name}"
    return of_classes({benchmark.name: content.names[language]}, {benchmark.name: place})
