"""The text engine against separate passes and against the reference's padded dense batches, on the same texts.

    python -m benchmarks.text_engine                     # SmolLM2 and the demo's captions on a CPU (after `make demo`)
    python -m benchmarks.text_engine --pairs /where/flickr8k-train-00000.tar    # captions that people wrote
    python -m benchmarks.text_engine --shape nemo        # a random-weight model of Mistral-Nemo's shape on a GPU
    python -m benchmarks.text_engine --shape nemo --cases packed,float8 --pictures 1000      # some of the cases

packed:   the engine; on a GPU with compiled layers.
float8:   the same with matrix products in float8 (on a GPU).
separate: one pass per facet, rows without padding with the same token budget, with the same cut model.
padded:   batches of 32 in the given order, padded to the longest, a mask [B, heads, L, L] in the model's type, all
          layers and the final norm computed: as in FLAME's released code, with restarted positions.
sentence-transformers: what users would use, if it is installed: each facet's prompt as a separate text, read at its
          last token.

In float32 the first four must give the same vectors. In a lower precision, packed facets must not be further from
float32 than separate passes, for a few texts and the model's first layers. On a CPU, one thread is timed in processor
seconds. Every caption gives all its facets: 11 vectors per picture, 1 raw, 3 short, 7 long. In a tar of pairs with
several captions per picture, raw is the first, short the second, and long all of them joined.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.measure import PROCESSOR, WALL, in_turns, matmul_ceiling, peak_bytes, record
from flame_core.captions.table import read_captions
from flame_core.data.shards import read_metas
from flame_core.layout import Layout
from flame_core.params import TextParams, load_params
from flame_core.processes.freed_memory import keep_freed_memory
from flame_core.settings import settings
from flame_core.text import cost
from flame_core.text.cost import LLMShape
from flame_core.text.encoder import DTYPES, TextEncoder
from flame_core.text.facets import BOS, CAPTION, FacetSequence, FacetTokenizer, normalise_sentence
from flame_core.text.llm import load_llm, load_tokenizer
from flame_core.text.probe import separate
from flame_core.text.row_plan import Backend, plan_rows
from flame_core.text.shared_head import split_head

KINDS = ("raw", "short", "long")
GPU_ROW = 16_384  # tokens of a row of a large model
CHECKED_LAYERS, CHECKED_TEXTS = 8, 16  # of the comparison with float32
Texts = dict[Any, list[str]]


def padded(model: Any, sequences: list[FacetSequence], layer: int, device: str) -> list[torch.Tensor]:
    """Unit vectors [K, D] of each sequence, computed as the reference does."""
    found = []
    for start in range(0, len(sequences), 32):
        part = sequences[start : start + 32]
        length = max(map(len, part))
        ids, segment, position = (torch.zeros(len(part), length, dtype=torch.long) for _ in range(3))
        for row, each in enumerate(part):
            ids[row, : len(each)] = torch.tensor(each.ids)
            segment[row, : len(each)] = torch.tensor(each.segment)
            position[row, : len(each)] = torch.tensor(each.position)
        ids, segment, position = (each.to(device) for each in (ids, segment, position))
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        seen = causal & ((segment[:, None] == 0) | (segment[:, None] == segment[:, :, None]))  # padding is at the end
        mask = torch.zeros_like(seen, dtype=model.dtype).masked_fill_(~seen, torch.finfo(model.dtype).min)
        mask = mask[:, None].expand(-1, model.config.num_attention_heads, -1, -1).contiguous()
        with torch.inference_mode():
            out = model(ids, attention_mask=mask, position_ids=position, output_hidden_states=True)
        for row, each in zip(out.hidden_states[layer], part, strict=True):
            found.append(F.normalize(row[each.readout].float(), dim=-1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["smollm2", "nemo"], default="smollm2")
    parser.add_argument("--captions", type=Path, default=Path("data/captions"))
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="folder of the LLM (default: the one of params.yaml)")
    parser.add_argument("--layers", type=int, default=40, help="of Nemo's shape; all but the last are read")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--cases", default="packed,separate,padded", type=lambda text: text.split(","))
    parser.add_argument("--turns", type=int, default=3, help="0: only count tokens and padding")
    options = parser.parse_args()
    device = settings().torch_device()
    layout = Layout.find()
    project = load_params(layout)
    folder, params = options.tokenizer or layout.llm / project.llm.name, project.text
    if options.shape == "nemo":
        params = params.model_copy(update={"layer": options.layers - 1, "dtype": "bfloat16", "batch_tokens": GPU_ROW})
        folder = random_nemo(settings().cache_dir / "llm" / f"nemo-shape-{options.layers}", folder, options.layers)
    tokenizer = load_tokenizer(folder, project.llm)
    facets = FacetTokenizer(tokenizer, params)
    texts = of_pairs(options.pairs) if options.pairs else of_captions(options.captions)
    texts = {kind: own[: options.pictures] for kind, own in texts.items()}
    sequences = {kind: [facets.encode(kind, text) for text in own] for kind, own in texts.items()}
    tokens = sum(len(each) for own in sequences.values() for each in own)
    shape_name = f"nemo-{options.layers}" if options.shape == "nemo" else options.shape
    name = f"text_engine/{shape_name}/{'pairs' if options.pairs else 'demo'}"
    shape = LLMShape.of(read_config(folder))
    backend: Backend = "flex" if device == "cuda" else "sdpa"
    count_bound(name, list(sequences.values()), shape, params, backend)
    if not options.turns:
        return

    if device == "cpu":
        torch.set_num_threads(1)  # a GPU's models are loaded by all
        keep_freed_memory()  # as the stage `embed` does
    clock = PROCESSOR if device == "cpu" else WALL

    def encoder(layer: int, dtype: str) -> TextEncoder:
        start = time.perf_counter()
        own = params.model_copy(update={"layer": layer, "dtype": dtype})
        model = load_llm(folder, layer, DTYPES[dtype], device)
        made = TextEncoder(model, tokenizer, own, device, compiled=device == "cuda")
        print(f"{layer} layers in {dtype}: ready after {time.perf_counter() - start:.0f} s", flush=True)
        return made

    cases: dict[str, Callable[[], Any]] = {}
    if {"packed", "separate"} & set(options.cases):
        engine = encoder(params.layer, params.dtype)
        cases["packed"] = lambda: embed(engine, texts)
        cases["separate"] = lambda: one_by_one(engine, texts, params.batch_tokens, backend)
    if "float8" in options.cases:
        coarse = encoder(params.layer, "float8")
        cases["float8"] = lambda: embed(coarse, texts)
    if "padded" in options.cases:
        whole = reference_model(folder, DTYPES[params.dtype], device)
        cases["padded"] = lambda: [padded(whole, own, params.layer, device) for own in sequences.values()]
    if "sentence-transformers" in options.cases and importlib.util.find_spec("sentence_transformers"):
        users = sentence_transformer(folder, DTYPES[params.dtype], device)
        prompts = prompt_texts(texts, params)
        cases["sentence-transformers"] = lambda: users.encode(prompts, batch_size=32, show_progress_bar=False)
    cases = {case: run for case, run in cases.items() if case in options.cases}
    if params.dtype == "float32":
        compare({case: run() for case, run in cases.items() if case != "float8"})
    measured = in_turns(cases, options.turns, warm=0 if params.dtype == "float32" else 1, clock=clock)
    ceiling = matmul_ceiling(device, torch.bfloat16 if params.dtype != "float32" else torch.float32, clock=clock)
    flops = sum(
        shape.flops(params.layer, each.packed, each.pairs) for own in sequences.values() for each in map(_counts, own)
    )
    for case in cases:
        record(name, case, tokens / measured.median(case), "tokens/s")
    for case in cases.keys() - {"packed"} if "packed" in cases else []:
        pair = ("float8", "packed") if case == "float8" else ("packed", case)
        record(name, f"{pair[0]} against {pair[1]}", measured.ratio(*pair), "x", measured.ratio(*pair), pair[1])
    for case in ("packed", "float8"):
        if case in cases:
            achieved = flops / measured.median(case)
            record(name, f"{case}, achieved", achieved / 1e9, "GFLOP/s", achieved / ceiling, "matmul ceiling")
    record(name, "peak memory", peak_bytes() / 1e9, "GB")
    if params.dtype == "float32":
        return
    torch._dynamo.reset()  # what was compiled for the measurement counts as variants of the same layers
    few = {kind: own[:CHECKED_TEXTS] for kind, own in texts.items()}
    if not check_precision(encoder, few, [params.dtype, *(["float8"] if "float8" in options.cases else [])]):
        raise SystemExit("packed facets are further from float32 than separate passes")


def embed(engine: TextEncoder, texts: Texts) -> torch.Tensor:
    """Unit vectors of all texts and facets, concatenated, as the stage `embed` computes a file."""
    found = engine.embed([engine.tokenise(kind, own) for kind, own in texts.items()])
    return torch.from_numpy(np.concatenate([t.reshape(-1, engine.hidden) for t in found]))


def one_by_one(engine: TextEncoder, texts: Texts, budget: int, backend: Backend) -> torch.Tensor:
    """The same vectors from one pass per facet."""
    packed = [engine.facets.encode(kind, text) for kind, own in texts.items() for text in own]
    singles = [single for each in packed for single in separate(each)]
    result = torch.empty(len(singles), engine.hidden)
    for row in plan_rows([len(each) for each in singles], budget, backend):
        members = [singles[i] for i in row.members]
        result[list(row.members)] = engine.read_tokens(members, length=row.length).cpu()
    return F.normalize(result, dim=-1)


def compare(found: dict[str, Any]) -> None:
    """Check that in float32 all cases give the same vectors."""
    expected = found.pop("packed")
    for case, other in found.items():
        vectors = other if isinstance(other, torch.Tensor) else torch.cat([t.cpu() for own in other for t in own])
        error = (vectors - expected).abs().max().item()
        print(f"packed against {case}: largest difference {error:.1e}")
        assert error < 1e-5, case


def check_precision(encoder: Callable[[int, str], TextEncoder], texts: Texts, precisions: Sequence[str]) -> bool:
    """Whether packed facets are no further from float32 than separate passes in the same precision."""
    exact = encoder(CHECKED_LAYERS, "float32")
    expected = one_by_one(exact, texts, GPU_ROW, exact.backend)
    same = (embed(exact, texts) - expected).abs().max().item()
    print(f"first {CHECKED_LAYERS} layers, float32: packed against separate, largest difference {same:.1e}")
    sound = same < 1e-4  # a GPU sums a row of 16,384 tokens in other orders
    del exact
    for precision in precisions:
        engine = encoder(CHECKED_LAYERS, precision)
        ways = {"packed": embed(engine, texts), "separate": one_by_one(engine, texts, GPU_ROW, engine.backend)}
        far = {way: 1 - (vectors * expected).sum(dim=1) for way, vectors in ways.items()}
        says = ", ".join(f"{way} {own.mean():.2e} (most {own.max():.2e})" for way, own in far.items())
        print(f"first {CHECKED_LAYERS} layers, {precision}: 1 - cosine with float32: {says}", flush=True)
        sound &= bool(far["packed"].mean() < 1.1 * far["separate"].mean())
        del engine
    return sound


def prompt_texts(texts: Texts, params: TextParams) -> list[str]:
    """Each facet of each text as one prompt."""
    prompts = []
    for kind, own in texts.items():
        template = params.template[kind]
        for text in own:
            prefix = template.prefix.replace(CAPTION, normalise_sentence(text, params.normalise))
            prompts += [prefix + facet.replace(BOS, "") for facet in template.facets]
    return prompts


def sentence_transformer(folder: Path, dtype: torch.dtype, device: str) -> Any:
    """sentence-transformers on the whole model, read at the last token."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    reader: Any = Transformer(str(folder), max_seq_length=1024, model_args={"dtype": dtype})
    if reader.tokenizer.pad_token is None:
        reader.tokenizer.pad_token = reader.tokenizer.eos_token
    pooling = Pooling(reader.get_word_embedding_dimension(), pooling_mode="lasttoken")
    return SentenceTransformer(modules=[reader, pooling, Normalize()], device=device)


