"""Links of recipes in the real `dvc.yaml`: refusals with the lines to write, and the graph in DVC and Dagster."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from flame_core.dvc_project.project import DvcProject
from flame_core.errors import ParamsError
from flame_core.graph.links import linked_pipeline, links, require_links, require_stages
from flame_core.layout import Layout
from flame_core.params import load_params
from flame_core.pipeline import run_pipeline
from flame_core.workspace import open_workspace, resolve_params
from orchestration.dagster_dvc.assets import asset_key
from orchestration.project_definitions import build

ROOT = Path(__file__).parents[2]
STUDENT = "teacher: {recipe: flame}\nsidecars: {labels: data/sidecars/labels}\nselection: keys.parquet\n"


@pytest.fixture
def layout(tmp_path) -> Layout:
    """The real pipeline and params, with a recipe `student` beside `flame`, which DVC is not told of."""
    for name in ("params.yaml", "dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "recipes/linked").mkdir(exist_ok=True)
    (tmp_path / "recipes/linked/student.yaml").write_text(STUDENT)
    shutil.copy(ROOT / "versions.yaml", tmp_path / "versions.yaml")
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    with (tmp_path / ".dvc/config").open("a") as config:
        config.write("    no_scm = true\n")
    made = Layout.find(tmp_path)
    lists(made, "flame", "student")
    return made


def lists(layout: Layout, *names: str) -> None:
    content = yaml.safe_load(layout.params.read_text())
    layout.params.write_text(yaml.safe_dump({**content, "recipes": list(names)}, sort_keys=False))


def refused(layout: Layout) -> str:
    with pytest.raises(ParamsError) as caught:
        require_links(layout, load_params(layout))
    return str(caught.value)


def follow(layout: Layout) -> None:
    """Append to `dvc.yaml`, whose last section is `stages`, what the error says."""
    with (layout.root / "dvc.yaml").open("a") as pipeline:
        pipeline.write(refused(layout).split("\n\n", 1)[1])


def edges(root: Path) -> set[tuple[str, str]]:
    """(stage, upstream) of DVC's own graph."""
    with Repo(str(root)) as repo:
        return {(stage.name, up.name) for stage, up in repo.index.graph.edges}


def test_a_target_that_is_no_stage_is_refused_by_name(layout):
    require_stages(layout, ["train", "train@flame", "data/raw", "dvc.yaml:ingest", "params.yaml"])
    with pytest.raises(ParamsError, match=r"no stage 'trian@flame'; .* has download, "):
        require_stages(layout, ["ingest", "trian@flame"])
    for section in ("caption_lm", "caption-lm"):  # its likeliest stage is `caption`
        with pytest.raises(
            ParamsError, match=rf"no stage '{section}'; there is one .* a section `caption_lm`; .* has "
        ):
            require_stages(layout, [section])


def test_an_unknown_link_is_refused_with_the_lines_to_write(layout):
    said = refused(layout)
    assert "recipes/linked/student.yaml needs " in said
    assert f"{layout.model('flame')} (teacher)" in said and "labels (sidecars.labels)" in said
    with pytest.raises(ParamsError, match="Write under `stages:`"):
        build(layout)  # Dagster's load
    with pytest.raises(ParamsError, match="Write under `stages:`"):
        run_pipeline(layout, ["train@student"], [], None)
    before = edges(layout.root)
    follow(layout)
    require_links(layout, load_params(layout))
    assert edges(layout.root) - before == {("link-student", "train@flame"), ("train@student", "link-student")}
    (found,) = (stage for stage in Repo(str(layout.root)).index.stages if stage.name == "link-student")
    paths = sorted(Path(dep.fs_path).relative_to(layout.root).as_posix() for dep in found.deps)
    assert paths == ["data/models/flame", "data/sidecars/labels", "keys.parquet", "recipes/linked/student.yaml"]


def test_dagster_shows_the_same_edges_before_anything_has_run(layout):
    follow(layout)
    stages = DvcProject(layout.root).stages()
    assert stages["train@student"].upstream == ("caption", "embed", "ingest", "link-student")
    assert "recipes/student.yaml" in stages["train@student"].deps
    assert stages["link-student"].upstream == ("train@flame",)
    definitions = build(layout)
    graph = definitions.resolve_asset_graph()
    link = asset_key("link-student")
    assert graph.get(link).parent_keys == {asset_key("train@flame")}
    assert link in graph.get(asset_key("train@student")).parent_keys
    retrained = definitions.resolve_job_def("retrain").asset_layer.selected_asset_keys
    assert {link, asset_key("train@student")} <= set(retrained)


