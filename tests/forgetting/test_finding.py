from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flame_core.data.forgotten import Forgotten, ForgottenSample
from flame_core.data.scan import SCHEMA, TABLE
from flame_core.data.sources import RawPair
from flame_core.data.sources.listing import KEPT_COLUMNS
from flame_core.data.sources.listing_writer import write_listing
from flame_core.digest import file_sha256
from flame_core.forgetting import finding
from flame_core.forgetting.purge import _in_line
from flame_core.forgetting.requests import parse_requests
from flame_core.forgetting.revisions import Revision
from flame_core.forgetting.traces import Traces
from flame_core.tracking.listings import file_md5


def write_scan(folder: Path, hashes: list[int | None]) -> None:
    folder.mkdir(parents=True)
    rows = [
        {"key": f"s/{folder.name}-{number}", "sha256": f"{number:064x}", "hash": value, "reason": None}
        for number, value in enumerate(hashes)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / TABLE)


def test_scans_are_searched_by_one_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Further columns are read only of scans with such a picture; scans of a killed stage count too."""
    write_scan(tmp_path / "a", [1, 2**64 - 1, None])
    write_scan(tmp_path / "b", [2, None, 3])
    write_scan(tmp_path / ".tmp" / "c", [3])
    write_scan(tmp_path / "d", [])
    read, columns = finding._read, list[Any]()
    monkeypatch.setattr(finding, "_read", lambda path, names: columns.append(names) or read(path, names))
    requests = parse_requests([f"p:{2**64 - 1:016x}", "p:0000000000000003", "p:0000000000000009"], "test")
    found = finding.find([], tmp_path, requests)
    assert set(found.samples) == {"s/a-1", "s/b-2", "s/c-0"} and found.unmatched.hashes == {9}
    assert sorted(map(len, columns)) == [1, 1, 1, 1, 3, 3, 3]
    columns.clear()
    assert not finding.find([], tmp_path, parse_requests(["p:0000000000000007"], "test")).samples
    assert columns == [["hash"]] * 4


def test_kept_columns_are_known_by_the_list_beside_them(tmp_path: Path):
    """They have the keys of their source alone, which another source may have too."""
    for source in ("a", "b"):
        (tmp_path / source).mkdir()
        pairs = [RawPair(f"k{number}", None, {"en": [f"{source} {number}"]}) for number in range(3)]
        kept = [(pair, [{"long": f"a long text of {source}"}]) for pair in pairs]
        about = {"kind": "hub"}
        write_listing(tmp_path / source, tmp_path, kept, about=about, problems=[], keep_columns=["long"])
    files = {f"data/raw/{path.relative_to(tmp_path).as_posix()}": path for path in tmp_path.glob("?/*")}
    md5s = dict.fromkeys(files, "") | {f"data/raw/{source}/{KEPT_COLUMNS}": source for source in ("a", "b")}
    found = finding.find([Revision("now", files, md5s)], tmp_path / "none", parse_requests(["a/k1"], "test"))
    assert set(found.samples) == {"a/k1"}
    for name, other in {"a": False, "b": True}.items():
        assert _in_line(tmp_path / name / KEPT_COLUMNS, Traces(md5s={file_md5(tmp_path / "a" / KEPT_COLUMNS)})) != other
    assert found.traces.md5s == {"a"} and found.traces.files == {file_sha256(tmp_path / "a" / KEPT_COLUMNS)}


def test_addresses_that_earlier_versions_salted_as_they_were_written():
    url = "HTTPS://A.org:443/%7Ex"
    plain = Forgotten(salt="s")
    old = hashlib.sha256(b"s" + url.encode()).hexdigest()
    for salted in (old, plain.salted("https://a.org/~x")):
        known = Forgotten((ForgottenSample(addresses=(salted,)),), "s")
        assert known.names_address(url) and not known.names_address("https://a.org/~y")
