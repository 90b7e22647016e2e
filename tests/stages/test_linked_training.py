"""A training with a teacher, sidecars or a selection: known by their content, which is verified before it is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from flame_core.data.shards import read_index
from flame_core.data.sidecars import gather_sidecar, write_values
from flame_core.digest import file_sha256, text_sha256, value_digest, write_json
from flame_core.errors import GateError, InputError, ParamsError
from flame_core.export.about import About
from flame_core.export.formats import export
from flame_core.export.subject import subject_of
from flame_core.layout import Layout
from flame_core.model.locate import model_of_run
from flame_core.objectives import term_classes
from flame_core.objectives.term import Needs, Term
from flame_core.params import Params, TermParams
from flame_core.stages import embed, link, train
from flame_core.training.job import TrainingJob
from flame_core.verification import read_digests, write_digests
from flame_core.vision.block_sizes import sizes_of
from flame_core.vision.image_encoder import load_tower
from flame_core.work import Unit, UnitRecord, WorkCache
from tests.bits import flip
from tests.stages.pipeline import captioned_project
from tests.training.world import recipe

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer")  # of a term that params do not know
TEACHER = ("config.json", "model.safetensors")


class LabelledParams(TermParams):
    name: Literal["labelled"] = "labelled"


class Labelled(Term):
    """A term that notes the label of each key that it meets, and asks for nothing."""

    seen: ClassVar[dict[str, int]] = {}

    @classmethod
    def needs(cls, params):
        return Needs(sidecars=("labels",))

    def forward(self, features, batch, ranks):
        self.seen.update(zip(batch.keys, batch.extra["labels"].tolist(), strict=True))
        return {"nothing": features["z"].sum() * 0}


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """Shards and embeddings, a trained recipe `plain`, and `student`, which learns from it."""
    root = tmp_path_factory.mktemp("linked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = captioned_project(root, byte_tokenizer, 24)
        plain = recipe(gates={"max_loss_ratio": 100.0}, epochs=2)
        params = params.model_copy(
            update={
                "recipes": ["plain", "student"],
                "train": {"plain": plain, "student": plain},
                "evaluate": params.evaluate.model_copy(update={"languages": []}),
            }
        )
        params = linked(params, teacher={"recipe": "plain"})
        embed.run(params, layout)
        train.run(params, layout, "plain")
        yield params, layout


def linked(params: Params, **links) -> Params:
    """The params with other links of `student`."""
    content = {**params.train["plain"].model_dump(), **links}
    return params.model_copy(update={"train": {**params.train, "student": recipe(**content)}})


def trainings(layout: Layout) -> set[str]:
    return {path.name for path in (layout.work / "train").glob("[!.]*")}


def data_of(layout: Layout, name: str) -> dict:
    return json.loads((layout.model(name) / "config.json").read_text())["data"]


def test_a_student_is_known_by_its_teachers_content_and_others_as_before(world, tmp_path):
    params, layout = world
    train.run(params, layout, "student")
    assert data_of(layout, "student") == {
        **data_of(layout, "plain"),
        "teacher": {name: file_sha256(layout.model("plain") / name) for name in TEACHER},
    }
    config = json.loads((layout.model("plain") / "config.json").read_text())
    assert config["data"].keys() == {"shards", "embeddings"} and "teacher" not in config["recipe"]

    before = trainings(layout)
    shutil.copytree(layout.model("plain"), tmp_path / "elsewhere")
    train.run(linked(params, teacher={"path": str(tmp_path / "elsewhere")}), layout, "student")
    assert trainings(layout) == before  # wherever the teacher lies

    other = params.train["plain"].model_copy(update={"seed": 1})
    changed = params.model_copy(update={"train": {**params.train, "plain": other}})
    try:
        train.run(changed, layout, "plain")
        train.run(changed, layout, "student")
        assert len(trainings(layout) - before) == 2
    finally:
        train.run(params, layout, "plain")
    train.run(params, layout, "student")
    assert len(trainings(layout) - before) == 2


def test_the_job_is_told_where_the_teacher_is(world, monkeypatch):
    params, layout = world
    told: list[Path | None] = []
    run = TrainingJob.run
    monkeypatch.setattr(TrainingJob, "run", lambda job: (told.append(job.links.get("teacher")), run(job))[1])
    shutil.rmtree(layout.work / "train")
    for name in ("plain", "student"):
        train.run(params, layout, name)
    assert told == [None, layout.model("plain")]


def test_a_teachers_vectors_are_stored_before_the_first_step(world, monkeypatch):
    """The model is known by its teacher's files as ever, and by how many crops there are."""
    params, layout = world
    link = {"recipe": "plain", "copies": 2}
    distilled = linked(params, terms=[{"name": "affinity"}], teacher=link)
    told: list[Path] = []
    run = TrainingJob.run
    monkeypatch.setattr(TrainingJob, "run", lambda job: (told.append(job.links["teacher"]), run(job))[1])
    train.run(distilled, layout, "student")
    (stored,) = told
    assert stored.parent == layout.work / "teacher-vectors"
    assert sorted(path.name for path in stored.iterdir()) == ["crop-0", "crop-1", "teacher.json"]
    config = json.loads((layout.model("student") / "config.json").read_text())
    assert config["recipe"]["teacher"] == link and config["data"]["teacher"].keys() == set(TEACHER)
    before = trainings(layout)
    train.run(distilled, layout, "student")
    assert trainings(layout) == before and len(told) == 1
    train.run(linked(params, terms=[{"name": "affinity"}], teacher=link, seed=4), layout, "student")
    assert len(trainings(layout) - before) == 1 + 2 * len(read_index(layout.shards, "train").shard_sizes())