def count_bound(
    name: str, kinds: list[list[FacetSequence]], shape: LLMShape, params: TextParams, backend: Backend
) -> None:
    """How much faster the engine can be than `padded`, counted in tokens and FLOPs: padding, and what it leaves out."""
    lengths = [[len(each) for each in own] for own in kinds]
    tokens = sum(map(sum, lengths))
    budget, packed = params.batch_tokens, 0
    together = [each for own in kinds for each in own]  # on a GPU all kinds share rows
    for own in kinds if backend == "sdpa" else [together]:
        head, rest = split_head(own) if backend == "sdpa" else ([], own)
        packed += len(head) + sum(row.length for row in plan_rows([len(each) for each in rest], budget, backend))
    rows = plan_rows([len(each) for each in together], GPU_ROW, "flex")
    record(name, f"pads of GPU rows of {GPU_ROW:,}", 100 * (sum(row.length for row in rows) / tokens - 1), "%")
    dense = sum(max(own[i : i + 32]) * len(own[i : i + 32]) for own in lengths for i in range(0, len(own), 32))
    separated = sum(len(single) for own in kinds for each in own for single in separate(each))
    reads = sum(len(each.readout) for own in kinds for each in own)
    keys = 2 * shape.hidden * shape.head_dim * shape.key_value_heads  # weights that every token of the last block meets
    last = (keys * packed + (shape.layer_weights - keys) * reads) / shape.layer_weights
    bound = dense * shape.layers / (packed * (params.layer - 1) + last)
    record(name, "token ratio, separate", separated / tokens, "x")
    record(name, "tokens computed, packed", packed / tokens, "x")
    record(name, "tokens computed, padded", dense / tokens, "x")
    record(name, "packed against padded, bound", bound, "x")


