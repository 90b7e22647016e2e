"""The cost of trainings against published and hand-computed numbers, and against real steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from flame_core.errors import ParamsError, ResourceError
from flame_core.objectives.batch import Batch, Features, Moment
from flame_core.objectives.moving_average import MovingAverage
from flame_core.objectives.term import Needs, Setup, Term
from flame_core.params import CosineParams, Params, TrainParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.text.memory import require_llm_memory
from flame_core.training.assembly import assemble
from flame_core.training.cost import different_captions, training_cost
from flame_core.training.cost_figures import TrainingCost
from flame_core.training.counting import Quadratic, counted
from flame_core.training.made_batch import MadeTexts, made_batch
from flame_core.training.memory import fitted_training
from flame_core.training.step import Step
from flame_core.vision.tower import ImageTower
from tests.stages.pipeline import pipeline_params
from tests.training.masked import masked_recipe
from tests.training.world import HIDDEN, recipe, samples_of, write_world

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 2}
TEXTS = {"width": 32, "depth": 2, "heads": 2, "max_tokens": 10}
SLOTS = ["raw/1", "short/1"]


def small(**changes) -> TrainParams:
    return recipe(model={"backbone_options": SMALL, "image_size": 32, **changes.pop("model", {})}, **changes)


def cost_of(params: TrainParams, samples: int = 1000, slots: list[str] = SLOTS, **options) -> TrainingCost:
    return training_cost(params, HIDDEN, slots, samples, **options)


class SelfTeaching(Term):
    """Two views, of which an average of the tower sees the second; a head on the first learns what that says."""

    def __init__(self, params: CosineParams, setup: Setup) -> None:
        super().__init__(params, setup)
        self.teacher = MovingAverage(setup.tower)
        self.head = nn.Linear(HIDDEN, HIDDEN, bias=False)

    @classmethod
    def needs(cls, params: CosineParams) -> Needs:
        return Needs(views=2)

    def prepare(self, batch: Batch, tower: ImageTower, at: Moment, ranks: Ranks) -> Batch:
        return batch.with_extra(taught=self.teacher(batch.pictures[:, 1])["z"][:, 0])

    def forward(self, features: Features, batch: Batch, ranks: Ranks) -> dict[str, torch.Tensor]:
        z = self.head(features["z"][:, 0, 0].float())
        return {"taught": (z - batch.extra["taught"]).square().mean()}

    def after_step(self, tower: ImageTower, features: Features, batch: Batch, at: Moment, ranks: Ranks) -> None:
        self.teacher.update(tower, 0.9)


@pytest.fixture
def self_teaching(monkeypatch: pytest.MonkeyPatch) -> TrainParams:
    monkeypatch.setattr("flame_core.objectives.term_classes", lambda: {"cosine": SelfTeaching})
    return small(objective={"name": "cosine"}, batch_size=6)


@pytest.mark.slow
def test_flops_of_vit_b16_and_flame_s_projector():
    """ViT-B/16 at 224 px: 35.2 GFLOP; 30.17 M weights and 11.9 GFLOP of projector on 197 tokens (here 196)."""
    cost = training_cost(TrainParams(), 5120, [f"long/{n}" for n in range(1, 8)], samples=2_905_954)
    assert cost.image.forward_flops == pytest.approx(35.2e9 + 11.9e9 * 196 / 197, rel=0.01)
    assert cost.steps == 32 * (2_905_954 // 3072)
    assert cost.flops == pytest.approx(cost.steps * 3072 * 141e9, rel=0.01)
    assert cost.weights == pytest.approx(85.8e6 + 30.17e6, rel=0.01)


@pytest.mark.slow
def test_the_text_tower_of_the_clip_recipe_at_full_length():
    """12 blocks of width 512 on 77 tokens: 6.0 GFLOP per caption; 12 width^2 weights a block, and the tables."""
    params = TrainParams.model_validate({"text_tower": {}, "objective": {"name": "infonce"}, "texts_per_image": 1})
    text = training_cost(params, 5120, ["raw/1"], 1000, vocabulary=131073).text
    assert text is not None
    assert text.forward_flops == 12 * (24 * 77 * 512**2 + 4 * 77**2 * 512) + 2 * 512 * 5120
    assert text.weights == pytest.approx(12 * 12 * 512**2 + (131073 + 77 + 5120) * 512, rel=0.01)


def test_flops_of_a_small_training_by_hand():
    """A block on T tokens of width C: 24 T C^2 of products, 4 T^2 C of attention; [M, N] by [N, K]: 2 M N K."""
    batch, k = 64, 2
    image = 4 * (24 * 17 * 48**2 + 4 * 17**2 * 48) + 2 * 16 * (3 * 8 * 8 * 48 + 48 * HIDDEN + HIDDEN * HIDDEN)
    logits = 2 * batch * batch * k * HIDDEN
    stored = cost_of(small(batch_size=batch))
    assert stored.text is None
    assert stored.image.forward_flops == image
    assert stored.step_flops == {"image tower": 3 * batch * image, "objective": 2 * logits}  # no gradient of stored t

    text = 2 * (24 * 10 * 32**2 + 4 * 10**2 * 32) + 2 * 32 * HIDDEN
    trained = cost_of(small(batch_size=batch, text_tower=TEXTS, objective={"name": "infonce"}), vocabulary=50)
    assert trained.text is not None
    assert (trained.text.forward_flops, trained.text.items) == (text, k)
    assert trained.step_flops == {
        "image tower": 3 * batch * image,
        "text tower": 3 * batch * k * text,
        "objective": 3 * logits,
    }
    assert trained.flops == trained.steps * sum(trained.step_flops.values())
    assert trained.steps == 6 * (1000 // batch)
    assert trained.weights - stored.weights == trained.text.weights - 1  # the sigmoid's bias


def flops_of_a_step(params: TrainParams, batch: int) -> float:
    """By torch's counter on the real step."""
    texts = MadeTexts(params, HIDDEN, vocabulary=50)
    assembly = assemble(params, texts, 1, batch, batch)
    step = Step(assembly, assembly.optimizer(params), params, ALONE, "cpu")
    made = made_batch(params, texts, batch)
    return counted(lambda: step(made, Moment(0, 10, 5))).flops


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"texts_per_image": 1, "model": {"head": "pooled"}, "objective": {"name": "cosine"}},
        {"text_tower": TEXTS, "objective": {"name": "infonce"}},
        {"text_tower": TEXTS, "objective": {"name": "infonce"}, "micro_batch_size": 2},
    ],
)
def test_the_parts_add_up_to_the_flops_of_a_real_step(changes):
    """Backward is not quite two forwards: pictures need no gradient, and attention is recomputed."""
    params = small(batch_size=6, **changes)
    cost = cost_of(params, vocabulary=50)
    assert sum(cost.step_flops.values()) == pytest.approx(flops_of_a_step(params, 6), rel=0.04)


