"""The `table` captioner: reads the texts that `search.find_texts` left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flame_core.captions.captioner import Failure, Written
from flame_core.captions.tables.search import ShardTexts
from flame_core.data.shards import Sample
from flame_core.files.row_groups import read_rows
from flame_core.params import TableCaptioner as TableParams


class TableCaptioner:
    """Gives the samples of a shard their texts."""

    def __init__(self, params: TableParams, texts: ShardTexts) -> None:
        self._params, self._texts = params, texts

    def write(self, samples: Sequence[Sample]) -> Written:
        """The texts of each sample, or why there is none: no row has one."""
        texts: dict[str, list[str]] = {}
        for row in read_rows(self._texts.path, self._texts.start, self._texts.stop).to_pylist():
            texts.setdefault(row["key"], []).append(row["text"])
        return Written(
            [texts.get(sample.key) or Failure("the table has none") for sample in samples],
            [self._provenance(sample) for sample in samples],
            language=self._params.language,
        )

    def _provenance(self, sample: Sample) -> str:
        names = self._params.table_names
        name = names.get(sample.meta["source"]) or names.get(None, "")
        return f"table:{name}/{self._params.caption_column}"


def identity(params: TableParams) -> dict[str, Any]:
    """What its texts depend on beside the texts of the table: for a unit's digest and the manifest."""
    names = params.table_names
    return {
        "captioner": params.captioner,
        **({"table": names[None]} if None in names else {"tables": names}),
        "caption_column": params.caption_column,
        "language": params.language,
    }
