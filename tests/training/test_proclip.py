"""ProCLIP: the texts learn a CLIP's space without pictures, then both are contrasted near the tower's own average."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from flame_core.data.shards import read_index
from flame_core.data.sidecars import Sidecar
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.objectives.batch import Moment
from flame_core.objectives.clip_teacher import TEACHER_TEXTS
from flame_core.params import TrainParams, read_yaml
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.stepping import checkpoint
from flame_core.text.store import TrainStore
from flame_core.training.assembly import assemble
from flame_core.training.linked_folders import LinkedFolders
from flame_core.training.made_batch import MadeTexts
from flame_core.training.recipe_check import recipe_faults
from flame_core.vision.initial_weights import HEAD, fetch_initial_weights
from tests.training.killed import train_killed
from tests.training.processes import on_ranks
from tests.training.proclip import DIM, proclip_recipe, train_proclip, write_proclip
from tests.training.world import FACETS, HIDDEN, recipe


@pytest.fixture
def world(tmp_path) -> Path:
    write_proclip(tmp_path)
    return tmp_path


def test_texts_come_near_the_clips_first_and_no_picture_is_seen(world):
    params = proclip_recipe()
    first = fetch_initial_weights(params.model, Layout(world, world))
    start = load_file(first.folder / "backbone.safetensors")
    states = []
    tower, metrics, texts = train_proclip(
        ALONE, world, world / "checkpoints", params, lambda row: states.append(row["step"])
    )
    assert [sorted(name for name in row if name.startswith("loss/")) for row in metrics] == [
        *[["loss/text_distillation"]] * 6,
        *[["loss/infonce", "loss/self_distillation"]] * 6,
    ]
    assert metrics[5]["loss"] < 0.75 * metrics[0]["loss"]
    assert metrics[-1]["loss/infonce"] < metrics[6]["loss/infonce"]
    assert metrics[6]["loss/self_distillation"] == pytest.approx(0, abs=1e-5)  # the tower is its own average
    assert metrics[-1]["loss/self_distillation"] > 0
    assert not torch.equal(tower.backbone.state_dict()["patch_embed.proj.weight"], start["patch_embed.proj.weight"])
    assert texts is not None and states == list(range(12))


def test_after_the_first_stage_a_text_is_near_its_clip_vector_and_the_tower_as_it_was(world):
    params = proclip_recipe(epochs=30, optimizer={"learning_rate": 1e-2, "weight_decay": 0.0})
    half = params.model_copy(update={"objective": params.terms[0].model_copy(update={"during": None}), "terms": []})
    first = fetch_initial_weights(params.model, Layout(world, world))
    tower, _, texts = train_proclip(ALONE, world, world / "checkpoints", half)
    index = read_index(world / "shards", "train")
    bank = Sidecar(world / TEACHER_TEXTS).read([(row.shard, row.row) for row in index]).float()
    slots = list(range(len(FACETS)))
    t = TrainStore(world / "embeddings").read([(row.shard, row.row, slots) for row in index])
    assert texts is not None
    with torch.no_grad():
        found = texts.eval()(t.float().flatten(0, 1)).unflatten(0, t.shape[:2])
    assert (found * bank[:, None]).sum(dim=-1).mean() > 0.8
    start = load_file(first.folder / "backbone.safetensors")
    assert all(torch.equal(value, start[name]) for name, value in tower.backbone.state_dict().items())
    assert torch.equal(tower.projector.layers.weight, load_file(first.folder / HEAD)["weight"])


@pytest.mark.parametrize("step", [3, 9])
def test_killed_in_either_stage_it_resumes_bit_for_bit(world, step):
    params = proclip_recipe()
    whole, metrics, texts = train_proclip(ALONE, world, world / "whole", params)
    train_killed(train_proclip, world, world / "killed", params, step)
    assert checkpoint.load(world / "killed").step == step
    resumed, again, others = train_proclip(ALONE, world, world / "killed", params)
    assert again == metrics
    for one, other in ((whole, resumed), (texts, others)):
        state = other.state_dict()
        assert all(value.numpy().tobytes() == state[name].numpy().tobytes() for name, value in one.state_dict().items())


def weights_of(ranks: Ranks, folder: Path, micro: int | None) -> dict[str, torch.Tensor]:
    params = proclip_recipe(micro_batch_size=micro)
    tower, _, texts = train_proclip(ranks, folder, folder / f"checkpoints-{ranks.world}-{micro}", params)
    return {**tower.state_dict(), **{f"text.{name}": value for name, value in texts.state_dict().items()}}


@pytest.mark.slow
def test_two_ranks_and_pieces_give_the_weights_of_one(world):
    expected = weights_of(ALONE, world, None)
    for found in [weights_of(ALONE, world, 3), *on_ranks(2, weights_of, world, world, 2)]:
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_a_term_without_its_clip_or_its_layers_is_refused():
    for missing, said in (("teacher", "learns from the texts of a CLIP"), ("text_projection", "the recipe has none")):
        faults = [fault.message for fault in recipe_faults(proclip_recipe(**{missing: None}))]
        assert any(said in each for each in faults), faults
    assert not list(recipe_faults(proclip_recipe()))


def test_other_sizes_than_the_clips_are_told(world):
    folder = fetch_initial_weights(proclip_recipe().model, Layout(world, world)).folder
    sidecars = {TEACHER_TEXTS: world / TEACHER_TEXTS}
    other = proclip_recipe(text_projection={"layers": 2, "hidden": 20, "dim": 10})
    with pytest.raises(ParamsError, match=f"set text_projection.dim to {DIM}"):
        assemble(other, MadeTexts(other, HIDDEN), 1, 8, 24, LinkedFolders(inherited=folder, sidecars=sidecars))
    with pytest.raises(ParamsError, match=f"dim: 10, and the teacher's texts have {DIM} dimensions"):
        assemble(other, MadeTexts(other, HIDDEN), 1, 8, 24, LinkedFolders(sidecars=sidecars))
    with pytest.raises(ParamsError, match="no texts of a teacher"):
        assemble(other, MadeTexts(other, HIDDEN), 1, 8, 24)


def test_weights_without_a_head_are_told(world):
    weights = torch.load(world / "clip.pth", weights_only=True)
    torch.save({name: value for name, value in weights.items() if not name.startswith("head.")}, world / "clip.pth")
    with pytest.raises(InputError, match="has no head for the 24 numbers of 'vit_base_patch16_clip_224'"):
        fetch_initial_weights(proclip_recipe().model, Layout(world, world))


def test_every_step_has_a_loss():
    texts = {"name": "text_distillation", "during": [0.0, 0.3]}
    with pytest.raises(ValidationError, match=r"no loss counts from 0\.3 of the steps on"):
        recipe(objective={"name": "infonce", "during": [0.5, 1.0]}, terms=[texts])
    with pytest.raises(ValidationError, match=r"no loss counts from 0 of the steps on"):
        recipe(objective={"name": "infonce", "during": [0.5, 1.0]})
    masks = {"name": "learned_masks", "learning_rate": 2.0}  # whose loss ends when the tower is pruned
    with pytest.raises(ValidationError, match=r"no loss counts from 0\.5 of the steps on"):
        recipe(objective={"name": "infonce", "during": [0.0, 0.5]}, terms=[masks])
    with pytest.raises(ValidationError, match="is empty"):
        recipe(objective={"name": "infonce", "during": [0.5, 0.5]})


def test_a_recipe_costs_what_its_busiest_stage_does():
    own = TrainParams.model_validate(read_yaml(Path(__file__).parents[2] / "recipes/proclip.yaml"))
    small = proclip_recipe()
    assert [term.name for term in own.terms] == [term.name for term in small.terms]
    later = small.model_copy(update={"terms": small.terms[1:]})
    objective = assemble(later, MadeTexts(later, HIDDEN), 1, 8, 24).objective
    assert objective.busiest(12) == 6 and objective.phased
    assert not any(term.is_active(Moment(2, 12, 3)) for term in objective.terms.values())
