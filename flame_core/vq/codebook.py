"""The codebook of a captioner, in the form of every other: the map into the space of the tokens, and directions there.

The tower is frozen. Its tokens are reduced as for k-means, and a square map R of the reduced space is trained with the
codes (`quantizer.py`). R after the PCA is one linear map, so the basis of the codebook is the product of both, and
everything that reads codebooks reads this one. The training is one unit of the work cache, with checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from flame_core.captions.table import read_captions
from flame_core.clustering.spherical import first_centroids, on_sphere
from flame_core.codes.code_files import code_file
from flame_core.codes.codebook import Codebook
from flame_core.codes.coding import Coding, Drawn
from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.params import CodesParams, VqParams, changed_values
from flame_core.selections.picking import hash_numbers
from flame_core.work import UnitRecord

FEWEST = 20  # pictures with captions
_HELD_OUT, _MOST_HELD_OUT = 10, 1000  # one of ten, at most so many
_CODES, _METRICS = "codes.safetensors", "metrics.json"


@dataclass(frozen=True)
class Captioned:
    """A codebook, the caption loss per step, and the losses of held-out pictures in nats per word.

    Attributes:
        codebook: trained.
        losses: of each step.
        own: of a caption behind the codes of its picture.
        other: behind those of another picture.
    """

    codebook: Codebook
    losses: list[float]
    own: float
    other: float

    @property
    def gain(self) -> float:
        """Nats per word by which captions are likelier behind their own codes."""
        return self.other - self.own


def captioned_codebook(
    coding: Coding, captions: Path, sha256: Mapping[str, str], language: str, device: str
) -> Captioned:
    """Train the codebook, or find it in the work cache, or resume.

    Args:
        coding: of the pictures.
        captions: folder of the captions.
        sha256: of its files by name, such as train/00000.parquet.
        language: of the captions that are learned.
        device: where it is trained.

    Raises:
        InputError: there are fewer tokens than codes, or too few pictures with captions.
        ComputationError: the loss is not finite.
        Interrupted: a stop signal came; the state was saved.
    """
    from flame_core.stepping.stepwise import trained_unit

    params, drawn = coding.params, coding.drawn()
    if (count := drawn.tokens.shape[0] * drawn.tokens.shape[1]) < params.codes:
        raise InputError(f"codes.codes is {params.codes}, and there are {count} patch tokens: lower it")
    shards = [code_file(shard) for shard in coding.index.shard_sizes()]
    inputs = {
        **drawn.sha256,
        "captions": {name: sha256[name] for name in sorted(shards)},
        "language": language,
        "codes": params.codes,
        "seed": params.seed,
        "vq": changed_values(params.vq),
    }

    def train(folder: Path, checkpoints: Path) -> UnitRecord:
        texts = _captions([captions / name for name in sorted(shards)], drawn.keys, params.vq, language)
        return _trained(drawn, texts, params, device, checkpoints, folder)

    unit = trained_unit(coding.cache, inputs, train)
    arrays, found = load_file(unit.file(_CODES)), json.loads(unit.file(_METRICS).read_text("utf-8"))
    about = {"tower": coding.tower.identity, "captioner": {"loss": found["own"], "loss_of_others": found["other"]}}
    book = Codebook(arrays["codes"], drawn.reduction["mean"], arrays["basis"], about)
    return Captioned(book, found["losses"], found["own"], found["other"])


def _trained(
    drawn: Drawn,
    texts: Mapping[str, Sequence[str]],
    params: CodesParams,
    device: str,
    checkpoints: Path,
    folder: Path,
) -> UnitRecord:
    import torch

    from flame_core.tuning.fit import one_thread
    from flame_core.vq.fit import Described, fit, held_out_losses

    rows = np.array([place for place, key in enumerate(drawn.keys) if key in texts], np.int64)
    if len(rows) < FEWEST:
        raise InputError(
            f"codes.codebook vq: {len(rows)} of {len(drawn.keys)} pictures have a caption, and a captioner needs "
            f"{FEWEST}: choose other codes.vq.kinds, or codebook kmeans"
        )
    keys = [drawn.keys[row] for row in rows]
    data = Described(drawn.tokens[rows], [texts[key] for key in keys])
    order = np.argsort(hash_numbers(keys, params.seed), kind="stable")
    apart = min(len(rows) // _HELD_OUT, _MOST_HELD_OUT)
    first = first_centroids(drawn.tokens.reshape(-1, drawn.tokens.shape[2]), params.codes, params.seed)
    with one_thread():
        data, held_out = data.part(np.sort(order[apart:])), data.part(np.sort(order[:apart]))
        model, metrics = fit(data, first, params.vq, params.seed, torch.device(device), checkpoints)
        own, other = held_out_losses(model, held_out, params.vq.batch_size)
    turn, codes = (each.detach().cpu().double().numpy() for each in (model.quantizer.turn, model.quantizer.codes))
    arrays = {
        "codes": on_sphere(codes).astype(np.int16),
        "basis": np.rint(drawn.reduction["basis"].astype(np.float64) @ turn.T).astype(np.int32),
    }
    (folder / _CODES).write_bytes(save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
    losses = [each["loss"] for each in metrics]
    write_json(folder / _METRICS, {"losses": losses, "own": own, "other": other, "steps": metrics})
    return UnitRecord({"pictures": len(rows), "steps": len(metrics)})


def _captions(files: Sequence[Path], keys: Sequence[str], params: VqParams, language: str) -> dict[str, list[str]]:
    """{key: captions} of pictures that have one; raw ones if there is none of the kinds that are asked for."""
    wanted, found = set(keys), dict[str, dict[str, list[str]]]()
    for file in files:
        for caption in read_captions(file):
            if caption.key in wanted and caption.language == language and caption.text.strip():
                found.setdefault(caption.key, {}).setdefault(caption.kind, []).append(caption.text)
    chosen = {
        key: [text for kind in params.kinds for text in own.get(kind, ())] or own.get("raw", [])
        for key, own in found.items()
    }
    return {key: texts for key, texts in chosen.items() if texts}
