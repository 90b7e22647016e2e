"""What learned masks leave of a tower is worth more than drawn weights: the toy of `test_affinity_toy`, pruned.

The student begins as its teacher, is pruned to 40 % of its blocks' weights after half of the steps, and learns from the
teacher's affinities while 40 % of the captions are wrong. Beside it, a tower of the sizes that the masks left, with
drawn weights, learns from the same teacher and CLIP's loss in as many steps.
"""

from __future__ import annotations

import pytest

from flame_core.vision.block_sizes import block_weights, sizes_of
from tests.objectives.test_affinity_toy import BATCH, LARGE, PICTURES, WRONG, of_size, taught, trained

KEEP, EPOCHS = 0.4, 3
STEPS = EPOCHS * (PICTURES // BATCH)
AFFINITY = {"name": "affinity", "scale": 20.0, "teacher_scale": 20.0}


@pytest.mark.slow
def test_a_pruned_teacher_is_a_better_student_than_drawn_weights_of_its_sizes(tmp_path):
    toy, teacher = taught(tmp_path / "teacher", seed=0)
    link = {"path": str(teacher)}
    masks = {"name": "learned_masks", "keep": KEEP, "share": 0.5}
    params = of_size(LARGE, 0, AFFINITY, 1e-3, teacher=link, inherit=link, terms=[masks], epochs=EPOCHS)
    pruned = trained(toy, params, STEPS, WRONG, teacher)
    sizes = sizes_of(pruned.backbone)
    whole = 4 * (4 * 48 * 48 + 2 * 48 * 192)
    assert 0.3 < block_weights(sizes, 12) / whole <= KEEP
    drawn = of_size(LARGE, 0, {"name": "infonce"}, 1e-3, teacher=link, terms=[AFFINITY], epochs=EPOCHS)
    drawn = drawn.model_copy(update={"model": drawn.model.model_copy(update={"sizes": sizes})})
    found = toy.accuracy(pruned), toy.accuracy(trained(toy, drawn, STEPS, WRONG, teacher))
    assert found[0] > found[1] + 0.1, found