def test_recomputing_costs_at_most_a_forward():
    """Torch leaves out the last product of every block when it recomputes it: 8 of its 24 T C^2."""
    params = small(batch_size=6, model={"checkpoint_activations": True})
    assert 1.0 < sum(cost_of(params).step_flops.values()) / flops_of_a_step(params, 6) < 1.13


def test_what_a_term_adds_is_counted(self_teaching):
    """Its second view, its teacher's forward, its head and the teacher's weights, and no method is known by name."""
    cost = cost_of(self_teaching)
    assert cost.image.items == 2
    assert cost.weights - cost.image.weights == HIDDEN * HIDDEN
    head = 3 * 2 * HIDDEN * HIDDEN
    assert cost.objective.before_flops == pytest.approx(6 * cost.image.forward_flops)
    assert cost.objective.flops == pytest.approx(6 * head)
    assert sum(cost.step_flops.values()) == pytest.approx(flops_of_a_step(self_teaching, 6), rel=0.04)
    assert cost.objective.memory > 4 * cost.image.weights


def test_patches_that_the_tower_does_not_see_cost_nothing():
    """A-CLIP on 4 x 4 patches: 3 of 4 cells of two views; the average looks at 2 x 2 patches of half the size."""
    heads = {"hidden": 8, "dim": 4}
    terms = [{"name": "attentive_mask"}, {"name": "simclr", **heads}, {"name": "byol", **heads}]
    losses = {"objective": {"name": "infonce", "views": "all"}, "terms": terms}
    masked = small(model={"head": "cls"}, batch_size=6, texts_per_image=1, **losses)
    cost = cost_of(masked)

    def blocks(tokens: int) -> int:
        return 4 * (24 * tokens * 48**2 + 4 * tokens**2 * 48)

    assert cost.image.items == 2
    head = 2 * (48 * HIDDEN + HIDDEN * HIDDEN)
    assert cost.image.forward_flops == blocks(1 + 12) + 2 * 16 * 3 * 8 * 8 * 48 + head  # all patches are embedded
    cls_rows = 4 * 2 * 5 * 48
    assert cost.objective.before_flops == 6 * (blocks(1 + 4) + 2 * 4 * 3 * 8 * 8 * 48 + cls_rows)
    assert list(cost.step_flops) == ["image tower", "before the towers", "objective"]
    assert sum(cost.step_flops.values()) == pytest.approx(flops_of_a_step(masked, 6), rel=0.04)
    whole = cost_of(masked.model_copy(update={"terms": masked.terms[1:2]}))
    assert cost.image.activation_bytes < 0.9 * whole.image.activation_bytes
    assert cost.input_bytes - whole.input_bytes == 6 * 4 * 3 * 16 * 16


