"""The `table` captioner: reads the texts that `search.find_texts` left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flame_core.captions.captioner import Failure
from flame_core.captions.tables.search import ShardTexts
from flame_core.data.shards import Sample
from flame_core.files.row_groups import read_rows
from flame_core.params import TableCaptioner as TableParams


class TableCaptioner:
    """Gives the samples of a shard their texts."""

    def __init__(self, params: TableParams, texts: ShardTexts) -> None:
        self._texts = texts
        self.provenance = f"table:{Path(params.path).name}/{params.caption_column}"

    def captions(self, samples: Sequence[Sample]) -> list[str | Failure]:
        """One text per sample, or why there is none: no row has it."""
        found = read_rows(self._texts.path, self._texts.start, self._texts.stop).to_pydict()
        texts = dict(zip(found["key"], found["text"], strict=True))
        return [texts.get(sample.key) or Failure("the table has none") for sample in samples]


def identity(params: TableParams) -> dict[str, Any]:
    """What its texts depend on beside the texts of the table: for a unit's digest and the manifest."""
    return {
        "captioner": params.captioner,
        "table": Path(params.path).name,
        "caption_column": params.caption_column,
        "language": params.language,
    }
