"""Captions to facet embeddings: a cut LLM, batches planned by length alone, and a probe of the decoupling.

A batch plan depends on the texts and the params only, so the bytes of a result do not depend on what was computed
before. On a CPU every caption has a row of its own, bucketed by length, and what all of them begin with is computed
once; on a GPU rows hold many captions without padding. Equal texts are computed once a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flame_core.digest import value_digest
from flame_core.errors import ComputationError
from flame_core.layout import Layout
from flame_core.params import Params, TextParams
from flame_core.plan.memory import require_llm_memory
from flame_core.plan.texts import read_shape
from flame_core.settings import settings
from flame_core.text.attention import Backend, pack
from flame_core.text.facets import REFERENCE, FacetSequence, FacetTokenizer
from flame_core.text.llm import load_llm, load_tokenizer
from flame_core.text.shared_head import SharedHead, split_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBE_CAPTIONS = ("A red kite above the sea.", "Two dogs and a small boy play in the snow near an old wooden house.")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Batch:
    """Rows of sequence numbers, each row `length` tokens long."""

    rows: list[list[int]]
    length: int


def plan_batches(lengths: Sequence[int], budget: int, backend: Backend) -> list[Batch]:
    """Batches of at most `budget` tokens (pads included), unless one sequence alone is longer.

    `sdpa`: one sequence a row, in order of length. `flex`: rows of up to `budget` tokens, filled first-fit in order
    of falling length, one row a batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if backend == "flex":
        rows: list[list[int]] = []
        room: list[int] = []
        for i in order:
            fits = next((r for r, left in enumerate(room) if left >= lengths[i]), None)
            if fits is None:
                rows.append([i])
                room.append(max(budget, lengths[i]) - lengths[i])
            else:
                rows[fits].append(i)
                room[fits] -= lengths[i]
        return [Batch([row], max(budget, sum(lengths[i] for i in row))) for row in rows]
    batches: list[Batch] = []
    while order:
        length = lengths[order[0]]
        count = max(1, budget // length)
        batches.append(Batch([[i] for i in order[:count]], length))
        order = order[count:]
    return batches


@dataclass(frozen=True)
class TokenisedTexts:
    """Texts of a kind, and the sequence that each distinct one makes."""

    kind: str
    texts: list[str]
    sequences: dict[str, FacetSequence]


class TextEncoder:
    """A frozen LLM that answers each facet prompt about a caption with a unit vector."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, params: TextParams, device: str
    ) -> None:
        self.facets = FacetTokenizer(tokenizer, params)
        self.hidden: int = model.config.get_text_config(decoder=True).hidden_size
        self._model = model
        self._params = params
        self._device = device
        self._backend: Backend = "flex" if device == "cuda" else "sdpa"
        self.probe()

    @classmethod
    def open(cls, params: Params, layout: Layout) -> TextEncoder:
        """The encoder that the params of this run describe, on the device of the settings.

        Raises:
            ResourceError: the GPU has no room for the LLM; says how much is missing.
        """
        folder = layout.llm / params.llm.name
        tokenizer = load_tokenizer(folder, params.llm)
        device = settings().torch_device()
        torch.set_num_threads(params.text.cpu_threads)
        if device == "cuda":
            shape = read_shape(params, folder)
            free, _ = torch.cuda.mem_get_info()
            require_llm_memory(params, shape.weight_bytes(params.text.layer, params.text.dtype), free)
        model = load_llm(
            folder, params.text.layer, DTYPES[params.text.dtype], device, trust_remote_code=params.llm.trust_remote_code
        )
        return cls(model, tokenizer, params.text, device)

    def probe(self) -> None:
        """Compare packed facets with separate passes on two captions.

        Raises:
            ComputationError: they differ, so this model cannot be read facet by facet; names its class.
        """
        kind = max(self._params.template, key=self.facets.facet_count)
        packed = [self.facets.encode(kind, caption) for caption in PROBE_CAPTIONS]
        head, own = self._share(packed)
        together = F.normalize(self._hidden([[each] for each in own], max(map(len, own)), head), dim=-1)
        tolerance = 1e-4 if self._params.dtype == "float32" else 2e-2
        for i, sequence in enumerate(packed):
            singles = separate(sequence)  # a row each, nothing shared
            alone = self._hidden([[single] for single in singles], max(map(len, singles)))[:, 0]
            error = (together[i] - F.normalize(alone, dim=-1)).abs().max().item()
            if not error <= tolerance:
                raise ComputationError(
                    f"{type(self._model).__name__}: facets packed into one pass differ from separate passes by "
                    f"{error:.2g} (at most {tolerance:g}); this architecture cannot be used as the frozen LLM"
                )

    def encode(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit facet embeddings of texts, [N, K, D] in float32: `embed` of `tokenise`."""
        return self.embed(self.tokenise(kind, texts))

    def tokenise(self, kind: str, texts: Sequence[str]) -> TokenisedTexts:
        """Texts in the template of their kind; needs no GPU, so that it may be done ahead in another thread.

        A kind with `@reference` behind it gives one vector a text, [N, 1, D]: the mean of the facets before
        normalisation, as FLAME's released code queries (facets with a large norm dominate there).
        """
        unique = dict.fromkeys(texts)
        return TokenisedTexts(kind, list(texts), {text: self.facets.encode(kind, text) for text in unique})

    def embed(self, tokenised: TokenisedTexts, advance: Callable[[int], None] = lambda tokens: None) -> np.ndarray:
        """Unit facet embeddings of the texts, [N, K, D] in float32; `advance` is told the tokens of each batch.

        Raises:
            ComputationError: a value is not finite; names the text.
        """
        unique, sequences = list(tokenised.sequences), list(tokenised.sequences.values())
        merged = tokenised.kind.endswith(REFERENCE)
        facets = 1 if merged else self.facets.facet_count(tokenised.kind)
        result = np.empty((len(unique), facets, self.hidden), dtype=np.float32)
        head, own = self._share(sequences)
        for batch in plan_batches([len(s) for s in own], self._params.batch_tokens, self._backend):
            numbers = [i for row in batch.rows for i in row]
            hidden = self._hidden([[own[i] for i in row] for row in batch.rows], batch.length, head)
            t = F.normalize(hidden.mean(dim=1, keepdim=True) if merged else hidden, dim=-1)
            for i, vectors in zip(numbers, t.cpu().numpy(), strict=True):
                if not np.isfinite(vectors).all():
                    raise ComputationError(f"the LLM's embedding of {unique[i][:200]!r} is not finite; use float32")
                result[i] = vectors
            advance(sum(len(sequences[i]) for i in numbers))
        place = {text: i for i, text in enumerate(unique)}
        return result[[place[text] for text in tokenised.texts]]

    @torch.inference_mode()
    def _share(self, sequences: Sequence[FacetSequence]) -> tuple[SharedHead | None, Sequence[FacetSequence]]:
        """What all sequences begin with, computed, and the sequences without it; where rows are shared, neither."""
        if self._backend == "flex" or not sequences:
            return None, sequences
        first, own = split_head(sequences)
        if not len(first):
            return None, sequences
        head = SharedHead(len(first))
        ids, packing = pack([[first]], len(first), self._backend, self._device)
        packing.recorded = head
        self._model(input_ids=ids, position_ids=packing.position, packing=packing, use_cache=False)
        return head, own

    @torch.inference_mode()
    def _hidden(self, rows: Sequence[Sequence[FacetSequence]], length: int, head: SharedHead | None = None) -> Tensor:
        """Hidden values [N, K, D] at the ends of the facets of the sequences in row order; all have the same K."""
        ids, packing = pack(rows, length, self._backend, self._device)
        packing.head = head
        hidden = self._model(input_ids=ids, position_ids=packing.position, packing=packing, use_cache=False)[0]
        read = hidden.flatten(0, 1)[packing.reads]  # [N K, D]
        return read.unflatten(0, (sum(map(len, rows)), -1)).float()


def separate(sequence: FacetSequence) -> list[FacetSequence]:
    """The K sequences of prefix and one facet that a packed sequence stands for."""
    prefix = sequence.segment.count(0)
    ends = [prefix, *(i + 1 for i in sequence.readout)]
    singles = []
    for start, end in pairwise(ends):
        keep = [*range(prefix), *range(start, end)]
        singles.append(
            FacetSequence(
                ids=[sequence.ids[i] for i in keep],
                segment=[min(sequence.segment[i], 1) for i in keep],
                position=list(range(len(keep))),
                readout=[len(keep) - 1],
            )
        )
    return singles


def encoder_identity(params: Params, source: dict, template_hash: str) -> dict:
    """What a stored embedding depends on besides its text: LLM, layer, template, numeric types."""
    text = params.text
    return {
        "llm": {
            "name": params.llm.name,
            "source": params.llm.source,
            "random_seed": params.llm.random_seed,
            "digest": value_digest(source["files"]),
        },
        "layer": text.layer,
        "template_hash": template_hash,
        "normalise": text.normalise,
        "dtype": text.dtype,
        "store_dtype": text.store_dtype,
        "batch_tokens": text.batch_tokens,
        "cpu_threads": text.cpu_threads,
        "max_caption_tokens": text.max_caption_tokens,
    }
