"""Descriptions in MLflow: links as Markdown has them, and the digests of the data."""

from __future__ import annotations

from flame_core.tracking.notes import dagster_link, note

DAGSTER = {
    "dagster.run_id": "1510a7b4-a5eb",
    "dagster.run_url": "http://127.0.0.1:3000/runs/1510a7b4-a5eb",
    "dagster.asset": "train.flame",
    "dagster.asset_url": "http://127.0.0.1:3000/assets/train.flame",
}


def test_a_run_and_its_asset_are_links():
    assert dagster_link(DAGSTER) == (
        "[Dagster run 1510a7b4](http://127.0.0.1:3000/runs/1510a7b4-a5eb), "
        "asset [train.flame](http://127.0.0.1:3000/assets/train.flame)"
    )


def test_a_job_without_an_asset_and_a_command_say_so():
    job = {name: value for name, value in DAGSTER.items() if "asset" not in name}
    assert dagster_link(job) == "[Dagster run 1510a7b4](http://127.0.0.1:3000/runs/1510a7b4-a5eb)"
    assert dagster_link({"host": "here"}) == "a command, outside Dagster"


def test_a_note_names_the_digest_of_every_dataset():
    data = [{"name": "shards", "digest": "d1.dir"}, {"name": "captions", "digest": "d2.dir"}]
    assert note(DAGSTER, data) == f"Trained by {dagster_link(DAGSTER)} from shards `d1.dir`, captions `d2.dir`."
