"""A step on several ranks and in pieces equals the step of one process: same loss, same gradients (invariant 5)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from flame_core.objectives.batch import Batch, Moment
from flame_core.params import TrainParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.stepping.graph_room import GraphRoom, pieces_in
from flame_core.stepping.pieces import in_pieces
from flame_core.text.transformer import PAD
from flame_core.training.assembly import Assembly, assemble
from flame_core.training.made_batch import MadeTexts, made_batch
from flame_core.training.step import Step
from tests.training.processes import on_ranks
from tests.training.world import HIDDEN, recipe

BATCH, TEXTS = 8, 2
FIRST = Moment(0, 2, 2)
PLAIN = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def params_of(name: str = "multi_positive_sigmoid", **model) -> TrainParams:
    if name == "facet_sigmoid":
        model["facet_blocks"] = 1
    objective = {"name": name, "logit_bias": "auto"} if "sigmoid" in name else {"name": name}
    text_tower = {"width": 16, "depth": 1, "heads": 2, "max_tokens": 5} if name == "infonce" else None
    return recipe(
        model={"backbone_options": PLAIN, "image_size": 16, **model},
        objective=objective,
        texts_per_image=TEXTS,
        text_tower=text_tower,
    )


def whole_batch(params: TrainParams) -> Batch:
    generator = torch.Generator().manual_seed(5)
    pictures = torch.randn(BATCH, 3, 16, 16, generator=generator)
    t = F.normalize(torch.randn(BATCH, TEXTS, HIDDEN, generator=generator), dim=-1)
    facets = torch.randint(1, 3, (BATCH, TEXTS), generator=generator)
    made = made_batch(params, MadeTexts(params, HIDDEN, vocabulary=9), BATCH)
    texts = t if params.text_tower is None else token_ids()
    return replace(made, pictures=pictures[:, None], texts=texts, facets=facets)


def token_ids() -> torch.Tensor:
    """[BATCH, TEXTS, 5] of texts of 2 to 5 tokens; every other picture draws the same one twice."""
    generator = torch.Generator().manual_seed(6)
    ids = torch.randint(0, 9, (BATCH, TEXTS, 5), generator=generator)
    lengths = torch.randint(2, 6, (BATCH, TEXTS, 1), generator=generator)
    ids = ids.masked_fill(torch.arange(5) >= lengths, PAD)
    ids[::2, 1] = ids[::2, 0]
    return ids


def assembled(params: TrainParams) -> Assembly:
    return assemble(params, MadeTexts(params, HIDDEN, vocabulary=9), facets=2, batch_size=BATCH, samples=BATCH)


def gradients(assembly: Assembly) -> dict[str, torch.Tensor]:
    modules = [*assembly.towers().named_parameters(), *assembly.objective.named_parameters()]
    return {name: p.grad for name, p in modules if p.grad is not None}


def one_step(ranks: Ranks, params: TrainParams) -> dict[str, torch.Tensor]:
    """The loss of a step, and the gradients on a rank after it."""
    assembly = assembled(params)
    still = params.model_copy(update={"optimizer": params.optimizer.model_copy(update={"learning_rate": 0.0})})
    optimizer = assembly.optimizer(still)
    own = slice(ranks.rank * BATCH // ranks.world, (ranks.rank + 1) * BATCH // ranks.world)
    step = Step(assembly, optimizer, params, ranks, "cpu")
    for _ in range(2):  # nothing of the first may stay
        (share,) = step(whole_batch(params)[own], FIRST).values()
    ranks.sum_(share)
    return {"loss": share, **gradients(assembly)}


def formula(params: TrainParams) -> dict[str, torch.Tensor]:
    """The same by autograd, with the loss written out in one graph."""
    assembly, batch = assembled(params), whole_batch(params)
    t = batch.texts
    if assembly.text_tower is not None:
        t = assembly.text_tower(t.reshape(BATCH * TEXTS, -1)).reshape(BATCH, TEXTS, HIDDEN)
    features = {"z": assembly.tower.z(batch.pictures[:, 0])[:, None], "t": t}
    (loss,) = assembly.objective(features, batch, ALONE).values()
    loss.backward()
    return {"loss": loss.detach(), **gradients(assembly)}


def assert_equal_to(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = (found[name] - value).norm().item()
        assert error <= 2e-6 * max(1.0, value.norm().item()), f"{name}: {error} of {value.norm().item()}"


CASES = [
    ("multi_positive_sigmoid", None),
    ("multi_positive_sigmoid", 2),
    ("facet_sigmoid", None),
    ("infonce", None),  # with a text tower that is trained too
    ("infonce", 1),
    ("cosine", None),
]


def every_case(ranks: Ranks) -> list[dict[str, torch.Tensor]]:
    return [one_step(ranks, params_of(name).model_copy(update={"micro_batch_size": micro})) for name, micro in CASES]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_loss_and_gradients_over_ranks_are_those_of_one_process(tmp_path, world):
    expected = [formula(params_of(name)) for name, _ in CASES]
    scales = [grad for each in expected for name, grad in each.items() if name.endswith("logit_scale")]
    assert len(scales) == len(CASES) - 1 and all(
        grad.abs() > 1e-3 for grad in scales
    )  # the cosine has none  # nothing is compared with zeros
    for of_rank in on_ranks(world, every_case, tmp_path):
        for found, right in zip(of_rank, expected, strict=True):
            assert_equal_to(found, right)


@pytest.mark.parametrize("micro", [1, 3, 8, 100])
def test_pieces_of_any_size_give_the_gradients_of_the_whole(micro):
    params = params_of()
    assert_equal_to(one_step(ALONE, params.model_copy(update={"micro_batch_size": micro})), formula(params))


def test_a_piece_runs_twice_with_the_same_dropout():
    """Features come from the run without a graph, gradients from the run with one: dropout must be equal in both."""
    torch.manual_seed(0)
    tower = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(64, 1))
    torch.nn.init.ones_(tower[1].weight)
    inputs = torch.ones(6, 64)
    pieces = in_pieces(lambda piece: {"z": tower(piece)}, inputs.split(2), tower, "cpu")
    z = pieces.features["z"]
    z.grad = torch.ones_like(z)
    pieces.backward(1)
    assert tower[1].weight.grad.sum().item() == pytest.approx((z - tower[1].bias).sum().item())  # = what was kept


def room_for(pieces: int, ranks: Ranks = ALONE) -> GraphRoom:
    room = GraphRoom("cpu", ranks)
    room.kept = pieces
    return room


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 9])
def test_a_piece_that_keeps_its_graph_runs_once_with_the_same_result(kept):
    torch.manual_seed(0)
    tower = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(64, 1))
    inputs, target, runs = torch.randn(6, 64), torch.randn(6, 1), []

    def run(piece: torch.Tensor) -> dict[str, torch.Tensor]:
        runs.append(torch.is_grad_enabled())
        return {"z": tower(piece)}

    def result(room: GraphRoom | None) -> list[torch.Tensor]:
        tower.zero_grad()
        torch.manual_seed(1)
        pieces = in_pieces(run, inputs.split(2), tower, "cpu", room)
        z = pieces.features["z"]
        z.grad = target.clone()
        pieces.backward(1)
        return [z.detach(), *(p.grad.clone() for p in tower.parameters()), torch.get_rng_state()]

    expected = result(None)
    assert runs == [False] * 3 + [True] * 3
    runs.clear()
    for found, right in zip(result(room_for(kept)), expected, strict=True):
        assert torch.equal(found, right)
    alive = min(kept, 3)
    assert runs == [True] * alive + [False] * (3 - alive) + [True] * (3 - alive)


def test_room_is_measured_again_when_other_terms_begin_to_count(monkeypatch):
    held = [100, 100]
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda: held.pop(0))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (1000, 1000))
    room, kept = GraphRoom("cuda", ALONE), []
    for phase in ("texts", "texts", "texts", "pictures", "pictures", "pictures"):
        with room.step(phase):
            if phase == "pictures":
                held[:] = [100, 140]
                room.held(lambda: None)
        kept.append(room.kept)
    assert kept == [0, 0, 0, 0, 20, 20]  # 0.8 * 1000 / 40


def kept_pieces(ranks: Ranks) -> list[dict[str, torch.Tensor]]:
    params = params_of().model_copy(update={"micro_batch_size": 1})
    found = []
    for kept in (0, 1, 4):
        assembly = assembled(params)
        own = slice(ranks.rank * BATCH // ranks.world, (ranks.rank + 1) * BATCH // ranks.world)
        still = params.model_copy(update={"optimizer": params.optimizer.model_copy(update={"learning_rate": 0.0})})
        step = Step(assembly, assembly.optimizer(still), params, ranks, "cpu")
        step._room = room_for(kept, ranks)
        for _ in range(2):
            step(whole_batch(params)[own], FIRST)
        found.append(gradients(assembly))
    return found


def test_on_several_ranks_too_pieces_that_keep_their_graph_give_the_same_gradients(tmp_path):
    expected = formula(params_of())
    for of_rank in on_ranks(2, kept_pieces, tmp_path):
        for found in of_rank:
            assert_equal_to(found, {name: value for name, value in expected.items() if name != "loss"})


def uneven_captions(params: TrainParams) -> Batch:
    """The first half of the pictures draws one caption twice, so a piece holds it; the others draw different ones."""
    ids = torch.arange(BATCH * TEXTS).reshape(BATCH, TEXTS, 1) % 9 + torch.tensor([0, 1, 2, 3, 4]) % 2
    ids[: BATCH // 2, 1] = ids[: BATCH // 2, 0]
    return replace(whole_batch(params), texts=ids.clamp(max=8))


def unevenly(ranks: Ranks) -> list[float]:
    """The loss of steps in which ranks read different numbers of pieces of captions."""
    params = params_of("infonce").model_copy(update={"micro_batch_size": 2})
    assembly = assembled(params)
    step = Step(assembly, assembly.optimizer(params), params, ranks, "cpu")
    own = slice(ranks.rank * BATCH // ranks.world, (ranks.rank + 1) * BATCH // ranks.world)
    losses = []
    for number in range(3):
        (share,) = step(uneven_captions(params)[own], Moment(number, 3, 3)).values()
        ranks.sum_(share)
        losses.append(share.item())
    return losses


def test_ranks_that_read_different_numbers_of_pieces_do_not_wait_for_one_another(tmp_path):
    expected = unevenly(ALONE)
    for found in on_ranks(2, unevenly, tmp_path):
        assert found == pytest.approx(expected, rel=1e-5)


def test_ranks_agree_on_the_least_number(tmp_path):
    assert ALONE.least(3) == 3
    assert list(on_ranks(2, least_of_two, tmp_path)) == [5, 5]


def least_of_two(ranks: Ranks) -> int:
    return ranks.least(5 + 2 * ranks.rank)


@pytest.mark.parametrize(("free", "piece", "expected"), [(100, 10, 8), (100, 81, 0), (100, 80, 1), (100, 0, 0)])
def test_as_many_graphs_as_fit_into_most_of_the_free_memory(free, piece, expected):
    assert pieces_in(free, piece) == expected


def test_a_caption_that_is_drawn_twice_is_read_once():
    params = params_of("infonce")
    assembly = assembled(params)
    read = []
    assembly.text_tower.register_forward_hook(lambda _, inputs, out: read.append(len(inputs[0])))
    Step(assembly, assembly.optimizer(params), params, ALONE, "cpu")(whole_batch(params), FIRST)
    assert read == [BATCH * TEXTS - BATCH // 2]


def test_activation_checkpointing_changes_no_gradient():
    for name in ("multi_positive_sigmoid", "facet_sigmoid"):
        assert_equal_to(one_step(ALONE, params_of(name, checkpoint_activations=True)), formula(params_of(name)))


@pytest.mark.parametrize("name", ["multi_positive_sigmoid", "facet_sigmoid", "infonce", "cosine"])
def test_a_weight_scales_loss_and_gradients(name):
    params = params_of(name)
    weighted = params.model_copy(update={"objective": params.objective.model_copy(update={"weight": 0.25})})
    expected = {part: 0.25 * value for part, value in formula(params).items()}
    assert_equal_to(one_step(ALONE, weighted), expected)
