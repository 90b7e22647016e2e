"""How `orchestration.dvc_command` waits for other DVC processes; `test_pipeline_run.py` tests it with two runs."""

from __future__ import annotations

from typing import Any

import pytest

from orchestration import dvc_command


def test_a_path_that_was_freed_before_the_first_look_is_not_waited_for_until_another_is_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is held by the time of the look may be another path only, for hours."""
    other = {"write": {"/project/data/models/other": {"pid": 1, "cmd": "dvc repro"}}, "read": {}}
    busy = "'/project/data/shards' is busy, it is being blocked by:\n  (PID 1): dvc repro\n"
    attempts, slept = [], []

    def main(arguments: list[str]) -> int:
        from dvc.lock import LockError

        attempts.append(arguments)
        if len(attempts) > 1:
            return 0
        try:
            raise LockError(busy)
        except LockError:
            dvc_command.logging.getLogger("dvc.cli").exception("failed")
        return 255

    def held(*_: Any) -> Any:
        return other

    monkeypatch.setattr("dvc.cli.main", main)
    monkeypatch.setattr(dvc_command, "held_paths", held)
    monkeypatch.setattr(dvc_command, "release_dead", lambda root: [])
    monkeypatch.setattr(dvc_command.time, "sleep", slept.append)
    assert dvc_command.dvc(["repro"]) == 0
    assert len(attempts) == 2
    assert 10 < sum(slept) <= 60
