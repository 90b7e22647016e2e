"""Captions to facet embeddings: a cut LLM, batches planned by length alone, and a probe of the decoupling.

The row plan (`row_plan.py`) depends on the texts and the params only, so the bytes of a result do not depend on what
was computed before. Equal texts are computed once per call. On a CPU captions of one kind lie in order of length, and
what all of them begin with is computed once. On a GPU all kinds of a file share rows, nothing waits for the device but
the collection of finished rows, and the next row is laid out while the one before is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
from flame_core.settings import settings
from flame_core.text.attention import pack
from flame_core.text.cost import read_shape
from flame_core.text.facets import REFERENCE, FacetSequence, FacetTokenizer
from flame_core.text.float8 import quantise_layers
from flame_core.text.llm import load_llm, load_tokenizer
from flame_core.text.memory import require_llm_memory
from flame_core.text.row_plan import Backend, plan_rows
from flame_core.text.shared_head import SharedHead, split_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBE_CAPTIONS = ("A red kite above the sea.", "Two dogs and a small boy play in the snow near an old wooden house.")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float8": torch.bfloat16}  # of what is no product


@dataclass(frozen=True)
class TokenisedTexts:
    """Texts of a kind, and the sequence that each distinct one makes."""

    kind: str
    texts: list[str]
    sequences: dict[str, FacetSequence]

    @property
    def merged(self) -> bool:
        """Whether a text gives one vector, the mean of its facets."""
        return self.kind.endswith(REFERENCE)


@dataclass(frozen=True)
class _Pending:
    """A row on its way: unit vectors [R, D] being copied to this machine's memory, complete when `done` is."""

    members: tuple[int, ...]
    vectors: Tensor
    done: torch.cuda.Event | None


