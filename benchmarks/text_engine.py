"""The text engine against separate passes and against the reference's padded dense batch, on the same texts.

    python -m benchmarks.text_engine                     # SmolLM2 and the demo's captions on a CPU (after `make demo`)
    python -m benchmarks.text_engine --pairs /where/flickr8k-train-00000.tar    # captions that people wrote
    python -m benchmarks.text_engine --shape nemo        # a random-weight model of Mistral-Nemo's shape on a GPU

separate: a pass for each facet, rows without pads under the same token budget, by the same cut model.
padded:   batches of 32 in the order they come, padded to the longest, a mask [B, heads, L, L] in the model's type,
          all layers and the final norm computed: the way of FLAME's released code, with restarted positions.
All three must give the same vectors; a CPU is measured by one thread in processor seconds. Every caption gives all its
facets: 11 vectors a picture, 1 raw, 3 short, 7 long. Of a tar of pairs with several captions a picture, raw is the
first, short the second, and long all of them in one.
"""

from __future__ import annotations

import argparse
import json
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
from flame_core.plan.texts import LLMShape, Sequence
from flame_core.settings import settings
from flame_core.text.attention import Backend
from flame_core.text.encoder import DTYPES, TextEncoder, plan_batches, separate
from flame_core.text.facets import FacetSequence, FacetTokenizer
from flame_core.text.llm import load_llm, load_tokenizer
from flame_core.text.shared_head import split_head

KINDS = ("raw", "short", "long")
Texts = dict[Any, list[str]]


def padded(model: Any, sequences: list[FacetSequence], layer: int, device: str) -> list[torch.Tensor]:
    """Unit vectors [K, D] of each sequence, the reference's way."""
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
        seen = causal & ((segment[:, None] == 0) | (segment[:, None] == segment[:, :, None]))  # pads lie behind
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
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3, help="0: count tokens and pads alone")
    options = parser.parse_args()
    device = settings().torch_device()
    layout = Layout.find()
    project = load_params(layout)
    folder, params = layout.llm / project.llm.name, project.text
    if options.shape == "nemo":
        params = params.model_copy(update={"layer": 39, "dtype": "bfloat16", "batch_tokens": 16384})
        folder = random_nemo(settings().cache_dir / "llm" / "nemo-shape", folder)
    tokenizer = load_tokenizer(folder, project.llm)
    facets = FacetTokenizer(tokenizer, params)
    texts = of_pairs(options.pairs) if options.pairs else of_captions(options.captions)
    texts = {kind: own[: options.pictures] for kind, own in texts.items()}
    sequences = {kind: [facets.encode(kind, text) for text in own] for kind, own in texts.items()}
    singles = [single for own in sequences.values() for each in own for single in separate(each)]
    tokens = sum(len(each) for own in sequences.values() for each in own)
    name = f"text_engine/{options.shape}/{'pairs' if options.pairs else 'demo'}"
    shape = LLMShape.of(read_config(folder))
    backend: Backend = "flex" if device == "cuda" else "sdpa"
    count_bound(name, list(sequences.values()), shape, params, backend)
    if not options.turns:
        return

    torch.set_num_threads(1)
    clock = PROCESSOR if device == "cpu" else WALL
    model = load_llm(folder, params.layer, DTYPES[params.dtype], device)
    engine = TextEncoder(model, tokenizer, params, device)
    whole = reference_model(folder, DTYPES[params.dtype], device)

    def ours() -> list[np.ndarray]:
        return [engine.encode(kind, own) for kind, own in texts.items()]

    def apart() -> torch.Tensor:
        result = torch.empty(len(singles), engine.hidden)
        for numbers in plan_batches([len(each) for each in singles], params.batch_tokens, backend):
            result[numbers] = engine._hidden([singles[i] for i in numbers])[:, 0].cpu()
        return F.normalize(result, dim=-1)

    def dense() -> list[list[torch.Tensor]]:
        return [padded(whole, own, params.layer, device) for own in sequences.values()]

    expected = torch.from_numpy(np.concatenate([t.reshape(-1, engine.hidden) for t in ours()]))
    others = {"separate": apart(), "padded": torch.cat([t.cpu() for own in dense() for t in own])}
    for other, found in others.items():
        error = (found - expected).abs().max().item()
        cosine = (found * expected).sum(dim=1).min().item()
        print(f"ours against {other}: largest difference {error:.1e}, smallest cosine {cosine:.6f}")
        assert error < 1e-5 if params.dtype == "float32" else cosine > 0.999, other

    cases = {"packed": ours, "separate": apart, "padded": dense}
    measured = in_turns(cases, options.turns, warm=0, clock=clock)  # the comparison above was the warm-up
    ceiling = matmul_ceiling(device, DTYPES[params.dtype], clock=clock)
    flops = sum(
        shape.flops(params.layer, each.packed, each.pairs) for own in sequences.values() for each in map(_counts, own)
    )
    for case in cases:
        record(name, case, tokens / measured.median(case), "tokens/s")
    for case in ("separate", "padded"):
        record(
            name, f"packed against {case}", measured.ratio("packed", case), "x", measured.ratio("packed", case), case
        )
    achieved = flops / measured.median("packed")
    record(name, "packed, achieved", achieved / 1e9, "GFLOP/s", achieved / ceiling, "matmul ceiling")
    record(name, "peak memory", peak_bytes() / 1e9, "GB")


def count_bound(
    name: str, kinds: list[list[FacetSequence]], shape: LLMShape, params: TextParams, backend: Backend
) -> None:
    """How much faster than the padded way the engine can be by arithmetic: by pads, and by what it leaves out."""
    lengths = [[len(each) for each in own] for own in kinds]
    tokens = sum(map(sum, lengths))
    packed = 0
    for own in kinds:
        head, rest = split_head(own) if backend == "sdpa" else ([], own)
        batches = plan_batches([len(each) for each in rest], params.batch_tokens, backend)
        full = params.batch_tokens if backend == "flex" else 0
        packed += len(head) + sum(max(full, sum(len(rest[i]) for i in batch)) for batch in batches)
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
    """The English captions of a tar of pairs, put together to the lengths of the three kinds."""
    own = [meta["captions"]["en"] for _, meta in read_metas(path)]
    return {
        "raw": [captions[0] for captions in own],
        "short": [captions[1] for captions in own],
        "long": [" ".join(captions) for captions in own],
    }


def _counts(sequence: FacetSequence) -> Sequence:
    numbers = range(1, len(sequence.readout) + 1)
    return Sequence(sequence.segment.count(0), [sequence.segment.count(j) for j in numbers])


def reference_model(folder: Path, dtype: torch.dtype, device: str) -> Any:
    """The whole model as `transformers` runs it."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval().to(device)


def random_nemo(folder: Path, tokenizer: Path) -> Path:
    """A model of Mistral-Nemo's shape with random weights and SmolLM2's tokenizer, made once."""
    if (folder / "source.json").is_file():
        return folder
    from transformers import AutoTokenizer, MistralConfig, MistralModel

    config = MistralConfig(
        hidden_size=5120,
        num_hidden_layers=40,
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