def test_the_code_version_of_a_training_is_not_of_what_a_link_made(layout):
    follow(layout)
    before = DvcProject(layout.root).stages()["train@student"].code_version
    (layout.recipes / "student.yaml").write_text(STUDENT + "linked: {teacher: {model.safetensors: abc}}\n")
    assert DvcProject(layout.root).stages()["train@student"].code_version == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("data/models/flame", "data/models/other"),
        ("flame link", "true link"),
        ("outs: [recipes/student.yaml]", "outs: [recipes/studient.yaml]"),
    ],
)
def test_a_link_that_says_something_else_is_refused(layout, old, new):
    follow(layout)
    pipeline = layout.root / "dvc.yaml"
    head, stage = pipeline.read_text().split("link-student:")
    assert old in stage
    pipeline.write_text(head + "link-student:" + stage.replace(old, new))
    assert "in place of any other link-student" in refused(layout)


def test_what_is_left_over_is_refused(layout):
    follow(layout)
    lists(layout, "flame")
    assert "has the stage link-student, and no recipe student with links is listed" in refused(layout)
    lists(layout, "flame", "student")
    (layout.recipes / "linked/student.yaml").write_text("epochs: 3\n")
    assert "student.yaml needs no teacher, sidecars or selection" in refused(layout)


def test_everything_to_write_and_to_remove_is_told_at_once(layout):
    """One pasting is enough, in whatever order the stages stand."""
    for name in ("pupil", "plain"):
        (layout.recipes / f"linked/{name}.yaml").write_text(STUDENT if name == "pupil" else "epochs: 3\n")
    lists(layout, "flame", "student", "pupil", "plain")
    clusters(layout)
    said = refused(layout)
    assert "has a section `cluster`, and " in said and "plain.yaml needs no teacher" in said
    assert "in place of any other cluster, link-student, link-pupil:" in said
    follow(layout)
    assert "plain.yaml needs no teacher" in refused(layout) and "Write under" not in refused(layout)
    (layout.recipes / "linked/plain.yaml").rename(layout.recipes / "plain.yaml")
    require_links(layout, load_params(layout))
    lists(layout, "flame")
    assert "has the stage link-pupil, link-student, and no recipe pupil, student with links" in refused(layout)


def test_a_pipeline_that_is_no_yaml_is_named_with_its_line_and_not_asked_for_stages(layout):
    said = refused(layout)
    follow(layout)
    with (layout.root / "dvc.yaml").open("a") as pipeline:
        pipeline.write(said.split("\n\n", 1)[1])  # once more
    assert "dvc.yaml, line" in refused(layout) and "stages.link-student: the key is given twice" in refused(layout)
    assert "Write under" not in refused(layout)


def test_a_recipe_in_the_plain_folder_is_told_to_move(layout):
    (layout.recipes / "linked/student.yaml").rename(layout.recipes / "student.yaml")
    assert f"Move it to {layout.recipes}/linked/, from where DVC links it" in refused(layout)


def test_a_workspace_gets_the_links_of_its_own_recipes(layout):
    before = (layout.root / "dvc.yaml").read_bytes()
    opened = open_workspace(layout, resolve_params(layout, ["train.seed=1"], None))
    assert (layout.root / "dvc.yaml").read_bytes() == before
    require_links(opened, load_params(opened))
    assert load_params(opened).train["student"].seed == 1
    assert ("link-student", "train@flame") in edges(opened.root)
    (opened.recipes / "student.yaml").write_text(STUDENT + "linked: {}\n")  # as its link makes it
    assert open_workspace(layout, resolve_params(layout, ["train.seed=1"], None)) == opened
    assert "linked" in (opened.recipes / "student.yaml").read_text()
    plain = open_workspace(layout, resolve_params(layout, ["recipes=[flame]"], None))
    assert (plain.root / "dvc.yaml").read_bytes() == before
    follow(layout)
    plain = open_workspace(layout, resolve_params(layout, ["recipes=[flame]", "train.seed=2"], None))
    assert not any(name.startswith("link-") for edge in edges(plain.root) for name in edge)


