"""A person's rollback holds against deliveries and promotions, until a person says otherwise."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from flame_core import gates
from flame_core.digest import file_sha256
from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.model_files import WEIGHTS
from flame_core.settings import settings
from flame_core.tracking import promotion
from flame_core.tracking.delivery import deliver
from flame_core.tracking.gate import Verdict
from flame_core.tracking.journal import KEY_TAG, Delivered, Journal
from flame_core.tracking.promotion import (
    PREVIOUS,
    Judged,
    Promotion,
    allow_again,
    promote,
    promote_if_new,
    rollback,
)
from flame_core.tracking.registry import CHALLENGED, CHALLENGER, CHAMPION, MODEL_TAG, ROLLED_BACK, number_with
from flame_core.tracking.store import journals, open_client
from tests.stages.pipeline import folder_source, pipeline_params
from tests.tracking.conftest import end, start


@pytest.fixture
def client(address):
    return open_client(address)


@pytest.fixture
def params(tracked):
    return pipeline_params({"made": folder_source(tracked.root)})


def version(journal: Journal, at: int) -> dict:
    """The event that makes the journal's model a version and the challenger."""
    (journal.folder.parent / "card").write_text(f"card of {journal.key}\n")
    card = journal.keep(journal.folder.parent / "card")
    return {"kind": "version", "time": at, "name": "flame", "tags": {MODEL_TAG: journal.key}, "card": card}


def evaluated(layout, address: str, key: str, at: int) -> Journal:
    """A delivered training whose model became a version."""
    journal = Journal(journals(layout) / key)
    journal.append(start(key), {"kind": "external", "name": key, "tags": {KEY_TAG: key}}, end())
    journal.append(version(journal, at))
    deliver(journal, address)
    return journal


def aliases(client) -> tuple[str | None, str | None]:
    return number_with(client, "flame", CHALLENGER), number_with(client, "flame", CHAMPION)


@pytest.fixture
def rolled_back(tracked, address, client) -> list[Journal]:
    """Version 2 was champion after version 1, and a person went back to version 1."""
    found = [evaluated(tracked, address, "one", 10), evaluated(tracked, address, "two", 20)]
    for number, previous in (("1", None), ("2", "1")):
        promotion._crown(client, "flame", number, previous)
    assert rollback(tracked, "boats and birds") == ("2", "1")
    return found


def test_versions_become_challengers_in_the_order_of_their_evaluations(tracked, address, client):
    first = evaluated(tracked, address, "one", 10)
    assert aliases(client) == ("1", None)
    evaluated(tracked, address, "two", 20)
    assert aliases(client) == ("2", None)
    first.mark(Delivered(address))
    deliver(first, address)  # again: it is older than what is the challenger now
    assert aliases(client) == ("2", None)
    first.append(version(first, 30))  # the first model was evaluated again
    deliver(first, address)
    assert aliases(client) == ("1", None)


def test_a_clock_that_ran_ahead_does_not_keep_the_challenger(tracked, address, client):
    year = int(time.time() * 1000) + 365 * 86_400_000
    evaluated(tracked, address, "one", year)
    assert aliases(client) == ("1", None)
    evaluated(tracked, address, "two", 20)
    assert aliases(client) == ("2", None)


def test_no_delivery_brings_a_rolled_back_version_back(tracked, address, client, rolled_back):
    for journal in rolled_back:
        journal.mark(Delivered(address))  # flame tracking replay --all
        deliver(journal, address)
    assert aliases(client) == (None, "1")
    rolled_back[1].append(version(rolled_back[1], 30))  # evaluated again
    deliver(rolled_back[1], address)
    assert aliases(client) == (None, "1")


def test_no_promotion_judges_a_rolled_back_version(tracked, client, rolled_back, params):
    client.set_registered_model_alias("flame", CHALLENGER, "2")  # as an older delivery left it
    for found in (promote(params, tracked), promote(params, tracked, "2"), promote_if_new(params, tracked)):
        assert found and found.verdict and not found.verdict.promoted
        assert "boats and birds" in found.verdict.reason and "--version 2 --again" in found.verdict.reason
        assert (found.challenger, found.champion) == ("2", "1")
    assert number_with(client, "flame", CHAMPION) == "1"
    assert isinstance(found, Promotion) and found.verdict
    assert promote_if_new(params, tracked) == Judged(False, found.verdict.reason)  # and its verdict stays


def test_a_person_may_let_it_be_judged_again(tracked, client, rolled_back, params):
    for wrong in ((None, "x"), ("2", " ")):
        with pytest.raises(ParamsError, match="--again needs --version and --reason"):
            allow_again(tracked, *wrong)
    with pytest.raises(InputError, match="version 1 of flame was not rolled back"):
        allow_again(tracked, "1", "x")
    allow_again(tracked, "2", "the birds were mislabelled")
    tags = client.get_model_version("flame", "2").tags
    assert ROLLED_BACK not in tags
    assert "mislabelled" in tags[promotion.AGAIN] and "boats and birds" in tags[promotion.AGAIN]
    with pytest.raises(InputError, match="report of version 2"):  # it is judged: by a report that this test has not
        promote(params, tracked, "2")


def test_a_rollback_passes_over_versions_that_were_rolled_back(tracked, address, client, rolled_back):
    evaluated(tracked, address, "three", 30)
    client.set_model_version_tag("flame", "3", PREVIOUS, "2")
    client.set_registered_model_alias("flame", CHAMPION, "3")
    assert rollback(tracked, "worse") == ("3", "1")
    with pytest.raises(InputError, match="no promotion noted a champion before version 1 of flame; to go back"):
        rollback(tracked, "worse")


