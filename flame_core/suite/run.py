"""All configured benchmarks on one model: each picture is encoded once for all languages and tasks.

Encoded pictures are kept in the work cache under the model's identity and the pictures' bytes, so a killed run goes on
where it was, and two benchmarks over the same pictures, or two prompt modes, share them. They are mapped, not loaded,
when read again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from flame_core.errors import InputError
from flame_core.measuring.facet_pairing import meets_whole, picture_vectors, text_vectors
from flame_core.reporting import Bar, progress
from flame_core.suite.benchmark_results import BenchmarkResult, result_of_scores
from flame_core.suite.collection import Collected
from flame_core.suite.content import Captioned, Labelled, Masked, Picture, Questions, pictures_sha256
from flame_core.suite.definition import (
    ChoiceParams,
    ClassificationParams,
    ProbeParams,
    RetrievalParams,
    SegmentationParams,
)
from flame_core.suite.models.protocol import Model, NotOffered
from flame_core.suite.safe_pictures import decodable, opened
from flame_core.suite.score import Score, Texts, over_languages
from flame_core.suite.tasks import choice, classification, probe, retrieval, segmentation
from flame_core.text.store import unit
from flame_core.work import UnitRecord, WorkCache, clear_disk_errors

_CHUNK = 256  # pictures whose bytes are held at once
_TEXTS = 256  # texts whose facets are held at once
_VECTORS = "vectors.npy"


def run_benchmarks(
    model: Model, collected: Sequence[Collected], confidence: float, work: Path
) -> list[BenchmarkResult]:
    """Measure a model on each benchmark; `confidence` is that of intervals, `work` the work cache.

    Raises:
        InputError: a picture cannot be decoded, or a text is not in the store.
    """
    found = []
    total = sum(len(each.benchmark.languages) for each in collected if each.content)
    with progress(f"benchmarks of {model.name}", total, "languages") as bar:
        for each in collected:
            if each.content is None:
                found.append(BenchmarkResult(each.benchmark, "not available", each.why))
            else:
                try:
                    found.append(result_of_scores(each, *_measure(model, each, work, bar), confidence))
                except NotOffered as error:
                    found.append(BenchmarkResult(each.benchmark, "not offered", str(error)))
    return found


def _measure(model: Model, each: Collected, work: Path, bar: Bar) -> tuple[list[Score], list[str]]:
    """(scores by language and their mean, languages without a text)."""
    scores: list[Score] = []
    missing: list[str] = []
    for language, measure in _by_language(model, each, work).items():
        score = measure()
        if score is None:
            missing.append(language)
        else:
            scores.append(score)
        bar.advance(benchmark=each.benchmark.name)
    if len(scores) > 1:
        scores.append(over_languages(scores))
    return scores, missing


def _by_language(model: Model, each: Collected, work: Path) -> dict[str, Callable[[], Score | None]]:
    """How to measure each language of a benchmark; the pictures are encoded here, once."""
    languages, kind = each.benchmark.languages, each.benchmark.text_kind
    match each.benchmark.task, each.content:
        case RetrievalParams() as task, Captioned() as content:
            z, encode = paired(model, kind, content.pictures, work)
            return {code: partial(retrieval.measure, task, content, code, z, encode) for code in languages}
        case ClassificationParams() as task, Labelled() as content:
            z, encode = paired(model, kind, content.pictures, work)
            return {code: partial(classification.measure, task, content, code, z, encode) for code in languages}
        case ChoiceParams() as task, Questions() as content:
            z, encode = paired(model, kind, content.pictures, work)
            return {languages[0]: partial(choice.measure, task, content, languages[0], z, encode)}
        case ProbeParams() as task, Labelled() as content:
            return {languages[0]: partial(_probe, model, task, each, content, work)}
        case SegmentationParams() as task, Masked() as content:
            texts = partial(model.texts, kind)  # a patch has no facets
            return {code: partial(_segmentation, model, task, content, code, texts) for code in content.names}
    raise AssertionError(each.benchmark.task.kind)  # `layouts.read_content` has refused all others


def _probe(model: Model, task: ProbeParams, each: Collected, content: Labelled, work: Path) -> Score:
    training = each.training
    assert training is not None
    language = each.benchmark.languages[0]
    if training.names != content.names:
        raise InputError(f"benchmark {each.benchmark.name}: training and test split name other classes")
    train, test = (unit(encoded(model, "features", part.pictures, work)) for part in (training, content))
    return probe.measure(task, (train, training.labels), (test, content.labels), content.names[language], language)


def _segmentation(model: Model, task: SegmentationParams, content: Masked, language: str, encode: Texts) -> Score:
    t = segmentation.vectors(task, content, language, encode)
    overlaps = []
    with progress("patches", len(content.pictures), "pictures") as bar:
        for picture, shown in zip(content.pictures, content.masks, strict=True):
            mask = segmentation.view_of_mask(shown.read(), shown.name, len(t), task.ignore)
            patches = decoded(model.patches, [picture])[0]
            predicted = segmentation.label_patches(patches, t, mask, task)
            overlaps.append(segmentation.overlap(predicted, mask, len(t), task.ignore))
            bar.advance()
    return segmentation.score_overlaps(overlaps, language)


def paired(model: Model, kind: str, pictures: Sequence[Picture], work: Path) -> tuple[np.ndarray, Texts]:
    """(vectors [N, V] of the pictures, texts of `kind` to vectors [T, V]): their inner product is the similarity."""
    views = encoded(model, "views", pictures, work)  # [N, 1 + F, D]
    facets = views.shape[1] - 1
    if facets and not meets_whole(kind):
        return picture_vectors(views), partial(_facet_texts, model, kind, facets, work)
    return views[:, 0], partial(model.texts, kind)


def _facet_texts(model: Model, kind: str, facets: int, work: Path, texts: Sequence[str]) -> np.ndarray:
    """`text_vectors` of texts, mapped from a file without a name: COCO's take 4 GB at 5,120 dimensions."""
    with clear_disk_errors(work), tempfile.TemporaryFile(dir=work) as file:
        for start in range(0, len(texts), _TEXTS):
            file.write(text_vectors(model.facets(kind, texts[start : start + _TEXTS]), facets).tobytes())
        file.flush()
        return np.memmap(file, np.float32, "r").reshape(len(texts), -1)


