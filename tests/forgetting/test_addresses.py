"""An address is forgotten: it is never asked again, all other pictures are carried over, and no list brings it back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flame_core.data.forgotten import read_forgotten
from flame_core.data.shards import read_index
from flame_core.forgetting.forget import forget
from flame_core.layout import Layout
from flame_core.stages import download, ingest
from tests.data.addresses.web import Web, running
from tests.forgetting.test_forget import asked, found_in
from tests.stages.pipeline import pipeline_params


@pytest.fixture
def web() -> Iterator[Web]:
    with running() as server:
        yield server


def test_by_its_address(web: Web, tmp_path: Path):
    rows = [f"a drawing with the number {n}\t{web.url(f'/ok/{n}')}\n" for n in range(40)]
    listed = tmp_path / "list.tsv"
    listed.write_text("".join(rows))
    layout = Layout.find(tmp_path / "project")
    layout.root.mkdir()
    source = {"kind": "urls", "path": str(listed), "columns": ["caption", "url"], "tries": 1, "per_host": 16}
    params = pipeline_params({"web": {**source, "allow": [f"127.0.0.0/8:{web.port}"]}})
    for stage in (download, ingest):
        stage.run(params, layout)
    asked_before, url = len(web.log), web.url("/ok/7")
    report = forget(params, layout, asked(url), "", dry_run=False)
    (key,) = report.found.samples
    assert key.startswith("web/urls/") and report.found.samples[key].urls == {url}
    assert not any(path.startswith("/ok/") for path in (str(each) for each in web.log[asked_before:]))
    row = read_forgotten(layout.opt_out).rows[0]
    assert row.key == key and len(row.sha256) in (1, 2) and len(row.addresses) == 1
    assert url.encode() not in layout.opt_out.read_bytes()
    needles = (b"a drawing with the number 7", url.encode() + b"'", key.removeprefix("web/").encode())
    assert found_in(layout.data, *needles) == [] and found_in(layout.work, *needles) == []
    assert len(read_index(layout.shards)) == 39
    listed.write_text("".join([*rows, f"the same picture elsewhere\t{web.url('/ok/7?again')}\n"]))
    for stage in (download, ingest):
        stage.run(params, layout)
    assert len(read_index(layout.shards)) == 39
