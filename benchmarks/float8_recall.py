"""What float8 costs in recall: text to text on captions that people wrote.

    python -m benchmarks.float8_recall --pairs /where/flickr8k-val-00000.tar    # seconds on a GPU, minutes on a CPU

Each of the English captions TESTED looks for each other one of its picture among those of all pictures; recall is the
mean. All are read as raw captions by the project's LLM. Each way is recorded with its recall at 1 and 10, how much less
that is than float32's, with a standard error over pictures, and its mean distance 1 - cosine from float32:

    bfloat16         no float8
    plain            all products in float8, each value rounded by itself
    float8           as the engine computes it; on a CPU the same values are multiplied in float32
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import record
from flame_core.data.shards import read_metas
from flame_core.layout import Layout
from flame_core.params import load_params
from flame_core.settings import settings
from flame_core.text.encoder import DTYPES, TextEncoder
from flame_core.text.float8 import quantise_layers
from flame_core.text.llm import load_llm, load_tokenizer

TESTED = (0, 1, 3)  # captions of a picture
CASES = ("bfloat16", "plain", "float8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="folder of the LLM (default: the one of params.yaml)")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--cases", default=list(CASES), type=lambda text: text.split(","))
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    device = settings().torch_device()
    layout = Layout.find()
    project = load_params(layout)
    folder = options.tokenizer or layout.llm / project.llm.name
    captions = [meta["captions"]["en"] for _, meta in read_metas(options.pairs)][: options.pictures]
    tokenizer = load_tokenizer(folder, project.llm)

    def vectors(case: str) -> list[Tensor]:
        dtype = "bfloat16" if case == "plain" else case
        params = project.text.model_copy(update={"dtype": dtype, "sentence": None})
        engine = TextEncoder(load_llm(folder, params.layer, DTYPES[dtype], device), tokenizer, params, device)
        if case == "plain":
            quantise_layers(engine.facet_pass.model)
        return [torch.from_numpy(engine.encode("raw", [own[i] for own in captions])[:, 0]) for i in TESTED]

    exact = vectors("float32")
    score("float32", exact, exact)
    for case in options.cases:
        start = time.perf_counter()
        score(case, vectors(case), exact)
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


if __name__ == "__main__":
    main()
