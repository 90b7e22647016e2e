"""A teacher's vectors that are stored before the first step, and replayed with the crops that they are of."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from flame_core.data.shards import Index, read_index
from flame_core.errors import InputError
from flame_core.layout import Layout
from flame_core.objectives.batch import Batch
from flame_core.objectives.stored_teacher import ABOUT, StoredTeacher, StoredVectors
from flame_core.objectives.teacher import open_teacher, taught
from flame_core.params import TrainParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.text.store import TrainStore
from flame_core.training.assembly import assemble
from flame_core.training.linked_folders import LinkedFolders
from flame_core.training.loader import TrainingSamples
from flame_core.training.loop import train
from flame_core.training.made_batch import MadeTexts
from flame_core.training.recipe_check import recipe_faults
from flame_core.training.teacher_vectors import crop_origin, store_teacher_vectors
from flame_core.verification import write_digests
from tests.bits import flip
from tests.training.distilled import distilled_recipe, write_teacher
from tests.training.processes import on_ranks
from tests.training.test_seam import assert_alike
from tests.training.world import FACETS, HIDDEN, recipe, write_world

IDENTITY = {"model.safetensors": "as it was"}


@pytest.fixture
def layout(tmp_path, monkeypatch) -> Layout:
    """A project with two dozen pictures, their texts, and the teacher in `teacher`."""
    monkeypatch.setenv("FLAME_DEVICE", "cpu")
    made = Layout.find(tmp_path)
    write_world(tmp_path / "data")
    write_digests(made.shards)
    write_teacher(tmp_path / "teacher")
    return made


def crops_of(copies: int | None, **changes) -> TrainParams:
    augmentation = {"scale": [0.3, 1.0], "flip": 0.5}
    return distilled_recipe(teacher={"path": "teacher", "copies": copies}, augmentation=augmentation, **changes)


def stored(
    layout: Layout, params: TrainParams, identity: dict[str, str] = IDENTITY, rows: list[int] | None = None
) -> Path:
    index = read_index(layout.shards, "train")
    selected = index if rows is None else Index(index.table.take(pa.array(rows)))
    return store_teacher_vectors(layout, params, index, selected, layout.root / "teacher", identity)


def samples(layout: Layout, params: TrainParams, folder: Path | None) -> TrainingSamples:
    index = read_index(layout.shards, "train")
    vectors = None if folder is None else StoredVectors(folder)
    return TrainingSamples(
        index, layout.shards, TrainStore(layout.embeddings), range(len(FACETS)), params, None, vectors
    )


def trained(ranks: Ranks, layout: Layout, params: TrainParams, folder: Path | None, where: Path) -> dict:
    teacher = folder or layout.root / "teacher"
    found = train(
        samples(layout, params, folder), params, where / str(ranks.world), ranks, linked=LinkedFolders(teacher)
    )
    return {"weights": dict(found.tower.state_dict()), "metrics": found.metrics}


def features(layout: Layout, batch: Batch, reads: list[str]) -> dict[str, Tensor]:
    seen = open_teacher(layout.root / "teacher").look(batch, reads, None)
    return {taught(name): seen.extra[taught(name)] for name in reads}


def test_as_many_crops_as_epochs_train_as_the_teacher_itself_does(layout):
    """Equal but for the order of additions: the teacher sees other batches than the training. Nothing else is drawn."""
    affinity = {"name": "affinity", "scale": 20.0, "teacher_scale": 20.0}
    online, replayed = (crops_of(copies, terms=[affinity, {"name": "feature"}]) for copies in (None, 2))
    beside = trained(ALONE, layout, online, None, layout.root / "online")
    folder = stored(layout, replayed)
    assert_alike(trained(ALONE, layout, replayed, folder, layout.root / "replayed"), beside)
    for of_rank in on_ranks(2, trained, layout.root, layout, replayed, folder, layout.root / "ranks"):
        assert_alike(of_rank, beside)


def test_crops_are_replayed_with_their_vectors_and_texts_are_drawn_anew(layout):
    params = crops_of(2, epochs=5)
    own = samples(layout, params, stored(layout, params))
    plain = samples(layout, crops_of(None, epochs=5), None)
    places = range(8)
    batches = [own[[(epoch, number) for number in places]].on("cpu") for epoch in range(5)]
    for epoch, batch in enumerate(batches):
        as_ever = plain[[(epoch % 2, number) for number in places]].on("cpu")
        assert torch.equal(batch.pictures, as_ever.pictures) and torch.equal(batch.boxes, as_ever.boxes)
        assert torch.equal(batch.texts, as_ever.texts) == (epoch < 2)
        for name, expected in features(layout, batch, ["pooled", "z"]).items():
            torch.testing.assert_close(batch.extra[name], expected, atol=1e-6, rtol=1e-5)
    assert not torch.equal(batches[0].pictures, batches[1].pictures)
    assert not torch.equal(batches[2].texts, batches[4].texts)
    mixed = own[[(3, 1), (0, 2)]].on("cpu").extra[taught("z")]
    assert torch.equal(mixed, torch.stack([batches[1].extra[taught("z")][1], batches[0].extra[taught("z")][2]]))


def test_the_teacher_is_not_in_memory(layout):
    params = crops_of(1)
    folder = stored(layout, params)
    assembly = assemble(params, MadeTexts(params, HIDDEN), 1, 8, 24, LinkedFolders(folder))
    teacher = assembly.objective.teacher
    assert isinstance(teacher, StoredTeacher) and not list(teacher.parameters())
    assert teacher.sizes == {"pooled": 40, "z": HIDDEN} and teacher.weights > 10_000
    assert not any(path.name == "model.safetensors" for path in folder.rglob("*"))


def test_what_is_there_is_not_computed_again(layout):
    params = crops_of(1, epochs=4)
    stored(layout, params)
    units = set((layout.work / "train").glob("[!.]*"))
    assert len(units) == 1
    stored(layout, crops_of(3, epochs=4))
    assert len(set((layout.work / "train").glob("[!.]*"))) == 3 and units < set((layout.work / "train").glob("[!.]*"))
    again = StoredVectors(stored(layout, crops_of(9, epochs=4)))
    assert again.about.crops == 4  # at most one for each epoch
    (layout.root / "teacher/config.json").unlink()
    stored(layout, params)  # whole: nothing is opened


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 3}, "are of seed 0 instead of 3: remove this folder, and the training stores its own"),
        ({"augmentation": {"scale": [0.5, 1.0]}}, "'scale': [0.3, 1.0]} instead of "),
        ({"terms": [{"name": "affinity"}]}, "are of features ['pooled', 'z'] instead of ['z']"),
        ({"precision": "bfloat16"}, "are of precision 'float32' instead of 'bfloat16'"),
    ],
)
def test_vectors_of_other_crops_are_refused(layout, other, message):
    params = crops_of(1)
    folder, index = stored(layout, params), read_index(layout.shards, "train")
    changed = TrainParams.model_validate(params.model_dump() | other)
    assert stored(layout, changed) != folder
    with pytest.raises(InputError) as caught:
        StoredVectors(folder).require(index, crop_origin(changed))
    assert message in str(caught.value) and str(folder) in str(caught.value)


def test_vectors_of_another_teacher_or_other_shards_are_refused(layout):
    params = crops_of(1)
    folder, other = stored(layout, params), stored(layout, params, {"model.safetensors": "another"})
    for path in folder.rglob("*"):
        if path.is_file():
            (other / path.relative_to(folder)).write_bytes(path.read_bytes())  # a cache that somebody moved here
    with pytest.raises(InputError, match=r"of teacher \{'model.safetensors': 'as it was'\} instead of"):
        stored(layout, params, {"model.safetensors": "another"})
    fewer = Index(read_index(layout.shards, "train").table.slice(0, 20))
    with pytest.raises(InputError, match=r"crop-0: aligned with other shards; run `flame train` again"):
        StoredVectors(folder).require(fewer, {})


@pytest.mark.parametrize("what", [ABOUT, "crop-0/00000.safetensors"])
def test_damaged_vectors_are_stored_again(layout, what):
    params = crops_of(1)
    folder = stored(layout, params)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    flip(folder / what, 40, 0)  # of the unit in the cache as well, as a hard link is
    if what == ABOUT:
        (folder / ABOUT).write_text("{}")
    assert stored(layout, params) == folder
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_only_selected_samples_are_shown_to_the_teacher(layout):
    params = crops_of(1)
    vectors = StoredVectors(stored(layout, params, rows=[4, 9]))
    found = vectors.read([("train/00000.tar", row) for row in range(24)], [0] * 24)[taught("z")]
    assert found.any(dim=1).nonzero().flatten().tolist() == [4, 9]
    whole = StoredVectors(stored(layout, params)).read([("train/00000.tar", 9)], [0])[taught("z")]
    torch.testing.assert_close(found[9:10], whole)


def test_stored_vectors_that_no_term_reads_are_a_mistake():
    teacher = {"path": "teacher", "copies": 2}
    (fault,) = recipe_faults(recipe(teacher=teacher))
    assert fault.key == ("teacher", "copies") and "no term of the recipe learns from the teacher" in fault.message
    assert not list(recipe_faults(distilled_recipe(teacher=teacher)))
    assert recipe(teacher=teacher).identity["teacher"] == {"copies": 2}
    assert recipe(teacher={"path": "teacher"}).identity == recipe().identity
