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
from flame_core.tracking import evaluation, registry, steps
from flame_core.tracking.delivery import deliver
from flame_core.tracking.evaluation import register_workspace
from flame_core.tracking.journal import KEY_TAG, MODEL_TAG, Delivered, Journal
from flame_core.tracking.store import journals, open_client
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


@pytest.mark.parametrize("back", [0, 60_000, 1_800_000, 7_200_000, 365 * 86_400_000])
def test_a_later_model_is_the_challenger_also_if_the_clock_was_set_back(
    tracked: Layout, address: str, monkeypatch: pytest.MonkeyPatch, back: int
):
    client, clock = open_client(address), steps.now()
    for number, at in enumerate((clock, clock - back), 1):
        monkeypatch.setattr(evaluation, "now", lambda at=at: at)
        monkeypatch.setattr(registry.clock, "time", lambda at=at: at / 1000)
        key = f"training{number}"
        journal = Journal(journals(tracked) / key)
        model = {"files": {CARD: "card"}, "tags": {MODEL_TAG: key, KEY_TAG: key}}
        journal.append(start(key), {"kind": "external", "name": key, "tags": {KEY_TAG: key}})
        journal.append(evaluation._version(tracked, model))
        deliver(journal, address)
        assert registry.number_with(client, "flame", registry.CHALLENGER) == str(number)
