"""What a list of addresses will give: how many pictures, bytes and hours. For `flame plan`, before anything is fetched.

The shares of addresses that still answer are published shard statistics of other people's downloads (10,000 addresses
each), made with img2dataset, without retries. Sizes and rates are assumptions that `flame plan` names.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Sequence
from functools import lru_cache
from io import BufferedIOBase
from pathlib import Path
from tempfile import TemporaryFile

import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.addresses.address_list import LIST
from flame_core.data.sources.json_rows import document_records
from flame_core.data.sources.table_files import clear_errors, kind_of_table, table_files
from flame_core.data.text_files import TextError
from flame_core.errors import InputError
from flame_core.params import UrlsSource
from flame_core.quantities import duration, size_text

PUBLISHED = {
    "CC3M, December 2022": 0.81,
    "GBC1M, July 2024": 0.77,
    "CC12M, January 2024": 0.71,
}
TYPICAL = sorted(PUBLISHED.values())[1]
_RECEIVED = 130_000  # bytes per picture: img2dataset's own 130 MB/s at 1,000 pictures/s
_STORED = {256: 28_000, 512: 80_000}  # bytes per stored JPEG of quality 95: CC12M took 331 GB at 256; 512 extrapolated
_PIECE = 1 << 20
_LATENCY = 0.4  # seconds per request, assumed; a rate of connections / latency


def count_rows(path: Path, columns: Sequence[str] = ("url", "caption")) -> int:
    """Rows of a list with these columns: exact for .parquet and .json, packed or not; lines for the other kinds.

    Raises:
        InputError: there is no list, or a file of it is damaged; names it.
        OSError: it cannot be read.
    """
    files = [(each, each.stat()) for each in table_files(path, LIST)]
    return sum(_rows(each, tuple(columns), about.st_size, about.st_mtime_ns) for each, about in files)


@lru_cache(maxsize=10_000)
def _rows(path: Path, columns: tuple[str, ...], _size: int, _changed: int) -> int:
    """Rows of a file of this size and time, which is read as a whole, and only once."""
    with (
        clear_errors(path, pa.ArrowException),
        gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file,
    ):
        match kind_of_table(path):
            case ".parquet":
                return _parquet_rows(file)
            case ".json":
                return _records(path, file, columns)
            case _:
                return _lines(file)


def _records(path: Path, file: BufferedIOBase, columns: Sequence[str]) -> int:
    try:
        return len(document_records(file, columns))
    except TextError as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _lines(file: BufferedIOBase) -> int:
    return sum(piece.count(b"\n") for piece in iter(lambda: file.read(_PIECE), b""))


def _parquet_rows(file: BufferedIOBase) -> int:
    """By the metadata, which are at the end of the file."""
    if not isinstance(file, gzip.GzipFile):
        return pq.read_metadata(file).num_rows
    with TemporaryFile() as unpacked:
        shutil.copyfileobj(file, unpacked, _PIECE)
        unpacked.seek(0)
        return pq.read_metadata(unpacked).num_rows


def expected(rows: int, params: UrlsSource, workers: int) -> dict[str, str]:
    """A section of `flame plan`."""
    rows = min(rows, params.max_samples or rows)
    low, high = min(PUBLISHED.values()), max(PUBLISHED.values())
    said = ", ".join(f"{share:.0%} of {name}" for name, share in PUBLISHED.items())
    good = round(rows * TYPICAL)
    if params.max_side is None:
        each = _RECEIVED
    else:
        each = _STORED[min(_STORED, key=lambda side: abs(side - (params.max_side or 0)))]
    rate = workers * params.connections / _LATENCY
    return {
        "addresses": f"{rows:,}",
        "pictures": f"{rows * low:,.0f} to {rows * high:,.0f} expected",
        "basis": f"good addresses in other people's downloads: {said}",
        "received": f"{size_text(good * _RECEIVED)}, at {size_text(_RECEIVED)} per picture (assumed)",
        "stored": f"{size_text(good * each)}, at {size_text(each)} per picture (assumed)",
        "time": f"{duration(rows / rate)}, if {workers} x {params.connections} connections get an answer in "
        f"{_LATENCY:g} s each (assumed) and network and name server keep up with {rate:,.0f}/s",
    }
