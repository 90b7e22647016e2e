"""An address is forgotten: it is never asked again, all other pictures are carried over, and no list brings it back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from flame_core.data.forgotten import read_forgotten
from flame_core.data.shards import read_index
from flame_core.errors import ComputationError
from flame_core.forgetting.forget import forget
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.stages import download, ingest
from tests.data.addresses.web import Web, running
from tests.forgetting.small_project import asked, found_in
from tests.stages.pipeline import pipeline_params, tree


@pytest.fixture
def web() -> Iterator[Web]:
    with running() as server:
        yield server


def listed_rows(web: Web) -> list[str]:
    return [f"a drawing with the number {n}\t{web.url(f'/ok/{n}')}\n" for n in range(40)]


def web_params(web: Web, listed: Path) -> Params:
    source = {"kind": "urls", "path": str(listed), "columns": ["caption", "url"], "tries": 1, "per_host": 16}
    return pipeline_params({"web": {**source, "allow": [f"127.0.0.0/8:{web.port}"]}})


def other_letters(url: str) -> str:
    """The same address, written differently."""
    return url.replace("http:", "HTTP:").replace("/ok/", "/%6Fk/") + "#top"


@pytest.mark.parametrize("written", [str, other_letters])
def test_by_its_address(web: Web, tmp_path: Path, written: Callable[[str], str]):
    rows, listed = listed_rows(web), tmp_path / "list.tsv"
    listed.write_text("".join(rows))
    layout = Layout.find(tmp_path / "project")
    layout.root.mkdir()
    params = web_params(web, listed)
    for stage in (download, ingest):
        stage.run(params, layout)
    asked_before, url = len(web.log), web.url("/ok/7")
    report = forget(params, layout, asked(written(url)), "", dry_run=False)
    assert not report.found.unmatched
    (key,) = report.found.samples
    assert key.startswith("web/urls/") and report.found.samples[key].urls == {url}
    assert not any(path.startswith("/ok/") for path in (str(each) for each in web.log[asked_before:]))
    row = read_forgotten(layout.opt_out).rows[0]
    assert row.key == key and len(row.sha256) in (1, 2) and len(row.addresses) == 1
    assert url.encode() not in layout.opt_out.read_bytes()
    needles = (b"a drawing with the number 7", url.encode() + b"'", key.removeprefix("web/").encode())
    assert found_in(layout.data, *needles) == [] and found_in(layout.work, *needles) == []
    assert len(read_index(layout.shards)) == 39
    again = f"a drawing with the number 7\t{other_letters(url)}\n"
    asked_before = len(web.log)
    listed.write_text("".join([*rows, again]))
    download.run(params, layout)
    assert not any("ok/7" in str(each) for each in web.log[asked_before:])
    listed.write_text("".join([*rows, f"the same picture elsewhere\t{web.url('/ok/7?again')}\n"]))
    for stage in (download, ingest):
        stage.run(params, layout)
    assert len(read_index(layout.shards)) == 39


def test_a_workspace_keeps_its_other_pictures_though_they_are_gone_from_the_web(web: Web, tmp_path: Path):
    listed = tmp_path / "list.tsv"
    listed.write_text("".join(listed_rows(web)))
    layout, params = Layout.find(tmp_path / "project"), web_params(web, listed)
    opened = Layout.find(layout.state / "runs" / "0123456789ab")
    content = params.model_dump(mode="json")
    opened.recipes.mkdir(parents=True)
    opened.recipes.joinpath("small.yaml").write_text(yaml.safe_dump(content["train"].pop("small")))
    opened.params.write_text(yaml.safe_dump(content))
    for stage in (download, ingest):
        stage.run(params, opened)
    before, url = len(web.log), web.url("/ok/7")
    report = forget(params, layout, asked(url), "", dry_run=False)
    assert len(report.found.samples) == 1 and not report.unfinished
    assert len(web.log) == before  # nothing is asked for again
    assert len(read_index(opened.shards)) == 39
    assert found_in(layout.root, b"a drawing with the number 7", url.encode() + b"'") == []
    download.run(params, opened)
    assert len(web.log) == before


def test_a_workspace_that_cannot_be_rebuilt_loses_nothing(web: Web, tmp_path: Path):
    listed = tmp_path / "list.tsv"
    listed.write_text("".join(listed_rows(web)))
    layout, params = Layout.find(tmp_path / "project"), web_params(web, listed)
    opened = Layout.find(layout.state / "runs" / "0123456789ab")
    opened.root.mkdir(parents=True)
    opened.params.write_text("sources: {}\n")
    for stage in (download, ingest):
        stage.run(params, opened)
    before = tree(opened.data)
    with pytest.raises(ComputationError, match=r"(?s)0123456789ab has samples to forget .* or remove the folder"):
        forget(params, layout, asked(web.url("/ok/7")), "", dry_run=False)
    assert tree(opened.data) == before
    shutil.rmtree(opened.root)
    assert not forget(params, layout, asked(), "", dry_run=False).unfinished
    assert found_in(layout.root, b"a drawing with the number 7") == []
