"""Losses that count in a part of the steps: pictures are learned without texts first, then with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flame_core.data.shards import read_index
from flame_core.params import TrainParams
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.text.projection import ProjectedSamples
from flame_core.text.store import TrainStore
from flame_core.training.assembly import assemble
from flame_core.training.loader import TrainingSamples
from flame_core.training.loop import Trained, train
from flame_core.training.made_batch import MadeTexts
from tests.training.processes import on_ranks
from tests.training.proclip import proclip_recipe
from tests.training.world import FACETS, HIDDEN, recipe, write_world


def phased(**changes) -> TrainParams:
    """Three steps of SimCLR on the mean patch only, which reads no z and no text, then three with InfoNCE too."""
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    base = {
        "model": {"backbone_options": options, "image_size": 16},
        "text_projection": {"layers": 2, "hidden": 20, "dim": 12},
        "objective": {"name": "infonce", "during": [0.5, 1.0]},
        "terms": [{"name": "simclr", "feature": "pooled"}],
        "optimizer": {"learning_rate": 3e-3, "eps": 1e-3, "weight_decay": 0.1},
        "epochs": 2,
        "warmup_steps": 1,
    }
    return recipe(**base | changes)


def trained(ranks: Ranks, folder: Path, params: TrainParams, *recorders) -> Trained:
    texts = ProjectedSamples(TrainStore(folder / "embeddings"), params.text_projection)
    samples = TrainingSamples(
        read_index(folder / "shards", "train"), folder / "shards", texts, range(len(FACETS)), params
    )
    return train(samples, params, folder / f"checkpoints-{ranks.world}-{params.micro_batch_size}", ranks, *recorders)


def weights_of(ranks: Ranks, folder: Path, micro: int | None) -> dict[str, torch.Tensor]:
    tower, _, texts = trained(ranks, folder, phased(micro_batch_size=micro))
    assert texts is not None
    return {**tower.state_dict(), **{f"text.{name}": value for name, value in texts.state_dict().items()}}


def test_a_step_whose_losses_read_no_text_is_trained(tmp_path):
    write_world(tmp_path)
    _, metrics, _ = trained(ALONE, tmp_path, phased())
    assert [sorted(name for name in row if name.startswith("loss/")) for row in metrics] == [
        *[["loss/simclr"]] * 3,
        *[["loss/infonce", "loss/simclr"]] * 3,
    ]


@pytest.mark.slow
def test_two_ranks_and_pieces_give_the_weights_of_one(tmp_path):
    write_world(tmp_path)
    expected = weights_of(ALONE, tmp_path, None)
    for found in [weights_of(ALONE, tmp_path, 3), *on_ranks(2, weights_of, tmp_path, tmp_path, 2)]:
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_steps_may_read_different_features():
    def reads_vary(params: TrainParams) -> bool:
        return assemble(params, MadeTexts(params, HIDDEN), 1, 8, 24).objective.reads_vary

    assert reads_vary(phased()) and not reads_vary(phased(objective={"name": "infonce"}))
    later = proclip_recipe()
    assert not reads_vary(later.model_copy(update={"terms": later.terms[1:]}))  # no picture before, then z
