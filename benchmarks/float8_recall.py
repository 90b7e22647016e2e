"""What float8 costs in recall, and what other ways of rounding would cost: text to text on captions that people wrote.

    python -m benchmarks.float8_recall --pairs /where/flickr8k-val-00000.tar              # seconds on a GPU
    python -m benchmarks.float8_recall --pairs ... --cases bfloat16,emulated,made         # minutes on a CPU

Each of the English captions TESTED looks for each other one of its picture among those of all pictures; recall is the
mean. All are read as raw captions by the project's LLM. Each way is recorded with its recall at 1 and 10, how much less
that is than float32's, with a standard error over pictures, and its mean distance 1 - cosine from float32. Ways that
the engine does not have are emulated: values are rounded to float8 and multiplied in float32.

    bfloat16         no float8
    float8           as the engine computes it
    emulated         the same, emulated
    attention        queries, keys, values and outputs of attention stay in bfloat16
    queries          queries and keys stay in bfloat16
    down             the last product of each MLP stays in bfloat16
    ends             the first two and the last two layers stay in bfloat16
    channels         of each product the 8 input channels that contribute most stay in bfloat16
    compensated      weights are rounded one input channel after another, and each error is made up for by the channels
                     that come after it (GPTQ, arXiv 2210.17323), from what the products get in the captions CALIBRATES
    made             the same, from what the products get in captions made of a few words
    compensated and attention, made and channels, ...     both
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.made_captions import made_captions
from benchmarks.measure import record
from flame_core.data.shards import read_metas
from flame_core.layout import Layout
from flame_core.params import load_params
from flame_core.settings import settings
from flame_core.text.encoder import DTYPES, TextEncoder
from flame_core.text.float8 import quantised
from flame_core.text.llm import load_llm, load_tokenizer

CHANNELS, BLOCK, DAMP = 8, 128, 0.01
TESTED, CALIBRATES = (0, 1, 3), 2  # captions of a picture
LARGEST = torch.finfo(torch.float8_e4m3fn).max
Place = tuple[int, str]  # a layer's number and the name of a linear map in it
Moments = dict[Place, Tensor]  # x^T x of what each map gets, [C, C]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="folder of the LLM (default: the one of params.yaml)")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument(
        "--cases",
        default="bfloat16,float8,emulated,attention,queries,down,ends,channels,compensated,made,"
        "compensated and attention,compensated and channels,made and attention,made and channels",
        type=lambda text: text.split(","),
    )
    options = parser.parse_args()
    device = settings().torch_device()
    layout = Layout.find()
    project = load_params(layout)
    folder = options.tokenizer or layout.llm / project.llm.name
    captions = [meta["captions"]["en"] for _, meta in read_metas(options.pairs)][: options.pictures]
    tokenizer = load_tokenizer(folder, project.llm)

    def encoder(dtype: str) -> TextEncoder:
        params = project.text.model_copy(update={"dtype": dtype, "sentence": None})
        return TextEncoder(load_llm(folder, params.layer, DTYPES[dtype], device), tokenizer, params, device)

    def vectors(engine: TextEncoder) -> list[Tensor]:
        return [torch.from_numpy(engine.encode("raw", [own[i] for own in captions])[:, 0]) for i in TESTED]

    exact = vectors(encoder("float32"))
    score("float32", exact, exact)
    moments: Moments = {}
    of_made: Moments = {}
    if any("channels" in case or "compensated" in case for case in options.cases):
        moments = moments_of(encoder("bfloat16"), [own[CALIBRATES] for own in captions[:400]])
    if any("made" in case for case in options.cases):
        of_made = moments_of(encoder("bfloat16"), made_captions(400))
    for case in options.cases:
        start = time.perf_counter()
        engine = encoder("float8" if case == "float8" else "bfloat16")
        if case not in ("bfloat16", "float8"):
            emulate(engine.facet_pass.model, case, of_made if "made" in case else moments)
        score(case, vectors(engine), exact)
        print(f"{case}: {time.perf_counter() - start:.0f} s", flush=True)


def score(case: str, found: Sequence[Tensor], exact: Sequence[Tensor]) -> None:
    """Record recall and the distance from float32 of unit vectors [N, D] of each tested caption."""
    ranks, of_exact = ranks_of(found), ranks_of(exact)
    for k in (1, 10):
        lost = 100 * ((of_exact < k).float() - (ranks < k).float()).mean(dim=0)
        error = (lost.std() / len(lost) ** 0.5).item()
        record("float8_recall", f"{case}, recall@{k}", 100 * (ranks < k).float().mean().item(), "%")
        record("float8_recall", f"{case}, less recall@{k}", lost.mean().item(), "points")
        record("float8_recall", f"{case}, standard error of that", error, "points")
    far = 1 - (torch.cat(list(found)) * torch.cat(list(exact))).sum(dim=1).mean().item()
    record("float8_recall", f"{case}, distance from float32", far, "1 - cosine")


def ranks_of(vectors: Sequence[Tensor]) -> Tensor:
    """How many captions come before the right one [ways, N], for each caption that looks for each other one."""
    ranks = []
    for queries, candidates in permutations(vectors, 2):
        similar = queries @ candidates.T
        ranks.append((similar > similar.diagonal()[:, None]).sum(dim=1))
    return torch.stack(ranks)


class Emulated(nn.Module):
    """A linear map in float8 of x [..., C], emulated; the channels `kept` stay as they are."""

    def __init__(
        self, linear: nn.Linear, moment: Tensor | None = None, kept: int = 0, *, compensate: bool = False
    ) -> None:
        super().__init__()
        weight = linear.weight.data.float()
        self.bias, self.kept = linear.bias, torch.empty(0, dtype=torch.long, device=weight.device)
        if kept and moment is not None:
            self.kept = (moment.diagonal() * weight.square().sum(dim=0)).topk(kept).indices
        self.high = weight[:, self.kept]
        weight = weight.index_fill(1, self.kept, 0.0)
        if moment is not None:  # errors are not made up for by channels that are not there
            usual = moment.diagonal().mean().item()
            moment = moment.index_fill(0, self.kept, 0.0).index_fill(1, self.kept, 0.0)
            moment[self.kept, self.kept] = usual
        self.weight = compensated(weight, moment) if compensate and moment is not None else rounded(weight)

    def forward(self, x: Tensor) -> Tensor:
        rest = rounded(x.float().index_fill(-1, self.kept, 0.0).flatten(0, -2)).view(x.shape)
        y = F.linear(rest, self.weight) + F.linear(x[..., self.kept].float(), self.high)
        return (y if self.bias is None else y + self.bias).to(x.dtype)


def rounded(rows: Tensor) -> Tensor:
    """Rows [N, C] rounded to float8, in float32."""
    values, scale = quantised(rows)
    return values.float() * scale


def compensated(weight: Tensor, moment: Tensor) -> Tensor:
    """A weight [D, C] rounded channel by channel, each error made up for by the later channels; moment [C, C]."""
    scale = quantised(weight)[1]
    order = moment.diagonal().argsort(descending=True)
    w, h = weight[:, order].double(), moment[order][:, order].double()
    h += DAMP * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype, device=h.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    w, result = w.float(), torch.empty_like(weight)
    for start in range(0, w.shape[1], BLOCK):
        own = slice(start, min(start + BLOCK, w.shape[1]))
        part, errors = w[:, own].clone(), torch.zeros_like(w[:, own])
        for j in range(part.shape[1]):
            column = part[:, j : j + 1]
            value = (column / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).float() * scale
            errors[:, j : j + 1] = (column - value) / upper[start + j, start + j]
            part[:, j + 1 :] -= errors[:, j : j + 1] * upper[start + j, start + j + 1 : own.stop]
            result[:, order[start + j]] = value[:, 0]
        w[:, own.stop :] -= errors @ upper[own, own.stop :]
    return result


def emulate(model: Any, case: str, moments: Moments) -> None:
    """Replace the linear maps of a decoder that the case computes in float8."""
    last = len(model.layers) - 1
    for place, parent, name in list(linear_maps(model)):
        number, path = place
        stays = {
            "attention": "self_attn" in path,
            "queries": "q_proj" in path or "k_proj" in path,
            "down": "down_proj" in path,
            "ends": number < 2 or number > last - 2,
        }
        if not any(stays.get(way, False) for way in case.split(" and ")):
            kept = CHANNELS if "channels" in case else 0
            own = Emulated(
                getattr(parent, name), moments.get(place), kept, compensate="compensated" in case or "made" in case
            )
            setattr(parent, name, own)


def linear_maps(model: Any) -> Iterator[tuple[Place, nn.Module, str]]:
    """The linear maps in a decoder's layers: place, the module that holds each, and its name there."""
    for number, layer in enumerate(model.layers):
        for path, parent in layer.named_modules():
            for name, child in parent.named_children():
                if type(child) is nn.Linear:
                    yield (number, f"{path}.{name}"), parent, name


def moments_of(engine: TextEncoder, texts: list[str]) -> Moments:
    """X^T x of what every linear map gets when an encoder reads texts."""
    moments: Moments = {}

    def note(place: Place) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2).float()
            moments[place] = moments.get(place, 0.0) + x.T @ x

        return hook

    maps = linear_maps(engine.facet_pass.model)
    hooks = [getattr(parent, name).register_forward_pre_hook(note(place)) for place, parent, name in maps]
    engine.encode("raw", texts)
    for hook in hooks:
        hook.remove()
    return moments


if __name__ == "__main__":
    main()
