"""What is read of `dvc.lock`; a damaged one ends no training and no error message."""

from __future__ import annotations

import pytest

from flame_core.dvc_project import recorded

LOCK = "schema: '2.0'\nstages:\n  ingest:\n    cmd: flame ingest\n    outs:\n    - {path: data/shards, md5: abc.dir}\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (LOCK.encode(), {"data/shards": "abc.dir"}),
        (LOCK.replace("flame", "flam\udce5").encode("utf-8", "surrogateescape"), {}),
        (LOCK.replace("stages:", "stages").encode(), {}),
        (LOCK.replace("  ingest:", "  ingest:\t[").encode(), {}),
        (LOCK.replace("{path", "{peth").encode(), {}),
        (LOCK.replace("abc.dir", "[4]").encode(), {}),
        (b"stages: {ingest: 3, caption: {outs: [4, {md5: x}], cmd: y}}", {}),
    ],
)
def test_the_digests_of_outs(tmp_path, monkeypatch, content, found):
    monkeypatch.setattr(recorded.time, "sleep", lambda seconds: None)
    (tmp_path / "dvc.lock").write_bytes(content)
    assert recorded.out_digests(tmp_path) == found


def test_a_lock_that_cannot_be_read_is_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(recorded.time, "sleep", lambda seconds: None)
    (tmp_path / "dvc.lock").mkdir()
    assert recorded.out_digests(tmp_path) == {}
    assert "dvc.lock is damaged or cannot be read" in caplog.text
