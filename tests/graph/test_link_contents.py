"""Which files of its links a training verifies."""

from __future__ import annotations

from flame_core.digest import write_json
from flame_core.gates import CHECKS
from flame_core.graph.link_contents import read_by_training
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.verification import write_digests


def test_links_in_one_folder_are_all_verified(tmp_path):
    for name in (CONFIG, WEIGHTS, "keys.parquet", "other.parquet"):
        (tmp_path / name).write_text("x")
    write_json(tmp_path / CHECKS, [])
    write_digests(tmp_path)
    found = read_by_training({"teacher": tmp_path, "selection": tmp_path / "keys.parquet"})
    assert found == {tmp_path: [CONFIG, WEIGHTS, "keys.parquet"]}
