"""The whole graph on a few dozen real pictures and the real SmolLM2 (its first four layers), as a user runs it.

The tests share one project and build on each other, in this order.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from flame_core.verification import write_digests

slow = pytest.mark.slow
STAGES = ["download", "fetch_llm", "ingest", "caption", "embed", "train@flame", "evaluate@flame", "compare"]
EVALUATED = {"train@flame", "evaluate@flame", "compare"}


def ran(output: str) -> set[str]:
    """The stages whose commands DVC ran, by its own words."""
    return {stage for stage in STAGES if f"Running stage '{stage}'" in output}


@pytest.fixture(scope="module")
def first(project) -> dict[str, bytes]:
    """The outs of the first run, which everything else is compared with."""
    output = project.flame("run")
    assert ran(output) == set(STAGES)
    return project.outs()


def test_one_command_leaves_a_model_a_report_and_numbers(project, first):
    metrics = project.metrics()
    for language in ("en", "de", "fr"):
        for direction in ("image_to_text", "text_to_image"):
            assert 0 <= metrics[f"retrieval/{language}/{direction}/recall@10"] <= 1
    assert 0 < metrics["retrieval/chance/recall@10"] < 1
    assert 0 <= metrics["classification/top1"] <= 1
    page = first["reports/flame/report.html"].decode()
    assert "<svg" in page
    assert "data:image/jpeg" in page
    assert 'src="http' not in page
    steps = first["models/flame/metrics.jsonl"].decode().splitlines()
    assert json.loads(steps[-1])["loss"] < json.loads(steps[0])["loss"]
    manifest = json.loads(first["embeddings/manifest.json"])
    assert manifest["facets"] == ["raw/1", "short/1", "short/2", "short/3"]
    assert {f"retrieval/{language}/ceiling/recall@10" for language in ("en", "de", "fr")} <= metrics.keys()


@slow
def test_running_again_does_nothing_and_says_so(project, first):
    output = project.flame("run")
    assert ran(output) == set()
    assert "up to date" in output


@slow
def test_one_changed_param_reruns_what_depends_on_it_and_changing_it_back_costs_nothing(project, first):
    project.change({"train": {"epochs": 3}})
    assert ran(project.flame("run")) == EVALUATED
    assert project.outs()["models/flame/model.safetensors"] != first["models/flame/model.safetensors"]
    project.change({"train": {"epochs": 24}})
    assert ran(project.flame("run")) == set()
    assert project.outs() == first


@slow
def test_what_is_only_evaluated_trains_nothing(project, first):
    """A language, a class prompt, a recall_at: new texts are embedded, and every model is measured anew."""
    params = (project.root / "params.yaml").read_text()
    project.change({"evaluate": {"languages": ["de", "fr", "es"], "class_prompts": ["a painting of {class}"]}})
    assert ran(project.flame("run")) == EVALUATED - {"train@flame"} | {"embed"}
    assert project.metrics().keys() > {"retrieval/es/n"}
    project.change({"evaluate": {"recall_at": [1, 3, 10]}})
    assert ran(project.flame("run")) == EVALUATED - {"train@flame"}
    outs = project.outs()
    assert {name for name in first if outs.get(name) != first[name]}.isdisjoint(
        name for name in first if name.startswith(("models/", "embeddings/train/"))
    )
    (project.root / "params.yaml").write_text(params)
    assert ran(project.flame("run")) == set()
    assert project.outs() == first


@slow
def test_an_override_runs_in_a_workspace_and_leaves_the_project_alone(project, first):
    output = project.flame("run", "--set", "train.epochs=4")
    assert ran(output) == EVALUATED
    (workspace,) = (project.root / ".flame/runs").iterdir()
    config = json.loads((workspace / "data/models/flame/config.json").read_text())
    assert config["recipe"]["epochs"] == 4
    assert ran(project.flame("run", "--set", "train.epochs=4")) == set()
    assert project.outs() == first


@pytest.mark.parametrize("folder", ["shards/train", "captions/train", "embeddings/train"])
@pytest.mark.parametrize("cached", [True, False], ids=["dvc cache", "no dvc cache"])
@slow
def test_a_flipped_byte_is_undone_by_the_next_run(project, first, folder, cached):
    """From DVC's cache; and where that lost the file and the work cache rotted too, by computing that one shard."""
    path = sorted((project.root / "data" / folder).iterdir())[0]
    original = path.read_bytes()
    content = bytearray(original)
    content[len(content) // 2] ^= 0xFF
    stage = {"shards": "ingest", "captions": "caption", "embeddings": "embed"}[folder.partition("/")[0]]
    work = project.root / ".flame/work" / stage

    def copies(place: Path) -> list[Path]:
        found = [file for file in place.rglob("*") if file.is_file() and file.stat().st_size == len(original)]
        return [file for file in found if file.read_bytes() == original]

    if not cached:
        (unit,) = copies(work)
        for copy in copies(project.root / ".dvc/cache/files"):
            copy.unlink()
        unit.write_bytes(content)
    path.write_bytes(content)
    before = {unit.name: unit.stat().st_mtime_ns for unit in work.iterdir()}
    project.flame("run")
    assert project.outs() == first
    after = {unit.name: unit.stat().st_mtime_ns for unit in work.iterdir()}
    renewed = sum(before[name] != after[name] for name in before)
    assert renewed == (0 if cached else 1), "only the damaged unit is computed again"


@pytest.mark.parametrize("stage", ["embed", "train"])
@slow
def test_killed_at_a_random_moment_it_ends_with_the_same_bytes(project, first, stage, tmp_path, record_property):
    """Its work cache emptied, `kill -9` of the whole process group five times, then a run to the end."""
    draw = random.Random(stage)
    command = {"embed": ["embed"], "train": ["train", "flame"]}[stage]
    work = project.root / ".flame/work"
    for cache in work.glob(f"{stage}*"):
        cache.rename(tmp_path / cache.name)
    started = time.monotonic()
    undisturbed = project.flame(*command)
    seconds = time.monotonic() - started
    assert project.outs() == first, undisturbed
    for cache in work.glob(f"{stage}*"):
        cache.rename(tmp_path / f"second-{cache.name}")
    for _ in range(5):
        process = project.start(*command, FLAME_CHECKPOINT_SECONDS="0")
        time.sleep(draw.uniform(0.3, 0.95) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    project.flame(*command)
    assert project.outs() == first
    record_property(f"kill -9 of {stage}", 5)


@slow
def test_a_stop_signal_ends_training_with_its_code_and_it_resumes(project, first, tmp_path):
    work = project.root / ".flame/work"
    for cache in work.glob("train*"):
        cache.rename(tmp_path / cache.name)
    project.change({"train": {"epochs": 400}})
    process = project.start("train", "flame", FLAME_CHECKPOINT_SECONDS="0")
    checkpoints = work / "train-checkpoints"
    while not list(checkpoints.glob("*/[!.]*/*.pt")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "run again to resume" in output
    project.change({"train": {"epochs": 24}})
    project.flame("train", "flame")
    assert project.outs() == first


@slow
def test_nothing_after_embed_needs_the_layers_of_the_llm(project, first, tmp_path):
    llm = project.root / "data/llm"
    llm.rename(tmp_path / "llm")
    shutil.copytree(tmp_path / "llm", llm)
    for weights in llm.glob("*/*.safetensors"):  # the report reads patches with the output matrix alone
        tensors = load_file(weights)
        save_file({name: tensor for name, tensor in tensors.items() if "embed_tokens" in name}, weights)
        assert len(load_file(weights)) == 1 < len(tensors)
    write_digests(llm)
    for cache in ("train", "evaluate"):
        for unit in (project.root / ".flame/work").glob(cache):
            unit.rename(tmp_path / cache)
    project.flame("train", "flame")
    project.flame("evaluate", "flame")
    project.flame("compare")
    shutil.rmtree(llm)
    (tmp_path / "llm").rename(llm)
    assert project.outs() == first


@slow
def test_query_answers_with_pictures_of_the_index(project, first):
    output = project.flame("query", "a red fruit", "--top", "3")
    assert output.count("pictures/") == 3


@slow
def test_a_store_of_another_llm_is_refused_with_both_names(project, first):
    project.change({"llm": {"name": "other"}})
    output = project.flame("train", "flame", code=3)
    assert "llm.name: the store has 'smollm2', this run wants 'other'" in " ".join(output.split())
    project.change({"llm": {"name": "smollm2"}})


@slow
def test_a_failed_check_stops_every_consumer(project, first):
    path = project.root / "data/embeddings/train/checks.json"
    checks = json.loads(path.read_text())
    checks[0] |= {"passed": False, "keys": ["train/00000:3"]}
    content = path.read_bytes()
    path.unlink()
    path.write_text(json.dumps(checks))
    output = project.flame("train", "flame", code=4)
    assert checks[0]["name"] in output
    assert "train/00000:3" in output
    path.write_bytes(content)


@slow
def test_a_project_without_git_or_network_runs_from_its_caches(project, first):
    assert not (project.root / ".git").exists()
    Path(project.root / "dvc.lock").unlink()
    output = project.flame("run", http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")
    assert project.outs() == first, output
