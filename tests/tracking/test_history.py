"""The history of models over recipes and time, from runs, versions and aliases in MLflow's embedded store."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from urllib.parse import unquote

import pytest
import yaml

from flame_core.digest import file_sha256
from flame_core.tracking.delivery import deliver
from flame_core.tracking.history import comparison_url, headline, read_history, show_comparison
from flame_core.tracking.history_page import history_page
from flame_core.tracking.journal import Journal
from flame_core.tracking.metric_names import named
from flame_core.tracking.promotion import VERDICT
from flame_core.tracking.registry import CHALLENGER, CHAMPION, MODEL_TAG
from flame_core.tracking.store import journals, open_client
from tests.measuring import world
from tests.pages.test_report import Page

MINUTE = 60_000
ENGLISH = "retrieval/en/image_to_text/recall@10"
SUGAR = "benchmarks/sugar/en/acc"


@pytest.fixture
def params(tracked):
    """Params with a benchmark of the user's own."""
    definition = {
        "title": "Sugar",
        "task": {"kind": "choice"},
        "data": {"layout": "sugarcrepe", "path": "s", "obtain": "make it"},
    }
    (tracked.root / "sugar.yaml").write_text(yaml.safe_dump(definition))
    return world.params(tracked.root, benchmarks={"names": ["sugar.yaml"]})


def dataset(name: str, digest: str) -> dict[str, str]:
    return {"name": name, "digest": digest, "source_type": "local", "source": "{}", "profile": "{}"}


def train(
    layout, address: str, recipe: str, minute: int, values: dict[str, float], split: str = "11112222",
    params: dict[str, str] | None = None, shards: str = "33334444", **tags: str,
):  # fmt: skip
    """A finished run with scores, and its journal."""
    sha256 = f"{recipe}-{minute}"
    journal = Journal(journals(layout) / sha256)
    journal.append(
        {"kind": "start", "time": minute * MINUTE, "name": sha256, "tags": {"flame.recipe": recipe, **tags}},
        {"kind": "params", "params": params or {}},
        {"kind": "inputs", "context": "training", "datasets": [dataset("shards", shards)]},
        {"kind": "inputs", "context": "evaluation", "datasets": [dataset("held-out", split)]},
        {"kind": "metrics", "time": minute * MINUTE, "step": 0, "values": values},
        {"kind": "tags", "tags": {MODEL_TAG: sha256}},
        {"kind": "end", "status": "FINISHED", "time": minute * MINUTE},
    )
    deliver(journal, address)
    return journal


def register(client, journal: Journal, address: str, *aliases: str, **tags: str) -> str:
    run_id = journal.delivered(address).run_id
    version = client.create_model_version("flame", f"runs:/{run_id}/m", run_id, {MODEL_TAG: journal.key, **tags})
    for alias in aliases:
        client.set_registered_model_alias("flame", alias, version.version)
    return str(version.version)


@pytest.fixture
def history(tracked, address, params):
    """Three trainings of one recipe, the last on other pictures and refused, and one of another in a workspace.

    One of them has its metrics under today's names, the others under those of earlier versions.
    """
    client = open_client(address)
    client.create_registered_model("flame")
    first = train(tracked, address, "plain", 10, {ENGLISH: 0.25})
    better = train(
        tracked, address, "plain", 20,
        named({ENGLISH: 0.5, f"{ENGLISH}/low": 0.4, f"{ENGLISH}/high": 0.6, SUGAR: 0.75}, [ENGLISH]),
        **{"git.commit": "c" * 40, "git.clean": "false"},
    )  # fmt: skip
    train(tracked, address, "other", 15, {ENGLISH: 0.125}, **{"flame.workspace": "abcdef"})
    refused = train(tracked, address, "plain", 30, {ENGLISH: 0.0625}, split="99998888")
    register(client, first, address, **{VERDICT: "promoted"})
    register(client, better, address, CHAMPION, **{VERDICT: "promoted"})
    register(client, refused, address, CHALLENGER, **{VERDICT: "refused"})
    train(tracked, address, "plain", 40, {"train/loss": 1.0})  # not measured
    return read_history(params, tracked)


def test_every_measured_model_is_there_in_order_with_version_standing_and_pictures(history):
    rows = [(each.recipe, each.version, each.standing, each.split, each.workspace) for each in history.models]
    assert rows == [
        ("plain", "1", "promoted", "11112222", ""),
        ("other", "", "", "11112222", "abcdef"),
        ("plain", "2", "champion, promoted", "11112222", ""),
        ("plain", "3", "challenger, refused", "99998888", ""),
    ]
    champion = history.models[2]
    assert (champion.when.minute, champion.commit) == (20, "cccccccccccc and changes")
    score = champion.scores[ENGLISH]
    assert (score.value, score.low, score.high) == (0.5, 0.4, 0.6)
    assert history.models[0].scores[ENGLISH].low is None
    assert history.metrics == [ENGLISH, SUGAR]  # what none was measured by is no column