def read_config(folder: Path) -> dict[str, Any]:
    """The LLM's `config.json`."""
    return json.loads((folder / "config.json").read_text("utf-8"))


def of_captions(folder: Path) -> Texts:
    """The English captions of the first training shard."""
    rows = read_captions(sorted((folder / "train").glob("*.parquet"))[0])
    return {kind: [c.text for c in rows if c.kind == kind and c.language == "en"] for kind in KINDS}


def of_pairs(path: Path) -> Texts:
    """The English captions of a tar of pairs, joined for the three kinds' lengths."""
    own = [meta["captions"]["en"] for _, meta in read_metas(path)]
    return {
        "raw": [captions[0] for captions in own],
        "short": [captions[1] for captions in own],
        "long": [" ".join(captions) for captions in own],
    }


def _counts(sequence: FacetSequence) -> cost.Sequence:
    numbers = range(1, len(sequence.readout) + 1)
    return cost.Sequence(sequence.segment.count(0), [sequence.segment.count(j) for j in numbers])


def reference_model(folder: Path, dtype: torch.dtype, device: str) -> Any:
    """The whole model, as `transformers` runs it."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval().to(device)


def random_nemo(folder: Path, tokenizer: Path, layers: int) -> Path:
    """A model of Mistral-Nemo's shape with random weights and SmolLM2's tokenizer, made once."""
    if (folder / "source.json").is_file():
        return folder
    from transformers import AutoTokenizer, MistralConfig, MistralModel

    config = MistralConfig(
        hidden_size=5120,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=14336,
        vocab_size=131072,
        sliding_window=None,
        max_position_embeddings=4096,
    )
    device = settings().torch_device()
    with torch.device(device):
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        model = MistralModel(config)
        torch.set_default_dtype(default)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    (folder / "source.json").write_text('{"files": {}}')
    return folder


if __name__ == "__main__":
    main()
