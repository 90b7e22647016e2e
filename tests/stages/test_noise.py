"""flame noise, and trainings with it: the stored order, texts that move while pictures stay, and clear refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from flame_core import gates
from flame_core.data.noise_order import draw_order, text_rows
from flame_core.data.shards import read_index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.params import NoiseParams, Params
from flame_core.stages import embed, noise, train
from flame_core.text.store import Drawn, TrainStore
from flame_core.training.inputs import open_inputs
from flame_core.training.loader import TrainingSamples
from flame_core.training.preparation import PreparedTraining
from flame_core.training.recipe_check import link_faults, recipe_faults
from flame_core.verification import verify
from tests.bits import flip
from tests.stages.pipeline import captioned_project, tree
from tests.stages.units import computed_by, killed_after
from tests.training.world import recipe

SIDECAR = {"noise": "data/sidecars/noise"}


@pytest.fixture(scope="module")
def world(tmp_path_factory, byte_tokenizer) -> Iterator[tuple[Params, Layout]]:
    """Shards and embeddings of 40 drawings in several shards, and recipes without and with noise."""
    root = tmp_path_factory.mktemp("noise")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_DEVICE", "cpu")
        patch.setenv("FLAME_WORKERS", "1")
        params, layout = captioned_project(root, byte_tokenizer, 40)
        plain = recipe(gates={"max_loss_ratio": 100.0}, epochs=1)
        update = {
            "recipes": ["plain", "noisy"],
            "train": {"plain": plain, "noisy": noisy(plain, 0.3)},
            "evaluate": params.evaluate.model_copy(update={"languages": []}),
            "noise": NoiseParams(shares=[0.1, 0.3]),
        }
        params = params.model_copy(update=update)
        embed.run(params, layout)
        noise.run(params, layout)
        yield params, layout


def noisy(plain, share: float):
    return recipe(**{**plain.model_dump(), "noise": share, "sidecars": SIDECAR})


def test_the_sidecar_holds_the_order_of_all_samples(world):
    _, layout = world
    index = read_index(layout.shards, "train")
    found = Sidecar(layout.noise)
    found.require_aligned(index)
    places = found.read([(row.shard, row.row) for row in index]).numpy()
    assert np.array_equal(places, draw_order([row.key for row in index], seed=0))
    assert found.manifest.origin == {"seed": 0, "samples": len(index)}
    assert [check.name for check in gates.read(layout.noise) if check.passed] == ["noise_moves", "noise_tells"]
    verify({layout.noise: ["*"]})
    page = (layout.noise / "noise.html").read_text("utf-8")
    assert page.count("drawing number") == 2 * int(0.3 * len(index))


def test_a_second_run_computes_nothing_and_one_after_a_kill_gives_the_same_bytes(world):
    params, layout = world
    first = tree(layout.noise)
    assert computed_by(lambda: noise.run(params, layout)) == []
    shutil.rmtree(layout.work / "noise")
    shutil.rmtree(layout.noise)
    killed_after(2, lambda: noise.run(params, layout))
    assert not layout.noise.exists()
    noise.run(params, layout)
    assert tree(layout.noise) == first
    flip(layout.noise / "00001.safetensors", 90, 1)
    with pytest.raises(InputError, match=r"00001\.safetensors is damaged.*\n?.*flame noise"):
        verify({layout.noise: ["*"]})
    noise.run(params, layout)
    assert tree(layout.noise) == first


def test_texts_move_and_pictures_crops_and_draws_stay(world):
    params, layout = world
    index, store = read_index(layout.shards, "train"), TrainStore(layout.embeddings)
    batches = []
    for name in ("plain", "noisy"):
        own = params.train[name]
        links = {"sidecars.noise": layout.noise} if own.noise else {}
        inputs = open_inputs(own, links, index, layout.shards)
        samples = TrainingSamples(inputs.selected, layout.shards, store, [0, 1, 2], own, inputs.sidecars)
        batches.append(samples[[(0, number) for number in range(len(index))]])
        assert not batches[-1].extra and not samples.sidecar_folders
    plain, other = batches
    assert plain.keys == other.keys and (plain.pictures == other.pictures).all() and (plain.order == other.order).all()
    rows = text_rows(draw_order(plain.keys, seed=0), 0.3)
    for number, source in enumerate(rows):
        drawn = plain.facets[number].tolist()  # the same facets of another sample
        slots = sorted(store.facets.index(name) for name in store.facets)
        mine = store.read([Drawn(index[int(source)].shard, index[int(source)].row, slots)])[0]
        assert all((mine == text).all(dim=1).any() for text in other.texts[number]), drawn
    differ = [number for number in range(len(index)) if (plain.texts[number] != other.texts[number]).any()]
    assert differ == np.flatnonzero(rows != np.arange(len(index))).tolist()


class _Numbers:
    """Stored values: the number of each sample in the index."""

    folder = Path()

    def __init__(self, index) -> None:
        self._numbers = {(row.shard, row.row): number for number, row in enumerate(index)}

    def read(self, places) -> torch.Tensor:
        return torch.tensor([self._numbers[tuple(place)] for place in places])


def test_what_is_stored_of_texts_moves_with_them(world):
    params, layout = world
    index, store, own = read_index(layout.shards, "train"), TrainStore(layout.embeddings), params.train["noisy"]
    inputs = open_inputs(own, {"sidecars.noise": layout.noise}, index, layout.shards)
    sidecars = {**inputs.sidecars, "clusters": _Numbers(index)}
    samples = TrainingSamples(inputs.selected, layout.shards, store, [0, 1, 2], own, sidecars)
    batch = samples[[(0, number) for number in range(len(index))]]
    rows = text_rows(draw_order(batch.keys, seed=0), 0.3)
    assert batch.rows.tolist() == [*range(len(index))] != rows.tolist()
    assert batch.extra["clusters"].tolist() == rows.tolist()


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_trainings_with_noise_and_values_of_texts_are_known_by_what_moves(share):
    def identity(**changes):
        prepared = SimpleNamespace(recipe=recipe(noise=share, **changes), config={"data": {}})
        return PreparedTraining.identity.fget(prepared)

    assert "moved" not in identity()
    assert ("moved" in identity(terms=[{"name": "prototypes"}])) == (share > 0)
    assert ("moved" in identity(teacher={"model": "transformers:clip"})) == (share > 0)
    assert "moved" not in identity(teacher={"recipe": "flame"})


def test_noise_makes_another_training_and_none_leaves_it_as_it_was(world):
    params, layout = world
    for name in ("plain", "noisy"):
        train.run(params, layout, name)
    configs = {name: json.loads((layout.model(name) / "config.json").read_text()) for name in ("plain", "noisy")}
    assert "noise" not in configs["plain"]["recipe"] and configs["noisy"]["recipe"]["noise"] == 0.3
    assert configs["noisy"]["data"]["sidecars.noise"] == Sidecar(layout.noise).digest
    weights = [(layout.model(name) / "model.safetensors").read_bytes() for name in ("plain", "noisy")]
    assert weights[0] != weights[1]
    assert noisy(params.train["plain"], 0.0).identity == params.train["plain"].identity


def test_what_does_not_fit_is_refused(world):
    params, layout = world
    with pytest.raises(ParamsError, match="no section `noise`"):
        noise.run(params.model_copy(update={"noise": None}), layout)
    for share in (1.5, -0.1):
        with pytest.raises(ValueError, match=r"less than or equal to 1|greater than or equal to 0"):
            recipe(noise=share, sidecars=SIDECAR)
    with pytest.raises(ValueError, match="greater than 0"):
        NoiseParams(shares=[0.0])
    (fault,) = recipe_faults(recipe(noise=0.1))
    assert fault.key == ("sidecars",) and "noise reads the sidecar 'noise', which the recipe does not give" in str(
        fault
    )
    (fault,) = recipe_faults(recipe(sidecars=SIDECAR))
    assert "no term of the recipe reads the sidecar 'noise'" in fault.message
    absent = layout.noise.rename(layout.noise.with_name("aside"))
    try:
        assert list(link_faults(params, layout, "noisy")) == []  # the stage makes it
    finally:
        absent.rename(layout.noise)


def test_an_order_with_a_place_twice_is_refused(world, tmp_path):
    params, layout = world
    shutil.copytree(layout.noise, tmp_path / "noise")
    file = tmp_path / "noise/00000.safetensors"
    save_file({"values": np.zeros_like(load_file(file)["values"])}, file)
    index = read_index(layout.shards, "train")
    links = {"sidecars.noise": tmp_path / "noise"}
    sidecars = open_inputs(params.train["noisy"], links, index, layout.shards).sidecars
    store = TrainStore(layout.embeddings)
    with pytest.raises(InputError, match="same place in the order; run `flame noise` again"):
        TrainingSamples(index, layout.shards, store, [0], params.train["noisy"], sidecars)
