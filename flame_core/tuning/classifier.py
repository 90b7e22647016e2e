"""A tuned head with the tower whose features it reads: pictures in, classes out.

import flame_core

model = flame_core.load("data/models/flame")
head = flame_core.load_head("data/heads/flame", model)
head.classify(["bird.jpg", "boat.png"])     # [[("animals", 0.91), ("food", 0.03), ...], ...]
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flame_core.digest import file_sha256
from flame_core.errors import InputError
from flame_core.model.given_pictures import Picture, as_list, prepared
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.verification import DIGESTS, verify

if TYPE_CHECKING:
    from flame_core.model.loaded import Model
    from flame_core.tuning.head import Head

HEAD = "head.safetensors"
_TOWER = {"weights": WEIGHTS, "config": CONFIG}  # files of a model by their names in `identity`


class Classifier:
    """A tuned head on a trained model.

    Attributes:
        classes: names, in the order of the scores.
        config: content of the head's `config.json`.
        head: the module, in evaluation mode; it reads features as `tuning.head.scaled` gives them.
    """

    def __init__(self, folder: str | os.PathLike[str], model: Model) -> None:
        """Open the head in `data/heads/<model>`.

        Raises:
            InputError: the folder holds no head, or one for another tower.
        """
        self.folder, self._model = Path(folder), model
        self.config = _read(self.folder)
        if (self.folder.parent / DIGESTS).is_file():
            verify({self.folder.parent: [f"{self.folder.name}/*"]})
        self.classes: list[str] = self.config["classes"]
        _require_tower(self.folder, self.config, model)
        self.head = _load(self.folder, self.config)

    def scores(self, pictures: Picture | Iterable[Picture]) -> np.ndarray:
        """Probabilities [N, C] of the classes, for one picture or many: paths, bytes of files, or PIL pictures.

        Raises:
            InputError: names the picture that cannot be read, and why.
        """
        from flame_core.tuning.fit import applied

        given = as_list(pictures)
        jpegs = [prepared(each, place, self._model.ingest) for place, each in enumerate(given)]
        encoder = self._model.encoder
        if self.config["features"] == "z":
            features = encoder.encode(jpegs)
        else:
            features = encoder.encode_with(lambda tower, batch: tower.patches(batch).mean(dim=1), jpegs)
        logits = applied(self.head, features)[1].astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def classify(self, pictures: Picture | Iterable[Picture], top: int = 5) -> list[list[tuple[str, float]]]:
        """The most probable classes of each picture, the best first, each with its probability."""
        found = []
        for row in self.scores(pictures):
            order = np.argsort(-row, kind="stable")[:top]
            found.append([(self.classes[int(place)], float(row[place])) for place in order])
        return found


def _read(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file() or not (folder / HEAD).is_file():
        raise InputError(f"{folder} holds no head ({HEAD} and {CONFIG}): run `flame tune`, or name another folder")
    try:
        config = json.loads(path.read_text("utf-8"))
        if missing := {"classes", "dims", "features", "identity", "preset", "ratio"} - config.keys():
            raise ValueError(f"no {', '.join(sorted(missing))}")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): run `flame tune` again") from None
    return config


def _require_tower(folder: Path, config: dict[str, Any], model: Model) -> None:
    """Refuse a head that was trained on the features of another tower."""
    identity = config["identity"]
    if identity.keys() != _TOWER.keys():
        raise InputError(f"{folder}: a head on features of {config.get('model')!r}, which is no model of this project")
    if identity["weights"] != file_sha256(model.folder / _TOWER["weights"]):
        raise InputError(
            f"{folder}: a head on the features of another tower than {model.name} ({config.get('model')!r} as it was "
            "then): take that model, or run `flame tune` again"
        )


def _load(folder: Path, config: dict[str, Any]) -> Head:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from flame_core.tuning.head import LinearProbe, NMTuneHead

    dims, classes = config["dims"], len(config["classes"])
    head = LinearProbe(dims, classes) if config["preset"] == "lp" else NMTuneHead(dims, classes, config["ratio"])
    try:
        head.load_state_dict(load_file(folder / HEAD))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder / HEAD} is damaged or of another head ({error}): run `flame tune` again") from None
    return head.eval()
