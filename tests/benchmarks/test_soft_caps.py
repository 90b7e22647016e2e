"""The arms of benchmarks/soft_caps.py see equally many samples; benchmarks/wrong_captions.py moves captions."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.soft_caps import ARMS, NEEDS
from benchmarks.wrong_captions import copy_shards
from flame_core.layout import Layout
from flame_core.workspace import resolve_params

ROOT = Path(__file__).parents[2]


def test_every_arm_sees_as_many_samples():
    seen = set()
    for arm in ARMS:
        params = resolve_params(
            Layout.find(ROOT), [*NEEDS, "recipes=[flame]", *arm.train], ROOT / "presets/flickr8k.yaml"
        ).params
        recipe = params.train["flame"]
        seen.add(100 * recipe.schedule(1000 if recipe.selection is None else 700).steps)
    assert seen == {14_000}


def test_a_share_of_the_captions_goes_around(tmp_path):
    for shard in ("a-0", "a-1"):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for number in range(10):
                for name, content in (("jpg", b"picture"), ("json", b"words")):
                    own = content + f" {shard} {number}".encode()
                    info = tarfile.TarInfo(f"{shard}{number}.{name}")
                    info.size = len(own)
                    tar.addfile(info, io.BytesIO(own))
    copy_shards("mine", 0.3, sorted(tmp_path.glob("*.tar")), tmp_path / "out")
    right = set(pq.read_table(tmp_path / "out" / "right.parquet").column("key").to_pylist())
    captions = []
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar, tarfile.open(tmp_path / path.name) as before:
            assert tar.getnames() == before.getnames()
            for name in tar.getnames():
                new, old = (each.extractfile(name).read() for each in (tar, before))
                kept = name.endswith(".jpg") or f"mine/{path.stem}/{Path(name).stem}" in right
                assert (new == old) == kept
                captions += [new] if name.endswith(".json") else []
    assert len(right) == 14 and len(set(captions)) == 20
