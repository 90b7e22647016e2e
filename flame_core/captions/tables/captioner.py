"""The captioners `table` and `column`: they read the texts that `search.find_texts` left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flame_core.captions.captioner import Failure, Written
from flame_core.captions.tables.search import ShardTexts
from flame_core.data.shards import Sample
from flame_core.files.row_groups import read_rows
from flame_core.params import ColumnCaptioner, FoundCaptioner


class Found:
    """Gives the samples of a shard the texts that are there."""

    def __init__(self, params: FoundCaptioner, texts: ShardTexts) -> None:
        self._params, self._texts = params, texts

    def write(self, samples: Sequence[Sample]) -> Written:
        """The texts of each sample, or why there is none: no row has one."""
        texts: dict[str, list[str]] = {}
        for row in read_rows(self._texts.path, self._texts.start, self._texts.stop).to_pylist():
            texts.setdefault(row["key"], []).append(row["text"])
        return Written(
            [texts.get(sample.key) or Failure(f"the {self._params.captioner} has none") for sample in samples],
            [provenance(self._params, sample.meta["source"]) for sample in samples],
            language=self._params.language,
        )


def provenance(params: FoundCaptioner, source: str) -> str:
    """Where the texts of a source's samples come from."""
    if isinstance(params, ColumnCaptioner):
        return f"column:{source}/{params.column}"
    names = params.table_names
    return f"table:{names.get(source) or names.get(None, '')}/{params.caption_column}"


def identity(params: FoundCaptioner) -> dict[str, Any]:
    """What captions depend on beside the texts themselves: for a unit's digest and the manifest."""
    if isinstance(params, ColumnCaptioner):
        return params.model_dump(exclude={"max_caption_chars"})
    names = params.table_names
    return {
        "captioner": params.captioner,
        **({"table": names[None]} if None in names else {"tables": names}),
        "caption_column": params.caption_column,
        "language": params.language,
    }