def test_activations_are_what_autograd_keeps():
    """Twice the blocks keep twice as much; recomputing keeps a fraction; so does a piece of a batch."""
    whole = cost_of(small())
    deep = cost_of(small(model={"backbone_options": SMALL | {"depth": 8}}))
    assert 1.7 < deep.image.activation_bytes / whole.image.activation_bytes < 2.0
    recomputed = cost_of(small(model={"checkpoint_activations": True}))
    assert recomputed.image.activation_bytes < 0.3 * whole.image.activation_bytes
    assert (whole.image.forwards, recomputed.image.forwards) == (1, 2)
    pieces = cost_of(small(batch_size=64, micro_batch_size=16))
    assert (pieces.held, pieces.image.forwards, pieces.steps) == (16, 2, 6 * 15)


def test_pieces_of_both_towers():
    params = small(batch_size=64, text_tower=TEXTS, objective={"name": "infonce"})
    whole = cost_of(params)
    assert whole.text is not None
    assert (whole.image.held, whole.text.held, whole.text.forwards) == (64, 128, 1)
    pieces = whole.with_micro_batch(16)
    assert pieces.text is not None
    assert (pieces.image.held, pieces.text.held, pieces.text.forwards) == (16, 32, 2)
    assert pieces == cost_of(params.model_copy(update={"micro_batch_size": 16}))
    shared = cost_of(params, processes=4)
    assert shared.text is not None
    assert (shared.image.held, shared.text.held) == (16, 32)
    assert shared.step_flops == whole.step_flops


def test_a_caption_that_several_texts_were_read_from_is_read_once():
    """Texts of one caption are one caption; of raw/1, short/1 and short/2 one pair of three is."""
    assert different_captions(["long/1", "long/2", "long/3"], 2) == 1
    assert different_captions(["raw/1", "short/1", "short/2"], 2) == pytest.approx((2 + 2 + 1) / 3)
    assert different_captions(["raw/1", "raw/1#2", "short/1"], 3) == 3
    params = small(text_tower=TEXTS, objective={"name": "infonce"})
    text = cost_of(params, slots=["long/1", "long/2"]).text
    assert text is not None
    assert text.items == 1


def test_a_polynomial_through_three_values():
    fit = Quadratic.through(*(5 + 3 * n + 2 * n**2 for n in (2, 3, 4)))
    assert fit == Quadratic(5, 3, 2)


def test_values_that_a_term_reads_have_to_be_there(monkeypatch):
    monkeypatch.setattr(SelfTeaching, "needs", classmethod(lambda cls, params: Needs(sidecars=("labels",))))
    monkeypatch.setattr("flame_core.objectives.term_classes", lambda: {"cosine": SelfTeaching})
    with pytest.raises(ParamsError, match="labels: store them first"):
        cost_of(small(objective={"name": "cosine"}))


def test_planning_leaves_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    cost_of(small())
    assert torch.rand(1) == expected