def test_a_rollback_to_a_version_that_was_deleted_names_it_and_changes_nothing(tracked, address, client):
    for at, key in enumerate(("one", "two")):
        evaluated(tracked, address, key, at)
    promotion._crown(client, "flame", "2", "1")
    client.delete_model_version("flame", "1")
    with pytest.raises(InputError, match=r"what was champion before version 2 is gone \(models:/flame/1: .*not found"):
        rollback(tracked, "worse")
    assert aliases(client) == (None, "2") and ROLLED_BACK not in client.get_model_version("flame", "2").tags


def test_a_time_that_a_person_overwrote_keeps_no_event_from_arriving(tracked, address, client):
    first = evaluated(tracked, address, "one", 10)
    client.set_model_version_tag("flame", "1", CHALLENGED, "yesterday")
    evaluated(tracked, address, "two", 20)
    assert aliases(client) == ("2", None)
    first.append(version(first, 30))
    deliver(first, address)
    assert aliases(client) == ("1", None)


def test_a_promotion_that_was_killed_between_its_two_aliases_is_ended_by_the_next(tracked, address, client, params):
    evaluated(tracked, address, "one", 10)
    client.set_registered_model_alias("flame", CHAMPION, "1")
    assert aliases(client) == ("1", "1")
    assert promotion.promote(params, tracked).verdict is None
    assert aliases(client) == (None, "1")


def test_models_that_have_not_arrived_are_judged_once_they_have(tracked, address, client, params):
    found = promote_if_new(params, tracked)
    assert isinstance(found, Promotion) and found.verdict is None
    evaluated(tracked, address, "one", 10)
    with pytest.raises(InputError, match="report of version 1"):
        promote_if_new(params, tracked)


def test_the_verdict_that_is_kept_follows_what_a_person_did_since(tracked, address, client, params, monkeypatch):
    """The check of Dagster's asset shows it: a model that was rolled back is no longer shown as accepted."""
    for at, key in enumerate(("one", "two")):
        evaluated(tracked, address, key, at)
    promotion._crown(client, "flame", "1", None)
    accepted = Verdict("promoted", "the mean rose", "a rule", [])

    def accept(params, layout):
        promotion._store(client, client.get_model_version("flame", "2"), accepted)
        promotion._crown(client, "flame", "2", "1")
        return Promotion("2", "2", accepted)

    with monkeypatch.context() as patch:
        patch.setattr(promotion, "promote", accept)
        promote_if_new(params, tracked)
    assert promote_if_new(params, tracked) == Judged(True, "the mean rose")
    rollback(tracked, "boats and birds")
    found = promote_if_new(params, tracked)
    assert isinstance(found, Judged) and not found.promoted and "boats and birds" in found.reason
    allow_again(tracked, "2", "the birds were mislabelled")
    promotion._store(client, client.get_model_version("flame", "2"), Verdict("refused", "worse in birds", "a rule", []))
    assert promote_if_new(params, tracked) == Judged(False, "worse in birds")
    client.delete_model_version("flame", "2")
    assert promote_if_new(params, tracked) == Judged(True, "the mean rose")  # as kept: nothing else is known


def test_models_that_were_rolled_back_before_they_were_judged_here_are_named(tracked, client, rolled_back, params):
    """Promoted and rolled back by hand: there is no challenger, and that is not the whole story."""
    weights = tracked.model(params.recipes[0]) / WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    client.set_model_version_tag("flame", "2", MODEL_TAG, file_sha256(weights))
    found = promote_if_new(params, tracked)
    assert isinstance(found, Promotion) and found.verdict and "boats and birds" in found.verdict.reason
    assert (found.challenger, found.champion) == ("2", "1")
    client.set_model_version_tag("flame", "1", MODEL_TAG, file_sha256(weights))
    client.set_model_version_tag("flame", "2", MODEL_TAG, "other")
    (tracked.state / "tracking" / "judged").unlink()
    assert promote_if_new(params, tracked) == Promotion(None, "1", None)  # the champion's own


def test_another_registered_model_has_verdicts_of_its_own(tracked, address, client, params, monkeypatch):
    client.create_registered_model("flame")
    kept = Promotion("1", "1", Verdict("promoted", "the mean rose", "a rule", []))
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "promote", lambda params, layout: kept)
        promote_if_new(params, tracked)
    monkeypatch.setenv("FLAME_REGISTERED_MODEL", "other")
    settings.cache_clear()
    found = promote_if_new(params, tracked)
    assert isinstance(found, Promotion) and found.verdict is None


def test_a_report_that_lost_a_file_in_mlflow_is_named_by_its_run(tracked, address, client, params):
    journal = evaluated(tracked, address, "one", 10)
    (tracked.root / "checks").write_bytes(gates.to_bytes([]))
    journal.append({"kind": "artifacts", "files": {"report/checks.json": journal.keep(tracked.root / "checks")}})
    deliver(journal, address)
    run = journal.delivered(address).run_id
    with pytest.raises(InputError, match=f"report of version 1 of flame in run {run} lacks files.*replay --all"):
        promote(params, tracked)


def test_a_full_temporary_folder_is_not_a_report_that_is_lost(tracked, address, client, params, monkeypatch):
    evaluated(tracked, address, "one", 10)
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.parent.name == CHALLENGER:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)  # as MLflow meets it, which then says that the path is not correct
    with pytest.raises(ResourceError, match=r"/challenger: No space left on device\. Free some room"):
        promote(params, tracked)
