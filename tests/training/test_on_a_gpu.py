"""Trainings on a GPU, pretended and real, go as on a CPU, and their models see pictures alike."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flame_core.errors import Interrupted
from flame_core.params import TrainParams
from flame_core.settings import settings
from flame_core.stepping import checkpoint
from flame_core.training.loop import train
from flame_core.vision.image_encoder import ImageEncoder
from tests.gpus import GPUS, on_a_gpu
from tests.training.a_clip import a_clip
from tests.training.masked import PLAIN, masked_recipe
from tests.training.world import recipe, samples_of, write_world

MODEL = {"backbone_options": PLAIN, "image_size": 16}
RECIPES = {
    "in pieces": recipe(model=MODEL, micro_batch_size=3, epochs=2),
    "A-CLIP": a_clip(),
    "learned masks": masked_recipe(),
}


def pictures() -> list[bytes]:
    rng, found = np.random.default_rng(0), []
    for _ in range(5):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(buffer, "JPEG")
        found.append(buffer.getvalue())
    return found


def trained(folder: Path, params: TrainParams) -> tuple[list[float], np.ndarray]:
    """The loss of each step, and z_0 of pictures [5, D] in batches of two."""
    device = settings().torch_device()
    tower, metrics, _ = train(samples_of(folder, params), params, folder / device)
    encoder = ImageEncoder(tower, {"recipe": params.model_dump(mode="json")}, device)
    return [row["loss"] for row in metrics], encoder.encode(pictures(), batch_size=2)


def trained_all(folder: Path) -> dict[str, tuple[list[float], np.ndarray]]:
    found = {}
    for number, (name, params) in enumerate(RECIPES.items()):
        own = folder / str(number)
        own.mkdir(exist_ok=True)
        if not (own / "shards").exists():
            write_world(own)
        found[name] = trained(own, params)
    return found


@pytest.mark.parametrize("on", GPUS)
def test_it_goes_as_on_a_cpu(tmp_path, on):
    expected, found = trained_all(tmp_path), on(trained_all, tmp_path)
    for name, (losses, z) in expected.items():
        own_losses, own_z = found[name]
        assert own_losses == pytest.approx(losses, rel=2e-3), name
        assert (own_z * z).sum(-1).min() > 0.9999, name


def stopped(folder: Path) -> tuple[list[float], list[float], int]:
    """The steps that were told before a stop, those that the checkpoint holds, and its own number of steps."""
    folder.mkdir()
    write_world(folder)
    params = recipe(model=MODEL, epochs=6)
    told: list[float] = []
    saved: list[checkpoint.Checkpoint] = []

    def stop_at_two(row: dict[str, float]) -> None:
        told.append(row["step"])
        if row["step"] == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda folder, state, *others: saved.append(state))
        with pytest.raises(Interrupted, match=r"^stopped after step \d of \d+; run again to resume$"):
            train(samples_of(folder, params), params, folder / "checkpoints", on_step=stop_at_two)
    (state,) = saved
    return told, [row["step"] for row in state.metrics], state.step


@pytest.mark.parametrize("on", GPUS)
def test_a_stop_is_noticed_a_step_later_and_all_steps_that_were_asked_for_are_kept(tmp_path, on):
    assert stopped(tmp_path / "cpu") == ([0, 1, 2, 3], [0, 1, 2, 3], 4)
    assert on(stopped, tmp_path / "cuda") == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], 6)


def resumed(folder: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The metrics of a training with dropped paths, as a whole, and stopped and resumed."""
    write_world(folder)
    params = recipe(micro_batch_size=3, epochs=3)
    samples = samples_of(folder, params)

    def stop_at_four(row: dict[str, float]) -> None:
        if row["step"] == 4:
            signal.raise_signal(signal.SIGTERM)

    _, whole, _ = train(samples, params, folder / "whole")
    with pytest.raises(Interrupted):
        train(samples, params, folder / "stopped", on_step=stop_at_four)
    return whole, train(samples, params, folder / "stopped").metrics


@pytest.mark.parametrize("on", GPUS)
def test_a_resumed_training_goes_on_as_a_whole_one(tmp_path, on):
    whole, again = on(resumed, tmp_path)
    losses, expected = ([row["loss"] for row in rows] for rows in (again, whole))
    assert losses == expected if on is on_a_gpu else losses == pytest.approx(expected, rel=1e-3)  # sums in any order
