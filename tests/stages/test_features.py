"""Vectors of a frozen tower: what is stored, what is continued, and trainings on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

from flame_core import gates
from flame_core.data.own_sidecar import store_by_key
from flame_core.data.shards import PictureReader, read_index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import GateError, InputError, Interrupted, ParamsError
from flame_core.graph.section_stages import section_stages
from flame_core.layout import Layout
from flame_core.measuring.held_out import measure
from flame_core.params import FeaturesParams, Params
from flame_core.stages import embed, features, train
from flame_core.text.projection import ProjectedTexts
from flame_core.training import loop
from flame_core.training.recipe_check import recipe_faults
from flame_core.verification import verify
from flame_core.vision.image_encoder import load_tower
from flame_core.work import WorkCache
from tests.bits import flip
from tests.planning.trainings import planned, planned_without
from tests.stages.pipeline import captioned_project, tree
from tests.stages.stored_vectors import MODEL, lit
from tests.stages.units import computed_by, killed_after

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """Shards, captions, embeddings, weights of a net, and its stored vectors."""
    root = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = captioned_project(root, byte_tokenizer, 24)
        save_net(root / "net.pth", 0)
        params = params.model_copy(
            update={
                "recipes": ["lit"],
                "features": FeaturesParams.model_validate({"model": MODEL, "cpu_threads": 1}),
                "train": {"lit": lit()},
                "evaluate": params.evaluate.model_copy(update={"languages": []}),
            }
        )
        embed.run(params, layout)
        features.run(params, layout)
        yield params, layout


def save_net(path: Path, seed: int, scale: float = 1.0) -> None:
    torch.manual_seed(seed)
    net = timm.create_model("test_efficientnet")
    torch.save({name: value * scale if value.ndim else value for name, value in net.state_dict().items()}, path)


def changed(params: Params, **values) -> Params:
    return params.model_copy(update=values)


def test_a_row_is_what_the_tower_sees_in_the_picture_and_in_its_mirror_image(world):
    _, layout = world
    net = timm.create_model("test_efficientnet", num_classes=0)
    weights = torch.load(layout.root / "net.pth")
    net.load_state_dict({name: value for name, value in weights.items() if not name.startswith("classifier")})
    index = read_index(layout.shards, "train")
    stored = Sidecar(layout.features).read([(row.shard, row.row) for row in index])
    assert stored.dtype == torch.float16 and stored.shape == (len(index), 2, net.num_features)
    reader = PictureReader(layout.shards)
    for number in (0, len(index) - 1):
        jpeg = layout.root / "one.jpg"
        jpeg.write_bytes(reader.jpeg(index[number]))
        picture = Image.open(jpeg).convert("RGB")
        side = min(picture.size)
        left, top = (picture.width - side) / 2, (picture.height - side) / 2
        square = picture.resize((48, 48), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        for view, shown in enumerate((square, ImageOps.mirror(square))):
            x = torch.from_numpy(((np.float32(shown) / 255 - MEAN) / STD).transpose(2, 0, 1))[None]
            with torch.inference_mode():
                expected = net.eval().forward_features(x).mean(dim=(2, 3))[0]
            torch.testing.assert_close(stored[number, view].float(), expected, rtol=2e-3, atol=2e-3)


def test_a_killed_run_continues_and_ends_with_the_same_bytes(world, monkeypatch):
    params, layout = world
    before, own = tree(layout.features), features.features_of
    units = {path.name for path in (layout.work / "features").iterdir() if (path / "features.safetensors").is_file()}
    assert len(units) == len(read_index(layout.shards, "train").shard_sizes()) > 1
    gone = sorted(units)[0]
    for path in (layout.work / "features" / gone).iterdir():
        path.unlink()
    (layout.work / "features" / gone).rmdir()
    seen: list[int] = []
    monkeypatch.setattr(features, "features_of", lambda *given: seen.append(len(given[1])) or own(*given))
    features.run(params, layout)
    assert len(seen) == 1 and tree(layout.features) == before


def test_killed_after_any_shard_only_the_others_are_computed(world):
    params, layout = world
    before, shards = tree(layout.features), len(read_index(layout.shards, "train").shard_sizes())
    for after in (0, 1, shards - 1):
        shutil.rmtree(layout.work / "features")
        shutil.rmtree(layout.features)
        done = killed_after(after + 1, lambda: features.run(params, layout))  # the net's weights are a unit too
        assert len(done) == after + 1 and not layout.features.exists()
        again = computed_by(lambda: features.run(params, layout))
        assert len(again) == shards - after and not set(again) & set(done)
        assert tree(layout.features) == before
    assert computed_by(lambda: features.run(params, layout)) == []


def test_a_flipped_bit_is_found_and_in_the_work_cache_costs_one_shard(world, caplog):
    params, layout = world
    before = tree(layout.features)
    path = next((layout.work / "features").glob("*/features.safetensors"))
    flip(path, path.stat().st_size - 3, 2)
    assert len(computed_by(lambda: features.run(params, layout))) == 1
    assert "is damaged; computing it again" in caplog.text and tree(layout.features) == before
    stored = next(layout.features.glob("[0-9]*.safetensors"))
    flip(stored, stored.stat().st_size - 3, 2)
    with pytest.raises(InputError, match=rf"{stored.name} is damaged.*\n?.*flame features"):
        verify({layout.features: ["*"]})
    features.run(params, layout)
    assert tree(layout.features) == before
    shard = next((layout.shards / "train").glob("*.tar"))
    flip(shard, 700, 3)
    with pytest.raises(InputError, match=rf"{shard.name} is damaged"):
        features.run(params, layout)
    flip(shard, 700, 3)


def test_a_model_trained_on_stored_vectors_sees_pictures_as_they_were_stored(world):
    params, layout = world
    train.run(params, layout, "lit")
    tower, config = load_tower(layout.model("lit"))
    net = torch.load(layout.root / "net.pth")
    assert all(torch.equal(value, net[name]) for name, value in tower.backbone.state_dict().items())  # frozen
    stored = Sidecar(layout.features).read([("train/00000.tar", 0)])[:, 0].float()
    row = next(row for row in read_index(layout.shards, "train") if (row.shard, row.row) == ("train/00000.tar", 0))
    from flame_core.vision.image_encoder import ImageEncoder

    z = ImageEncoder(tower, config, "cpu").encode([PictureReader(layout.shards).jpeg(row)])
    torch.testing.assert_close(torch.from_numpy(z), tower(stored)["z"][:, 0].detach(), rtol=1e-3, atol=1e-3)
    assert config["init"]["source"] == "path:net.pth" and config["init"]["sha256"]
    assert config["data"].keys() == {"shards", "embeddings", "sidecars.features", "init"}


def test_an_interrupted_training_ends_with_the_same_weights(world, monkeypatch):
    params, layout = world
    train.run(params, layout, "lit")
    whole = (layout.model("lit") / "model.safetensors").read_bytes()
    cache = WorkCache(layout.work, "train")
    for path in cache.folder.iterdir():
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    steps: list[int] = []

    class Stopped(loop.EpochOrder):
        def __iter__(self):
            for number, batch in enumerate(super().__iter__()):
                steps.append(number)
                if len(steps) == 4:
                    import os
                    import signal

                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "EpochOrder", Stopped)
        with pytest.raises(Interrupted):
            train.run(params, layout, "lit")
    train.run(params, layout, "lit")
    assert (layout.model("lit") / "model.safetensors").read_bytes() == whole


METHODS = {
    "sharelock": {
        "model": {**MODEL, "train": "none", "head": "none"},
        "text_projection": {"layers": 2, "hidden": 8, "dropout": 0.2, "dim": 256},
        "objective": {"name": "infonce"},
    },
    "sail": {
        "model": {**MODEL, "train": "none", "head": "gated", "head_hidden": 12},
        "text_projection": {"kind": "gated", "hidden": 8, "dim": 6},
    },
}


@pytest.mark.parametrize("name", METHODS)
def test_texts_learn_layers_too(world, name):
    """And all of evaluation knows them by the model's text side."""
    params, layout = world
    made = changed(params, recipes=[name], train={name: lit(**METHODS[name])})
    assert list(recipe_faults(made.train[name])) == []
    train.run(made, layout, name)
    steps = [json.loads(line) for line in (layout.model(name) / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1]["loss"] < steps[0]["loss"]
    found = measure(made, layout, layout.model(name))
    dim = METHODS[name]["text_projection"]["dim"]
    assert isinstance(found.texts, ProjectedTexts)
    assert found.evaluation.z.shape[-1] == found.texts.dim == dim
    whole = (layout.model(name) / "text.safetensors").read_bytes()
    for path in sorted((layout.work / "train").glob("[!.]*")):
        shutil.rmtree(path)
    train.run(made, layout, name)
    assert (layout.model(name) / "text.safetensors").read_bytes() == whole


def test_a_space_of_pictures_has_their_dimensions(world):
    params, layout = world
    wrong = {**METHODS["sharelock"], "text_projection": {"hidden": 8, "dim": 7}}
    with pytest.raises(ParamsError, match=r"text_projection\.dim: 7.*set it to 256"):
        train.run(changed(params, recipes=["wrong"], train={"wrong": lit(**wrong)}), layout, "wrong")


def test_a_plan_is_the_same_before_there_are_vectors(world):
    params, layout = world
    found = planned(params, layout)
    assert "steps" in found["training: lit"]
    assert planned_without(params, layout, layout.features) == found


def test_vectors_of_another_tower_are_refused(world):
    params, layout = world
    other = params.model_copy(update={"train": {"lit": lit(model={**MODEL, "train": "none", "image_size": 64})}})
    with pytest.raises(InputError, match="image_size: the recipe has 64, the stored vectors 48"):
        train.run(other, layout, "lit")
    save_net(layout.root / "other.pth", 1)
    revised = lit(model={**MODEL, "train": "none", "init": {"source": "path:other.pth"}})
    with pytest.raises(InputError, match=r"vectors of another tower than the recipe's model[^\n]*\n  weights: "):
        train.run(changed(params, train={"lit": revised}), layout, "lit")


def test_vectors_that_name_no_tower_are_refused(world):
    params, layout = world
    keys = [row.key for row in read_index(layout.shards, "train")]
    store_by_key(layout, "own", keys, np.zeros((len(keys), 8), np.float32), {"made": "elsewhere"})
    own = lit(sidecars={"features": "data/sidecars/own"})
    with pytest.raises(InputError, match=r"own does not say which tower its vectors are of.*run `flame features`"):
        train.run(changed(params, train={"lit": own}), layout, "lit")


def test_mirror_images_that_were_not_stored_are_refused(world):
    params, layout = world
    assert params.features is not None
    plain = params.features.model_copy(update={"views": ["plain"]})
    try:
        features.run(changed(params, features=plain), layout)
        with pytest.raises(InputError, match=r"has no mirror images, which augmentation\.flip draws"):
            train.run(params, layout, "lit")
        train.run(changed(params, train={"lit": lit(augmentation={"scale": [1, 1]})}), layout, "lit")
    finally:
        features.run(params, layout)


def test_a_tower_that_sees_nothing_fails_its_check(world):
    params, layout = world
    save_net(layout.root / "blind.pth", 0, scale=0.0)
    blind = FeaturesParams.model_validate({"model": {**MODEL, "init": {"source": "path:blind.pth"}}})
    try:
        features.run(changed(params, features=blind), layout)
        (check,) = gates.read(layout.features)
        assert check.name == "features_differ" and check.value == pytest.approx(1.0)
        with pytest.raises(GateError, match="features_differ"):
            train.run(params, layout, "lit")
    finally:
        features.run(params, layout)


def test_the_stage_reads_shards_and_a_given_file(world):
    params, layout = world
    (stage,) = section_stages(layout, params).values()
    assert stage["deps"] == ["data/shards", "net.pth"] and stage["outs"] == ["data/sidecars/features"]


def test_without_its_section_the_stage_says_so(world):
    params, layout = world
    with pytest.raises(ParamsError, match="has no section `features`"):
        features.run(changed(params, features=None), layout)


def test_weights_are_kept_by_their_content(world):
    """The same bytes in another file are the same training."""
    params, layout = world
    train.run(params, layout, "lit")
    (layout.root / "copy.pth").write_bytes((layout.root / "net.pth").read_bytes())
    copied = lit(model={**MODEL, "train": "none", "init": {"source": "path:copy.pth"}})
    before = {path.name for path in (layout.work / "train").glob("[!.]*")}
    train.run(changed(params, train={"lit": copied}), layout, "lit")
    assert {path.name for path in (layout.work / "train").glob("[!.]*")} == before
    weights = load_file(layout.model("lit") / "model.safetensors")
    assert json.loads((layout.model("lit") / "config.json").read_text())["data"]["init"] and weights


def test_vectors_in_int8_take_half_the_bytes_and_train(world, tmp_path):
    params, layout = world
    own = Layout(tmp_path, tmp_path)
    for name in ("data", ".flame", "net.pth"):
        source = layout.root / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    exact = Sidecar(layout.features).read([("train/00000.tar", 0)]).float()
    assert params.features is not None
    coarse = params.model_copy(update={"features": params.features.model_copy(update={"dtype": "int8"})})
    features.run(coarse, own)
    found = Sidecar(own.features)
    assert found.manifest.dtype == "int8"
    torch.testing.assert_close(
        found.read([("train/00000.tar", 0)]), exact, atol=0.02 * float(exact.abs().max()), rtol=0
    )
    train.run(coarse, own, "lit")
    assert (own.model("lit") / "model.safetensors").is_file()
