"""The training of a codebook with a captioner: what it finds on planted topics, and that it resumes bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score

from flame_core.clustering.spherical import first_centroids, fit_reduction, nearest, on_sphere
from flame_core.codes.codebook import on_grid
from flame_core.codes.inequality import perplexity
from flame_core.codes.minibatch import Batches, first_fit, next_fit
from flame_core.errors import ComputationError
from flame_core.params import VqParams
from flame_core.selections.histograms import histograms
from flame_core.settings import settings
from flame_core.stepping import stepwise
from flame_core.tuning.fit import one_thread
from flame_core.vq.decoder import Vocabulary
from flame_core.vq.fit import CodeCaptioner, Described, batch, fit, held_out_losses
from tests.vq.planted import KINDS, TOPICS, Planted, planted

CPU = torch.device("cpu")


class Killed(BaseException):
    """Ends a training between two steps."""


@pytest.fixture(scope="module")
def small() -> Described:
    world = planted(60, patches=9, dims=6)
    return Described(on_sphere(world.tokens.reshape(-1, 6)).reshape(60, 9, 6).astype(np.int16), world.captions)


def state(model: CodeCaptioner) -> list[bytes]:
    return [value.numpy().tobytes() for value in model.state_dict().values()]


def quick(**changes) -> VqParams:
    return VqParams(**{"steps": 12, "batch_size": 16, "width": 32, "layers": 1, "max_words": 6} | changes)


def test_killed_and_resumed_it_ends_with_the_same_bytes(small, tmp_path, monkeypatch):
    every_step = settings().model_copy(update={"checkpoint_seconds": 0.0})
    monkeypatch.setattr(stepwise, "settings", lambda: every_step)
    first = first_centroids(small.tokens.reshape(-1, 6), 10, 0)
    with one_thread():
        whole, metrics = fit(small, first, quick(), 0, CPU, tmp_path / "a")

        def kill(step: int) -> None:
            if step == 4:
                raise Killed

        with pytest.raises(Killed):
            fit(small, first, quick(), 0, CPU, tmp_path / "b", kill)
        steps: list[int] = []
        resumed, again = fit(small, first, quick(), 0, CPU, tmp_path / "b", steps.append)
        assert steps[0] == 5 and again == metrics and state(resumed) == state(whole)
        other, _ = fit(small, first, quick(), 1, CPU, tmp_path / "c")
        assert state(other) != state(whole)


def test_a_rate_that_is_too_high_is_named(small, tmp_path):
    first = first_centroids(small.tokens.reshape(-1, 6), 10, 0)
    message = r"codes\.vq: the loss of step 1 is not finite: lower codes\.vq\.learning_rate \(1e\+30\)"
    with pytest.raises(ComputationError, match=message):
        fit(small, first, quick(learning_rate=1e30), 0, CPU, tmp_path)


def test_an_epoch_has_each_picture_once_and_all_captions_of_it_over_time(small):
    rows = [batch(small, 16, 0, step)[0].tolist() for step in range(3)]
    assert len({row for own in rows for row in own}) == 48  # 60 pictures, three whole batches
    again, texts = batch(small, 16, 0, 1)
    assert again.tolist() == rows[1]
    assert all(text in small.captions[row] for row, text in zip(again.tolist(), texts, strict=True))
    seen = {text for step in range(30) for text in batch(small, 60, 0, step)[1]}
    assert seen == {text for own in small.captions for text in own}


def test_the_draws_of_a_step_follow_from_the_seed_and_its_number(small):
    for step in [0, 1, 3, 0, 5]:
        for seed in (0, 4):  # by turns, so the order that is kept is another's
            epoch, place = divmod(step, 3)
            draw = np.random.default_rng([seed, epoch])
            order, shares = draw.permutation(60)[16 * place : 16 * place + 16], draw.random(60)
            rows, texts = batch(small, 16, seed, step)
            assert rows.tolist() == order.tolist()
            own = [small.captions[row] for row in order.tolist()]
            assert texts == [each[int(share * len(each))] for each, share in zip(own, shares[order], strict=True)]


def test_held_out_losses_are_those_of_own_and_of_other_codes(small):
    first = first_centroids(small.tokens.reshape(-1, 6), 10, 0)
    torch.manual_seed(0)

    model = CodeCaptioner(first, Vocabulary.of([text for own in small.captions for text in own], 99), quick()).eval()
    part = small.part(np.arange(5))
    own, other = held_out_losses(model, part, 2)
    assert held_out_losses(model, part, 5) == pytest.approx((own, other), rel=1e-5)
    ids = model.ids([texts[0] for texts in part.captions])
    for number, rows in ((own, [0, 1, 2, 3, 4]), (other, [1, 2, 3, 4, 0])):
        codes = model.quantizer(torch.from_numpy(part.tokens[rows]).float()).passed
        assert number == pytest.approx(model.decoder.loss(codes, ids).item(), rel=1e-5)


def amis(world: Planted, dims: int, steps: int, folder: Path) -> tuple[float, float, float]:
    """AMI of clusters with the topics by codes of k-means and of a captioner, and the perplexity of the latter."""
    pictures, flat = len(world.topics), world.tokens.reshape(-1, world.tokens.shape[2])
    x = fit_reduction(on_grid(flat[: 2**14]), dims).apply(on_grid(flat))

    def ami(labels: np.ndarray) -> float:
        found = histograms(labels.reshape(pictures, -1), KINDS)
        groups = KMeans(TOPICS, n_init=1, random_state=0).fit_predict(found - found.mean(axis=0))
        return float(adjusted_mutual_info_score(world.topics, groups))

    fitted, batches = first_fit(x, KINDS, 0), Batches(len(x), 8192, 0)
    for step in range(60):
        fitted = next_fit(fitted, x[batches.rows(step)])
    data = Described(x.reshape(pictures, -1, dims), world.captions)
    params = quick(steps=steps, batch_size=64, width=64, learning_rate=3e-3)
    with one_thread():
        model, _ = fit(data, first_centroids(x, KINDS, 0), params, 0, CPU, folder)
    turn, codes = model.quantizer.turn.detach().numpy(), model.quantizer.codes.detach().numpy()
    labels = nearest(on_sphere(x @ turn.T.astype(np.float64)).astype(np.int16), on_sphere(codes).astype(np.int16))[0]
    used = perplexity(np.bincount(labels, minlength=KINDS))
    return ami(nearest(x, fitted.codes)[0]), ami(labels), used


@pytest.mark.slow
def test_planted_topics_are_found_as_well_as_by_k_means(tmp_path):
    """D4 with tokens: the topics are what varies, so a captioner has nothing to add."""
    of_kmeans, of_captioner, used = amis(planted(1500), 24, 800, tmp_path)
    assert of_kmeans > 0.9 and of_captioner > 0.9 and used > 0.8 * KINDS


@pytest.mark.slow
def test_what_captions_do_not_speak_of_does_not_disturb_a_captioners_codes(tmp_path):
    of_kmeans, of_captioner, used = amis(planted(1500, disturbed=1.0), 27, 1000, tmp_path)
    assert of_kmeans < 0.4 and of_captioner > 0.8 and used > 0.8 * KINDS
