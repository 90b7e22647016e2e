"""Captions to facet embeddings: a cut LLM, batches planned by length alone, and a probe of the decoupling.

A batch plan depends on the texts and the params only, so the bytes of a result do not depend on what was computed
before. A batch is a row of captions without padding. On a CPU they lie in order of length, and what all of them begin
with is computed once; on a GPU rows are filled to the same length, so that one shape is compiled. Equal texts are
computed once a call.
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


def plan_batches(lengths: Sequence[int], budget: int, backend: Backend) -> list[list[int]]:
    """Numbers of the sequences of each batch: at most `budget` tokens, unless one sequence alone is longer.

    `sdpa`: in order of falling length, so that equal ones lie together. `flex`: filled first-fit in that order, so that
    rows have little room left.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    room: list[int] = []
    for i in order:
        candidates = range(len(batches)) if backend == "flex" else range(len(batches))[-1:]
        fits = next((b for b in candidates if room[b] >= lengths[i]), None)
        if fits is None:
            batches.append([i])
            room.append(budget - lengths[i])
        else:
            batches[fits].append(i)
            room[fits] -= lengths[i]
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
        together = F.normalize(self._hidden(own, head), dim=-1)
        tolerance = 1e-4 if self._params.dtype == "float32" else 2e-2
        for i, sequence in enumerate(packed):
            alone = self._hidden(separate(sequence))[:, 0]
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
        for numbers in plan_batches([len(s) for s in own], self._params.batch_tokens, self._backend):
            hidden = self._hidden([own[i] for i in numbers], head)
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
        """What all sequences begin with, computed, and the sequences without it; on a GPU, neither."""
        if self._backend == "flex" or not sequences:
            return None, sequences
        first, own = split_head(sequences)
        if not len(first):
            return None, sequences
        head = SharedHead(len(first))
        ids, packing = pack([first], self._backend, self._device)
        packing.recorded = head
        self._model(input_ids=ids, position_ids=packing.position, packing=packing, use_cache=False)
        return head, own

    @torch.inference_mode()
    def _hidden(self, sequences: Sequence[FacetSequence], head: SharedHead | None = None) -> Tensor:
        """Hidden values [N, K, D] at the ends of the facets of sequences that all have the same K."""
        length = self._params.batch_tokens if self._backend == "flex" else 0
        ids, packing = pack(sequences, self._backend, self._device, length)
        packing.head = head
        hidden = self._model(input_ids=ids, position_ids=packing.position, packing=packing, use_cache=False)[0]
        return hidden[0, packing.reads].unflatten(0, (len(sequences), -1)).float()


def separate(sequence: FacetSequence) -> list[FacetSequence]:
    """The K sequences of prefix and one facet that a packed sequence stands for; plain causal ones."""
    prefix = sequence.segment.count(0)
    ends = [prefix, *(i + 1 for i in sequence.readout)]
    singles = []
    for start, end in pairwise(ends):
        keep = [*range(prefix), *range(start, end)]
        singles.append(
            FacetSequence(
                ids=[sequence.ids[i] for i in keep],
                segment=[0] * len(keep),
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
