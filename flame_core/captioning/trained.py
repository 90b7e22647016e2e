"""The `trained` captioner of the stage `caption`: a model of `flame caption-lm`, or of a recipe with the term prompts.

A caption depends on its shard, on the model's and the LLM's bytes and on how it is written; with `do_sample`, what is
drawn follows from the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_core.captioning.address import find_captioner, find_llm, writes_of
from flame_core.captions.captioner import Failure, undecodable
from flame_core.data.shards import Sample
from flame_core.digest import file_sha256, value_digest
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.model_files import WEIGHTS
from flame_core.params import TrainedCaptioner as TrainedParams
from flame_core.settings import settings

if TYPE_CHECKING:
    from flame_core.captioning.writer import PictureWriter


class TrainedCaptioner:
    """Loads its model and the LLM when the first shard needs them."""

    def __init__(self, params: TrainedParams, layout: Layout) -> None:
        self._params = params
        self._folder, self._llm = _places(params, layout)
        self.provenance = f"trained:{file_sha256(self._folder / WEIGHTS)[:12]}+{self._llm.name}"

    def captions(self, samples: Sequence[Sample]) -> list[str | Failure]:
        """One text per sample, or why there is none: an unreadable picture, or an LLM that wrote nothing.

        Raises:
            InputError: the model or the LLM is missing or damaged, or it is another LLM.
        """
        broken = [undecodable(sample.jpeg) for sample in samples]
        jpegs = [sample.jpeg for sample, fault in zip(samples, broken, strict=True) if fault is None]
        writer = _loaded(self._folder, self._llm, self._params.dtype, settings().torch_device())
        texts = iter(writer.captions(jpegs, self._params.writing) if jpegs else [])
        return [fault or next(texts) or Failure("the LLM wrote no text") for fault in broken]


def identity(params: TrainedParams, layout: Layout) -> dict[str, Any]:
    """What its texts depend on, for a unit's digest and the manifest: no places, but digests and the LLM's name.

    Raises:
        InputError: the model or the LLM is missing, or it is another LLM.
        ParamsError: the model is made by this run, from these captions.
    """
    from flame_core.captioning.writer import require_llm

    folder, llm = _places(params, layout)
    writes = writes_of(folder)
    require_llm(folder, writes, llm)
    return {
        "captioner": params.captioner,
        "dtype": params.dtype,
        "writing": params.writing.model_dump(),
        "model": folder.name,
        "model_sha256": value_digest([file_sha256(folder / WEIGHTS), writes]),
        "llm": llm.name,
        "llm_sha256": writes["llm"],
    }


def release() -> None:
    """Drop the loaded model, which frees its memory."""
    _loaded.cache_clear()


def _places(params: TrainedParams, layout: Layout) -> tuple[Path, Path]:
    folder = find_captioner(params.model, layout)
    if layout.data.resolve() in folder.resolve().parents:
        raise ParamsError(
            f"caption: {params.model} is made by this run, from captions that it would write, so neither can be first: "
            "copy the folder elsewhere and name the copy, or a version in MLflow"
        )
    return folder, find_llm(folder, params.llm, layout)


@lru_cache(maxsize=2)  # one per kind of caption
def _loaded(folder: Path, llm: Path, dtype: str, device: str) -> PictureWriter:
    import torch

    from flame_core.captioning.writer import PictureWriter

    return PictureWriter.load(folder, llm, device, getattr(torch, dtype))
