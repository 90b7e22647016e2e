"""What learned masks leave of a tower is worth more than drawn weights: the toy of `test_affinity_toy`, pruned.

The student begins as its teacher, is pruned to 40 % of its blocks' weights after 60 % of the steps, and learns from the
teacher's affinities while 40 % of the captions are wrong. Beside it, a tower of the sizes that the masks left, with
drawn weights, learns from the same teacher and CLIP's loss in as many steps.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.vision.block_sizes import block_weights, sizes_of
from tests.objectives.test_affinity_toy import LARGE, WRONG, Toy, of_size, taught, trained

KEEP, STEPS = 0.4, 200
AFFINITY = {"name": "affinity", "scale": 20.0, "teacher_scale": 20.0}


def pruned_and_drawn(toy: Toy, teacher: Path, seed: int) -> tuple[float, float]:
    """The accuracies of the pruned student, and of one with its sizes and drawn weights."""
    link = {"path": str(teacher)}
    masks = {"name": "learned_masks", "keep": KEEP, "share": 0.6}
    params = of_size(LARGE, seed, AFFINITY, 1e-3, teacher=link, inherit=link, terms=[masks])
    pruned = trained(toy, params, STEPS, WRONG, teacher)
    sizes = sizes_of(pruned.backbone)
    whole = 4 * (4 * 48 * 48 + 2 * 48 * 192)
    assert 0.3 < block_weights(sizes, 12) / whole <= KEEP
    drawn = of_size(LARGE, seed, {"name": "infonce"}, 1e-3, teacher=link, terms=[AFFINITY])
    drawn = drawn.model_copy(update={"model": drawn.model.model_copy(update={"sizes": sizes})})
    return toy.accuracy(pruned), toy.accuracy(trained(toy, drawn, STEPS, WRONG, teacher))


@pytest.mark.slow
def test_a_pruned_teacher_is_a_better_student_than_drawn_weights_of_its_sizes(tmp_path):
    found = [pruned_and_drawn(*taught(tmp_path / str(seed), seed), seed) for seed in (0, 1)]
    pruned, drawn = (sum(each) / len(found) for each in zip(*found, strict=True))
    assert pruned > drawn + 0.1, found
