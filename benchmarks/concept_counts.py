"""How many captions per second are searched for concepts, in two processes, and the memory of each.

    python -m benchmarks.concept_counts                        # 1,000,000 made captions against 4,000 concepts
    python -m benchmarks.concept_counts --processes 1          # processor time, if the machine has other work

Captions are made of English words with a Zipf distribution, ten words each, a tenth of them with letters beyond ASCII.
They are written as caption files of 10,000 rows, and counted as `flame concepts` does it: files are read, words
lemmatised, hits found and stored, counts added.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import record
from flame_core.captions.table import SCHEMA
from flame_core.concepts.concept_list import Given, concept_list
from flame_core.concepts.counting import Captions, Counting, merged
from flame_core.concepts.text_hits import ShardCaptions
from flame_core.data.shards import INDEX_SCHEMA, Index
from flame_core.digest import file_sha256

ROWS = 10_000  # of a shard
LENGTH = 10  # words of a caption


def english_words(count: int) -> list[str]:
    """Words of the lemmatiser's dictionary, in the order of a fixed shuffle."""
    from simplemma.strategies.dictionaries import DefaultDictionaryFactory

    words = [word for word in DefaultDictionaryFactory().get_dictionary("en") if word.isalpha() and word.isascii()]
    return [words[number] for number in np.random.default_rng(0).permutation(len(words))[:count]]


def write_shards(folder: Path, captions: int, words: list[str]) -> Index:
    """Made caption files, and the index that belongs to them."""
    draw, rows = np.random.default_rng(1), []
    share = 1 / np.arange(10, len(words) + 10)  # without the words that would be in every caption
    share /= share.sum()
    for shard in range(-(-captions // ROWS)):
        size = min(ROWS, captions - shard * ROWS)
        numbers = draw.choice(len(words), size=(size, LENGTH), p=share)
        texts = [
            " ".join(words[number] for number in line) + (" café" if not n % 10 else ".")
            for n, line in enumerate(numbers)
        ]
        column = {"row": range(size), "key": [""] * size, "kind": ["raw"] * size, "text": texts}
        column |= {"language": ["en"] * size, "provenance": ["made"] * size}
        pq.write_table(pa.table(column, schema=SCHEMA), folder / f"{shard:05}.parquet", compression="zstd")
        rows.append((f"train/{shard:05}.tar", size))
    names = [name for name, size in rows for _ in range(size)]
    zeros = pa.nulls(len(names), pa.int64()).fill_null(0)
    table = {field.name: zeros.cast(field.type) for field in INDEX_SCHEMA} | {"shard": pa.array(names)}
    return Index(pa.table({name: pa.array(each) for name, each in table.items()}).cast(INDEX_SCHEMA))


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--concepts", type=int, default=4_000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    words, draw = english_words(60_000), np.random.default_rng(2)
    names: set[str] = set()
    while len(names) < options.concepts:  # half of them of one word, the others of two or three
        count = int(draw.choice([1, 1, 2, 3]))
        names.add(" ".join(words[number] for number in draw.integers(20_000, size=count)))
    concepts = concept_list([Given(name, "file", "made") for name in sorted(names)], "en")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "captions").mkdir()
        index = write_shards(root / "captions", options.captions, words)
        paths = {name: root / "captions" / Path(name).with_suffix(".parquet").name for name in index.shard_sizes()}
        captions = _Flat(root / "captions", {name: file_sha256(path) for name, path in paths.items()}, ("raw",), "en")
        counting = Counting(captions, index, root / "work", options.processes)
        start, cpu = time.perf_counter(), time.process_time()
        text, _ = counting.text(concepts, "zero")
        absent = np.zeros(len(concepts), bool)
        found = merged(counting.joined(text, "phrase", None, absent, np.zeros(len(concepts))))
        wall, used = time.perf_counter() - start, time.process_time() - cpu
    case = f"{options.captions:,} captions, {len(concepts):,} concepts"
    record("concept_counts", case, options.captions / wall, f"captions/s in {options.processes} processes")
    if options.processes == 1:  # times of other processes are not known here
        record("concept_counts", f"{case}: per core", options.captions / used, "captions per second of processor time")
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    record("concept_counts", f"{case}: memory", peak / 1e6, "GB in the largest process")
    print(f"hits: {int(found.phrase.sum()):,} as phrases, {int(found.bag.sum()):,} as bags")


class _Flat(Captions):
    """Caption files that lie in one folder."""

    def read(self, shard: str) -> ShardCaptions:
        return super().read(Path(shard).name)


if __name__ == "__main__":
    main()
