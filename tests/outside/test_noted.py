"""What `flame run` and `flame status` do when something on this machine has changed that a stage read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from flame_core.cli import _run_stage
from flame_core.commands import recorded_stage
from flame_core.data.shards import read_index
from flame_core.graph import links
from flame_core.layout import Layout
from flame_core.outside.inputs import outside_stages
from flame_core.outside.noted import changed_inputs, look, note, note_first, noting
from flame_core.params import Params, merge, read_yaml
from flame_core.settings import settings
from flame_core.stages import embed_texts, fetch_llm, train
from flame_core.workspace import dvc, dvc_cache, environment, resolve_params
from orchestration.dvc_project.project import DvcProject
from tests.conftest import tiny_llm
from tests.data.drawings import png
from tests.suite import datasets

ROOT = Path(__file__).parents[2]
DEFINITION = {
    "title": "many",
    "task": {"kind": "retrieval"},
    "languages": ["en", "zh"],
    "data": {"layout": "crossmodal3600", "path": "many", "obtain": "ask"},
}


def add(folder: Path, *numbers: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        (folder / f"{number}.png").write_bytes(png(number))
        (folder / f"{number}.txt").write_text(f"drawing number {number}")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A project whose one source is the folder `pictures` beside it."""
    add(tmp_path / "pictures", *range(10))
    root = tmp_path / "project"
    root.mkdir()
    content = merge(read_yaml(ROOT / "params.yaml"), {"recipes": ["flame"], "ingest": {"shard_samples": 8}})
    content["sources"] = {"mine": {"kind": "folder", "path": "../pictures"}}
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    shutil.copytree(ROOT / "recipes", root / "recipes")
    return Layout.find(root)


def changed(layout: Layout) -> dict[str, list[str]]:
    return changed_inputs(resolve_params(layout, [], None).params, layout)


def note_seen(params: Params, layout: Layout, stage: str) -> None:
    note(layout, stage, look(outside_stages(params, layout)[stage]))


def test_what_was_seen_counts_and_what_is_there_without_a_note_does_not(layout: Layout):
    params, pictures = resolve_params(layout, [], None).params, layout.root.parent / "pictures"
    assert changed(layout) == {"download": ["mine"]}  # nothing was read yet
    layout.raw.mkdir(parents=True)
    assert changed(layout) == {}  # pulled: this machine need not have the folder
    note_first(params, layout, ())
    assert changed(layout) == {}
    for change in (
        lambda: add(pictures, 10),
        lambda: (pictures / "0.png").unlink(),
        lambda: (pictures / "1.txt").write_text("edited by hand"),
        lambda: (pictures / "2.txt").rename(pictures / "two.txt"),
        lambda: (pictures / "3.txt").rename(os.fsdecode(os.fsencode(pictures) + b"/\xff.txt")),
    ):
        change()
        assert changed(layout) == {"download": ["mine"]}
        note_seen(params, layout, "download")
        assert changed(layout) == {}
    shutil.rmtree(pictures)  # the data are in data/raw
    assert changed(layout) == {}


def noticed(layout: Layout, stage: str, change: Callable[[], object]) -> bool:
    """Whether a change makes a stage run anew that has seen all before."""
    note_seen(resolve_params(layout, [], None).params, layout, stage)
    before = changed(layout)
    change()
    return changed(layout).get(stage) is not None and stage not in before


def set_source(layout: Layout, source: dict[str, Any]) -> None:
    content = read_yaml(layout.params)
    content["sources"] = {"mine": source}
    layout.params.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("absolute", [False, True])
def test_a_table_outside_of_the_folder_counts(layout: Layout, tmp_path: Path, absolute: bool):
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\n0.png,a bird\n")
    named = str(table) if absolute else "../captions.csv"
    set_source(layout, {"kind": "folder", "path": "../pictures", "table": named})
    assert noticed(layout, "download", lambda: table.write_text("image,caption\n0.png,a large bird\n"))


@pytest.mark.parametrize("links", ["inside", "anywhere"])
def test_files_behind_links_count_if_the_source_reads_them(layout: Layout, tmp_path: Path, links: str):
    add(tmp_path / "elsewhere", 20)
    (tmp_path / "pictures/linked").symlink_to(tmp_path / "elsewhere")
    set_source(layout, {"kind": "folder", "path": "../pictures", "links": links})
    assert noticed(layout, "download", lambda: add(tmp_path / "elsewhere", 21)) == (links == "anywhere")