@pytest.fixture
def teacher(world, tmp_path) -> tuple[Params, Layout, Path]:
    """A copy of the teacher, which may be damaged, as the teacher of `student`."""
    params, layout = world
    folder = tmp_path / "teacher"
    shutil.copytree(layout.model("plain"), folder)
    return linked(params, teacher={"path": str(folder)}), layout, folder


def test_an_exported_model_teaches_as_the_trained_one(world, tmp_path):
    """Distillation from the folder of `flame export` ends with the same weights; such a folder may be damaged too."""
    params, layout = world
    distilled = {"terms": [{"name": "affinity"}], "teacher": {"path": str(layout.model("plain"))}}
    train.run(linked(params, **distilled), layout, "student")
    weights = (layout.model("student") / "model.safetensors").read_bytes()
    subject = subject_of(model_of_run(params, layout, "plain"), None)
    export(subject, About(summary="", body=""), "safetensors", tmp_path / "exported")
    exported = linked(params, **{**distilled, "teacher": {"path": str(tmp_path / "exported")}})
    train.run(exported, layout, "student")
    assert (layout.model("student") / "model.safetensors").read_bytes() == weights
    config = json.loads((layout.model("student") / "config.json").read_text())
    assert config["data"]["teacher"] == {name: file_sha256(tmp_path / "exported" / name) for name in TEACHER}
    flip(tmp_path / "exported/model.safetensors", 400, 3)
    with pytest.raises(InputError, match=r"exported/model\.safetensors is damaged"):
        train.run(exported, layout, "student")


def test_a_damaged_teacher_is_refused(teacher):
    params, layout, folder = teacher
    flip(folder / "model.safetensors", 400, 3)
    with pytest.raises(InputError, match=r"teacher/model\.safetensors is damaged"):
        train.run(params, layout, "student")


@pytest.mark.parametrize("name", TEACHER)
def test_a_folder_that_is_no_model_is_refused(teacher, name):
    params, layout, folder = teacher
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is missing, so there is no teacher: .*folder of a model"):
        train.run(params, layout, "student")


def test_a_teacher_that_learned_nothing_is_refused(teacher):
    params, layout, folder = teacher
    checks = json.loads((folder / "checks.json").read_text())
    write_json(folder / "checks.json", [{**check, "passed": False} for check in checks])
    with pytest.raises(GateError, match="loss_went_down"):
        train.run(params, layout, "student")


@pytest.mark.parametrize(("key", "value"), [("layer", 7), ("hidden", 3), ("llm", {"name": "another"})])
def test_a_teacher_of_another_llms_space_is_refused(teacher, key, value):
    params, layout, folder = teacher
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, key: value})
    write_digests(folder)
    before = trainings(layout)
    with pytest.raises(InputError, match=rf"another LLM's space(?s:.*){key}: the teacher has .*, the embeddings have"):
        train.run(params, layout, "student")
    assert trainings(layout) == before


