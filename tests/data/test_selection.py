from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data import selection
from flame_core.data.build import SampleTask, ScannedPair
from flame_core.data.captions_text import primary_language, same_text, text_id
from flame_core.data.ledger import LedgerEntry
from flame_core.data.perceptual import COLOURS
from flame_core.data.scan import SCHEMA, TABLE, Scanned
from flame_core.data.selection import Chosen, Place, Selection, select
from flame_core.digest import canonical_json
from flame_core.params import IngestParams


def rows(numbers: range) -> Iterator[dict[str, Any]]:
    """Pairs: every fifth is bad, every fourth has the picture of the one before, every third two captions."""
    for number in numbers:
        if number % 5 == 0:
            yield {"key": f"s/{number}", "reason": "no_caption", "detail": "none"}
            continue
        captions = {"en": [f"caption {number}"], "de": [f"text {number}"] if number % 3 == 0 else []}
        yield {
            "key": f"s/{number}",
            "sha256": f"{number - (number % 4 == 0):064x}",
            "hash": number << 32 | number,
            "colours": bytes([number % 251]) * COLOURS,
            "side": 0 if number % 7 == 0 else 2**64 - 1,
            "primary_texts": [number],
            "other_texts": [10_000 + number] if captions["de"] else [],
            "meta": json.dumps({"captions": {code: texts for code, texts in captions.items() if texts}}),
            "width": 10 + number,
            "height": 10,
        }


def scans_in(folder: Path, sizes: list[int]) -> list[Scanned]:
    found, start = [], 0
    for size in sizes:
        place = folder / str(start)
        place.mkdir(parents=True)
        table = pa.Table.from_pylist(list(rows(range(start, start + size))), schema=SCHEMA)
        pq.write_table(table, place / TABLE)
        found.append(Scanned("s", folder, place, size, 0, {}, True))
        start += size
    return found


def told(found: Selection) -> Any:
    looks = {split: (some.hashes.tolist(), some.colours.tolist()) for split, some in found.looks.items()}
    return found.samples, sorted(found.entries), looks


def test_scans_are_the_same_however_many_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scans = scans_in(tmp_path, [64, 1, 40, 64, 31])
    params = IngestParams.model_validate({"val_fraction": 0.1, "shard_samples": 50, "near_duplicate_distance": -1})
    whole = select(scans, params, "en")
    for split in ("train", "val"):
        keys = [sample.key for sample in whole.samples[split]]
        assert keys == sorted(keys) and keys
        for sample, digest, colours in zip(
            whole.samples[split], whole.looks[split].hashes, whole.looks[split].colours, strict=True
        ):
            first = sample.pairs[0]
            row = pq.read_table(scans[first.scan].folder / TABLE).slice(first.row, 1).to_pylist()[0]
            assert (row["key"], row["hash"], row["colours"]) == (sample.key, digest, colours.tobytes())
    assert sum(entry.outcome == "merged" for entry in whole.entries) > 10
    for number in (1, 2, 3):
        monkeypatch.setattr(selection, "_AT_ONCE", number)
        assert told(select(scans, params, "en")) == told(whole)


def test_the_texts_of_a_language_are_read_without_the_rest_of_the_metadata(monkeypatch: pytest.MonkeyPatch):
    captions = [
        {"de": ["Ein Boot", "Ein Haus"], "en": ["A boat"]},
        {"de": ["Ein\nBoot"]},
        {"en": ['A "house"', "A \\ boat"], "fr": ["Un bateau"]},
        None,
        {"fr": ["Un bateau"], "it": ["Una barca"]},
        {"en": ["One", "Two", "Three"]},
    ]
    more = {"a": [1, {"en": 2}], "b": None, "captions_of": {"en": ["no"]}, "c": 10**400, "d": 1e300, "e": "x" * 9000}
    table = pa.Table.from_pylist(
        [
            {"reason": "no_caption"}
            if own is None
            else {
                "meta": canonical_json({**more, "captions": own}),
                "primary_texts": ids(own[primary_language(own)]),
                "other_texts": [text for code in own if code != primary_language(own) for text in ids(own[code])],
            }
            for own in captions
        ],
        pa.schema([SCHEMA.field(name) for name in ("reason", "meta", "primary_texts", "other_texts")]),
    )
    expected = {
        language: [ids(own.get(language, [])) for own in captions if own is not None]
        for language in ("en", "de", "fr", "it", "xx")
    }
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("the whole metadata were read"))
    for language, found in expected.items():
        assert selection._texts_in(language, table).to_pylist() == found
    assert selection._texts_in("en", table.slice(3, 1)).to_pylist() == []


def ids(texts: list[str]) -> list[int]:
    return [text_id(same_text(text)) for text in texts]


@pytest.mark.parametrize(
    "kept",
    [
        Place(0, 1),
        Chosen("k", (), ()),
        ScannedPair(Path(), 0, Path()),
        SampleTask("k", (), ()),
        LedgerEntry("s", "k", "dropped", "r", "d"),
    ],
)
def test_what_there_is_of_each_pair_is_small(kept: object):
    assert not hasattr(kept, "__dict__")
