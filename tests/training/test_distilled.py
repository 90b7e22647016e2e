"""Distillation in whole trainings: it learns, resumes, and does not know of ranks and pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from flame_core.errors import InputError, ParamsError
from flame_core.model_files import WEIGHTS
from flame_core.objectives import create_objective, recipe_needs
from flame_core.objectives.affinity import affinity_loss
from flame_core.objectives.batch import Moment
from flame_core.objectives.objective import Objective
from flame_core.objectives.teacher import TowerTeacher, taught
from flame_core.objectives.term import Setup
from flame_core.params import TrainParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.settings import settings
from flame_core.stepping import checkpoint
from flame_core.training.assembly import Assembly, assemble
from flame_core.training.linked_folders import LinkedFolders
from flame_core.training.made_batch import MadeTexts, made_batch
from flame_core.vision.image_encoder import load_tower
from flame_core.vision.tower import ImageTower
from tests.training.distilled import LARGE, SMALL, distilled_recipe, train_distilled, write_distilled, write_teacher
from tests.training.killed import train_killed
from tests.training.processes import on_ranks
from tests.training.test_seam import assert_alike
from tests.training.world import HIDDEN


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[Path]:
    """A folder with two dozen pictures, their texts, and a teacher."""
    folder = tmp_path_factory.mktemp("distilled")
    write_distilled(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_CHECKPOINT_SECONDS", "0")
        settings.cache_clear()
        yield folder


def assembled(world: Path, params: TrainParams | None = None, teacher: str = "teacher") -> Assembly:
    params = params or distilled_recipe()
    return assemble(params, MadeTexts(params, HIDDEN), 1, 8, 24, LinkedFolders(world / teacher))


def test_the_student_comes_nearer_to_its_teacher(world, tmp_path):
    params = distilled_recipe(epochs=20)
    _, metrics, _ = train_distilled(ALONE, world, tmp_path, params)
    first, last = metrics[0], metrics[-1]
    assert first["loss"] == pytest.approx(sum(first[f"loss/{name}"] for name in ("infonce", "affinity", "feature")))
    assert last["loss/feature"] < 0.5 * first["loss/feature"]
    assert last["loss/affinity"] < first["loss/affinity"] - 0.1


def test_the_shares_of_a_step_are_those_of_the_formula(world):
    params = distilled_recipe()
    assembly = assembled(world, params)
    made = made_batch(params, MadeTexts(params, HIDDEN), 8)
    batch = assembly.objective.prepare(made, assembly.tower, Moment(0, 1, 1), ALONE)
    own = assembly.tower.eval()(made.pictures[:, 0], ("z", "pooled"))
    features = {name: value[:, None] for name, value in own.items()} | {"t": made.texts}
    shares = assembly.objective(features, batch, ALONE)
    tower, _ = load_tower(world / "teacher")
    with torch.no_grad():
        larger = F.interpolate(made.pictures[:, 0], (24, 24), mode="bicubic", antialias=True)
        theirs = tower(larger, ("z", "pooled"))
    logits, teacher = (20 * torch.einsum("id,jkd->ijk", z[:, 0], made.texts) for z in (own["z"], theirs["z"]))
    torch.testing.assert_close(shares["affinity"], 0.7 * affinity_loss(logits, teacher))
    mapped = F.normalize(assembly.objective.terms["feature"].map(own["pooled"]), dim=-1)
    unlike = (mapped - F.normalize(theirs["pooled"], dim=-1)).square().sum(dim=-1).mean()
    torch.testing.assert_close(shares["feature"], 0.5 * unlike)


def test_the_teacher_is_frozen_in_evaluation_mode_and_not_saved(world):
    assembly = assembled(world)
    assembly.objective.train()
    assert isinstance(assembly.objective.teacher, TowerTeacher)
    assert not any(module.training for module in assembly.objective.teacher.modules())
    assembly.objective.teacher.train(True)
    assert not any(module.training for module in assembly.objective.teacher.modules())
    assert not any(weight.requires_grad for weight in assembly.objective.teacher.parameters())
    assert {name.split(".")[0] for name in assembly.objective.state()} == {"terms"}
    optimised = {id(p) for group in assembly.optimizer(distilled_recipe()).param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in assembly.objective.teacher.parameters()}


@pytest.mark.parametrize("step", [1, 4])
def test_killed_at_any_step_it_resumes_bit_for_bit(world, tmp_path, step):
    params = distilled_recipe(drop=0.2)
    whole, metrics, _ = train_distilled(ALONE, world, tmp_path / "whole", params)
    train_killed(train_distilled, world, tmp_path / "killed", params, step)
    saved = checkpoint.load(tmp_path / "killed")
    assert saved.step == step and "objective.terms.feature.map.weight" in saved.model
    assert not any("teacher" in name for name in saved.model)
    resumed, again, _ = train_distilled(ALONE, world, tmp_path / "killed", params)
    assert again == metrics
    assert {name: w.numpy().tobytes() for name, w in resumed.state_dict().items()} == {
        name: w.numpy().tobytes() for name, w in whole.state_dict().items()
    }


def of_micro(ranks: Ranks, folder: Path, out: Path, micro: int | None) -> dict:
    checkpoints = out / f"{ranks.world}-{micro}"
    trained = train_distilled(ranks, folder, checkpoints, distilled_recipe(micro_batch_size=micro))
    state = checkpoint.load(checkpoints, ranks).model
    own = {name: value for name, value in state.items() if name.startswith("objective.")}
    return {"weights": dict(trained.tower.state_dict()) | own, "metrics": trained.metrics}


def test_two_ranks_and_pieces_give_the_weights_of_one(world, tmp_path):
    expected = of_micro(ALONE, world, tmp_path, None)
    assert_alike(of_micro(ALONE, world, tmp_path, 3), expected)
    for of_rank in on_ranks(2, of_micro, tmp_path, world, tmp_path, 2):
        assert_alike(of_rank, expected)


def test_affinity_may_be_the_only_loss(world, tmp_path):
    params = distilled_recipe(objective={"name": "affinity", "scale": 20.0, "teacher_scale": 20.0}, terms=[], epochs=20)
    _, metrics, _ = train_distilled(ALONE, world, tmp_path, params)
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.1


def test_a_student_may_not_be_larger_than_its_teacher(world, tmp_path):
    write_teacher(tmp_path / "teacher", SMALL | {"depth": 1}, image_size=16)
    with pytest.raises(ParamsError, match=r"train\.model: the student's backbone has .* more than its teacher's"):
        assembled(tmp_path)
    write_teacher(tmp_path / "same", SMALL, image_size=16)
    assembled(tmp_path, teacher="same")


def test_a_recipe_whose_terms_need_a_teacher_names_one(world):
    params = distilled_recipe(teacher=None)
    with pytest.raises(ParamsError, match=r"the term affinity learns from a teacher.*write `teacher: \{recipe:"):
        assembled(world, params)
    with pytest.raises(ParamsError, match="none is given"):
        params = distilled_recipe()
        assemble(params, MadeTexts(params, HIDDEN), 1, 8, 24)


def test_a_teacher_gives_the_feature_that_is_matched(tmp_path):
    write_teacher(tmp_path / "teacher", LARGE | {"class_token": False, "num_heads": 2})
    params = distilled_recipe(terms=[{"name": "feature", "feature": "cls"}])
    with pytest.raises(ParamsError, match=r"teacher: a term reads the CLS token, but the backbone"):
        assembled(tmp_path, params)


def test_a_teacher_without_weights_is_refused(tmp_path):
    (write_teacher(tmp_path / "teacher") / WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"teacher is not a usable model .* run `flame train`"):
        assembled(tmp_path)


def test_a_recipe_with_a_text_tower_has_other_texts(world):
    tower = {"width": 16, "depth": 1, "heads": 2, "max_tokens": 16}
    with pytest.raises(ParamsError, match="a recipe with a text_tower does not read"):
        assembled(world, distilled_recipe(text_tower=tower))


def test_all_terms_share_one_look_of_the_teacher(world, monkeypatch):
    params = distilled_recipe()
    tower = ImageTower(params.model, HIDDEN, 1)
    objective = create_objective(params, Setup(tower, 8, 24, HIDDEN, world / "teacher", micro_batch_size=3))
    seen: list[tuple[int, tuple[str, ...]]] = []
    read = TowerTeacher.read
    monkeypatch.setattr(
        TowerTeacher, "read", lambda own, x, reads: (seen.append((len(x), tuple(reads))), read(own, x, reads))[1]
    )
    batch = made_batch(params, MadeTexts(params, HIDDEN), 8)
    prepared = objective.prepare(batch, tower, Moment(0, 1, 1), ALONE)
    assert seen == [(3, ("pooled", "z")), (3, ("pooled", "z")), (2, ("pooled", "z"))]
    assert prepared.extra[taught("z")].shape == (8, HIDDEN) and prepared.extra[taught("pooled")].shape == (8, 40)
    assert recipe_needs(params).taught == {"z", "pooled"} and isinstance(objective, Objective)