def test_an_override_may_link_every_recipe_of_a_workspace(layout):
    lists(layout, "flame")
    opened = open_workspace(layout, resolve_params(layout, ["train.selection=kept/keys.parquet"], None))
    assert links(opened, load_params(opened).train["flame"]) == {"selection": layout.project / "kept/keys.parquet"}
    assert (opened.recipes / "linked/flame.yaml").read_bytes() == (layout.recipes / "flame.yaml").read_bytes()
    assert not (opened.recipes / "flame.yaml").exists()
    stage = yaml.safe_load((opened.root / "dvc.yaml").read_text())["stages"]["link-flame"]
    assert stage["deps"] == ["../../../kept/keys.parquet"]  # of the project, not of the workspace
    assert "link-flame" in DvcProject(opened.root).stages()["train@flame"].upstream


def test_without_links_the_pipeline_is_the_file_as_it_stands(layout):
    lists(layout, "flame")
    pipeline = (ROOT / "dvc.yaml").read_bytes()
    assert linked_pipeline(pipeline, layout, load_params(layout)) is pipeline
    require_links(layout, load_params(layout))


def clusters(layout: Layout, **values) -> None:
    content = yaml.safe_load(layout.params.read_text())
    layout.params.write_text(yaml.safe_dump({**content, "cluster": {"clusters": 8, **values}}, sort_keys=False))


def test_the_stage_cluster_is_there_if_params_have_the_section(layout):
    (layout.recipes / "linked/student.yaml").write_text("sidecars: {clusters: data/sidecars/clusters}\n")
    assert not any("cluster" in name for edge in edges(layout.root) for name in edge)
    clusters(layout)
    assert "has a section `cluster`, and " in refused(layout)
    assert "student.yaml needs " in refused(layout)
    follow(layout)  # with the link of the recipe that reads the labels
    require_links(layout, load_params(layout))
    assert {("cluster", "embed"), ("link-student", "cluster"), ("train@student", "link-student")} <= edges(layout.root)
    assert "cluster" in DvcProject(layout.root).stages()["link-student"].upstream
    graph = build(layout).resolve_asset_graph()
    assert graph.get(asset_key("link-student")).parent_keys == {asset_key("cluster")}
    assert asset_key("embed") in graph.get(asset_key("cluster")).parent_keys
    clusters(layout, vectors={"npy": "t.npy", "keys": "t.txt"})
    assert "in place of any other cluster" in refused(layout) and "t.npy" in refused(layout)
    content = yaml.safe_load(layout.params.read_text())
    layout.params.write_text(yaml.safe_dump({name: each for name, each in content.items() if name != "cluster"}))
    assert "has the stage cluster, and " in refused(layout)


def test_a_workspace_gets_the_stage_cluster_of_its_own_params(layout):
    (layout.recipes / "linked/student.yaml").write_text("sidecars: {clusters: data/sidecars/clusters}\n")
    opened = open_workspace(layout, resolve_params(layout, ["cluster.clusters=8"], None))
    require_links(opened, load_params(opened))
    assert ("link-student", "cluster") in edges(opened.root)


CODED = ["codes.tower.recipe=flame", "select.clusters=4", "select.selections.half.share=0.5"]


