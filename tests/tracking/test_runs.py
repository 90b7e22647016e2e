"""Files that a run recorded."""

from __future__ import annotations

import pytest

from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.tracking.delivery import deliver
from flame_core.tracking.journal import MODEL_TAG, Journal
from flame_core.tracking.runs import find_record, read_artifact
from flame_core.tracking.store import journals
from tests.tracking.conftest import end, start
from tests.tracking.test_promotion import client as client  # the fixture
from tests.tracking.test_promotion import evaluated


def test_artifacts_that_are_gone_are_told_from_what_was_never_recorded(tracked, address, client, tmp_path):
    journal = evaluated(tracked, address, "one", 10)
    run = f"runs:/{journal.delivered(address).run_id}"
    with find_record(tracked, run).files() as files, pytest.raises(InputError, match="flame tracking replay --all"):
        read_artifact(files, "dvc.lock")

    (tmp_path / "params.yaml").write_text("a: 1\n")
    journal.append({"kind": "artifacts", "files": {"params.yaml": journal.keep(tmp_path / "params.yaml")}})
    deliver(journal, address)
    with find_record(tracked, run).files() as files:
        assert read_artifact(files, "params.yaml") == {"a": 1}
        with pytest.raises(InputError, match=r"no dvc\.lock of the run"):
            read_artifact(files, "dvc.lock")
        for name, damaged in (("params.yaml", "a: [1"), ("metrics.json", '{"a": 1')):
            (files / name).write_text(damaged)
            with pytest.raises(InputError, match=f"{name} of the run is damaged"):
                read_artifact(files, name)


def test_the_run_of_a_folder_is_found_also_if_it_was_deleted(tracked, address, client, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    tags = {MODEL_TAG: file_sha256(tmp_path / "model.safetensors")}
    runs = []
    for key in ("one", "two"):
        journal = Journal(journals(tracked) / key)
        journal.append(start(key), {"kind": "tags", "tags": tags}, end())
        deliver(journal, address)
        runs.append(journal.delivered(address).run_id)
    for gone, found in ((runs[1], runs[0]), (runs[0], None)):
        client.delete_run(gone)
        assert find_record(tracked, str(tmp_path)).run.info.run_id in ([found] if found else runs)
