"""Heads on planted features: training, choice on the validation part, the work cache, and what each preset does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from flame_core.digest import bytes_sha256
from flame_core.errors import ComputationError
from flame_core.params import TuneParams
from flame_core.suite.content import Picture
from flame_core.suite.models.model import Model
from flame_core.tuning.features import Features
from flame_core.tuning.fit import TrainingFeatures, applied, fit
from flame_core.tuning.head import scaled
from flame_core.tuning.labelled import Part, Within
from flame_core.tuning.losses import WEIGHTS, Weights
from flame_core.tuning.protocol import TEST, VALIDATION, Protocol
from flame_core.work import WorkCache

CLASSES, DIMS = 4, 24
CENTRES = np.random.default_rng(1).normal(size=(CLASSES, DIMS))


class Planted(Model):
    """A model whose features of a picture's bytes are its class's centre, and noise that the bytes decide."""

    def __init__(self, name: str = "planted", noise: float = 1.0) -> None:
        self.name, self.source, self.noise = name, "made", noise
        self.identity = {"noise": noise}

    def pictures(self, pictures) -> np.ndarray:
        return self.features(pictures)

    def texts(self, kind: str, texts) -> np.ndarray:
        raise NotImplementedError

    def features(self, pictures) -> np.ndarray:
        rows = []
        for content in pictures:
            label, shift = content[0], content[1]
            draw = np.random.default_rng(int(bytes_sha256(content)[:12], 16))
            rows.append(CENTRES[label] + self.noise * draw.normal(size=DIMS) + 0.2 * shift)
        return np.array(rows, np.float32)


def part(folder: Path, name: str, count: int, shift: int = 0) -> Part:
    """So many pictures, with classes in turn; a shift is that of another domain."""
    folder.mkdir(exist_ok=True)
    pictures = []
    for number in range(count):
        path = folder / f"{name}-{number}"
        path.write_bytes(bytes([number % CLASSES, shift]) + f"{name} {number}".encode())
        pictures.append(Picture(path.name, path))
    return Part(pictures, np.arange(count) % CLASSES)


@pytest.fixture
def within(tmp_path) -> Within:
    folder = tmp_path / "pictures"
    return Within(
        [f"class {number}" for number in range(CLASSES)],
        part(folder, "train", 96),
        part(folder, "validation", 40),
        part(folder, "test", 80),
        {"elsewhere": part(folder, "elsewhere", 40, shift=5)},
    )


@pytest.fixture(autouse=True)
def made_views(monkeypatch):
    """A view of made bytes is made bytes: its class stays, its noise does not."""
    monkeypatch.setattr(
        "flame_core.tuning.features.drawn_views",
        lambda picture, chosen: [picture.read() + f" view {number}".encode() for number in range(chosen.count)],
    )
    monkeypatch.setattr("flame_core.suite.encoding.decodable", lambda picture: picture.read())


def params(**values: Any) -> TuneParams:
    base = {"recipes": ["planted"], "epochs": 6, "batch_size": 32, "seeds": [0, 1], "factors": [0.0, 1.0, 30.0]}
    return TuneParams.model_validate(base | values)


def training(within: Within, chosen: TuneParams, work: Path) -> TrainingFeatures:
    features = Features(Planted(), "pooled", work)
    own = within.train
    data = TrainingFeatures.of(features.plain(own.pictures), own.labels, CLASSES)
    return data.with_views(features.views(own.pictures, chosen.views))


def test_the_linear_probe_comes_near_logistic_regression(within, tmp_path):
    chosen = params(epochs=60)
    data = training(within, chosen, tmp_path / "work")
    fitted = fit(data, chosen, None, seed=0)
    test = Planted().features([each.read() for each in within.test.pictures])
    _, scores = applied(fitted.head, test)
    oracle = LogisticRegression(C=1.0, max_iter=2000).fit(data.plain.numpy(), data.labels.numpy())
    agreed = (scores.argmax(axis=1) == oracle.predict(scaled(test).numpy())).mean()
    assert agreed > 0.9 and (scores.argmax(axis=1) == within.test.labels).mean() > 0.9
    assert fitted.epochs[-1]["ce"] < 0.3 * fitted.epochs[0]["ce"] and fitted.largest_share == {
        "mse": 0,
        "cov": 0,
        "svd": 0,
    }


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(within, tmp_path):
    chosen = params()
    data = training(within, chosen, tmp_path / "work")
    first = fit(data, chosen, WEIGHTS["paper"], seed=3).head.state_dict()
    torch.rand(7)
    again = fit(data, chosen, WEIGHTS["paper"], seed=3).head.state_dict()
    other = fit(data, chosen, WEIGHTS["paper"], seed=4).head.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


@pytest.mark.parametrize(("weights", "rate"), [(None, "probe_learning_rate"), (WEIGHTS["code"], "learning_rate")])
def test_a_loss_that_is_not_finite_is_told_by_its_param(within, tmp_path, weights, rate):
    chosen = params(**{rate: 1e6}, epochs=30)
    data = training(within, chosen, tmp_path / "work")
    with pytest.raises(ComputationError, match=rf"not finite: lower tune\.{rate}$"):
        fit(data, chosen, weights, seed=0)


def test_a_crop_s_scale_is_a_range():
    with pytest.raises(ValidationError, match="is no range"):
        params(views={"scale": [1.0, 0.5]})


def test_a_study_chooses_on_validation_and_measures_every_part(within, tmp_path):
    protocol = Protocol(params(), within, tmp_path / "work")
    study = protocol.study(Features(Planted(), "pooled", tmp_path / "work"), ["lp", "mlp", "paper", "code"])
    assert [each.preset for each in study.presets] == ["lp", "mlp", "paper", "code"]
    for each in study.presets:
        assert list(each.tried) == ([0.0, 1.0, 30.0] if each.preset in ("paper", "code") else [1.0])
        best = max(each.at(factor).validated for factor in each.tried)
        assert each.validated == best
        assert each.factor == min(factor for factor in each.tried if each.at(factor).validated == best)
        active = each.active
        assert active is not None and active.factor in (1.0, 30.0)
        assert [run.seed for run in each.runs] == [0, 1]
        for name in (VALIDATION, TEST, "elsewhere"):
            assert 0 <= each.mean(name, "accuracy") <= 1 and -1 <= each.mean(name, "cosine") <= 1
            numbers = each.runs[0].measured[name]["spectrum"]["none"]
            assert 0 <= numbers["lsvr"] <= numbers["svde"] and numbers["d"] == DIMS
        assert each.beyond(["elsewhere"]) == each.mean("elsewhere", "accuracy") and each.beyond([]) is None
        assert {"ce", "total"} <= each.runs[0].epochs[0].keys() and len(each.runs[0].epochs) == 6
    lp, paper = study.of("lp"), study.of("paper")
    assert lp and paper and lp.mean(TEST, "cosine") == pytest.approx(1) and lp.mean(TEST, "accuracy") > 0.8
    assert lp.runs[0].measured[TEST]["spectrum"] == study.features[TEST]  # a probe leaves features as they are
    assert {"mse", "mse_w", "cov", "cov_w", "svd", "svd_w"} <= paper.runs[0].epochs[0].keys()
    assert study.best in study.presets
    best = max(each.mean(VALIDATION, "accuracy") for each in study.presets)
    assert study.best.mean(VALIDATION, "accuracy") == best


def test_finished_heads_are_kept_and_a_damaged_one_is_trained_again(within, tmp_path, monkeypatch):
    protocol = Protocol(params(), within, tmp_path / "work")
    features = Features(Planted(), "pooled", tmp_path / "work")
    whole = protocol.study(features, ["mlp", "paper"])
    compute, done = WorkCache.compute, []

    def counted(cache, digest, write):
        done.append(cache.stage)
        return compute(cache, digest, write)

    monkeypatch.setattr(WorkCache, "compute", counted)
    assert protocol.study(features, ["mlp", "paper"]) == whole and not done
    file = whole.presets[1].runs[0].file
    bits = file.read_bytes()
    file.write_bytes(bits[:-1] + bytes([bits[-1] ^ 1]))
    assert protocol.study(features, ["mlp", "paper"]) == whole
    assert done == ["tune"] and file.read_bytes() == bits
    done.clear()
    Protocol(params(epochs=5), within, tmp_path / "work").study(features, ["mlp"])
    assert done == ["tune"] * 2  # two seeds; features and views are there
    done.clear()
    protocol.study(Features(Planted(noise=2.0), "pooled", tmp_path / "work"), ["lp"])
    assert "encode" in done  # another model's


def test_each_preset_term_shows_in_its_statistic(within, tmp_path):
    """Acceptance: relative to the plain MLP, COV raises SVDE, SVD lowers LSVR, MSE keeps z near f."""
    chosen = params(epochs=25)
    data = training(within, chosen, tmp_path / "work")
    held = Planted().features([each.read() for each in within.test.pictures])

    def of(weights: Weights) -> tuple[float, float, float]:
        from flame_core.measuring.spectrum import spectrum

        z, _ = applied(fit(data, chosen, weights, seed=0).head, held)
        cosine = (z * held).sum(axis=1) / np.linalg.norm(z, axis=1) / np.linalg.norm(held, axis=1)
        return spectrum(z, "column", unit=True).svde, spectrum(z, "none", unit=True).lsvr, float(cosine.mean())

    svde, lsvr, cosine = of(Weights())
    assert of(Weights(cov=1.0))[0] > svde
    assert of(Weights(svd=1.0))[1] < lsvr
    assert of(Weights(mse=1.0))[2] > cosine + 0.05


def test_the_results_are_plain_json(within, tmp_path):
    protocol = Protocol(params(), within, tmp_path / "work")
    study = protocol.study(Features(Planted(), "pooled", tmp_path / "work"), ["lp"])
    run = study.presets[0].runs[0]
    assert json.loads(json.dumps(run.measured)) == run.measured
