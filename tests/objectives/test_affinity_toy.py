"""TinyCLIP's gain on made data: the noisy pictures of `test_attention_toy`, with wrong captions for the student.

A teacher learned from right captions. The student is smaller and begins with a part of its weights; 40 % of the
captions that it sees are those of another picture. The teacher's affinities say which captions suit; CLIP's loss
does not know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from flame_core.digest import write_json
from flame_core.files.weights import save_weights
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.objectives.batch import Moment
from flame_core.params import TrainParams
from flame_core.processes.ranks import ALONE
from flame_core.stepping.learning_rate import learning_rate, set_learning_rate
from flame_core.training.assembly import assemble
from flame_core.training.linked_folders import LinkedFolders
from flame_core.training.made_batch import MadeTexts, made_batch
from flame_core.training.step import Step
from flame_core.vision.tower import ImageTower
from tests.objectives.test_attention_toy import BATCH, CELL, CLASSES, PICTURES, SIDE, batch_of, pictures
from tests.training.world import recipe

TEXT, WRONG = 32, 0.4
LARGE = {"img_size": SIDE, "patch_size": 4, "embed_dim": 48, "depth": 4, "num_heads": 4}
SMALL = LARGE | {"embed_dim": 36, "depth": 2, "num_heads": 3}


class Toy:
    """Patterns, texts of the classes, pictures to learn from, and new ones."""

    def __init__(self, seed: int) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        own = torch.randn(CLASSES, 3, CELL, CELL, generator=self.draw)
        patterns = own + 0.5 * torch.randn(3, CELL, CELL, generator=self.draw)
        self.texts = F.normalize(torch.randn(CLASSES, TEXT, generator=self.draw), dim=-1)
        self.shown, self.classes = pictures(PICTURES, patterns, self.draw)
        self.new, self.right = pictures(500, patterns, self.draw)

    def accuracy(self, tower: ImageTower) -> float:
        """Share of new pictures whose nearest class vector is their own."""
        with torch.inference_mode():
            return (tower.eval().z(self.new)[:, 0] @ self.texts.T).argmax(dim=1).eq(self.right).float().mean().item()


def of_size(options: dict[str, int], seed: int, objective: dict[str, Any], rate: float, **changes: Any) -> TrainParams:
    return recipe(
        model={"backbone_options": options, "image_size": SIDE, "head": "cls"},
        objective=objective,
        optimizer={"learning_rate": rate, "weight_decay": 0.05, "betas": [0.9, 0.98]},
        texts_per_image=1,
        batch_size=BATCH,
        seed=seed,
        **changes,
    )


def trained(toy: Toy, params: TrainParams, steps: int, wrong: float, teacher: Path | None = None) -> ImageTower:
    """The tower after so many steps, in which a share `wrong` of the captions is of another class.

    It inherits from the teacher if its params say so.
    """
    made = MadeTexts(params, TEXT)
    assembly = assemble(params, made, 1, BATCH, PICTURES, LinkedFolders(teacher, teacher))
    optimizer = assembly.optimizer(params)
    step, blank = Step(assembly, optimizer, params, ALONE, "cpu"), made_batch(params, made, BATCH)
    others = torch.randint(CLASSES, (PICTURES,), generator=toy.draw)
    named = torch.where(torch.rand(PICTURES, generator=toy.draw) < wrong, others, toy.classes)
    for number in range(steps):
        at = Moment(number, steps, steps)
        if assembly.prune(at):
            optimizer = assembly.optimizer(params)
            step = Step(assembly, optimizer, params, ALONE, "cpu")
        rows = torch.randint(PICTURES, (BATCH,), generator=toy.draw)
        set_learning_rate(optimizer, learning_rate(number, steps, steps // 10, params.optimizer.learning_rate))
        step(batch_of(blank, toy.shown[rows], toy.texts[named[rows]]), at)
    return assembly.tower


def taught(folder: Path, seed: int) -> tuple[Toy, Path]:
    """The toy and a teacher that names nearly all new pictures."""
    toy = Toy(seed)
    params = of_size(LARGE, seed, {"name": "infonce"}, 2e-3)
    tower = trained(toy, params, 400, wrong=0.0)
    assert toy.accuracy(tower) > 0.9
    folder.mkdir()
    save_weights(tower, folder / WEIGHTS)
    write_json(folder / CONFIG, {"recipe": params.dump(), "hidden": TEXT, "facets": ["raw/1"]})
    return toy, folder


def student(toy: Toy, teacher: Path, seed: int, objective: str, inherits: bool) -> float:
    given = {"scale": 20.0, "teacher_scale": 20.0} if objective == "affinity" else {}
    link = {"path": str(teacher)}
    links = {"teacher": link, "inherit": link if inherits else None}
    params = of_size(SMALL, seed, {"name": objective, **given}, 1e-3, **links)
    return toy.accuracy(trained(toy, params, 120, WRONG, teacher))


def begun(toy: Toy, teacher: Path, seed: int) -> float:
    """The accuracy of a student that has only inherited."""
    params = of_size(SMALL, seed, {"name": "infonce"}, 1e-3, inherit={"path": str(teacher)})
    return toy.accuracy(
        assemble(params, MadeTexts(params, TEXT), 1, BATCH, PICTURES, LinkedFolders(inherited=teacher)).tower
    )


@pytest.mark.slow
def test_a_student_with_wrong_captions_learns_more_from_its_teacher(tmp_path):
    found: dict[str, list[float]] = {"affinity": [], "infonce": [], "scratch": [], "begun": []}
    for seed in (0, 1):
        toy, teacher = taught(tmp_path / str(seed), seed)
        for objective in ("affinity", "infonce"):
            found[objective].append(student(toy, teacher, seed, objective, inherits=True))
        found["begun"].append(begun(toy, teacher, seed))
        found["scratch"].append(student(toy, teacher, seed, "infonce", inherits=False))
    means = {name: sum(each) / len(each) for name, each in found.items()}
    assert means["affinity"] > means["infonce"] + 0.05, found
    assert min(means["affinity"], means["infonce"]) > means["scratch"], found
    assert means["begun"] > 2 / CLASSES, found  # before the first step