def test_shards_behind_links_count(layout: Layout, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/linked").symlink_to(tmp_path / "elsewhere")
    set_source(layout, {"kind": "webdataset", "path": "../shards", "shards": "linked/*.tar"})
    assert noticed(layout, "download", lambda: (tmp_path / "elsewhere/0.tar").write_bytes(b"x"))


def test_lists_of_what_is_opted_out_count(layout: Layout, tmp_path: Path):
    (tmp_path / "list.csv").write_text("url,caption\nhttp://a.org/1.jpg,a bird\n")
    (tmp_path / "out.txt").write_text("b.org\n")
    set_source(layout, {"kind": "urls", "path": "../list.csv", "opt_out": {"lists": ["../out.txt"]}})
    assert noticed(layout, "download", lambda: (tmp_path / "out.txt").write_text("a.org\nb.org\n"))


def test_an_llm_of_this_machine_counts(layout: Layout, tmp_path: Path, byte_tokenizer: Any):
    folder = tmp_path / "llm"
    tiny_llm("llama").save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    content = merge(read_yaml(layout.params), {"llm": {"name": "tiny", "source": "path:../llm", "sha256": None}})
    layout.params.write_text(yaml.safe_dump(content))
    params = resolve_params(layout, [], None).params
    layout.raw.mkdir(parents=True)

    def weights() -> bytes:
        with noting(params, layout, "fetch_llm"):
            fetch_llm.run(params, layout)
        return (layout.llm / "tiny/model.safetensors").read_bytes()

    assert changed(layout) == {"fetch_llm": ["tiny"]}  # nothing was fetched yet
    before = weights()
    assert changed(layout) == {} and before == (folder / "model.safetensors").read_bytes()
    other = tiny_llm("llama")
    other.get_input_embeddings().weight.data += 1
    other.save_pretrained(folder)
    assert changed(layout) == {"fetch_llm": ["tiny"]}
    after = weights()
    assert changed(layout) == {} and after == (folder / "model.safetensors").read_bytes() != before
    shutil.rmtree(folder)  # the LLM is in data/llm
    assert changed(layout) == {}


def set_params(layout: Layout, change: dict[str, Any]) -> None:
    layout.params.write_text(yaml.safe_dump(merge(read_yaml(layout.params), change)))


def of_a_captioner(layout: Layout) -> Path:
    folder = layout.root / "models/vlm"
    folder.mkdir(parents=True)
    chosen = {"captioner": "vlm", "model": "path:models/vlm", "prompt": "Describe the picture."}
    set_params(layout, {"caption": {"long": chosen}})
    return folder / "model.safetensors"


def of_a_benchmark(layout: Layout) -> Path:
    datasets.crossmodal(layout.root / "datasets/many")
    set_params(layout, {"evaluate": {"benchmarks": {"data": "datasets", "names": ["sets/many.yaml"]}}})
    return layout.root / "datasets/many/captions.jsonl"


def of_a_definition(layout: Layout) -> Path:
    of_a_benchmark(layout)
    return layout.root / "sets/many.yaml"


def of_a_baseline(layout: Layout) -> Path:
    (layout.root / "models").mkdir()
    set_params(layout, {"evaluate": {"baselines": {"net": "timm:resnet10t@models/net.safetensors"}}})
    return layout.root / "models/net.safetensors"


def of_a_scorer(layout: Layout) -> Path:
    (layout.root / "models/clip").mkdir(parents=True)
    scorers = {"clip": {"kind": "model", "source": "transformers:models/clip"}}
    set_params(layout, {"scores": {"scorers": scorers}})
    return layout.root / "models/clip/model.safetensors"


def of_a_tagger(layout: Layout) -> Path:
    (layout.root / "models/clip").mkdir(parents=True)
    tagger = {"kind": "model", "source": "transformers:models/clip"}
    set_params(layout, {"concepts": {"nouns": {}, "images": {"tagger": tagger, "threshold": 0.5}}})
    return layout.root / "models/clip/model.safetensors"


def of_a_teacher(layout: Layout) -> Path:
    (layout.root / "models/clip").mkdir(parents=True)
    recipe = read_yaml(layout.root / "recipes/flame.yaml") | {"teacher": {"model": "transformers:models/clip"}}
    (layout.root / "recipes/student.yaml").write_text(yaml.safe_dump(recipe))
    set_params(layout, {"recipes": ["flame", "student"]})
    return layout.root / "models/clip/model.safetensors"


@pytest.mark.parametrize(
    ("stage", "file_of"),
    [
        ("caption", of_a_captioner),
        ("embed", of_a_benchmark),
        ("embed", of_a_definition),
        ("baselines", of_a_baseline),
        ("scores", of_a_scorer),
        ("concepts", of_a_tagger),
        ("train@student", of_a_teacher),
    ],
)
def test_models_and_benchmarks_of_this_machine_count(layout: Layout, stage: str, file_of: Callable[[Layout], Path]):
    (layout.root / "sets").mkdir()
    (layout.root / "sets/many.yaml").write_text(yaml.safe_dump(DEFINITION))
    path = file_of(layout)
    path.write_bytes(path.read_bytes() if path.exists() else b"weights")
    assert stage not in changed(layout)  # it follows others, and DVC runs it if its out is not there
    assert noticed(layout, stage, lambda: path.write_bytes(path.read_bytes() + b"\n"))
    note_seen(resolve_params(layout, [], None).params, layout, stage)
    assert stage not in changed(layout)
    path.unlink()
    shutil.rmtree(layout.root / "datasets", ignore_errors=True)  # such as a disk that is not mounted
    assert stage not in changed(layout)


@pytest.mark.parametrize(
    ("stage", "file_of"), [("embed", of_a_benchmark), ("baselines", of_a_baseline), ("caption", of_a_captioner)]
)
def test_what_comes_after_the_first_look_counts_of_stages_that_do_without_it(
    layout: Layout, stage: str, file_of: Callable[[Layout], Path]
):
    """As in a clone that has pulled all outs: whoever wrote its captions had the captioner."""
    (layout.root / "sets").mkdir()
    (layout.root / "sets/many.yaml").write_text(yaml.safe_dump(DEFINITION))
    path = file_of(layout)
    path.unlink(missing_ok=True)
    for folder in (layout.root / "datasets", layout.root / "models"):
        if folder.is_dir():
            folder.rename(folder.with_name(f"{folder.name}-later"))
    note_first(resolve_params(layout, [], None).params, layout, ())
    for folder in list(layout.root.glob("*-later")):
        folder.rename(folder.with_name(folder.name.removesuffix("-later")))
    path.write_bytes(b"it is here now")
    assert (stage in changed(layout)) == (stage != "caption")


def test_a_workspace_has_its_own_note(layout: Layout):
    params = resolve_params(layout, [], None).params
    note_seen(params, layout, "download")
    workspace = layout.state / "runs/0123456789ab"
    workspace.mkdir(parents=True)
    for name in ("params.yaml", "recipes"):
        (workspace / name).symlink_to(layout.root / name)
    own = Layout.find(workspace)
    assert changed(layout) == changed(own) == {}  # DVC's cache has what the project read
    note_first(params, own, ())
    add(layout.root.parent / "pictures", 10)
    note_seen(params, layout, "download")
    assert changed(layout) == {} and changed(own) == {"download": ["mine"]}


def test_a_damaged_note_is_no_note(layout: Layout):
    params = resolve_params(layout, [], None).params
    note_seen(params, layout, "download")
    (place,) = (layout.state / "sources").iterdir()
    for damaged in ("{", "[]", '{"download": 1}'):
        place.write_text(damaged)
        assert changed(layout) == {"download": ["mine"]}
    note_seen(params, layout, "download")
    assert json.loads(place.read_text()).keys() == {"download"} and changed(layout) == {}


def test_stages_that_end_at_the_same_time_all_keep_their_notes(layout: Layout):
    names = [f"train@{number}" for number in range(100)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda name: note(layout, name, {"teacher": name}), names))
    (place,) = (layout.state / "sources").iterdir()
    assert json.loads(place.read_text()) == {name: {"teacher": name} for name in names}


