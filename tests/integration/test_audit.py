"""A model's whole record on the small real graph: run, version, gate, lineage, and the same model again."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from flame_core.dvc_project.recorded import out_digests
from flame_core.tracking.listings import folder_md5, read_listing
from flame_core.tracking.promotion import PREVIOUS, REASON, TABLE, VERDICT
from flame_core.tracking.store import open_client
from flame_core.workspace import dvc, environment
from tests.integration.conftest import Tracked

pytestmark = pytest.mark.slow


def test_the_run_knows_params_data_and_scores(tracked: Tracked) -> None:
    version = tracked.client.get_model_version_by_alias("flame", "champion")
    run = tracked.client.get_run(version.run_id)
    lock = yaml.safe_load((tracked.root / "dvc.lock").read_text())["stages"]
    digests = {dep["path"]: dep["md5"] for stage in ("embed", "train@flame") for dep in lock[stage]["deps"]}
    read = {each.dataset.name: each.dataset for each in run.inputs.dataset_inputs}
    for name in ("captions", "embeddings"):
        assert read[name].digest == digests[f"data/{name}/train"]  # as DVC records it of the stage
    listing = read_listing(digests["data/shards"], tracked.root / ".dvc/cache/files/md5")
    assert listing and read["shards"].digest == folder_md5(
        {name.removeprefix("train/"): md5 for name, md5 in listing.items() if name.startswith("train/")}
    )
    assert run.data.params["text.layer"] == "4" and run.data.params["train.batch_size"] == "16"
    metrics = tracked.metrics()
    assert (
        run.data.metrics["headline/retrieval.en.image_to_text.recall_at_10"]
        == metrics["retrieval/en/image_to_text/recall@10"]
    )
    steps = [json.loads(line) for line in (tracked.root / "data/models/flame/metrics.jsonl").read_text().splitlines()]
    history = tracked.client.get_metric_history(version.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in history) == [(row["step"], row["loss"]) for row in steps]
    names = {file.path for file in tracked.client.list_artifacts(version.run_id)}
    assert {"params.yaml", "dvc.lock", "report"} <= names
    assert "Limits" in version.description
    [model] = tracked.client.search_logged_models([run.info.experiment_id])
    assert any(metric.dataset_name == "held-out" for metric in model.metrics)


def test_the_champion_answers_without_the_llm(
    tracked: Tracked, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    open_client(tracked.address)
    model = mlflow.pyfunc.load_model("models:/flame@champion")
    path = sorted(pictures.rglob("*.png"))[0]
    with pytest.raises(Exception, match="paths are off here"):
        model.predict(pd.DataFrame({"image": [str(path)]}))
    monkeypatch.setenv("FLAME_SERVING_PATHS", str(pictures))
    encoded = base64.b64encode(path.read_bytes()).decode()
    embedded = model.predict(pd.DataFrame({"image": [str(path), encoded]}))["image_embedding"]
    assert embedded[0] == embedded[1] and abs(sum(x * x for x in embedded[0]) - 1) < 1e-5
    answered = model.predict(pd.DataFrame({"image": [encoded]}), params={"task": "classify", "top": 2})
    assert len(answered["labels"][0]) == 2 and answered["scores"][0] == sorted(answered["scores"][0], reverse=True)
    for wrong, message in (
        ("https://example.org/a.png", "addresses are not fetched"),
        ("%%", "nor a file of the folder"),
    ):
        with pytest.raises(Exception, match=message):
            model.predict(pd.DataFrame({"image": [wrong]}))
    with pytest.raises(Exception, match="FLAME_SERVING_LLM"):
        model.predict(pd.DataFrame({"text": ["a bird"]}))
    monkeypatch.setenv("FLAME_SERVING_LLM", str(tracked.root / "data/llm/smollm2"))
    similar = model.predict(
        pd.DataFrame({"image": [encoded, None], "text": ["a bird", "a boat"]}), {"task": "similarity"}
    )
    first, second = similar["similarities"]
    assert len(first) == 2 and second is None  # the second row has no picture


def test_every_link_is_verified_and_a_changed_byte_is_named(tracked: Tracked) -> None:
    found = tracked.lineage("models:/flame@champion")
    assert found["verified"]
    assert {link["name"] for link in found["links"] if link["status"] == "verified"} >= {
        *("model version", "run", "metrics", "recipe and params", "weights"),
        *("embeddings", "captions", "shards", "LLM", "sources"),
    }
    assert tracked.lineage("data/models/flame")["links"] == found["links"]
    shard = tracked.root / "data/shards/train/00000.tar"
    whole = shard.read_bytes()
    shard.unlink()  # it may be a hard link into the work cache
    shard.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    broken = tracked.lineage("models:/flame@champion", code=1)
    [link] = [link for link in broken["links"] if link["status"] == "broken"]
    assert (link["name"], link["notes"]) == ("shards", ["data/shards/train/00000.tar: its bytes have changed"])
    shard.write_bytes(whole)


def test_bytes_that_left_tree_and_cache_are_found_in_the_remote(tracked: Tracked, tmp_path: Path) -> None:
    def run(*arguments: str) -> None:
        subprocess.run([*dvc(), *arguments], cwd=tracked.root, env=environment(), check=True, capture_output=True)

    run("remote", "add", "--local", "--default", "store", str(tmp_path / "remote"))
    run("push")
    shutil.move(tracked.root / "data/shards", tmp_path / "shards")
    shutil.move(tracked.root / ".dvc/cache/files", tmp_path / "files")
    found = tracked.lineage("models:/flame@champion")
    shards = next(link for link in found["links"] if link["name"] == "shards")
    assert (shards["status"], shards["facts"]["found in"]) == ("verified", "remote")
    run("pull")
    assert (tracked.root / "data/shards/index.parquet").is_file()
    run("remote", "remove", "--local", "store")


def test_a_push_may_leave_the_embeddings_out_and_a_clone_computes_them_again(tracked: Tracked, tmp_path: Path) -> None:
    """The commands of docs/lineage.md."""

    def run(root: Path, *arguments: str) -> None:
        subprocess.run([*dvc(), *arguments], cwd=root, env=environment(), check=True, capture_output=True)

    clone = Tracked(tmp_path / "clone", tracked.address)
    shutil.copytree(tracked.root, clone.root, ignore=shutil.ignore_patterns("data", ".flame", "cache", "tmp"))
    for root in (tracked.root, clone.root):
        run(root, "remote", "add", "--local", "--default", "store", str(tmp_path / "remote"))
    pushed = ["download", "ingest", "caption", "train@flame", "evaluate@flame", "baselines", "compare"]
    run(tracked.root, "push", *pushed)
    run(tracked.root, "remote", "remove", "--local", "store")
    held = {f"{path.parent.name}{path.name}" for path in (tmp_path / "remote/files/md5").rglob("*") if path.is_file()}
    digests = out_digests(tracked.root)
    assert {digests["data/shards"], digests["data/models/flame"]} <= held
    assert not {digests["data/embeddings"], digests["data/llm"]} & held

    run(clone.root, "pull", "--allow-missing")
    there = clone.outs()
    assert "shards/index.parquet" in there and not any(name.startswith(("embeddings/", "llm/")) for name in there)
    said = clone.flame("run")
    assert said.count("Running stage") == 2 and "Running stage 'embed'" in said  # and the LLM, which it needs
    assert clone.outs() == tracked.outs()
    assert (clone.root / "dvc.lock").read_bytes() == (tracked.root / "dvc.lock").read_bytes()


def test_the_lineage_holds_when_a_model_is_measured_in_another_language(tracked: Tracked) -> None:
    """The run keeps what the training read; the store around it holds more texts now."""
    before = out_digests(tracked.root)
    tracked.change({"evaluate": {"languages": ["de", "fr", "es"]}})
    said = tracked.flame("run")
    assert "Running stage 'embed'" in said and "Running stage 'train@flame'" not in said
    now = out_digests(tracked.root)
    assert (
        now["data/embeddings"] != before["data/embeddings"] and now["data/models/flame"] == before["data/models/flame"]
    )
    found = tracked.lineage("models:/flame@champion")
    assert found["verified"], [link for link in found["links"] if link["status"] == "broken"]
    assert {link["name"] for link in found["links"] if link["status"] == "verified"} >= {"embeddings", "captions"}
    tracked.change({"evaluate": {"languages": ["de", "fr"]}})
    tracked.flame("run")
    assert out_digests(tracked.root) == before


def test_a_worse_model_is_refused_and_a_better_one_promoted(tracked: Tracked) -> None:
    before = tracked.alias("champion")
    tracked.change({"train": {"epochs": 1, "optimizer": {"learning_rate": 1.0e-7}}})
    tracked.flame("run")
    assert tracked.alias("challenger") not in (None, before)
    tracked.change({"promote": {"tolerance": 0.0, "min_gain": 0.5}})  # sixty pictures tell little apart
    assert "is not promoted" in tracked.flame("promote", code=4)
    assert tracked.alias("champion") == before
    refused = tracked.client.get_model_version_by_alias("flame", "challenger")
    assert refused.tags[VERDICT] == "refused" and json.loads(refused.tags[TABLE])
    tracked.change({"promote": {"tolerance": 1.0, "min_gain": -1.0}})
    tracked.flame("promote")
    assert tracked.alias("champion") == str(refused.version) and tracked.alias("challenger") is None
    champion = tracked.client.get_model_version("flame", refused.version)
    assert champion.tags[PREVIOUS] == before and champion.tags[REASON]


def test_rollback_needs_a_reason_and_restores_the_one_before(tracked: Tracked) -> None:
    current = tracked.alias("champion")
    assert "--reason" in tracked.flame("promote", "--rollback", code=2)
    tracked.flame("promote", "--rollback", "--reason", "it confuses boats and birds")
    assert tracked.alias("champion") == "1" != current
    tags = tracked.client.get_model_version("flame", current).tags
    assert "it confuses boats and birds" in tags["promotion.rolled_back"]
    assert "no promotion noted a champion before" in tracked.flame("promote", "--rollback", "--reason", "again", code=3)
    tracked.flame("tracking", "replay", "--all")
    assert (tracked.alias("champion"), tracked.alias("challenger")) == ("1", None)
    assert "boats and birds" in tracked.flame("promote", "--version", str(current), code=4)
    again = ("promote", "--version", str(current), "--again")
    assert "--reason" in tracked.flame(*again, code=2)
    tracked.flame(*again, "--reason", "the birds were mislabelled")
    assert tracked.alias("champion") == current
    tracked.client.set_registered_model_alias("flame", "champion", "1")  # as the next test needs it


def test_two_promotions_at_once_leave_one_champion(tracked: Tracked) -> None:
    both = [tracked.start("promote", "--version", number) for number in ("2", "2")]
    for process in both:
        process.communicate()
    assert {process.returncode for process in both} == {0}
    assert str(tracked.client.get_registered_model("flame").aliases["champion"]) == "2" == tracked.alias("champion")


def test_a_workspace_is_no_challenger_until_asked(tracked: Tracked) -> None:
    before = {version.version for version in tracked.client.search_model_versions("name = 'flame'")}
    tracked.flame("run", "--set", "train.seed=5")
    assert {version.version for version in tracked.client.search_model_versions("name = 'flame'")} == before
    [workspace] = (tracked.root / ".flame/runs").iterdir()
    tracked.flame("register", "flame", "--workspace", workspace.name)
    assert tracked.alias("challenger") not in before


def test_the_same_model_again(tracked: Tracked) -> None:
    shutil.copytree(tracked.root / "recipes", tracked.root / "kept", dirs_exist_ok=True)
    said = tracked.flame("reproduce", "models:/flame/1")
    assert "bytes" in said and "the same" in said and "differ" not in said


def test_an_unknown_model_is_refused(tracked: Tracked) -> None:
    assert "models:/flame/99" in tracked.flame("lineage", "models:/flame/99", code=3)
    assert "is not a model" in tracked.flame("lineage", "nowhere", code=3)
