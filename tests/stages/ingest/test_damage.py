from __future__ import annotations

import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from flame_core import gates
from flame_core.data.shards import read_index
from flame_core.errors import GateError, InputError
from flame_core.layout import Layout
from flame_core.stages import download, ingest
from tests.data.drawings import png
from tests.data.sources.test_webdataset import members_of, write_tar
from tests.stages.ingest.shards import failed_checks, read_dropped, read_units, run_ingest
from tests.stages.pipeline import folder_source, pipeline_params, start_stage, tree, write_pairs


def test_only_what_is_damaged_is_computed_again(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(120))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    run_ingest(params, layout)
    expected, units = tree(layout.shards), read_units(layout)
    ingest.run(params, layout)
    assert (tree(layout.shards), read_units(layout)) == (expected, units)
    damaged = []
    for name in ("shard.tar", "pictures.bin", "scan.parquet"):
        path = sorted((layout.work / "ingest").glob(f"*/{name}"))[0]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        damaged.append(path.parent.name)
    assert tree(layout.shards) != expected  # the out is a link to the same file
    ingest.run(params, layout)
    assert tree(layout.shards) == expected
    again = read_units(layout)
    assert {digest for digest in units if units[digest] != again[digest]} == set(damaged)


def test_killed_at_any_moment_and_run_again(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(260))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    run_ingest(params, layout)
    expected = tree(layout.shards)
    rng = random.Random(0)
    for attempt in range(2):
        shutil.rmtree(layout.shards, ignore_errors=True)
        shutil.rmtree(layout.work / "ingest")
        process = start_stage("ingest", params, layout, workers="1")
        enough = rng.randrange(1, 12)
        while process.poll() is None and len(read_units(layout)) < enough:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"attempt {attempt} ended too early"
        assert not layout.shards.exists()
        found = read_units(layout)
        ingest.run(params, layout)
        assert tree(layout.shards) == expected
        assert found.items() <= read_units(layout).items()


def test_a_full_disk_says_so_and_leaves_nothing_half_done(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(40))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    download.run(params, layout)
    limited = start_stage("ingest", params, layout, workers="1")
    resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    output, _ = limited.communicate()
    assert limited.returncode != 0
    assert b"ResourceError" in output and b"Free some room" in output, output.decode()
    assert not layout.shards.exists()
    ingest.run(params, layout)
    gates.require(layout.shards)


def test_a_source_that_changed_since_is_refused(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(30))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    download.run(params, layout)
    content = png(3)
    (tmp_path / "a" / "0003.png").write_bytes(content + b"more")
    with pytest.raises(InputError, match=r"0003\.png has .* bytes"):
        ingest.run(params, layout)
    (tmp_path / "a" / "0003.png").write_bytes(content[:-1] + b"\x00")
    with pytest.raises(InputError, match=r"0003\.png.*changed since `flame download` listed them"):
        ingest.run(params, layout)
    (tmp_path / "a" / "0003.png").write_bytes(content)
    ingest.run(params, layout)
    gates.require(layout.shards)


def test_a_damaged_tar_is_in_the_ledger(layout: Layout, tmp_path: Path):
    (tmp_path / "w").mkdir()
    write_tar(tmp_path / "w" / "0.tar", members_of(*range(12)))
    write_tar(tmp_path / "w" / "1.tar", members_of(*range(12, 24)))
    content = (tmp_path / "w" / "1.tar").read_bytes()
    (tmp_path / "w" / "1.tar").write_bytes(content[: len(content) // 2])
    run_ingest(pipeline_params({"s": {"kind": "webdataset", "path": str(tmp_path / "w")}}), layout)
    assert read_dropped(layout) == {"1.tar": "damaged_file", "s/1/000018": "no_caption"}  # cut off within its text
    assert failed_checks(layout) == {"sources_readable"}
    gates.require(layout.shards)
    assert 12 < len(read_index(layout.shards)) < 24


def test_ingest_needs_a_download_that_passed(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(3))
    params = pipeline_params({"s": folder_source(tmp_path / "a")})
    with pytest.raises(InputError, match="run `flame download` first"):
        ingest.run(params, layout)
    download.run(params, layout)
    (layout.raw / gates.CHECKS).write_bytes(
        gates.to_bytes([gates.Check("s/pairs", False, "the source lists pairs", 0, 1)])
    )
    with pytest.raises(GateError, match="s/pairs"):
        ingest.run(params, layout)


def test_too_little_is_a_failed_gate(layout: Layout, tmp_path: Path):
    write_pairs(tmp_path / "a", range(3))
    for number in range(4):
        (tmp_path / "a" / f"bad{number}.png").write_bytes(b"")
    run_ingest(pipeline_params({"s": folder_source(tmp_path / "a")}, val_fraction=0.0), layout)
    assert failed_checks(layout) == {"kept_fraction", "val_samples", "languages"}
    with pytest.raises(GateError, match="kept_fraction"):
        gates.require(layout.shards)


def test_nothing_good_at_all_is_a_failed_gate_and_no_crash(layout: Layout, tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"")
    run_ingest(pipeline_params({"s": folder_source(tmp_path / "a")}), layout)
    assert {"kept_fraction", "train_samples", "val_samples"} <= failed_checks(layout)
    assert len(read_index(layout.shards)) == 0
