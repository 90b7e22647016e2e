"""A list of addresses on loopback becomes shards and captions; a retry is one command and leaves `dvc.lock` true."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from flame_core import gates
from flame_core.data.ledger import read_ledger
from flame_core.data.shards import read_index
from flame_core.layout import Layout
from flame_core.stages import caption, download, ingest
from tests.data.addresses.web import Web, running
from tests.stages.pipeline import ROOT, pipeline_params, start_stage, tree


@pytest.fixture
def web() -> Iterator[Web]:
    with running() as server:
        yield server


def source(web: Web, path: Path, **values: Any) -> dict[str, Any]:
    """CC3M's form: caption and address, no header."""
    return {
        "kind": "urls",
        "path": str(path),
        "columns": ["caption", "url"],
        "allow": [f"127.0.0.0/8:{web.port}"],
        "tries": 1,
        "per_host": 16,
        **values,
    }


def write_cc3m(path: Path, web: Web) -> None:
    kinds = ["/ok/{}"] * 8 + ["/status/404/{}", "/cut/{}"]
    rows = [f'a "drawing" numbered {n}\t{web.url(kinds[n % 10].format(n))}\n' for n in range(40)]
    path.write_text("".join(rows) + f"the same again\t{web.url('/ok/1')}\nno address\t\n")


def test_a_list_becomes_shards_and_captions(web: Web, tmp_path: Path):
    write_cc3m(tmp_path / "Train_GCC-training.tsv", web)
    layout = Layout.find(tmp_path)
    params = pipeline_params({"cc3m": source(web, tmp_path / "Train_GCC-training.tsv")})
    for stage in (download, ingest, caption):
        stage.run(params, layout)
    index = read_index(layout.shards)
    assert len(index) == 32 and sum(row.captions for row in index) == 33
    reasons = Counter({(row.outcome, row.reason): row.count for row in read_ledger(layout.shards)})
    assert reasons == {
        ("dropped", "address_failed_gone"): 4,
        ("dropped", "address_failed_cut"): 4,
        ("dropped", "damaged_row"): 1,
    }
    checks = {check.name: (check.passed, check.value) for check in gates.read(layout.raw)}
    assert checks["cc3m/success"] == (True, 0.8) and not checks["cc3m/readable"][0]
    first = tree(layout.shards)
    shutil.rmtree(layout.work)  # another project, on the same web
    download.run(params, layout)
    ingest.run(params, layout)
    assert tree(layout.shards) == first


def test_addresses_beyond_the_limit_and_values_that_are_not_read_are_in_the_ledger(web: Web, tmp_path: Path):
    rows = [{"url": web.url(f"/ok/{n}"), "caption": f"drawing {n}", "terms": ["CC0"]} for n in range(30)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, [*rows, rows[0]])))
    values = {"columns": None, "licence_column": "terms", "max_samples": 20}
    params = pipeline_params({"web": source(web, tmp_path / "list.jsonl", **values)})
    layout = Layout.find(tmp_path)
    for stage in (download, ingest):
        stage.run(params, layout)
    kept = {row.key for row in read_index(layout.shards)}
    assert len(kept) == 20
    counts = {(row.outcome, row.reason): row.count for row in read_ledger(layout.shards)}
    assert counts == {("unused", "beyond_max_samples"): 10, ("unused", "unread_value"): 20}
    assert not {f"web/{row.key}" for row in read_ledger(layout.shards) if row.reason == "beyond_max_samples"} & kept


def test_a_list_may_be_the_validation_part_and_becomes_it_without_being_fetched_again(web: Web, tmp_path: Path):
    sources = {}
    for name, numbers in {"train": range(30), "val": range(30, 40)}.items():
        rows = [{"url": web.url(f"/ok/{n}"), "caption": f"drawing {n}"} for n in numbers]
        (tmp_path / f"{name}.json").write_text(json.dumps({"annotations": rows}))
        sources[name] = source(web, tmp_path / f"{name}.json", columns=None)
    layout = Layout.find(tmp_path)
    download.run(pipeline_params(sources), layout)
    asked = len(web.asked())
    sources["train"]["split"], sources["val"]["split"] = "train", "val"
    for stage in (download, ingest):
        stage.run(pipeline_params(sources), layout)
    assert len(web.asked()) == asked > 0
    for name, count in {"train": 30, "val": 10}.items():
        assert [row.key.partition("/")[0] for row in read_index(layout.shards, name)] == [name] * count


@pytest.mark.slow
def test_one_command_retries_and_leaves_the_lock_true(web: Web, tmp_path: Path):
    for name in ("dvc.yaml", ".dvcignore", "versions.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    with (tmp_path / ".dvc/config").open("a") as config:
        config.write("    no_scm = true\n")
    write_cc3m(tmp_path / "list.tsv", web)
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["sources"] = {"cc3m": source(web, tmp_path / "list.tsv")}
    content["ingest"] = {"val_fraction": 0.25, "shard_samples": 8}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))

    def call(*command: str) -> str:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call("dvc", "repro", "ingest")
    before = tree(tmp_path / "data/raw")
    web.mended = True
    call("flame_core", "download", "--retry-failed")
    after = tree(tmp_path / "data/raw")
    assert after != before and "download" not in call("dvc", "status", "download")
    call("dvc", "repro", "ingest")
    assert len(read_index(tmp_path / "data/shards")) == 36
    assert tree(tmp_path / "data/raw") == after


@pytest.mark.slow
def test_killed_downloads_end_with_the_same_bytes(
    web: Web, tmp_path: Path, record_property: Callable[[str, object], None]
):
    write_cc3m(tmp_path / "list.tsv", web)
    params = pipeline_params({"cc3m": source(web, tmp_path / "list.tsv", per_host=2)})
    undisturbed, disturbed = (Layout.find(tmp_path / name) for name in ("undisturbed", "disturbed"))
    download.run(params, undisturbed)
    web.latency, kills, random = 0.05, 0, Random(0)
    disturbed.root.mkdir()
    for _ in range(10):
        before = len(web.log)
        process = start_stage("download", params, disturbed)
        while len(web.log) == before and process.poll() is None:
            time.sleep(0.02)  # until it asks
        time.sleep(random.uniform(0.0, 0.3))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert start_stage("download", params, disturbed).wait(120) == 0
    assert tree(disturbed.raw) == tree(undisturbed.raw) and kills >= 3
    record_property("kill -9 of a download, then the same bytes", kills)
