"""All heads of a model: trained with every seed and factor, chosen on the validation part, tested within and beyond.

Every trained head is a unit of the work cache, so a killed run continues with the head that it was working on. Every
preset reads the same features. The factor of a preset's weights is the one with the best mean accuracy of all seeds on
the validation part; the test pictures choose nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core.digest import json_bytes, value_digest
from flame_core.measuring.spectra import both
from flame_core.measuring.spectrum import gram
from flame_core.params import HeadPreset, TuneParams
from flame_core.reporting import progress
from flame_core.suite.content import pictures_sha256
from flame_core.tuning.features import STAGE, Features
from flame_core.tuning.labelled import Part, Within
from flame_core.work import UnitRecord, WorkCache

if TYPE_CHECKING:
    from flame_core.tuning.fit import TrainingFeatures

HEAD, RESULT = "head.safetensors", "result.json"  # of a unit
TEST, VALIDATION = "test", "validation"
_FITTED = {"ratio", "epochs", "batch_size", "learning_rate", "probe_learning_rate", "weight_decay"}
_DIGITS = 6


@dataclass(frozen=True)
class Run:
    """A head that was trained with one seed: its weights' file, and what was measured.

    `measured` is {part: {"accuracy", "cosine" to f, "spectrum": {centring: numbers}}}.
    """

    seed: int
    file: Path
    measured: dict[str, dict[str, Any]]
    epochs: list[dict[str, float]]
    largest_share: dict[str, float]


@dataclass(frozen=True)
class PresetResult:
    """A preset on one model.

    Attributes:
        preset: its name.
        factor: of its weights, chosen on the validation part.
        tried: {factor: runs, one per seed} of all factors, in rising order.
    """

    preset: HeadPreset
    factor: float
    tried: dict[float, list[Run]]

    @classmethod
    def chosen(cls, preset: HeadPreset, tried: dict[float, list[Run]]) -> PresetResult:
        """The result with the factor that is best on the validation part; of equals the smallest."""
        of = {factor: cls(preset, factor, tried) for factor in tried}
        return max(of.values(), key=lambda each: each.validated)

    @property
    def runs(self) -> list[Run]:
        """Those with the chosen factor."""
        return self.tried[self.factor]

    @property
    def validated(self) -> float:
        """Mean accuracy on the validation part."""
        return round(self.mean(VALIDATION, "accuracy"), _DIGITS)

    @property
    def active(self) -> PresetResult | None:
        """The same with the best factor above 0, at which its terms do something; None if none was tried."""
        above = {factor: runs for factor, runs in self.tried.items() if factor > 0}
        return PresetResult.chosen(self.preset, above) if above else None

    def at(self, factor: float) -> PresetResult:
        """The same with another factor that was tried."""
        return replace(self, factor=factor)

    def values(self, part: str, *keys: str) -> list[float]:
        """A number of each run, such as `values("test", "spectrum", "none", "svde")`."""
        found = []
        for run in self.runs:
            value: Any = run.measured[part]
            for key in keys:
                value = value[key]
            found.append(float(value))
        return found

    def mean(self, part: str, *keys: str) -> float:
        """The mean of `values`."""
        values = self.values(part, *keys)
        return sum(values) / len(values)

    @property
    def largest_shares(self) -> dict[str, float]:
        """{term: the largest share of the cross entropy that the weighted term had in a step of any run}."""
        first = self.runs[0].largest_share
        return {term: round(max(run.largest_share[term] for run in self.runs), _DIGITS) for term in first}

    def beyond(self, names: Sequence[str]) -> float | None:
        """Mean accuracy over the other domains and seeds; None if there are none."""
        return sum(self.mean(name, "accuracy") for name in names) / len(names) if names else None


@dataclass(frozen=True)
class Study:
    """All presets of one model, and the spectra of its features as they are, {part: {centring: numbers}}."""

    name: str
    presets: list[PresetResult]
    features: dict[str, dict[str, Any]]

    @property
    def best(self) -> PresetResult:
        """The preset with the best mean accuracy on the validation part; of equals the first."""
        return max(self.presets, key=lambda each: each.validated)

    def of(self, preset: HeadPreset) -> PresetResult | None:
        """A preset's result, if it was asked for."""
        return next((each for each in self.presets if each.preset == preset), None)