class TextEncoder:
    """A frozen LLM that answers each facet prompt about a caption with a unit vector."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        params: TextParams,
        device: str,
        *,
        compiled: bool = False,
    ) -> None:
        self.facets = FacetTokenizer(tokenizer, params)
        self.hidden: int = model.config.get_text_config(decoder=True).hidden_size
        self._model = model
        self._params = params
        self._device = device
        self._backend: Backend = "flex" if device == "cuda" else "sdpa"
        if params.dtype == "float8":
            quantise_layers(model)
        if compiled:
            compile_layers(model)
        self.probe()

    @classmethod
    def open(cls, params: Params, layout: Layout, *, compiled: bool = False) -> TextEncoder:
        """The encoder that the params of this run describe, on the device of the settings.

        With `compiled` the layers are compiled on a GPU, which pays for a store and not for a query.

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
        return cls(model, tokenizer, params.text, device, compiled=compiled and device == "cuda")

    def probe(self) -> None:
        """Compare packed facets with separate passes on two captions.

        Raises:
            ComputationError: they differ, so this model cannot be read facet by facet; names its class.
        """
        kind = max(self._params.template, key=self.facets.facet_count)
        packed = [self.facets.encode(kind, caption) for caption in PROBE_CAPTIONS]
        head, own = self._share(packed)
        length = self._params.batch_tokens if self._backend == "flex" else 0  # the shape that most rows have
        together = F.normalize(self._hidden(own, head, length), dim=-1).split(len(packed[0].readout))
        tolerance = 1e-4 if self._params.dtype == "float32" else 2e-2
        for i, sequence in enumerate(packed):
            alone = self._hidden(separate(sequence), length=length)
            error = (together[i] - F.normalize(alone, dim=-1)).abs().max().item()
            if not error <= tolerance:
                raise ComputationError(
                    f"{type(self._model).__name__}: facets packed into one pass differ from separate passes by "
                    f"{error:.2g} (at most {tolerance:g}); this architecture cannot be used as the frozen LLM"
                )

    def encode(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit facet embeddings of texts, [N, K, D] in float32: `embed` of `tokenise`."""
        return self.embed([self.tokenise(kind, texts)])[0]

    def tokenise(self, kind: str, texts: Sequence[str]) -> TokenisedTexts:
        """Texts in the template of their kind; needs no GPU, so that it may be done ahead in another thread.

        A kind with `@reference` behind it gives one vector a text, [N, 1, D]: the mean of the facets before
        normalisation, as FLAME's released code queries (facets with a large norm dominate there).
        """
        unique = dict.fromkeys(texts)
        return TokenisedTexts(kind, list(texts), {text: self.facets.encode(kind, text) for text in unique})

    def embed(
        self, kinds: Sequence[TokenisedTexts], advance: Callable[[int], None] = lambda tokens: None
    ) -> list[np.ndarray]:
        """Unit facet embeddings of the texts of each kind, [N, K, D] in float32; `advance` is told tokens as they end.

        Raises:
            ComputationError: a value is not finite; names the text.
        """
        results: list[np.ndarray] = []
        for group in self._groups(kinds):
            texts = [text for own in group for text in own.sequences]
            sequences = [sequence for own in group for sequence in own.sequences.values()]
            vectors: list[np.ndarray] = [np.empty(0)] * len(texts)  # [K, D] of each
            for members, found in self._rows(sequences, merged=group[0].merged):
                start = 0
                for i in members:
                    count = 1 if group[0].merged else len(sequences[i].readout)
                    vectors[i] = found[start : start + count]
                    if not np.isfinite(vectors[i]).all():
                        raise ComputationError(f"the LLM's embedding of {texts[i][:200]!r} is not finite; use float32")
                    start += count
                advance(sum(len(sequences[i]) for i in members))
            start = 0
            for own in group:
                place = {text: start + i for i, text in enumerate(own.sequences)}
                results.append(np.stack([vectors[place[text]] for text in own.texts]))
                start += len(own.sequences)
        return results

    def _groups(self, kinds: Sequence[TokenisedTexts]) -> Iterator[list[TokenisedTexts]]:
        """The kinds whose texts share rows, in order: all next to one another on a GPU, each by itself on a CPU."""
        group: list[TokenisedTexts] = []
        for own in kinds:
            if group and (self._backend == "sdpa" or own.merged or group[-1].merged):
                yield group
                group = []
            group.append(own)
        if group:
            yield group

    def _rows(self, sequences: Sequence[FacetSequence], merged: bool) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Members of each row and their unit vectors [R, D], one behind the other; a second row is under way."""
        head, own = self._share(sequences)
        pending: deque[_Pending] = deque()
        for row in plan_rows([len(each) for each in own], self._params.batch_tokens, self._backend):
            hidden = self._hidden([own[i] for i in row.members], head, row.length)
            if merged:
                hidden = hidden.unflatten(0, (len(row.members), -1)).mean(dim=1)
            pending.append(self._fetch(row.members, F.normalize(hidden, dim=-1)))
            if len(pending) > 1:
                yield self._arrived(pending.popleft())
        while pending:
            yield self._arrived(pending.popleft())

    def _fetch(self, members: tuple[int, ...], vectors: Tensor) -> _Pending:
        if vectors.device.type == "cpu":
            return _Pending(members, vectors, None)
        here = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        here.copy_(vectors, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        return _Pending(members, here, done)

    def _arrived(self, pending: _Pending) -> tuple[tuple[int, ...], np.ndarray]:
        if pending.done is not None:
            pending.done.synchronize()
        return pending.members, pending.vectors.numpy()

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
    def _hidden(self, sequences: Sequence[FacetSequence], head: SharedHead | None = None, length: int = 0) -> Tensor:
        """Hidden values [R, D] where facets end, sequence by sequence; the row is filled up to `length` tokens."""
        ids, packing = pack(sequences, self._backend, self._device, length)
        packing.head = head
        hidden = self._model(input_ids=ids, position_ids=packing.position, packing=packing, use_cache=False)[0]
        return hidden[0, packing.reads].float()


def compile_layers(model: PreTrainedModel) -> None:
    """Compile a decoder's layers, all but the last, whose shapes change with what is read.

    Norms, rotary positions, activations and casts become a few kernels; attention stays a call of its own. The layers
    share their code, so each of the first row lengths compiles once.
    """
    layers = getattr(model, "layers", None)
    for layer in layers[:-1] if isinstance(layers, torch.nn.ModuleList) else []:
        layer.compile()


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
