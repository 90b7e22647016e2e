"""Tables with random damage: rows that can be read, problems with a sentence, or one refusal; never anything else."""

from __future__ import annotations

import datetime
import random
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data.sources import Problem
from flame_core.data.sources.table import Table, read_table
from flame_core.errors import InputError

WORDS = [f"drawing {number}" for number in range(300)]


def _csv() -> bytes:
    return ("image,caption\n" + "".join(f'{word},"{word}, ""x"""\n' for word in WORDS)).encode()


def _jsonl() -> bytes:
    return "".join(f'{{"image": "{word}", "caption": ["{word}", {{"de": "x"}}]}}\n' for word in WORDS).encode()


def _parquet(folder: Path, compression: str, version: str) -> bytes:
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    keywords = pa.array([[("en", word)] for word in WORDS], pa.map_(pa.string(), pa.string()))
    columns = {
        "image": [{"bytes": word.encode() * 9, "path": word} for word in WORDS],
        "caption": pa.array(WORDS).dictionary_encode(),
        "title": [word.encode() for word in WORDS],
        "category": [day + datetime.timedelta(number) for number in range(300)],
        "keywords": keywords,
    }
    path = folder / "seed.parquet"
    pq.write_table(pa.table(columns), path, compression=compression, row_group_size=100, data_page_version=version)
    return path.read_bytes()


def _damaged(good: bytes, draw: random.Random) -> bytes:
    """`good` with a few bytes changed, taken out or put in; in parquet mostly where its structure is."""
    content = bytearray(good)
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little") if good.endswith(b"PAR1") else 0
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(footer if draw.random() < 0.6 else 0, len(content))
        match draw.randrange(10):
            case 0:
                del content[place : place + draw.randrange(1, 9)]
            case 1:
                content[place:place] = draw.randbytes(draw.randrange(1, 9))
            case _:
                content[place] = draw.randrange(256)
    return bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_damage(tmp_path: Path, seed: int, record_property):
    draw = random.Random(seed)
    seeds = [("t.csv", _csv()), ("t.jsonl", _jsonl())]
    seeds += [("t.parquet", _parquet(tmp_path, *how)) for how in (("none", "1.0"), ("snappy", "1.0"), ("zstd", "2.0"))]
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for number in range(500):
        name, good = seeds[number % len(seeds)]
        (tmp_path / name).write_bytes(_damaged(good, draw))
        problems: list[Problem] = []
        others = ("category", "title", "keywords")
        table = Table(tmp_path / name, "image", ("image", "caption"), others, "utf-8", None, problems)
        begin = time.process_time()
        try:
            rows = list(read_table(table))
            outcomes["named" if problems else "read"] += 1
            assert name == "t.parquet" or len(rows) + len(problems) >= 290  # a few lines may be joined
        except InputError as error:
            assert str(tmp_path / name) in str(error)
            outcomes["refused"] += 1
        slowest = max(slowest, time.process_time() - begin)
    assert min(outcomes[outcome] for outcome in ("read", "named", "refused")) > 10
    assert slowest < 5
    record_property("damaged tables", sum(outcomes.values()))