GROWTH = r"""
import re, sys
from flame_core.objectives.batch import Moment
from flame_core.params import TrainParams
from flame_core.processes.ranks import ALONE
from flame_core.training.assembly import assemble
from flame_core.training.made_batch import MadeTexts, made_batch
from flame_core.training.step import Step

def status(name):
    return 1024 * int(re.search(name + r":\s+(\d+) kB", open("/proc/self/status").read())[1])

def train(params, batch):
    texts = MadeTexts(params, 64, vocabulary=500)
    made = made_batch(params, texts, batch)
    assembly = assemble(params, texts, 1, batch, batch)
    step = Step(assembly, assembly.optimizer(params), params, ALONE, "cpu")
    for number in range(2):
        step(made, Moment(number, 2, 2))

params = TrainParams.model_validate_json(sys.argv[1])
train(params, 2)  # what a process needs whatever it trains
before = status("VmRSS")
train(params, params.batch_size)
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("text_tower", [None, {"width": 128, "depth": 4, "heads": 4, "max_tokens": 64}])
def test_the_memory_of_a_real_step(text_tower):
    """Peak memory of a process that takes two steps: within a fifth of what is planned."""
    options = {"img_size": 64, "patch_size": 8, "embed_dim": 192, "depth": 6, "num_heads": 3}
    params = recipe(
        model={"backbone_options": options, "image_size": 64},
        objective={"name": "infonce"},
        text_tower=text_tower,
        texts_per_image=1,
        batch_size=64,
    )
    child = [sys.executable, "-c", GROWTH, params.model_dump_json()]
    measured = int(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    planned = training_cost(params, 64, ["raw/1"], 1000, vocabulary=500).memory
    assert measured == pytest.approx(planned, rel=0.2)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_world(tmp_path)
    return tmp_path


def test_a_gpu_that_is_too_small_gets_pieces_or_says_what_helps(world):
    params = small(batch_size=24)
    samples = samples_of(world, params)
    cost = cost_of(params, samples=24, slots=samples.slots)
    assert fitted_training(params, samples, 1, free=2 * cost.memory) == (params, cost)
    held = cost.image.activation_bytes
    free = int((cost.memory - 24 * held + 10 * held) / 0.92)
    fitted, of_pieces = fitted_training(params, samples, 1, free)
    assert fitted == small(batch_size=24, micro_batch_size=8)
    assert of_pieces == fitted_training(fitted, samples, 1, free)[1]
    assert of_pieces.useful_step_flops == cost.useful_step_flops == sum(cost.step_flops.values())
    for recipe_says in ({"micro_batch_size": 16}, {"model": {"backbone_options": SMALL | {"drop_path_rate": 0.1}}}):
        own = small(batch_size=24, **recipe_says)  # its pieces, or the pieces of what it draws, would change the result
        with pytest.raises(ResourceError, match=r"tower [57]\.[35] MB.*missing. Set train.micro_batch_size to 8 "):
            fitted_training(own, samples, 1, free)
    with pytest.raises(ResourceError, match="checkpoint_activations to true"):
        fitted_training(params, samples, 1, free=1000)


@pytest.mark.parametrize(
    ("option", "draws"), [({}, False), ({"drop_path_rate": 0.1}, True), ({"proj_drop_rate": 0.1}, True)]
)
def test_towers_that_draw_at_random_are_known(option, draws):
    assert cost_of(small(model={"backbone_options": SMALL | option})).draws == draws


def test_an_llm_that_does_not_fit_says_what_helps():
    params: Params = pipeline_params({"x": {"kind": "folder", "path": "x"}})
    require_llm_memory(params, weight_bytes=10 * 10**9, free=20 * 10**9)
    with pytest.raises(ResourceError, match=r"needs 40\.0 GB .* 20\.0 GB are free.*text\.dtype bfloat16 \(20\.0 GB\)"):
        require_llm_memory(params, weight_bytes=40 * 10**9, free=20 * 10**9)


def test_masks_cost_their_weights_and_the_tower_stays_whole_until_it_is_pruned():
    params = masked_recipe()
    cost, plain = (cost_of(each, samples=24) for each in (params, params.model_copy(update={"terms": []})))
    assert cost.image.weights == plain.image.weights
    assert cost.objective.weights == plain.objective.weights + 24 + 2 * (2 + 96) + 2
    assert cost.image.forward_flops == pytest.approx(plain.image.forward_flops, rel=0.02)