def encoded(model: Model, what: str, pictures: Sequence[Picture], work: Path) -> np.ndarray:
    """What `model.views` or `model.features` makes of pictures, mapped from the work cache."""
    read: Callable[[Sequence[bytes]], np.ndarray] = getattr(model, what)

    def write(folder: Path) -> UnitRecord:
        shown = progress(f"{what} of {model.name}", len(pictures), "pictures")
        with shown as bar, (folder / _VECTORS).open("wb") as file:
            for start in range(0, len(pictures), _CHUNK):
                block = decoded(read, pictures[start : start + _CHUNK])
                if start == 0:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (len(pictures), *block.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(block.astype("<f4").tobytes())
                bar.advance(len(block))
        return UnitRecord({"pictures": len(pictures)})

    inputs = {"model": dict(model.identity), "what": what, "pictures": pictures_sha256(pictures)}
    return np.load(WorkCache(work, "encode").get(inputs, write).file(_VECTORS), mmap_mode="r")


def decoded(read: Callable[[Sequence[bytes]], np.ndarray], pictures: Sequence[Picture]) -> np.ndarray:
    """What `read` makes of pictures.

    Raises:
        InputError: one of them is no picture; names it.
    """
    contents = [decodable(picture) for picture in pictures]
    try:
        return read(contents)
    except Exception:  # a decoder's, perhaps, which raise whatever broken bytes lead them to
        for picture, content in zip(pictures, contents, strict=True):
            opened(content, f"{picture.path}: {picture.name}")
        raise
