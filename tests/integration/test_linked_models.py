"""A student on the small real graph: from sources to a version whose lineage names its teacher, and made again."""

from __future__ import annotations

import pytest
import yaml

from flame_core.digest import file_sha256
from flame_core.layout import Layout
from flame_core.params import read_yaml
from flame_core.tracking.store import local_address
from tests.integration.conftest import Project, Tracked

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def taught(project: Project) -> Tracked:
    """The project after a tracked run of `flame` and `student`, which learns from it."""
    project.change({"recipes": ["flame", "student"]})
    recipe = read_yaml(project.root / "recipes/flame.yaml")
    (project.root / "recipes/linked").mkdir(exist_ok=True)
    (project.root / "recipes/linked/student.yaml").write_text(
        yaml.safe_dump({**recipe, "seed": 1, "teacher": {"recipe": "flame"}})
    )
    said = project.flame("params", "check", code=2)
    with (project.root / "dvc.yaml").open("a") as pipeline:
        pipeline.write(said.split("\n\n", 1)[1])
    made = Tracked(project.root, local_address(Layout.find(project.root)))
    made.flame("run")
    return made


def test_the_lineage_of_a_student_goes_through_its_teacher(taught: Tracked) -> None:
    found = taught.lineage("data/models/student")
    assert found["verified"]
    (teacher,) = (link for link in found["links"] if link["name"] == "teacher")
    assert teacher["status"] == "verified"
    sha256 = file_sha256(taught.root / "data/models/flame/model.safetensors")
    assert teacher["facts"]["model.safetensors sha256"] == sha256
    assert "teacher" not in [link["name"] for link in taught.lineage("data/models/flame")["links"]]


def test_a_student_is_made_again_from_its_teacher(taught: Tracked) -> None:
    said = taught.flame("reproduce", "data/models/student")
    assert "the same" in said
    (place,) = (taught.root / ".flame/reproduce").iterdir()
    student, teacher = (place / f"data/models/{name}/model.safetensors" for name in ("student", "flame"))
    assert file_sha256(student) == file_sha256(taught.root / "data/models/student/model.safetensors")
    assert file_sha256(teacher) == file_sha256(taught.root / "data/models/flame/model.safetensors")


def test_another_teacher_in_the_tree_leaves_the_lineage_as_it_was(taught: Tracked) -> None:
    run = taught.client.search_runs(["1"], "tags.`flame.recipe` = 'student'")[0].info.run_id
    (taught.root / "recipes/flame.yaml").write_text(
        yaml.safe_dump({**read_yaml(taught.root / "recipes/flame.yaml"), "seed": 7})
    )
    taught.flame("run", "train@flame")
    (teacher,) = (link for link in taught.lineage(f"runs:/{run}")["links"] if link["name"] == "teacher")
    assert (teacher["status"], teacher["facts"]["found in"]) == ("verified", "cache")