@dataclass(frozen=True)
class Protocol:
    """What all models go through."""

    chosen: TuneParams
    within: Within
    work: Path

    def study(self, features: Features, presets: Sequence[HeadPreset]) -> Study:
        """Train and test the presets' heads on a model's features."""
        one = _OfModel(self, features)
        total = sum(len(self._factors(preset)) for preset in presets) * len(self.chosen.seeds)
        with progress(f"heads of {features.model.name}", total, "heads") as bar:
            found = [one.preset(preset, self._factors(preset), bar.advance) for preset in presets]
        return Study(features.model.name, found, {name: _spectra(one.plain[name]) for name in self.parts})

    def _factors(self, preset: HeadPreset) -> list[float]:
        return sorted(set(self.chosen.factors)) if preset in ("paper", "code") else [1.0]

    @cached_property
    def parts(self) -> dict[str, Part]:
        """{name: pictures} of all that heads are measured on."""
        return {VALIDATION: self.within.validation, TEST: self.within.test, **self.within.beyond}

    @cached_property
    def data_digest(self) -> str:
        """Digest of all pictures, classes and views."""
        parts = {"train": self.within.train, **self.parts}
        content = {name: [pictures_sha256(part.pictures), part.labels.tolist()] for name, part in parts.items()}
        return value_digest([self.within.classes, content, self.chosen.views.model_dump(mode="json")])


class _OfModel:
    def __init__(self, protocol: Protocol, features: Features) -> None:
        self._protocol, self._features = protocol, features
        self._cache = WorkCache(protocol.work, STAGE)

    @cached_property
    def plain(self) -> dict[str, np.ndarray]:
        """{part: features [N, D]}."""
        return {name: self._features.plain(part.pictures) for name, part in self._protocol.parts.items()}

    def preset(self, preset: HeadPreset, factors: Sequence[float], done: Callable[[], None]) -> PresetResult:
        runs: dict[float, list[Run]] = {}
        for factor in factors:
            for seed in self._protocol.chosen.seeds:
                runs.setdefault(factor, []).append(self._run(preset, factor, seed))
                done()
        return PresetResult.chosen(preset, runs)

    def _run(self, preset: HeadPreset, factor: float, seed: int) -> Run:
        chosen = self._protocol.chosen
        inputs = {
            "head": chosen.model_dump(mode="json", include=_FITTED),
            "model": dict(self._features.model.identity),
            "features": self._features.kind,
            "data": self._protocol.data_digest,
            "preset": preset,
            "factor": factor,
            "seed": seed,
        }
        unit = self._cache.get(inputs, lambda folder: self._write(folder, preset, factor, seed))
        result = json.loads(unit.file(RESULT).read_text("utf-8"))
        return Run(seed, unit.file(HEAD), result["measured"], result["epochs"], result["largest_share"])

    @cached_property
    def _plain_training(self) -> TrainingFeatures:
        from flame_core.tuning.fit import TrainingFeatures

        part, classes = self._protocol.within.train, self._protocol.within.classes
        return TrainingFeatures.of(self._features.plain(part.pictures), part.labels, len(classes))

    @cached_property
    def _training(self) -> TrainingFeatures:
        pictures = self._protocol.within.train.pictures
        return self._plain_training.with_views(self._features.views(pictures, self._protocol.chosen.views))

    def _write(self, folder: Path, preset: HeadPreset, factor: float, seed: int) -> UnitRecord:
        from safetensors.torch import save

        from flame_core.tuning.fit import applied, fit
        from flame_core.tuning.losses import WEIGHTS

        weights = None if preset == "lp" else WEIGHTS[preset].times(factor)
        data = self._plain_training if weights is None else self._training
        fitted = fit(data, self._protocol.chosen, weights, seed)
        measured = {}
        for name, part in self._protocol.parts.items():
            z, scores = applied(fitted.head, self.plain[name])
            measured[name] = {
                "accuracy": round(float((scores.argmax(axis=1) == part.labels).mean()), _DIGITS),
                "cosine": round(float(_cosines(z, self.plain[name]).mean()), _DIGITS),
                "spectrum": _spectra(z),
            }
        epochs = [{key: round(value, 9) for key, value in each.items()} for each in fitted.epochs]
        shares = {key: round(value, 9) for key, value in fitted.largest_share.items()}
        (folder / HEAD).write_bytes(
            save({name: value.contiguous() for name, value in fitted.head.state_dict().items()})
        )
        (folder / RESULT).write_bytes(json_bytes({"measured": measured, "epochs": epochs, "largest_share": shares}))
        return UnitRecord({"pictures": len(self._protocol.within.train)})


def _spectra(features: np.ndarray) -> dict[str, Any]:
    """{centring: numbers} of features [N, D]."""
    return {centring: each.numbers() for centring, each in both(gram(features)).items()}


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / lengths