def test_the_comparison_in_mlflow_names_all_runs(history):
    runs, experiments = re.search(r"runs=(.*)&experiments=(.*)", history.comparison).groups()
    assert json.loads(unquote(runs)) == [each.run_id for each in history.models]
    assert len(json.loads(unquote(experiments))) == 1
    assert comparison_url("http://host:1", "7", ["one"]) is None
    assert comparison_url("http://host:1/", "7", ["a", "b"]).startswith("http://host:1/#/compare-runs?")


def test_the_page_shows_them_newest_first_with_a_chart_a_metric(history):
    page = Page(history_page(history, "flame"))
    assert page.open == []
    assert "4 models of 2 recipes" in page.text
    assert page.text.index("version 3") < page.text.index("version 2") < page.text.index("version 1")
    assert "50.0\u202f%" in page.text and "40.0 – 60.0\u202f%" in page.text
    assert "sugar, en, acc" in page.text and page.text.count("not measured") == 3
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert history.comparison in links
    assert any("/models/flame/versions/2?" in link for link in links)
    dots = [attributes for tag, attributes in page.tags if tag == "circle" and attributes["r"] not in ("5", "7")]
    assert sum(each["class"].startswith("dot") for each in dots) == 5
    joined = [attributes for tag, attributes in page.tags if tag == "line" and "trend" in attributes.get("class", "")]
    assert len(joined) == 1  # plain 1 to 2; the third was measured on other pictures
    (ring, dot) = [each for each in dots if each["class"] == "ring"], [each for each in dots if each["r"] == "4.5"]
    assert len(ring) == 2 and all(any(mark["cx"] == each["cx"] for each in dot) for mark in ring)


def test_more_recipes_than_colours_are_told_apart(history):
    history.models[:] = [replace(each, recipe=f"r{number}") for number, each in enumerate(history.models * 3)]
    page = Page(history_page(history, "flame"))
    looks = [
        (attributes["class"], attributes.get("style", ""))
        for tag, attributes in page.tags
        if tag == "circle" and attributes["r"] == "5"
    ]
    rows, legend = looks[: len(looks) // 2], looks[len(looks) // 2 :]
    assert len(history.models) == len(rows) == len(set(rows)) == 12
    assert legend == rows[::-1]
    drawn = [attributes for tag, attributes in page.tags if tag == "circle" and attributes["r"] == "4.5"]
    assert drawn and {(each["class"], each.get("style", "")) for each in drawn} <= set(looks)


def test_before_the_first_training_there_is_nothing(tracked, params):
    found = read_history(params, tracked)
    assert (found.models, found.metrics, found.comparison) == ([], [], None)
    assert "0 models of 0 recipes" in Page(history_page(found, "flame")).text


@pytest.mark.parametrize("what", ["renamed", "deleted"])
def test_an_experiment_that_a_person_renamed_or_deleted_is_said(tracked, address, params, caplog, what):
    train(tracked, address, "plain", 10, {ENGLISH: 0.25})
    client = open_client(address)
    experiment = client.get_experiment_by_name("flame").experiment_id
    if what == "renamed":
        client.rename_experiment(experiment, "old")
    else:
        client.delete_experiment(experiment)
    assert read_history(params, tracked).models == []
    told = {"renamed": "no experiment 'flame', but 'old'; FLAME_EXPERIMENT", "deleted": "experiments restore"}
    assert told[what] in caplog.text


def test_headline_metrics_follow_the_params(params, tracked):
    assert headline(params, tracked)[:2] == [ENGLISH, ENGLISH.replace("image_to_text", "text_to_image")]
    assert headline(params, tracked)[-3:] == [
        f"benchmarks/sugar/en/{name}" for name in ("text_acc", "image_acc", "acc")
    ]


def test_the_stage_compare_says_where_mlflow_compares_the_same_models(tracked, address, params, capsys, monkeypatch):
    for minute, recipe in enumerate(params.recipes):
        weights = tracked.model(recipe) / "model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(recipe.encode())
        if minute == 1:
            show_comparison(params, tracked)
            assert "MLflow comparison" not in capsys.readouterr().err  # the second is not tracked yet
        train(tracked, address, recipe, minute, {ENGLISH: 0.5}).remember_model(file_sha256(weights))
    monkeypatch.setattr("flame_core.tracking.history.served", lambda address, run_id: True)
    show_comparison(params, tracked)
    said = capsys.readouterr().err
    runs = [
        Journal(journals(tracked) / f"{recipe}-{i}").delivered(address).run_id
        for i, recipe in enumerate(params.recipes)
    ]
    assert "MLflow comparison: " in said and all(run_id in said for run_id in runs)
