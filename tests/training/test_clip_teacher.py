"""A CLIP of another project teaches: its pictures online, its own vectors of the captions as a second bank."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flame_core.captions.table import read_captions
from flame_core.data.shards import read_index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.layout import Layout
from flame_core.objectives.affinity import affinity_loss
from flame_core.objectives.batch import Moment
from flame_core.objectives.clip_teacher import TEACHER_TEXTS, ClipTeacher
from flame_core.params import Params, TrainParams
from flame_core.processes.ranks import ALONE
from flame_core.stages import embed, train
from flame_core.suite.models.model import open_model
from flame_core.training.assembly import assemble
from flame_core.training.linked_folders import LinkedFolders
from flame_core.training.made_batch import MadeTexts, made_batch
from flame_core.training.teacher_texts import store_teacher_texts
from flame_core.vision.views import MEAN, STD
from tests.bits import flip
from tests.stages.pipeline import captioned_project
from tests.suite import tiny_clip
from tests.training.distilled import SMALL
from tests.training.world import recipe

AFFINITY = {"name": "affinity", "scale": 20.0, "teacher_scale": 20.0}


@pytest.fixture(scope="module", params=["clip", "siglip"])
def world(request, tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout, Path]]:
    """A project with captions and embeddings, whose recipe `student` learns from a tiny CLIP in a folder."""
    root = tmp_path_factory.mktemp("taught")
    clip = tiny_clip.save(root / "clip", byte_tokenizer, request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = captioned_project(root / "project", byte_tokenizer, 24)
        evaluate = params.evaluate.model_copy(update={"languages": []})
        params = with_recipe(params.model_copy(update={"evaluate": evaluate}), clip)
        embed.run(params, layout)
        yield params, layout, clip


def student(clip: Path, **changes) -> TrainParams:
    base = {
        "model": {"backbone_options": SMALL, "image_size": 16},
        "objective": {"name": "infonce"},
        "terms": [AFFINITY, {"name": "feature"}],
        "teacher": {"model": f"transformers:{clip}"},
        "gates": {"max_loss_ratio": 100.0},
        "epochs": 2,
    }
    return recipe(**base | changes)


def with_recipe(params: Params, clip: Path, **changes) -> Params:
    return params.model_copy(update={"recipes": ["student"], "train": {"student": student(clip, **changes)}})


def test_a_student_is_trained_and_known_by_its_teachers_files(world):
    params, layout, clip = world
    train.run(params, layout, "student")
    config = json.loads((layout.model("student") / "config.json").read_text())
    assert config["data"]["teacher"] == dict(open_model("t", f"transformers:{clip}", "cpu").identity)
    assert config["recipe"]["teacher"] == {"model": f"transformers:{clip}"}
    before = {path.name for path in (layout.work / "train").glob("[!.]*")}
    train.run(params, layout, "student")
    assert {path.name for path in (layout.work / "train").glob("[!.]*")} == before


def test_a_sample_has_the_mean_of_its_captions_vectors(world):
    params, layout, clip = world
    index = read_index(layout.shards, "train")
    own = params.train["student"]
    found = store_teacher_texts(params, layout, own, index, f"transformers:{clip}")
    sidecar = Sidecar(found.folder)
    sidecar.require_aligned(index)
    row = index[3]
    texts = [
        caption.text
        for caption in read_captions(layout.captions / Path(row.shard).with_suffix(".parquet"))
        if caption.row == row.row and caption.language == params.evaluate.train_language and caption.kind in own.kinds
    ]
    vectors = open_model("t", f"transformers:{clip}", "cpu").texts("raw", texts)
    expected = F.normalize(torch.from_numpy(vectors.mean(axis=0)), dim=0)
    torch.testing.assert_close(sidecar.read([(row.shard, row.row)])[0].float(), expected, atol=1e-3, rtol=1e-2)


def test_damaged_texts_are_stored_again(world):
    params, layout, clip = world
    own, index = params.train["student"], read_index(layout.shards, "train")
    folder = store_teacher_texts(params, layout, own, index, f"transformers:{clip}").folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    flip(next(folder.glob("*.safetensors")), 40, 0)
    assert store_teacher_texts(params, layout, own, index, f"transformers:{clip}").folder == folder
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_affinities_are_those_of_the_teachers_own_pictures_and_texts(world):
    params, layout, clip = world
    own = params.train["student"]
    index = read_index(layout.shards, "train")
    found = store_teacher_texts(params, layout, own, index, f"transformers:{clip}")
    texts = MadeTexts(own, 16)
    assembly = assemble(own, texts, 1, 8, 24, LinkedFolders(found.folder))
    assert isinstance(assembly.objective.teacher, ClipTeacher)
    bank = Sidecar(found.folder).read([(index[i].shard, index[i].row) for i in range(8)])
    made = made_batch(own, texts, 8).with_extra(**{TEACHER_TEXTS: bank})
    batch = assembly.objective.prepare(made, assembly.tower, Moment(0, 1, 1), ALONE)
    z = assembly.tower.eval().z(made.pictures[:, 0])
    share = assembly.objective({"z": z[:, None], "t": made.texts}, batch, ALONE)["affinity"]

    from transformers import AutoModel

    model = AutoModel.from_pretrained(clip)
    processor = json.loads((clip / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(processor[name])[:, None, None] for name in ("image_mean", "image_std"))
    larger = F.interpolate(made.pictures[:, 0], (32, 32), mode="bicubic", antialias=True)
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=((larger * STD + MEAN) - mean) / std)
    pictures = F.normalize(seen if isinstance(seen, torch.Tensor) else seen.pooler_output, dim=-1)
    logits = 20 * torch.einsum("id,jkd->ijk", z[:, 0], made.texts)
    torch.testing.assert_close(share, affinity_loss(logits, 20 * (pictures @ bank.float().T)[..., None]))
    assert share.requires_grad and share.item() > 0
    mapped = assembly.objective.terms["feature"].map
    assert isinstance(mapped, torch.nn.Linear) and mapped.out_features == pictures.shape[1]


def test_its_pictures_vectors_may_be_stored_as_well(world):
    params, layout, clip = world
    teacher = {"model": f"transformers:{clip}", "copies": 1}
    train.run(with_recipe(params, clip, teacher=teacher), layout, "student")
    (folder,) = (layout.work / "teacher-vectors").iterdir()
    about = json.loads((folder / "teacher.json").read_text())
    assert (
        about["where"] == f"transformers:{clip}"
        and about["origin"]["teacher"].keys() == dict(open_model("t", f"transformers:{clip}", "cpu").identity).keys()
    )
    lines = (layout.model("student") / "metrics.jsonl").read_text().splitlines()
    assert all("loss/affinity" in json.loads(line) for line in lines)


def test_a_model_that_changed_after_its_texts_were_stored(world, byte_tokenizer, tmp_path):
    params, layout, _ = world
    index = read_index(layout.shards, "train")
    other = tiny_clip.save(tmp_path / "other", byte_tokenizer)
    found = store_teacher_texts(params, layout, params.train["student"], index, f"transformers:{other}")
    tiny_clip.save(other, byte_tokenizer, projection=20)
    with pytest.raises(InputError, match=r"other has changed since its texts were stored"):
        assemble(params.train["student"], MadeTexts(params.train["student"], 16), 1, 8, 24, LinkedFolders(found.folder))


def test_what_a_foreign_teacher_cannot_do_is_refused_with_the_recipe(world):
    params, layout, clip = world
    with pytest.raises(ParamsError, match=r"feature pooled: a model of another project shows only its z"):
        train.run(with_recipe(params, clip, terms=[{"name": "feature", "feature": "pooled"}]), layout, "student")
    large = {"backbone_options": SMALL | {"embed_dim": 96, "depth": 4}, "image_size": 16}
    with pytest.raises(ParamsError, match=r"the student's backbone has .* more than its teacher's"):
        train.run(with_recipe(params, clip, model=large), layout, "student")
    with pytest.raises(ResourceError, match=r"nowhere is no folder here, and the hub did not give it"):
        train.run(with_recipe(params, Path("nowhere")), layout, "student")


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"model": "timm:vit_base"}, "a backbone of timm has no texts"),
        ({"model": "torchvision:vit"}, "is no kind of teacher: write transformers:"),
        ({"model": "transformers:"}, "is no kind of teacher"),
        ({"model": "open_clip:ViT-B-32"}, "names no weights: write open_clip:<architecture>@"),
        ({"model": "transformers:x", "recipe": "flame"}, "name one teacher: a recipe, a path or a model"),
        ({}, "name one teacher"),
    ],
)
def test_kinds_of_teachers(teacher, message):
    with pytest.raises(ValueError, match=message):
        recipe(teacher=teacher)


def test_a_bank_is_of_unit_vectors(world):
    params, layout, clip = world
    index = read_index(layout.shards, "train")
    found = store_teacher_texts(params, layout, params.train["student"], index, f"transformers:{clip}")
    values = Sidecar(found.folder).read([(row.shard, row.row) for row in index]).numpy()
    assert np.linalg.norm(values.astype(np.float32), axis=1) == pytest.approx(1, abs=2e-3)


def test_a_clips_texts_are_distilled_into_the_layers_behind_the_llm(world):
    params, layout, clip = world
    width = open_model("t", f"transformers:{clip}", "cpu").picture_side().dim
    changes = {
        "model": {"backbone_options": SMALL, "image_size": 16, "head": "cls"},
        "text_projection": {"layers": 2, "hidden": 20, "dim": width},
        "objective": {"name": "infonce", "during": [0.5, 1.0]},
        "terms": [
            {"name": "text_distillation", "during": [0.0, 0.5]},
            {"name": "self_distillation", "during": [0.5, 1.0]},
        ],
    }
    train.run(with_recipe(params, clip, **changes), layout, "student")
    steps = [json.loads(line) for line in (layout.model("student") / "metrics.jsonl").read_text().splitlines()]
    half = len(steps) // 2
    assert all("loss/text_distillation" in row and "loss/infonce" not in row for row in steps[:half])
    assert all("loss/infonce" in row and "loss/text_distillation" not in row for row in steps[half:])
    assert json.loads((layout.model("student") / "config.json").read_text())["dim"] == width
    wrong = {**changes, "text_projection": {"layers": 2, "hidden": 20, "dim": width + 1}}
    with pytest.raises(ParamsError, match=f"set it to {width}"):
        train.run(with_recipe(params, clip, **wrong), layout, "student")
