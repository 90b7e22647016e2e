"""Peak memory of the text engine over more and more captions, shard by shard: it must stay flat.

    python -m benchmarks.text_memory [--captions 1000 100000]     # after `make demo`, for the tokenizer

A tiny random LLM with SmolLM2's tokenizer, a separate process for each number, 1,000 generated captions per shard.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor

import torch

from benchmarks.measure import peak_bytes, record
from flame_core.layout import Layout
from flame_core.params import load_params
from flame_core.text.attention import register
from flame_core.text.encoder import TextEncoder
from flame_core.text.llm import load_tokenizer

SHARD = 1000
WORDS = [
    "a",
    "red",
    "green",
    "small",
    "old",
    "kite",
    "bird",
    "house",
    "sea",
    "tree",
    "child",
    "dog",
    "plays",
    "sits",
    "under",
    "above",
    "near",
    "the",
    "with",
    "and",
]


def embed(captions: int) -> int:
    """Embed `captions` captions; returns the peak memory of this process in bytes."""
    from transformers import LlamaConfig, LlamaModel

    torch.set_num_threads(1)
    layout = Layout.find()
    project = load_params(layout)
    tokenizer = load_tokenizer(layout.llm / project.llm.name, project.llm)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
    )
    config._attn_implementation = register()
    model = LlamaModel(config).eval()
    model.norm = torch.nn.Identity()
    engine = TextEncoder(model, tokenizer, project.text, "cpu")
    draw = random.Random(0)
    for _ in range(0, captions, SHARD):
        engine.encode("raw", [" ".join(draw.choices(WORDS, k=draw.randint(4, 30))) for _ in range(SHARD)])
    return peak_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, nargs="+", default=[1000, 100_000])
    first = 0
    for captions in parser.parse_args().captions:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            peak = pool.submit(embed, captions).result()
        first = first or peak
        record("text_memory", f"{captions:,} captions", peak / 1e9, "GB", peak / first, "the first")


if __name__ == "__main__":
    main()
