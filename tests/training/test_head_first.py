"""Head first, then the tower: the backbone stays for the first steps, with rates by layer after them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import timm
import torch
from pydantic import ValidationError

from flame_core.errors import Interrupted, ParamsError
from flame_core.layout import Layout
from flame_core.params import TrainParams
from flame_core.params.optimizer import HeadFirst
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.stepping import checkpoint
from flame_core.training.assembly import assemble
from flame_core.training.head_first import held_steps
from flame_core.training.linked_folders import LinkedFolders
from flame_core.training.loop import Trained, train
from flame_core.training.made_batch import MadeTexts
from flame_core.training.recipe_check import recipe_faults
from flame_core.vision.initial_weights import fetch_initial_weights
from tests.training.processes import on_ranks
from tests.training.world import HIDDEN, recipe, samples_of, write_world

TOWER = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture
def world(tmp_path) -> Path:
    write_world(tmp_path)
    for name, options in (("test_efficientnet", {}), ("vit_base_patch16_224", TOWER)):
        torch.manual_seed(3)
        torch.save(timm.create_model(name, **options).state_dict(), tmp_path / f"{name}.pth")
    return tmp_path


def params_of(first: dict | None, backbone: str = "vit_base_patch16_224", drop: float = 0.0, **changes) -> TrainParams:
    options = TOWER | {"drop_path_rate": drop} if backbone.startswith("vit") else {}
    model = {"backbone": backbone, "backbone_options": options, "image_size": 16 if options else 32, "head": "pooled"}
    optimizer = {"learning_rate": 3e-3, "eps": 1e-3, "head_first": first, "layer_decay": 0.5}
    model["init"] = {"source": f"path:{backbone}.pth"}
    return recipe(**{"model": model, "optimizer": optimizer, "epochs": 3} | changes)


def trained(ranks: Ranks, folder: Path, name: str, params: TrainParams, *recorders) -> Trained:
    initial = fetch_initial_weights(params.model, Layout(folder, folder)).folder
    return train(
        samples_of(folder, params), params, folder / name, ranks, *recorders, linked=LinkedFolders(inherited=initial)
    )


@pytest.mark.parametrize("backbone", ["vit_base_patch16_224", "test_efficientnet"])
def test_the_backbone_learns_from_that_step_on_and_the_head_before(world, backbone):
    params = params_of({"steps": 4}, backbone)
    initial = fetch_initial_weights(params.model, Layout(world, world)).folder
    start = assemble(params, MadeTexts(params, HIDDEN), 1, 8, 24, LinkedFolders(inherited=initial)).tower.state_dict()
    for steps, moved in ((4, {"projector"}), (5, {"projector", "backbone"})):
        state = stopped_after(world, params, steps)
        names = {name.split(".")[0] for name, value in state.items() if not torch.equal(value, start[name])}
        assert names == moved


def stopped_after(folder: Path, params: TrainParams, steps: int) -> dict[str, torch.Tensor]:
    """The image tower's weights in the checkpoint that a training leaves that is stopped after so many steps."""
    stop_at(folder, f"stopped-{steps}", params, steps)
    saved = checkpoint.load(folder / f"stopped-{steps}")
    assert saved is not None and saved.step == steps
    prefix = "towers.image."
    return {name.removeprefix(prefix): value for name, value in saved.model.items() if name.startswith(prefix)}


def stop_at(folder: Path, name: str, params: TrainParams, steps: int) -> None:
    def stop(row: dict[str, float]) -> None:
        if row["step"] == steps - 2:  # heeded in the next step
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        trained(ALONE, folder, name, params, stop)


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_interrupted_before_at_and_after_that_step_it_resumes_bit_for_bit(world, steps):
    params = params_of({"epochs": 1}, drop=0.3)  # three steps
    whole, metrics, _ = trained(ALONE, world, "whole", params)
    stop_at(world, "stopped", params, steps)
    resumed, again, _ = trained(ALONE, world, "stopped", params)
    assert again == metrics
    for name, value in whole.state_dict().items():
        assert value.numpy().tobytes() == resumed.state_dict()[name].numpy().tobytes(), name


def weights_of(ranks: Ranks, folder: Path, micro: int | None) -> dict[str, torch.Tensor]:
    params = params_of({"steps": 4}, micro_batch_size=micro)
    return dict(trained(ranks, folder, f"checkpoints-{ranks.world}-{micro}", params).tower.state_dict())


@pytest.mark.slow
def test_two_ranks_and_pieces_give_the_weights_of_one(world):
    expected = weights_of(ALONE, world, None)
    for found in [weights_of(ALONE, world, 3), *on_ranks(2, weights_of, world, world, 2)]:
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_rates_by_layer_are_those_of_the_optimiser(world):
    params = params_of(None, optimizer={"layer_decay": 0.5, "multipliers": {"image.backbone.blocks.0": 0.1}})
    assembly = assemble(params, MadeTexts(params, HIDDEN), 1, 8, 24)
    rates = {id(p): group["multiplier"] for group in assembly.optimizer(params).param_groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in assembly.towers().named_parameters()}
    assert found["image.projector.layers.0.weight"] == found["image.backbone.norm.weight"] == 1.0
    assert found["image.backbone.blocks.1.mlp.fc1.weight"] == 1.0
    assert found["image.backbone.blocks.0.mlp.fc1.bias"] == pytest.approx(0.1 * 0.5)
    assert found["image.backbone.patch_embed.proj.weight"] == 0.25


def test_a_schedule_that_cannot_be_is_refused():
    with pytest.raises(ParamsError, match="9 steps, and the training has 9, so the backbone would never learn"):
        held_steps(params_of({"epochs": 3}), params_of({"epochs": 3}).schedule(24))
    assert held_steps(params_of({"epochs": 2}), params_of(None).schedule(24)) == 6
    with pytest.raises(ValidationError, match="write steps or epochs"):
        HeadFirst(steps=3, epochs=1)
    with pytest.raises(ValidationError, match="head_first waits with a backbone that has trained weights"):
        recipe(optimizer={"head_first": {"steps": 3}})
    frozen = params_of(None).model.model_dump(mode="json") | {"train": "none"}
    with pytest.raises(ValidationError, match="no layer of the backbone learns"):
        recipe(model=frozen, optimizer={"layer_decay": 0.5})
    assert not list(recipe_faults(params_of({"steps": 4})))
