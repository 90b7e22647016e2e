from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from flame_core import gates
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.params import TextTowerParams, load_params
from flame_core.pipeline import run_pipeline
from flame_core.planning.status import pipeline_status
from flame_core.workspace import open_workspace, require_dvc, resolve_params

ROOT = Path(__file__).parent.parent


@pytest.fixture
def layout(tmp_path) -> Layout:
    for name in ("params.yaml", "dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "versions.yaml", tmp_path / "versions.yaml")
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    with (tmp_path / ".dvc/config").open("a") as config:
        config.write("    no_scm = true\n")
    return Layout.find(tmp_path)


def test_overrides_are_laid_over_key_by_key_and_typed_by_yaml(layout):
    resolved = resolve_params(layout, ["train.epochs=5", "evaluate.languages=[de, fr]"], None)
    assert resolved.params.train["flame"].epochs == 5
    assert resolved.params.evaluate.languages == ["de", "fr"]
    assert resolved.params.ingest == resolve_params(layout, [], None).params.ingest


def test_an_override_that_no_recipe_takes_is_refused(layout):
    of_clip = "train.by_recipe.clip.text_tower"
    mine = ["recipes=[clip]", f"{of_clip}={{width: 96, depth: 1, heads: 3, max_tokens: 16}}"]
    shadowed = (
        "--set train.text_tower.depth=7: has no effect, since train.by_recipe sets train.text_tower.depth for every"
    )
    with pytest.raises(ParamsError, match=re.escape(shadowed)):
        resolve_params(layout, [*mine, "train.text_tower.depth=7"], None)
    with pytest.raises(ParamsError, match=r"train\.text_tower for every listed recipe"):
        resolve_params(layout, [*mine, "train.text_tower=null"], None)
    same = resolve_params(layout, [*mine, "train.text_tower.depth=1", "train.epochs=3"], None)
    assert same.params.train["clip"].text_tower == TextTowerParams(width=96, depth=1, heads=3, max_tokens=16)
    assert same.params.train["clip"].epochs == 3
    both = resolve_params(layout, ["recipes=[clip, flame]", "train.by_recipe.clip.epochs=2", "train.epochs=3"], None)
    assert [both.params.train[name].epochs for name in ("clip", "flame")] == [2, 3]


def test_equal_params_have_one_digest_however_they_are_written(layout):
    one = resolve_params(layout, ["train.epochs=5", "train.seed=1"], None)
    other = resolve_params(layout, ["train.seed=1", "train.epochs=5"], None)
    assert one.params.digest == other.params.digest != resolve_params(layout, [], None).params.digest
    a_default = f"ingest.max_pixels={one.params.ingest.max_pixels}"
    spelled_out = resolve_params(layout, ["train.epochs=5", "train.seed=1", a_default], None)
    assert spelled_out.params.digest == one.params.digest


def test_a_stage_of_the_projects_own_finds_its_files_in_a_workspace(layout, monkeypatch):
    with (layout.root / "dvc.yaml").open("a") as pipeline:
        pipeline.write("\n  mine:\n    cmd: cp words.txt mine\n    deps: [words.txt]\n    outs: [mine]\n")
    (layout.root / "words.txt").write_text("a word")
    root = open_workspace(layout, resolve_params(layout, ["train.epochs=5"], None)).root
    monkeypatch.chdir(root)
    with Repo(root) as repo:
        repo.reproduce("mine")
    assert (root / "mine").read_text() == "a word"
    (layout.root / "words.txt").write_text("another")
    with Repo(root) as repo:
        assert "mine" in repo.status("mine")


def test_a_workspace_holds_its_own_params_and_shares_the_caches(layout):
    resolved = resolve_params(layout, ["train.epochs=5"], None)
    workspace = open_workspace(layout, resolved)
    assert workspace.root == layout.project / ".flame/runs" / resolved.params.digest
    assert workspace.project == layout.project
    assert workspace.work == layout.work
    assert load_params(workspace) == resolved.params
    config = (workspace.root / ".dvc/config").read_text()
    assert (workspace.root / ".dvc" / config.split("dir = ")[1].strip()).resolve() == layout.project / ".dvc/cache"
    assert load_params(layout) == resolve_params(layout, [], None).params  # the project's own are untouched


def test_an_out_that_a_stage_of_a_workspace_is_writing_is_not_put_back(layout):
    resolved = resolve_params(layout, ["train.epochs=5"], None)
    root = open_workspace(layout, resolved).root
    listing = json.dumps([{"md5": hashlib.md5(b"old").hexdigest(), "relpath": "old"}]).encode()
    for content, ending in ((b"old", ""), (listing, ".dir")):
        md5 = hashlib.md5(content).hexdigest()
        kept = layout.project / ".dvc/cache/files/md5" / md5[:2] / f"{md5[2:]}{ending}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(content)
    outs = [{"path": "data/shards", "hash": "md5", "md5": f"{md5}.dir", "size": 3, "nfiles": 1}]
    locked = {"schema": "2.0", "stages": {"ingest": {"cmd": "flame ingest", "outs": outs}}}
    (root / "dvc.lock").write_text(yaml.safe_dump(locked))
    held = root / ".dvc/tmp/rwlock"
    held.parent.mkdir(exist_ok=True)
    other = subprocess.Popen(["sleep", "60"])
    try:
        for cmd, at_work in (("/bin/sleep 60", True), ("/bin/dvc repro", False)):  # the second has ended
            held.write_text(json.dumps({"write": {str(root / "data/shards"): {"pid": other.pid, "cmd": cmd}}}))
            open_workspace(layout, resolved)
            assert (root / "data/shards/old").exists() is not at_work
    finally:
        other.kill()
        other.communicate()


def test_a_new_workspace_takes_over_what_its_params_do_not_change(layout):
    content = yaml.safe_load(layout.params.read_text())
    shards = {"cmd": "flame ingest", "params": {"params.yaml": {"ingest": content["ingest"]}}, "outs": []}
    model = {"cmd": "flame train flame", "params": {"params.yaml": {"train": content["train"]}}, "outs": []}
    gone = {"cmd": "flame old", "outs": []}
    locked = {"schema": "2.0", "stages": {"ingest": shards, "train@flame": model, "old": gone}}
    (layout.root / "dvc.lock").write_text(yaml.safe_dump(locked))
    workspace = open_workspace(layout, resolve_params(layout, ["train.epochs=5"], None))
    assert yaml.safe_load((workspace.root / "dvc.lock").read_text()) == {"schema": "2.0", "stages": {"ingest": shards}}
    (workspace.root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")  # it has run
    open_workspace(layout, resolve_params(layout, ["train.epochs=5"], None))
    assert "ingest" not in (workspace.root / "dvc.lock").read_text()
    (layout.root / "dvc.lock").write_text("stages: [")
    other = open_workspace(layout, resolve_params(layout, ["train.epochs=6"], None))
    assert not (other.root / "dvc.lock").exists()


def test_relative_paths_resolve_against_the_project(layout):
    workspace = open_workspace(layout, resolve_params(layout, ["train.epochs=5"], None))
    assert workspace.resolve("pictures") == layout.project / "pictures"
    assert workspace.shards == workspace.root / "data/shards"


def test_a_preset_is_a_whole_params_file(layout):
    preset = layout.project / "mine.yaml"
    content = yaml.safe_load(layout.params.read_text())
    content["train"]["epochs"] = 2
    preset.write_text(yaml.safe_dump(content))
    assert resolve_params(layout, [], preset).params.train["flame"].epochs == 2


@pytest.mark.parametrize(
    "preset", ["flickr8k", "flickr8k.yaml", "presets/flickr8k.yaml", "{root}/presets/flickr8k.yaml"]
)
def test_a_preset_is_given_by_name_or_path(layout, preset):
    shutil.copytree(ROOT / "presets", layout.project / "presets")
    resolved = resolve_params(layout, [], preset.format(root=layout.project))
    assert list(resolved.params.sources) == ["flickr8k"]


def test_an_unknown_preset_names_the_known_ones(layout):
    shutil.copytree(ROOT / "presets", layout.project / "presets")
    with pytest.raises(
        ParamsError,
        match=r"preset 'flickr' does not exist \(known presets: cc3m-vitb16, demo-curation, demo-gemma, d",
    ):
        resolve_params(layout, [], "flickr")


def outs(workspace: Layout) -> dict[str, bool]:
    """The outs of a workspace as DVC sees them, and whether its cache keeps them."""
    with Repo(str(workspace.root)) as repo:
        return {Path(out.fs_path).name: out.use_cache for stage in repo.index.stages for out in stage.outs}


def test_shards_and_embeddings_stay_out_of_the_cache_where_params_say_so(layout):
    assert all(outs(open_workspace(layout, resolve_params(layout, ["train.epochs=5"], None))).values())
    for name in ("cc3m-vitb16", "yfcc15m-vitb16"):
        workspace = open_workspace(layout, resolve_params(layout, [], ROOT / f"presets/{name}.yaml"))
        kept = outs(workspace)
        assert {out for out, cached in kept.items() if not cached} == {"shards", "embeddings"}
        assert kept["raw"]
        assert kept["flame"]


def test_a_run_in_a_workspace_ends_with_the_place_of_its_results(layout, monkeypatch, caplog):
    monkeypatch.setattr("flame_core.repro.run.reproduce", lambda root, targets: 0)
    caplog.set_level("INFO", "flame_core")
    assert run_pipeline(layout, [], ["train.epochs=5"], None) == 0
    where = f".flame/runs/{resolve_params(layout, ['train.epochs=5'], None).params.digest}"
    assert caplog.messages[-1].startswith(f"results: {where}/data; `cd {where}` before ")
    caplog.clear()
    assert run_pipeline(layout, [], [], None) == 0 and not any("results:" in said for said in caplog.messages)


def test_a_benchmark_that_cannot_be_asked_stops_a_run_before_its_first_stage(layout, monkeypatch):
    monkeypatch.setattr("flame_core.repro.run.reproduce", lambda root, targets: pytest.fail("a stage ran"))
    unknown = ["evaluate.benchmarks.names=[urban-1k, urban-2k]"]
    with pytest.raises(ParamsError, match=r"^evaluate\.benchmarks\.names\.1: no benchmark 'urban-2k'"):
        run_pipeline(layout, [], unknown, None)
    content = yaml.safe_load(layout.params.read_text())
    content["text"]["template"] = {"raw": content["text"]["template"]["raw"]}
    content["text"]["train_kinds"] = content["train"]["kinds"] = ["raw"]
    content["evaluate"]["benchmarks"]["names"] = ["urban-1k"]
    layout.params.write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=r"names\.0: urban-1k asks facets of the 'long' template.*urban-1k@single$"):
        run_pipeline(layout, [], [], None)
    assert not layout.state.exists()


def test_a_mistake_stops_before_a_workspace_exists(layout):
    with pytest.raises(ParamsError, match="epoch"):
        resolve_params(layout, ["train.epoch=5"], None)
    assert not layout.state.exists()


def test_names_of_recipes_are_quoted_for_the_shell(layout):
    """DVC reads params.yaml itself, before any validation of ours."""
    names = ["flame", "x; touch pwned", "$(touch pwned)", "it's", "--help"]
    for name in names:
        shutil.copy(ROOT / "recipes/flame.yaml", layout.recipes / f"{name}.yaml")
    layout.params.write_text(yaml.safe_dump({**yaml.safe_load(layout.params.read_text()), "recipes": names}))
    stages = {stage.name: stage.cmd for stage in Repo(str(layout.root)).index.stages}
    for command in ("train", "evaluate"):
        found = [cmd for name, cmd in stages.items() if name.startswith(f"{command}@")]
        assert [shlex.split(cmd) for cmd in found] == [["flame", command, "--recipe", name] for name in names]


def test_a_run_ends_with_the_checks_of_the_stages_of_its_sections(layout, monkeypatch, capsys):
    monkeypatch.setattr("flame_core.repro.run.reproduce", lambda root, targets: 0)
    for overrides, shown in ((["tune={recipes: [flame]}"], True), (["train.epochs=3"], False)):  # else they are old
        heads = open_workspace(layout, resolve_params(layout, overrides, None)).root / "data/heads"
        heads.mkdir(parents=True)
        check = gates.Check("tune_learned/flame", False, "x", blocking=False)
        (heads / gates.CHECKS).write_bytes(gates.to_bytes([check]))
        assert run_pipeline(layout, [], overrides, None) == 0
        assert ("data/heads (does not block): tune_learned/flame" in capsys.readouterr().err) == shown


def test_a_project_without_dvcs_folder_says_how_to_make_it(layout):
    shutil.rmtree(layout.root / ".dvc")
    for ask in (
        lambda: run_pipeline(layout, [], [], None),
        lambda: run_pipeline(layout, [], ["train.epochs=1"], None),
        lambda: pipeline_status(layout),
    ):
        with pytest.raises(ParamsError, match=r"has no \.dvc/, .*`dvc init --no-scm`"):
            ask()
    assert not (layout.root / ".flame").exists()


def test_a_project_in_a_folder_that_dvc_cannot_work_in_is_refused(tmp_path: Path):
    with pytest.raises(ParamsError, match=r"a\{b: DVC does not work where a path has \{ or \}"):
        require_dvc(Layout.find(tmp_path / "a{b"))
