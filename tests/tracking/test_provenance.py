"""What a run says of its project."""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.dvc_project import recorded
from flame_core.layout import Layout
from flame_core.tracking import provenance


@pytest.mark.parametrize(
    ("lock", "kept"),
    [
        ("schema: '2.0'\nstages:\n  ingest: {cmd: flame ingest}\n", ["params.yaml", "dvc.lock"]),
        ("stages:\n<<<<<<< HEAD\n  ingest:\n=======\n  caption:\n>>>>>>> side\n", ["params.yaml"]),
    ],
)
def test_a_lock_that_a_merge_left_in_conflict_replaces_none_that_was_recorded(
    tmp_path: Path, lock: str, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded.time, "sleep", lambda seconds: None)
    (tmp_path / "params.yaml").touch()
    (tmp_path / "dvc.lock").write_text(lock)
    assert [path.name for path in provenance.files(Layout.find(tmp_path))] == kept