def store_labels(layout: Layout, origin: str) -> None:
    """A sidecar of the training samples, as a stage gathers it."""
    index = read_index(layout.shards, "train")
    cache = WorkCache(layout.work, "train")

    def unit(rows: int) -> Unit:
        def write(folder: Path) -> UnitRecord:
            write_values(folder, "labels", np.arange(rows))
            return UnitRecord()

        return cache.compute(value_digest([origin, rows]), write)

    units = {shard: unit(rows) for shard, rows in index.shard_sizes().items()}
    gather_sidecar(layout.data / "sidecars/labels", layout.state, units, index, "cluster", {"by": origin})


@pytest.fixture
def labelled(monkeypatch) -> Callable[[Params], Params]:
    """Gives `student` the term that reads labels."""
    monkeypatch.setitem(term_classes(), "labelled", Labelled)
    Labelled.seen.clear()

    def with_term(params: Params) -> Params:
        student = params.train["student"].model_copy(update={"terms": [LabelledParams()]})
        return params.model_copy(update={"train": {**params.train, "student": student}})

    return with_term


def test_a_term_reads_the_values_of_the_selected_samples(world, labelled, tmp_path):
    params, layout = world
    store_labels(layout, "rows")
    index = read_index(layout.shards, "train")
    rows = {row.key: row.row for row in index}
    chosen = sorted(rows)[::2]
    pq.write_table(pa.table({"key": chosen}), tmp_path / "keys.parquet")
    sidecars = {"labels": "data/sidecars/labels"}
    train.run(labelled(linked(params, sidecars=sidecars, selection=str(tmp_path / "keys.parquet"))), layout, "student")
    assert {key: rows[key] for key in chosen}.items() >= Labelled.seen.items()
    assert len(Labelled.seen) >= min(8, len(chosen))
    assert json.loads((layout.model("student") / "config.json").read_text())["samples"] == len(chosen)


def test_a_term_and_the_recipe_name_the_same_sidecars(world, labelled):
    params, layout = world
    store_labels(layout, "unread")
    before = trainings(layout)
    with pytest.raises(ParamsError, match=r"labelled reads the sidecar 'labels'.*sidecars: \{labels:"):
        train.run(labelled(linked(params)), layout, "student")
    with pytest.raises(ParamsError, match="no term of the recipe reads the sidecar 'labels'"):
        train.run(linked(params, sidecars={"labels": "data/sidecars/labels"}), layout, "student")
    assert trainings(layout) == before


def test_sidecars_and_a_selection_are_known_by_their_content_too(world, labelled, tmp_path):
    params, layout = world
    sidecar, keys = layout.data / "sidecars/labels", tmp_path / "keys.parquet"
    store_labels(layout, "first")
    index = read_index(layout.shards, "train")
    chosen = index.table["key"].to_pylist()[::2]
    pq.write_table(pa.table({"key": chosen[::-1]}), keys)
    changed = labelled(linked(params, sidecars={"labels": "data/sidecars/labels"}, selection=str(keys)))
    train.run(changed, layout, "student")
    first = data_of(layout, "student")
    assert first["selection"] == text_sha256("".join(f"{key}\n" for key in sorted(chosen)))
    before = trainings(layout)
    pq.write_table(pa.table({"key": chosen}), keys)
    train.run(changed, layout, "student")
    assert trainings(layout) == before  # the same keys in another order
    assert first.keys() == {"shards", "embeddings", "sidecars.labels", "selection"}
    values = sidecar / "00000.safetensors"
    flip(values, values.stat().st_size - 1, 3)
    with pytest.raises(InputError, match=r"labels/00000\.safetensors is damaged"):
        train.run(changed, layout, "student")
    store_labels(layout, "second")
    train.run(changed, layout, "student")
    second = data_of(layout, "student")
    assert {key for key in first if first[key] != second[key]} == {"sidecars.labels"}
    pq.write_table(pa.table({"key": ["nowhere"]}), keys)
    with pytest.raises(InputError, match="nowhere"):
        train.run(changed, layout, "student")
    keys.unlink()
    with pytest.raises(InputError, match=r"keys\.parquet is missing, the selection"):
        train.run(changed, layout, "student")


def smaller(params: Params, **inherit) -> Params:
    """`student` has half of the size of `plain`, and begins with its weights."""
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 1}
    model = {"backbone_options": options, "image_size": 16}
    return linked(params, model=model, inherit={"recipe": "plain", **inherit})