def test_a_recipe_on_a_selection_comes_after_the_stages_that_make_it(layout):
    (layout.recipes / "linked/student.yaml").write_text("selection: data/selections/half.parquet\n")
    opened = open_workspace(layout, resolve_params(layout, CODED, None))
    require_links(opened, load_params(opened))
    chain = {("codes", "train@flame"), ("codes", "ingest"), ("select", "codes"), ("select", "embed")}
    chain |= {("link-student", "select"), ("train@student", "link-student")}
    assert chain <= edges(opened.root)
    assert "select" in DvcProject(opened.root).stages()["link-student"].upstream
    checks = {(key.asset_key, key.name) for key in build(opened).resolve_asset_graph().asset_check_keys}
    assert {(asset_key("codes"), "codes_repeatable"), (asset_key("select"), "budgets_met")} <= checks
    plain = open_workspace(layout, resolve_params(layout, ["recipes=[flame]"], None))
    assert (plain.root / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()


SCORED = ["scores.scorers.ours={kind: tower, recipe: flame}", "scores.selections.good={ours: {top: 0.5}}"]


def test_a_recipe_on_samples_with_good_scores_comes_after_the_tower_that_scores(layout):
    linked = layout.recipes / "linked/student.yaml"
    linked.write_text("selection: data/scores/good.parquet\n")
    opened = open_workspace(layout, resolve_params(layout, SCORED, None))
    require_links(opened, load_params(opened))
    chain = {("scores", "train@flame"), ("scores", "ingest"), ("link-student", "scores")}
    assert chain | {("train@student", "link-student")} <= edges(opened.root)
    checks = {(key.asset_key, key.name) for key in build(opened).resolve_asset_graph().asset_check_keys}
    assert (asset_key("scores"), "scores_kept") in checks
    linked.write_text("selection: data/scores/best.parquet\n")
    with pytest.raises(ParamsError, match=r"best\.parquet: the section `scores` makes good\.parquet"):
        run_pipeline(layout, [], SCORED, None)
    linked.write_text("sampling: {name: weighted, weights: data/sidecars/score-ours}\n")
    with pytest.raises(ParamsError, match="student is trained by these scores, so neither can be first"):
        run_pipeline(layout, [], [SCORED[0].replace("flame", "student")], None)


def test_impossible_selections_are_refused_before_anything_runs(layout):
    linked = layout.recipes / "linked/student.yaml"
    linked.write_text("selection: data/selections/quarter.parquet\n")
    with pytest.raises(ParamsError, match=r"quarter\.parquet: the section `select` makes half\.parquet"):
        run_pipeline(layout, [], CODED, None)
    linked.write_text("selection: data/selections/half.parquet\n")
    for override, said in (
        (["codes.tower.recipe=student"], "student is trained on a selection by these codes, so neither can be first"),
        (["codes.tower.recipe=other"], "codes.tower: other is not among the recipes"),
        (["codes.frozen=data/codes"], "codes.frozen is this run's own out: copy it elsewhere"),
        (["select.counted=concepts"], "select.counted is concepts, which the stage `concepts` counts"),
        (["codes=null"], "select clusters what the stage `codes` makes: write a section codes as well"),
        (
            ["select.selections.half.filter={keep: 0.6}"],
            "half reads data/sidecars/similarity, which only codes.similarity: true makes",
        ),
        (["select.selections.half.filter={keep: 0.4}"], r"share 0\.5 of all samples is more than filter\.keep 0\.4"),
        (["semdedup={clusters: 4}"], "semdedup reads data/sidecars/features, which the stage `features` makes"),
    ):
        with pytest.raises(ParamsError, match=said):
            resolve_params(layout, [*CODED, *override], None)


@pytest.mark.parametrize("what", ["teacher", "inherit"])
def test_a_tower_of_codes_may_not_come_from_a_model_that_is_trained_on_them(layout, what):
    for name, source in (("middle", "student"), ("last", "middle")):
        (layout.recipes / f"linked/{name}.yaml").write_text(f"{what}: {{recipe: {source}}}\n")
    (layout.recipes / "linked/student.yaml").write_text("selection: data/selections/half.parquet\n")
    lists(layout, "flame", "student", "middle", "last")
    with pytest.raises(
        ParamsError, match=r"codes\.tower is last, and student is trained on a selection by these codes"
    ):
        resolve_params(layout, [*CODED, "codes.tower.recipe=last"], None)


def test_noise_domains_and_heads_are_stages_in_their_order_with_their_checks(layout):
    (layout.recipes / "linked/student.yaml").unlink()
    lists(layout, "flame", "noise-10")
    content = yaml.safe_load(layout.params.read_text())
    domain = {"source": {"kind": "folder", "path": "sketches"}}
    tune = {"recipes": ["flame"], "probed": ["noise-10"], "domains": ["sketches"]}
    sections = {"noise": {}, "domains": {"sketches": domain}, "tune": tune}
    layout.params.write_text(yaml.safe_dump({**content, **sections}, sort_keys=False))
    follow(layout)
    require_links(layout, load_params(layout))
    assert {
        ("noise", "ingest"), ("noise", "caption"), ("link-noise-10", "noise"), ("train@noise-10", "link-noise-10"),
        ("tune", "train@flame"), ("tune", "train@noise-10"), ("tune", "domains"), ("tune", "ingest"),
    } <= edges(layout.root)  # fmt: skip
    graph = build(layout).resolve_asset_graph()
    checks = {name: {check.name for check in graph.get(asset_key(name)).check_keys} for name in sections}
    assert checks["noise"] == {"noise_moves", "noise_tells"}
    assert checks["domains"] == {"domain_classes", "domain_readable"}
    assert {"tune_spectra", "tune_terms_active", "tune_svde_raised"} <= checks["tune"]
