"""Upgrades of a project whose files were edited, as if the package had other files when the project was made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flame_core import cli
from flame_core.errors import ParamsError
from flame_core.files.whole_files import put
from flame_core.graph.versions import require_versions
from flame_core.layout import Layout
from flame_core.params import read_yaml
from flame_core.project.record import RECORD, read_record, record_text, shipped_files
from flame_core.project.upgrade import plan_upgrade, said

ROOT = Path(__file__).parents[2]
OWN_STAGE = "\n  mine:\n    cmd: python mine.py\n    outs: [data/mine]\n"


@pytest.fixture
def old(tmp_path) -> dict[str, str]:
    """A project of an older package: another version of `train`, no stage `compare`, one recipe less."""
    files = shipped_files()
    train = next(line for line in files["versions.yaml"].splitlines() if line.startswith("train:"))
    files["versions.yaml"] = files["versions.yaml"].replace(train, "train: 1")
    files["dvc.yaml"] = files["dvc.yaml"].partition("\n  compare:")[0]
    files["recipes/flame.yaml"] = files["recipes/flame.yaml"].replace("epochs: 32", "epochs: 30")
    del files["recipes/lift.yaml"]
    for name, text in {**files, "params.yaml": (ROOT / "params.yaml").read_text(), RECORD: record_text(files)}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return files


def upgraded(root: Path) -> dict[str, str]:
    """{file: how it was changed}"""
    planned = plan_upgrade(root)
    planned.apply()
    return {change.name: change.how for change in planned.changes}


def test_this_repository_is_a_project_with_nothing_to_upgrade():
    planned = plan_upgrade(ROOT)
    assert not planned.needed, "\n".join([*said(planned), "`flame upgrade --yes` here renews what follows from code"])


def test_what_a_link_made_is_not_shipped(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "dvc.yaml").symlink_to(ROOT / "dvc.yaml")
    before = shipped_files().keys()
    for path in (ROOT / "recipes/linked").glob("*.yaml"):
        (tmp_path / "recipes" / path.name).write_text("made by `flame link`")
    monkeypatch.setattr("flame_core.project.record.shipped", lambda name: tmp_path / name)
    assert shipped_files().keys() == before and any("linked" in name for name in before)


def test_where_the_files_are_made_those_from_code_are_renewed(tmp_path, monkeypatch):
    for name in ("dvc.yaml", "params.yaml", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".env.example").write_text("# FLAME_OLD=1\n")
    monkeypatch.setattr("flame_core.project.upgrade.shipped", lambda name: tmp_path / name)
    assert upgraded(tmp_path) == {"versions.yaml": "new", ".env.example": "replaced"}
    assert not (tmp_path / RECORD).exists() and not plan_upgrade(tmp_path).needed


def test_files_that_nobody_edited_become_the_new_ones(old, tmp_path):
    with pytest.raises(ParamsError, match="flame upgrade"):
        require_versions(Layout.find(tmp_path))
    assert upgraded(tmp_path) == {
        "dvc.yaml": "replaced",
        "versions.yaml": "replaced",
        "recipes/flame.yaml": "replaced",
        "recipes/lift.yaml": "new",
    }
    assert {name: (tmp_path / name).read_text() for name in shipped_files()} == shipped_files()
    assert read_record(tmp_path) == shipped_files()
    require_versions(Layout.find(tmp_path))
    assert not plan_upgrade(tmp_path).needed


def test_own_stages_metas_and_values_stay_beside_what_is_new(old, tmp_path):
    own = old["dvc.yaml"].replace("cmd: flame ingest", "cmd: flame ingest --retry-failed") + OWN_STAGE
    (tmp_path / "dvc.yaml").write_text(own)
    (tmp_path / "recipes/flame.yaml").write_text(old["recipes/flame.yaml"].replace("seed: 0", "seed: 7"))
    how = upgraded(tmp_path)
    assert (how["dvc.yaml"], how["recipes/flame.yaml"]) == ("merged", "merged")
    stages = yaml.safe_load((tmp_path / "dvc.yaml").read_text())["stages"]
    assert stages.keys() == {*yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"], "mine"}
    assert stages["ingest"]["cmd"] == "flame ingest --retry-failed" and stages["mine"]["cmd"] == "python mine.py"
    recipe = read_yaml(tmp_path / "recipes/flame.yaml")
    assert (recipe["epochs"], recipe["seed"]) == (32, 7)
    assert not plan_upgrade(tmp_path).needed


def test_what_cannot_be_merged_stays_and_waits_beside(old, tmp_path):
    own = old["recipes/flame.yaml"].replace("epochs: 30", "epochs: 3")
    (tmp_path / "recipes/flame.yaml").write_text(own)
    (tmp_path / "dvc.yaml").write_text(old["dvc.yaml"] + "\n  compare:\n    cmd: python mine.py\n")  # a double key
    before = (tmp_path / "dvc.yaml").read_text()
    how = upgraded(tmp_path)
    assert (how["dvc.yaml"], how["recipes/flame.yaml"]) == ("beside", "beside")
    assert (tmp_path / "recipes/flame.yaml").read_text() == own and (tmp_path / "dvc.yaml").read_text() == before
    assert (tmp_path / "dvc.yaml.new").read_text() == shipped_files()["dvc.yaml"]
    with pytest.raises(ParamsError, match=r"dvc.yaml.new, recipes/flame.yaml.new of the last upgrade waits"):
        plan_upgrade(tmp_path)
    with pytest.raises(ParamsError, match=r"dvc.yaml.new waits since `flame upgrade`"):
        require_versions(Layout.find(tmp_path))
    for name in ("dvc.yaml.new", "recipes/flame.yaml.new"):
        (tmp_path / name).unlink()
    assert not plan_upgrade(tmp_path).needed  # a person has decided


@pytest.mark.parametrize("finished", range(5))
def test_an_upgrade_that_was_killed_is_run_again(old, tmp_path, monkeypatch, finished):
    """Also where it has written a `.new`, which only waits for a person once all is written."""
    dvc = (tmp_path / "dvc.yaml").read_text()
    (tmp_path / "dvc.yaml").write_text(dvc + "\n  compare:\n    cmd: mine\n")  # where the new one has its own
    written = []

    def killed(path: Path, content: bytes) -> None:
        if len(written) == finished:
            raise KeyboardInterrupt
        written.append(path.name)
        put(path, content)

    planned = plan_upgrade(tmp_path)
    with monkeypatch.context() as cut:
        cut.setattr("flame_core.project.upgrade.put", killed)
        with pytest.raises(KeyboardInterrupt):
            planned.apply()
    assert len(planned.changes) == 4 and (finished == 0 or "dvc.yaml.new" in written)
    again = upgraded(tmp_path)
    assert again["dvc.yaml"] == "beside" and len(again) == (4 if finished < 2 else 5 - finished)
    assert read_record(tmp_path) == shipped_files()
    with pytest.raises(ParamsError, match=r"dvc.yaml.new of the last upgrade waits"):
        plan_upgrade(tmp_path)


def test_without_a_record_an_edited_file_is_not_touched(old, tmp_path):
    (tmp_path / RECORD).unlink()
    (tmp_path / "recipes/flame.yaml").write_text("epochs: 1\n")
    how = upgraded(tmp_path)
    assert how["recipes/flame.yaml"] == "unknown" and how["versions.yaml"] == "replaced"
    assert (tmp_path / "recipes/flame.yaml").read_text() == "epochs: 1\n"
    assert read_record(tmp_path) == shipped_files()


@pytest.mark.parametrize("edit", ["train: 99\n", "- a\n", "<<<<<<< HEAD\ntrain: 2\n=======\ntrain: 3\n>>>>>>> other\n"])
def test_versions_that_were_edited_are_those_of_the_code_again(old, tmp_path, edit):
    upgraded(tmp_path)
    (tmp_path / "versions.yaml").write_text(shipped_files()["versions.yaml"].replace("train: ", f"x: 1\n{edit}y: "))
    with pytest.raises(ParamsError, match="`flame upgrade`"):
        require_versions(Layout.find(tmp_path))
    assert said(plan_upgrade(tmp_path))[-1] == "versions.yaml is replaced; it says which code is installed"
    upgraded(tmp_path)
    require_versions(Layout.find(tmp_path))


def test_a_file_in_which_a_merge_left_a_conflict_is_not_up_to_date(old, tmp_path):
    upgraded(tmp_path)
    for name in ("dvc.yaml", "recipes/clip.yaml"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(f"<<<<<<< HEAD\n{text}=======\n>>>>>>> other\n")
        with pytest.raises(ParamsError, match=f"{name}, line 1: a merge left a conflict"):
            plan_upgrade(tmp_path)
        (tmp_path / name).write_text(text)


def test_deleted_recipes_stay_deleted_and_linked_ones_where_they_are(old, tmp_path):
    (tmp_path / "recipes/clip.yaml").unlink()
    (tmp_path / "recipes/linked").mkdir(exist_ok=True)
    (tmp_path / "recipes/lift-cosine.yaml").rename(tmp_path / "recipes/linked/lift-cosine.yaml")
    assert {"recipes/clip.yaml", "recipes/lift-cosine.yaml"}.isdisjoint(upgraded(tmp_path))


@pytest.mark.parametrize("made", [False, True])
def test_a_recipe_that_was_moved_to_the_linked_ones_gets_what_is_new_there(old, tmp_path, made):
    own = old["recipes/flame.yaml"].replace("seed: 0", "seed: 7")
    (tmp_path / "recipes/flame.yaml").unlink()
    (tmp_path / "recipes/linked/flame.yaml").write_text(own)
    if made:  # as `flame link` makes it
        (tmp_path / "recipes/flame.yaml").write_text(yaml.safe_dump({**yaml.safe_load(own), "linked": {"teacher": {}}}))
    before = {path: path.read_bytes() for path in (tmp_path / "recipes").glob("*.yaml")}
    how = upgraded(tmp_path)
    assert how["recipes/linked/flame.yaml"] == "merged" and "recipes/flame.yaml" not in how
    recipe = read_yaml(tmp_path / "recipes/linked/flame.yaml")
    assert (recipe["epochs"], recipe["seed"]) == (32, 7)
    assert {path: path.read_bytes() for path in before} == before
    assert not plan_upgrade(tmp_path).needed


def test_a_recipe_of_ones_own_is_not_joined_by_a_linked_one_of_its_name(old, tmp_path):
    files = {name: text for name, text in old.items() if name != "recipes/linked/lit.yaml"}
    (tmp_path / RECORD).write_text(record_text(files))
    (tmp_path / "recipes/linked/lit.yaml").unlink()
    (tmp_path / "recipes/lit.yaml").write_text("epochs: 1\n")
    told = said(plan_upgrade(tmp_path))[-1]
    assert told.startswith("recipes/lit.yaml stays as it is, because no record says that it came with the package")
    assert upgraded(tmp_path)["recipes/lit.yaml"] == "unknown"
    assert (tmp_path / "recipes/lit.yaml").read_text() == "epochs: 1\n"
    assert (tmp_path / "recipes/lit.yaml.new").read_text() == shipped_files()["recipes/linked/lit.yaml"]
    assert not (tmp_path / "recipes/linked/lit.yaml").exists()
    with pytest.raises(ParamsError, match=r"recipes/lit.yaml.new of the last upgrade waits"):
        plan_upgrade(tmp_path)


def test_a_deleted_linked_recipe_stays_deleted_beside_what_its_link_made(old, tmp_path):
    (tmp_path / "recipes/linked/lit.yaml").unlink()
    (tmp_path / "recipes/lit.yaml").write_text("linked: {init: {}}\n")
    assert not [name for name in upgraded(tmp_path) if "lit.yaml" in name]


def test_the_change_is_shown_as_a_diff_and_in_words(old, tmp_path):
    shown = "\n".join(said(plan_upgrade(tmp_path)))
    assert "--- a/recipes/flame.yaml\n+++ b/recipes/flame.yaml" in shown
    assert "-epochs: 30\n+epochs: 32" in shown and "recipes/lift.yaml is new" in shown


def test_the_command_shows_asks_and_does(old, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "recipes")  # any folder of the project

    def upgrade(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, ["upgrade", *arguments])
        return done.exit_code, done.output

    before = (tmp_path / "dvc.yaml").read_text()
    code, said = upgrade("--check")
    assert code == 1 and "dvc.yaml is replaced; it was as it came" in said
    code, said = upgrade()  # no terminal
    assert code == 1 and "nothing was changed; `flame upgrade --yes` does it" in said
    assert (tmp_path / "dvc.yaml").read_text() == before
    code, said = upgrade("--yes")
    assert code == 0 and "done" in said and (tmp_path / "dvc.yaml").read_text() != before
    assert upgrade("--check") == (0, f"{tmp_path} is up to date\n")


def test_no_project_is_told(tmp_path):
    with pytest.raises(ParamsError, match=r"is no project: it lacks dvc.yaml or params.yaml; `flame init` makes one"):
        plan_upgrade(tmp_path)


def test_a_damaged_record_is_told(old, tmp_path):
    (tmp_path / RECORD).write_text("files: [1]\n")
    with pytest.raises(ParamsError, match="is damaged: restore it, or delete it"):
        plan_upgrade(tmp_path)
