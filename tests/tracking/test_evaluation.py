"""The model of a workspace as a version."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from flame_core.digest import file_sha256
from flame_core.errors import ResourceError
from flame_core.layout import Layout
from flame_core.model_files import WEIGHTS
from flame_core.serving.package import CARD
from flame_core.tracking import evaluation
from flame_core.tracking.evaluation import register_workspace
from flame_core.tracking.journal import Delivered, Journal
from flame_core.tracking.store import journals
from tests.tracking.conftest import start


def test_a_model_that_another_process_is_sending_is_no_version_yet(tracked: Layout, address: str):
    """As `flame tracking replay` beside it: one process at a time delivers a journal."""
    place = Layout.find(tracked.state / "runs/abc")
    weights = place.model("flame") / WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    journal = Journal(journals(place) / "key")
    journal.append(start(), {"kind": "model", "name": "flame", "files": {CARD: "card"}, "tags": {}})
    journal.remember_model(file_sha256(weights))
    journal.mark(Delivered(address, model_id="m-1"))
    with journal.delivering() as allowed, pytest.raises(ResourceError, match="another process is sending"):
        assert allowed
        register_workspace(tracked, "abc", "flame")


def test_a_full_disk_below_the_journal_is_named(tracked: Layout, monkeypatch: pytest.MonkeyPatch):
    journal = Journal(journals(tracked) / "key")

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # of a write, which names no file

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(ResourceError, match=f"{re.escape(str(journal.folder))}: No space left on device"):
            evaluation._write(journal, {CARD: b"card"})
    assert list(journal.folder.iterdir()) == []