def test_a_tower_that_inherits_is_known_by_the_weights_it_began_with(world):
    params, layout = world
    before = trainings(layout)
    train.run(smaller(params), layout, "student")
    own, source = (load_file(layout.model(name) / "model.safetensors") for name in ("student", "plain"))
    assert data_of(layout, "student")["inherit"] == {
        name: file_sha256(layout.model("plain") / name) for name in TEACHER
    }
    report = json.loads((layout.model("student") / "inherited.json").read_text())
    assert report.keys() == own.keys()
    assert report["backbone.norm_pre.weight"] == "backbone.norm_pre.weight: first 12 of 24"
    began = source["backbone.norm_pre.weight"][:12]  # a few steps do not move it far
    torch.testing.assert_close(own["backbone.norm_pre.weight"], began, atol=0.05, rtol=0)
    train.run(smaller(params, blocks="interval"), layout, "student")
    assert len(trainings(layout) - before) == 1
    train.run(smaller(params, blocks=[1]), layout, "student")
    assert len(trainings(layout) - before) == 2
    assert json.loads((layout.model("student") / "inherited.json").read_text())["backbone.blocks.0.norm1.bias"] == (
        "backbone.blocks.1.norm1.bias: first 12 of 24"
    )


def test_towers_are_pruned_one_after_the_other(world):
    """`student` keeps at most 70 % of the blocks of `plain`, `last` 45 %: each begins with what the one before left."""
    params, layout = world
    masks = {"name": "learned_masks", "share": 0.7}
    first = linked(params, inherit={"recipe": "plain"}, terms=[masks | {"keep": 0.7}], epochs=60)
    second = linked(params, inherit={"recipe": "student"}, terms=[masks | {"keep": 0.45}], epochs=60)
    first.train["last"] = second.train["student"]
    found = []
    for name in ("student", "last"):
        train.run(first, layout, name)
        tower, config = load_tower(layout.model(name))
        assert "sizes" not in config["recipe"]["model"] and not (layout.model(name) / "sizes.json").exists()
        sizes = sizes_of(tower.backbone)
        assert config["sizes"] == sizes.model_dump()
        steps = (layout.model(name) / "metrics.jsonl").read_text().splitlines()
        found.append((sizes, [json.loads(step)["learned_masks/size"] for step in steps]))
        assert tower.z(torch.zeros(1, 3, 16, 16)).shape == (1, 1, config["hidden"])
    (one, size), (two, smaller) = found
    assert 0.5 <= size[-1] <= 0.7 and 0.3 <= smaller[-1] <= 0.45
    assert smaller[0] <= size[-1] + 1e-9
    assert two.width <= one.width and all(a <= b for a, b in zip(two.heads, one.heads, strict=True))
    with pytest.raises(ParamsError, match=r"keep 0.9, and the tower begins with"):
        train.run(
            linked(params, inherit={"path": str(layout.model("last"))}, terms=[masks | {"keep": 0.9}], epochs=60),
            layout,
            "student",
        )


def test_a_head_of_another_llms_space_is_not_inherited(world, tmp_path):
    params, layout = world
    shutil.copytree(layout.model("plain"), tmp_path / "old")
    config = json.loads((tmp_path / "old/config.json").read_text())
    write_json(tmp_path / "old/config.json", {**config, "llm": {"name": "another"}})
    write_digests(tmp_path / "old")
    old = {"recipe": None, "path": str(tmp_path / "old")}
    with pytest.raises(InputError, match=r"another LLM's space than these.*inherit.projector: false(?s:.*)llm: this"):
        train.run(smaller(params, **old), layout, "student")
    train.run(smaller(params, **old, projector=False), layout, "student")
    report = json.loads((layout.model("student") / "inherited.json").read_text())
    assert {name for name, origin in report.items() if origin == "new"} == {
        name for name in report if name.startswith("projector.")
    }


def test_a_link_makes_the_recipe_with_the_digests(world):
    params, layout = world
    source = layout.recipes / "linked/student.yaml"
    source.parent.mkdir(parents=True, exist_ok=True)
    (layout.recipes / "plain.yaml").write_text("epochs: 2\n")
    source.write_text("# by hand\nteacher: {recipe: plain}\n")
    link.run(params, layout, "student")
    made = layout.recipes / "student.yaml"
    digests = read_digests(layout.model("plain"))
    assert yaml.safe_load(made.read_text()) == {
        "teacher": {"recipe": "plain"},
        "linked": {"teacher": {name: digests[name] for name in TEACHER}},
    }
    assert made.read_text().startswith("# Made by `flame link student` from recipes/linked/student.yaml: edit that")
    assert [path.name for path in layout.recipes.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(ParamsError, match=r"plain\.yaml: only a recipe in recipes/linked/"):
        link.run(params, layout, "plain")
