"""What keeps events from arriving: they wait, and one sentence says for what."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from mlflow.entities import ViewType

from flame_core.errors import ResourceError
from flame_core.tracking.address import sqlite_path
from flame_core.tracking.delivery import _Delivery, deliver
from flame_core.tracking.journal import Delivered, Journal
from flame_core.tracking.obstacles import Outage, Withheld
from flame_core.tracking.promotion import rollback
from flame_core.tracking.runs import find_record
from flame_core.tracking.shipper import deliver_all
from flame_core.tracking.store import journals, local_store, open_client
from tests.tracking.conftest import end, start, steps
from tests.tracking.test_delivery import expected, history, journal  # noqa: F401  (fixtures)

# ruff: noqa: F811


def test_events_wait_for_a_deleted_experiment_and_all_arrive_once_it_is_restored(journal, address, tracked):
    rows = steps(5)
    journal.append(start(), *rows[:2])
    deliver(journal, address)
    client, experiment = open_client(address), journal.delivered(address).experiment_id
    client.delete_experiment(experiment)
    journal.append(*rows[2:], end())
    new = Journal(journals(tracked) / "new")
    new.append(start("new"), *rows, end())
    with pytest.raises(Withheld, match=rf"'flame'.*mlflow experiments restore --experiment-id {experiment}"):
        deliver_all([journal, new], address)
    assert (journal.pending(address), new.pending(address)) == (4, 7)
    client.restore_experiment(experiment)
    assert deliver_all([journal, new], address) == 11
    for each in (journal, new):
        assert history(client, each.delivered(address).run_id, "train/loss") == expected(rows, "train/loss")


def test_events_wait_for_a_deleted_run_and_other_trainings_do_not(journal, address, tracked):
    rows = steps(5)
    journal.append(start(), *rows)
    deliver(journal, address)
    client, run = open_client(address), journal.delivered(address).run_id
    client.delete_run(run)
    journal.append({"kind": "tags", "tags": {"evaluated": "yes"}}, end())
    other = Journal(journals(tracked) / "other")
    other.append(start("other"), end())
    with pytest.raises(Withheld, match=f"mlflow runs restore --run-id {run}"):
        deliver_all([journal, other], address)
    assert (journal.pending(address), other.pending(address)) == (2, 0)
    client.restore_run(run)
    assert deliver_all([journal, other], address) == 2
    assert client.get_run(run).data.tags["evaluated"] == "yes"


def test_a_deleted_run_is_not_made_again_where_the_mark_is_lost(journal, address, tracked):
    rows = steps(5)
    journal.append(start(), *rows, end())
    deliver(journal, address)
    client, run = open_client(address), journal.delivered(address).run_id
    client.delete_run(run)
    journal.mark(Delivered(address))
    with pytest.raises(Withheld, match=f"mlflow runs restore --run-id {run}"):
        deliver_all([journal], address)
    client.restore_run(run)
    assert deliver_all([journal], address) == 7
    (only,) = client.search_runs([client.get_run(run).info.experiment_id], run_view_type=ViewType.ALL)
    assert only.info.run_id == run and history(client, run, "train/loss") == expected(rows, "train/loss")


def test_a_journal_that_is_sent_again_stays_in_its_run_whatever_its_experiment_is_called_now(journal, address):
    rows = steps(5)
    journal.append(start(), *rows, end())
    deliver(journal, address)
    client, mark = open_client(address), journal.delivered(address)
    client.rename_experiment(mark.experiment_id, "old")
    journal.send_again(address)
    assert (deliver(journal, address), journal.delivered(address)) == (7, mark)
    every = [each.experiment_id for each in client.search_experiments(view_type=ViewType.ALL)]
    (only,) = client.search_runs(every, run_view_type=ViewType.ALL)
    assert only.info.run_id == mark.run_id and history(client, mark.run_id, "train/loss") == expected(
        rows, "train/loss"
    )


def test_a_run_that_is_deleted_while_events_are_sent_keeps_the_rest(journal, address, monkeypatch):
    journal.append(start(), {"kind": "tags", "tags": {"a": "1"}}, end())
    client = open_client(address)
    tags = _Delivery._tags

    def delete_first(self, event):
        client.delete_run(self.state.run_id)
        tags(self, event)

    monkeypatch.setattr(_Delivery, "_tags", delete_first)
    with pytest.raises(Withheld, match="was deleted"):
        deliver(journal, address)
    assert journal.pending(address) == 2


def test_a_store_of_another_schema_is_an_outage_that_says_what_to_do(journal, address, tracked):
    with closing(sqlite3.connect(local_store(tracked) / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    journal.append(start(), end())
    with pytest.raises(Outage, match="mlflow db upgrade 'sqlite:"):
        deliver(journal, address)
    assert journal.pending(address) == 2
    for ask in (lambda: find_record(tracked, "models:/flame/1"), lambda: rollback(tracked, "x")):
        with pytest.raises(ResourceError, match="mlflow db upgrade"):
            ask()


def test_a_damaged_database_says_what_to_do(tracked, address):
    (sqlite_path(address) or tracked.root).write_bytes(b"not a database, but text" * 100)
    with pytest.raises(ResourceError, match=r"its database is damaged\. Move the file away; then `flame tracking"):
        open_client(address)
