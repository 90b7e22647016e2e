"""What a list is expected to give is told by `flame plan`, and what it lacks by `flame params check`."""

from __future__ import annotations

import gzip
import json
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data.addresses.expected import count_rows, expected
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.params import UrlsSource
from flame_core.planning.plan import address_sections
from flame_core.preflight.data_look import look
from flame_core.preflight.sources import source_faults
from tests.stages.pipeline import pipeline_params


def write(path: Path, rows: int) -> None:
    path.write_text("".join(f"http://a.org/{n}\tc\n" for n in range(rows)))


def test_pictures_time_and_whose_figures_they_are():
    section = expected(3_300_000, UrlsSource(kind="urls", path="x"), workers=8)
    assert section["pictures"] == "2,343,000 to 2,673,000 expected"  # 71 and 81 % of them
    assert "81% of CC3M, December 2022" in section["basis"]
    assert section["received"].startswith("330.3 GB")  # 77 % of them, 130 kB each
    assert section["time"].startswith("43 min,")  # 8 * 64 connections / 0.4 s = 1,280/s
    few = expected(3_300_000, UrlsSource(kind="urls", path="x", max_samples=1000), workers=1)
    assert few["addresses"] == "1,000"


def test_the_plan_and_the_check_of_params_count_the_list(tmp_path: Path):
    write(tmp_path / "list.tsv", 10_001)
    layout = Layout.find(tmp_path)
    source = {"kind": "urls", "path": "list.tsv", "columns": ["url", "caption"]}
    params = pipeline_params({"web": source})
    assert address_sections(params, layout)["addresses: web"]["addresses"] == "10,001"
    assert look(params, layout).pairs == 7701
    (fault,) = (fault for fault in source_faults(params, layout) if fault.key[0] == "sources")
    assert fault.key == ("sources", "web", "contact") and "10,001 addresses" in fault.message


def test_a_document_of_columns_has_as_many_addresses_as_its_columns_are_long(tmp_path: Path):
    addresses = [f"http://a.org/{number}" for number in range(10_001)]
    document = {"image_urls": addresses, "captions": ["c"] * 10_001, "user_ids": ["u"] * 10_001}
    (tmp_path / "sbu.json").write_text(json.dumps(document))
    source = {"kind": "urls", "path": "sbu.json", "url_column": "image_urls", "caption_column": "captions"}
    params, layout = pipeline_params({"web": source}), Layout.find(tmp_path)
    assert address_sections(params, layout)["addresses: web"]["addresses"] == "10,001"
    assert look(params, layout).pairs == 7701
    assert [fault.key for fault in source_faults(params, layout)][:1] == [("sources", "web", "contact")]


@pytest.mark.parametrize("suffix", [".parquet", ".parquet.gz"])
def test_the_rows_of_a_parquet_file_are_counted_packed_or_not(tmp_path: Path, suffix: str):
    plain, path = BytesIO(), tmp_path / f"list{suffix}"
    pq.write_table(pa.table({"url": [f"http://a.org/{n}" for n in range(777)]}), plain)
    content = plain.getvalue()
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert count_rows(path) == 777


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.tsv.gz", gzip.compress(b"http://a.org/1\tc\n" * 1000)[:-20]),
        ("flipped.tsv.gz", gzip.compress(b"http://a.org/1\tc\n" * 9)[:12] + b"\xff" * 40),
        ("plain.tsv.gz", b"http://a.org/1\tc\n"),
        ("damaged.parquet", b"PAR1 and so on"),
        ("empty.parquet", b""),
        ("damaged.parquet.gz", gzip.compress(b"PAR1 and so on")),
    ],
)
def test_damaged_lists_are_named(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} is damaged \(.+\); copy or download it again"):
        count_rows(tmp_path / name)
    layout = Layout.find(tmp_path)
    params = pipeline_params({"web": {"kind": "urls", "path": name, "columns": ["url", "caption"]}})
    (fault,) = (fault for fault in source_faults(params, layout) if fault.key[0] == "sources")
    assert fault.key == ("sources", "web", "path") and fault.message.endswith("copy or download it again")
    assert address_sections(params, layout) == {}
    assert look(params, layout).pairs is None


def test_lists_that_are_not_there_are_named(tmp_path: Path):
    write(tmp_path / "list.tsv", 3)
    layout = Layout.find(tmp_path)
    opt_out = {"lists": ["lists.txt"]}
    missing = {"kind": "urls", "path": "lst.tsv", "columns": ["url", "caption"]}
    faults = list(
        source_faults(pipeline_params({"a": missing, "b": {**missing, "path": "list.tsv", "opt_out": opt_out}}), layout)
    )
    told = {fault.key: fault.message for fault in faults if fault.key[0] == "sources"}
    assert "did you mean 'list.tsv'?" in told["sources", "a", "path"]
    assert "lists.txt does not exist" in told["sources", "b", "opt_out", "lists"]
