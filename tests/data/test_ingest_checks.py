from __future__ import annotations

import random
import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flame_core.data.build import SCHEMA
from flame_core.data.ingest_checks import ingest_checks
from flame_core.data.near_duplicates import Looks
from flame_core.gates import Check
from flame_core.params import IngestParams

ROWS: dict[str, list[dict[str, Any]]] = {
    "train": [
        {"key": "a", "sha256": "1", "primary": "en", "texts": [1, 2]},
        {"key": "b", "sha256": "2", "primary": "en", "texts": [3]},
        {"key": "c", "sha256": "3", "primary": "de", "texts": []},
    ],
    "val": [
        {"key": "d", "sha256": "4", "primary": "en", "texts": [4]},
        {"key": "e", "sha256": "5", "primary": "en", "texts": [5]},
    ],
}
HASHES = {"train": [0, 0xFF, 0xFFFF], "val": [0xFFFF_FFFF, 0xFFFF_FFFF_FFFF]}


def _checks(
    changed: dict[str, Any] | None = None, hashes: dict[str, list[int]] | None = None, **values: Any
) -> dict[str, Check]:
    rows = {split: [dict(row) for row in some] for split, some in ROWS.items()}
    if changed:
        rows[changed.pop("of")][0].update(changed)
    looks = {
        split: Looks(np.array(some, np.uint64), np.zeros((len(some), 192), np.uint8))
        for split, some in (hashes or HASHES).items()
    }
    arguments = {"listed": 10, "kept": 6, "undecodable": [], "damaged_files": [], "params": IngestParams()} | values
    tables = {split: pa.Table.from_pylist(some, schema=SCHEMA) for split, some in rows.items()}
    return {check.name: check for check in ingest_checks(tables, looks, **arguments)}  # type: ignore[arg-type]


def test_good_shards_pass_all():
    checks = _checks()
    assert all(check.passed for check in checks.values())
    assert checks["kept_fraction"].value == 0.6 and checks["languages"].value == 2


@pytest.mark.parametrize(
    ("arguments", "failed", "keys"),
    [
        ({"changed": {"of": "train", "key": "d"}}, "keys_unique", ["d"]),
        ({"undecodable": ["b"]}, "samples_decode", ["b"]),
        ({"kept": 4}, "kept_fraction", []),
        ({"changed": {"of": "val", "primary": "fr"}}, "languages", []),
        ({"changed": {"of": "train", "sha256": "5"}}, "pictures_disjoint", ["a"]),
        ({"changed": {"of": "train", "texts": [9, 4]}}, "captions_disjoint", ["a"]),
        ({"hashes": {**HASHES, "train": [0, 0xFF, 0xFFFF_FF3F]}}, "looks_disjoint", ["c"]),
    ],
)
def test_what_each_check_catches(arguments: dict[str, Any], failed: str, keys: list[str]):
    checks = _checks(**arguments)
    assert [name for name, check in checks.items() if not check.passed] == [failed]
    assert checks[failed].keys == keys and checks[failed].blocking


def test_damaged_files_are_told_and_do_not_block():
    check = _checks(damaged_files=["x.tar", "x.tar", "y.tar"])["sources_readable"]
    assert (check.passed, check.blocking, check.value, check.keys) == (False, False, 2, ["x.tar", "y.tar"])


def test_too_few_samples():
    params = IngestParams.model_validate({"gates": {"min_train_samples": 4, "min_val_samples": 3}})
    checks = _checks(params=params)
    assert {name for name, check in checks.items() if not check.passed} == {"train_samples", "val_samples", "languages"}
    assert (checks["train_samples"].value, checks["train_samples"].threshold) == (3, 4)


def _tables(samples: int, ids: int, *, parts: int = 3) -> dict[str, pa.Table]:
    """Random rows of both splits, in several chunks, of which some share a key, a picture or a caption."""
    rng = random.Random(samples)
    tables: dict[str, pa.Table] = {}
    for split in ("train", "val"):
        rows = [
            {
                "key": f"key-{rng.randrange(ids):08d}",
                "sha256": f"{rng.randrange(ids):064x}",
                "primary": rng.choice(["en", "de"]),
                "texts": [rng.randrange(ids) for _ in range(rng.randrange(4))],
            }
            for _ in range(samples)
        ]
        whole = pa.Table.from_pylist(rows, schema=SCHEMA)
        size = -(-samples // parts)
        tables[split] = pa.concat_tables(
            [SCHEMA.empty_table(), *(whole.slice(n, size) for n in range(0, samples, size))]
        )
    return tables


def _looks(samples: int) -> dict[str, Looks]:
    colours = np.zeros((samples, 192), np.uint8)
    return {"train": Looks(np.zeros(samples, np.uint64), colours), "val": Looks(np.full(samples, 2**64 - 1), colours)}


def test_what_samples_share_is_what_python_finds():
    tables = _tables(400, 3000)
    train, val = (tables[split].to_pylist() for split in ("train", "val"))
    keys = [row["key"] for row in train + val]
    sha256, texts = {row["sha256"] for row in val}, {text for row in val for text in row["texts"]}
    expected = {
        "keys_unique": {key for key in keys if keys.count(key) > 1},
        "pictures_disjoint": {row["key"] for row in train if row["sha256"] in sha256},
        "captions_disjoint": {row["key"] for row in train if not texts.isdisjoint(row["texts"])},
    }
    found = ingest_checks(
        tables,  # type: ignore[arg-type]
        _looks(400),  # type: ignore[arg-type]
        listed=800,
        kept=800,
        undecodable=[],
        damaged_files=[],
        params=IngestParams(),
    )
    for name, keys in expected.items():
        check = next(check for check in found if check.name == name)
        assert (check.value, check.keys) == (len(keys), sorted(keys)[:20]) and len(keys) > 20, name


def test_columns_are_compared_without_a_copy_in_python():
    tables = _tables(20_000, 2**40)
    looks = _looks(20_000)
    tracemalloc.start()
    try:
        found = ingest_checks(
            tables,  # type: ignore[arg-type]
            looks,  # type: ignore[arg-type]
            listed=40_000,
            kept=40_000,
            undecodable=[],
            damaged_files=[],
            params=IngestParams(near_duplicate_distance=-1),
        )
        assert tracemalloc.get_traced_memory()[1] < 100 * 20_000  # the sha256 alone are more in Python
    finally:
        tracemalloc.stop()
    assert all(check.passed for check in found)