def set_up_dvc(layout: Layout) -> None:
    for name in ("dvc.yaml", ".dvcignore", "versions.yaml"):
        shutil.copy(ROOT / name, layout.root)
    shutil.copytree(ROOT / ".dvc", layout.root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    subprocess.run(["git", "init", "--quiet"], cwd=layout.root, check=True)


def test_commands_are_those_that_dvc_writes_out(layout: Layout):
    """Else its run cache would keep what they made of other files."""
    set_up_dvc(layout)
    of_a_teacher(layout)
    known = {name: stage.command for name, stage in DvcProject(layout.root).stages().items()}
    found = outside_stages(resolve_params(layout, [], None).params, layout)
    own = {name: stage.command for name, stage in found.items() if name in known}
    assert own == {name: known[name] for name in own}
    assert own.keys() >= {"download", "fetch_llm", "caption", "embed", "train@student", "baselines"}


def of_run_cache(layout: Layout) -> list[str]:
    return sorted(path.read_text().splitlines()[0] for path in (dvc_cache(layout) / "runs").glob("*/*/*"))


@pytest.mark.parametrize("above", [False, True])
def test_the_run_cache_keeps_nothing_that_was_made_of_other_files(layout: Layout, above: bool):
    """Also none whose file has gone, or where DVC was set up in a folder above the project."""
    if above:
        options = ("init", "--no-scm", "--quiet")
        subprocess.run([*dvc(), *options], cwd=layout.root.parent, env=environment(), check=True)
    else:
        set_up_dvc(layout)
    net = of_a_baseline(layout)
    net.write_bytes(b"weights")
    params = resolve_params(layout, [], None).params
    for remove in (False, True):
        for number, command in enumerate(("flame baselines", "flame compare")):
            run = dvc_cache(layout) / f"runs/aa/{number}/0"
            run.parent.mkdir(parents=True, exist_ok=True)
            run.write_text(f"cmd: {command}\n")
        with noting(params, layout, "baselines"):
            if remove:
                net.unlink()
        assert of_run_cache(layout) == ["cmd: flame compare"]
    with noting(params, layout, "baselines"):  # sees that it has gone
        (dvc_cache(layout) / "runs/aa/0/0").write_text("cmd: flame baselines\n")
    assert of_run_cache(layout) == ["cmd: flame compare"]


@pytest.mark.parametrize(("rank", "told"), [(0, ["train@student"]), (1, [])])
def test_of_several_nodes_only_the_first_records_a_training(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, rank: int, told: list[str]
):
    set_up_dvc(layout)
    of_a_teacher(layout).write_bytes(b"weights")
    recorded: list[str] = []
    monkeypatch.chdir(layout.root)
    monkeypatch.setattr(links, "require_links", lambda *_: None)
    monkeypatch.setattr(train, "run", lambda *_, recipe: None)
    monkeypatch.setattr(recorded_stage, "record_stage", lambda _, stage: recorded.append(stage))
    for name, value in {"TRAIN_NODES": 2, "NODE_RANK": rank, "RENDEZVOUS": "localhost:1"}.items():
        monkeypatch.setenv(f"FLAME_{name}", str(value))
    settings.cache_clear()
    try:
        _run_stage("train", recipe="student")
    finally:
        settings.cache_clear()
    assert recorded == told and (layout.state / "sources").exists() == bool(told)


def test_texts_of_new_benchmarks_are_recorded(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    """Else `flame run` would check out the store without them."""
    set_up_dvc(layout)
    recorded: list[str] = []
    monkeypatch.chdir(layout.root)
    monkeypatch.setattr(embed_texts, "run", lambda *_: None)
    monkeypatch.setattr(recorded_stage, "record_stage", lambda _, stage: recorded.append(stage))
    _run_stage("embed_texts")
    assert recorded == ["embed"]


def flame(layout: Layout, *arguments: str, code: int = 0) -> str:
    own = {**os.environ, **environment(), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "flame_core", *arguments], cwd=layout.root, env=own, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def keys(layout: Layout) -> list[str]:
    return sorted(row.key for split in ("train", "val") for row in read_index(layout.shards, split))


def test_a_run_reads_what_has_changed_and_old_params_bring_no_old_pictures_back(layout: Layout, tmp_path: Path):
    set_up_dvc(layout)
    pictures = tmp_path / "pictures"
    flame(layout, "run", "ingest")
    assert len(keys(layout)) == 10
    add(pictures, 10, 11)
    (pictures / "3.png").unlink()
    (pictures / "3.txt").unlink()
    assert "mine changed since it was read" in flame(layout, "status", code=1)
    said = flame(layout, "run", "ingest")
    assert "download looks again at mine" in said and len(keys(layout)) == 11
    assert "looks again" not in flame(layout, "run", "ingest")
    add(tmp_path / "more", 20)
    params = read_yaml(layout.params)
    both = merge(params, {"sources": {"more": {"kind": "folder", "path": "../more"}}})
    layout.params.write_text(yaml.safe_dump(both))
    add(pictures, 12)
    flame(layout, "run", "ingest")
    assert len(keys(layout)) == 13
    layout.params.write_text(yaml.safe_dump(params))
    flame(layout, "run", "ingest")
    assert len(keys(layout)) == 12  # of the folder as it is, not as it was under these params
    said = flame(layout, "run", "ingest", "--set", "ingest.max_side=64")
    assert "looks again" not in said and "'download' is cached" in said
    workspace = next((layout.state / "runs").iterdir())
    assert len(keys(Layout.find(workspace))) == 12
    (pictures / "12.png").unlink()
    flame(layout, "download")  # by hand, as messages advise
    assert "looks again" not in flame(layout, "run", "ingest")
    assert len(keys(layout)) == 11
