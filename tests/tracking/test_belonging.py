"""Two projects on one server: neither judges, replaces or takes back what is the other's."""

from __future__ import annotations

import subprocess

import pytest

from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.tracking import belonging, promotion
from flame_core.tracking.belonging import foreign_sources
from flame_core.tracking.delivery import deliver
from flame_core.tracking.journal import KEY_TAG, MODEL_TAG, Journal
from flame_core.tracking.promotion import promote, rollback
from flame_core.tracking.provenance import git_state
from flame_core.tracking.registry import CHALLENGER, CHAMPION, number_with
from flame_core.tracking.store import journals, open_client
from tests.stages.pipeline import folder_source, pipeline_params
from tests.tracking.conftest import end, start
from tests.tracking.test_promotion import version


@pytest.fixture
def client(address):
    return open_client(address)


@pytest.fixture
def params(tracked, monkeypatch):
    found = pipeline_params({"birds": folder_source(tracked.root)})
    monkeypatch.setattr(belonging, "load_params", lambda layout: found)
    return found


def evaluated(layout, address: str, key: str, source: str, *, here: bool) -> str:
    """A delivered training on a source, in this project or another; returns the id of its run."""
    journal = Journal((journals(layout) if here else layout.root / "elsewhere") / key)
    read = {"kind": "params", "params": {f"sources.{source}.kind": "folder", "llm.name": "tiny"}}
    made = [{"kind": "tags", "tags": {MODEL_TAG: key}}, {"kind": "external", "name": key, "tags": {KEY_TAG: key}}]
    journal.append(start(key), read, *made, end())
    journal.append(version(journal, 10))
    deliver(journal, address)
    return str(journal.delivered(address).run_id)


def aliases(client) -> tuple[str | None, str | None]:
    return number_with(client, "flame", CHALLENGER), number_with(client, "flame", CHAMPION)


def test_another_projects_challenger_is_not_judged(tracked, address, client, params):
    evaluated(tracked, address, "one", "boats", here=False)
    for chosen in (None, "1"):
        with pytest.raises(InputError, match=r"version 1 .*of another project: it was trained on boats.*REGISTERED"):
            promote(params, tracked, chosen)
    assert aliases(client) == ("1", None)
    assert "gate.verdict" not in client.get_model_version("flame", "1").tags


def test_another_projects_champion_is_neither_replaced_nor_rolled_back(tracked, address, client, params, monkeypatch):
    for key in ("one", "two"):
        evaluated(tracked, address, key, "boats", here=False)
    promotion._crown(client, "flame", "1", None)
    promotion._crown(client, "flame", "2", "1")
    evaluated(tracked, address, "three", "birds", here=True)
    monkeypatch.setattr(promotion, "_results", lambda client, version, folder: None)  # of the challenger
    for move in (lambda: promote(params, tracked), lambda: rollback(tracked, "it has no birds")):
        with pytest.raises(InputError, match=r"version 2 of flame \(champion\) is of another project.* on boats\."):
            move()
    assert aliases(client) == ("3", "2")


@pytest.mark.parametrize(
    ("source", "here", "foreign"),
    [("boats", False, ["boats"]), ("boats", True, []), ("birds", False, [])],
    ids=["another project's", "trained here, on sources that params name no more", "a clone's"],
)
def test_what_may_be_this_projects_is_taken_for_it(tracked, address, client, params, source, here, foreign):
    run = client.get_run(evaluated(tracked, address, "one", source, here=here))
    assert foreign_sources(tracked, run) == foreign


def test_what_a_commit_of_this_project_trained_is_its_own(tracked, address, client, params):
    root = tracked.root / "in" / "repository"
    (root / "presets").mkdir(parents=True)
    (root / "params.yaml").write_text("sources: {ships: {}}\n")
    (root / "presets" / "große.yaml").write_text("sources: {boats: {}}\n")
    (root / "presets" / "broken.yaml").write_text("sources: [\n")
    for command in (["init", "-q"], ["add", "in"], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=tracked.root, check=True)
    commit = git_state(root)["git.commit"]
    for known, foreign in ((commit, []), (commit[::-1], ["boats"]), ("--help", ["boats"])):
        run = client.get_run(evaluated(tracked, address, known.strip("-"), "boats", here=False))
        run.data.tags["git.commit"] = known
        assert foreign_sources(Layout.find(root), run) == foreign
    run.data.tags["git.commit"] = commit
    run.data.params.pop("sources.boats.kind")
    run.data.params["sources.trains.kind"] = "folder"
    assert foreign_sources(Layout.find(root), run) == ["trains"]


def test_without_readable_params_nothing_is_another_projects(tracked, address, client):
    assert foreign_sources(tracked, client.get_run(evaluated(tracked, address, "one", "boats", here=False))) == []
