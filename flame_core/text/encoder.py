"""Captions to facet embeddings and to sentence embeddings, with a cut LLM that is probed for both.

The row plan (`row_plan.py`) depends only on the texts and the params, so the bytes of a result do not depend on what
was computed before. Equal texts are computed once per call. On a CPU, the captions of one kind are sorted by length,
and the tokens that all of them begin with are computed once. On a GPU, all kinds of a file share rows; only collecting
finished rows waits for the device, and the next row is laid out while the previous one is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flame_core.digest import value_digest
from flame_core.errors import ComputationError
from flame_core.layout import Layout
from flame_core.params import LLMParams, Params, TextParams
from flame_core.processes.freed_memory import keep_freed_memory
from flame_core.processes.gpu import free_memory, memory_advice, require_float8
from flame_core.settings import settings
from flame_core.text.adapter import Adapter
from flame_core.text.attention import pack, to_device
from flame_core.text.calibration import calibration_captions
from flame_core.text.cost import read_shape
from flame_core.text.embedding_models import require_readable_sentences
from flame_core.text.facets import REFERENCE, FacetTokenizer
from flame_core.text.float8 import quantise_layers
from flame_core.text.llm import Cut, load_cuts, load_tokenizer, read_source
from flame_core.text.memory import require_llm_memory
from flame_core.text.probe import probe_facets, probe_sentences
from flame_core.text.row_plan import Backend, plan_rows
from flame_core.text.sentence import SENTENCE
from flame_core.text.sequence import FacetSequence
from flame_core.text.shared_head import SharedHead, split_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float8": torch.bfloat16,
}  # of everything but matrix products


@dataclass(frozen=True)
class TokenisedTexts:
    """Texts of a kind, and the sequence of each distinct one."""

    kind: str
    texts: list[str]
    sequences: dict[str, FacetSequence]

    @property
    def merged(self) -> bool:
        """Whether a text gives one vector, the mean of its facets."""
        return self.kind.endswith(REFERENCE)

    @property
    def is_sentence(self) -> bool:
        """Whether a text gives one vector, without facets."""
        return self.kind == SENTENCE

    @property
    def shares_rows(self) -> bool:
        """Whether the same rows may hold texts of other kinds."""
        return not (self.merged or self.is_sentence)


@dataclass(frozen=True)
class Pass:
    """How the LLM reads rows: its decoder, cut at a layer, and whether tokens also attend to later ones."""

    model: PreTrainedModel
    layer: int
    bidirectional: bool = False


@dataclass(frozen=True)
class _Pending:
    """A row in progress: its unit vectors [R, D] are being copied to host memory; complete once `done` is."""

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
        sentences: PreTrainedModel | None = None,
        compiled: bool = False,
    ) -> None:
        """Take the models of `load_cuts` for `cuts_of`: for facets, and for sentences if params read any."""
        self.facets = FacetTokenizer(tokenizer, params)
        self.hidden: int = model.config.get_text_config(decoder=True).hidden_size
        self.facet_pass = Pass(model, params.layer)
        self.sentence_pass: Pass | None = None
        if sentences is not None and params.sentence is not None and params.sentence_layer is not None:
            self.sentence_pass = Pass(sentences, params.sentence_layer, params.sentence.bidirectional)
        self.params = params
        self.llm_digest: str | None = None  # of the LLM's files, if they were loaded from a folder
        self._device = device
        self.backend: Backend = "flex" if device == "cuda" else "sdpa"
        deepest = max([model, sentences or model], key=lambda own: len(getattr(own, "layers", ())))
        if params.dtype == "float8":
            quantise_layers(deepest, self._read_captions)
        if compiled:
            compile_layers(deepest, but={params.layer, params.depth})
        probe_facets(self)
        probe_sentences(self)

    def _read_captions(self) -> None:
        """Read what the rounding in float8 is calibrated on."""
        for kind in ["raw", *([SENTENCE] if self.sentence_pass else [])]:
            self.encode(kind, calibration_captions())

    @classmethod
    def open(
        cls, params: Params, layout: Layout, *, compiled: bool = False, adapter: Path | None = None
    ) -> TextEncoder:
        """The encoder that the params of this run describe, on the device of the settings.

        With `compiled` the layers are compiled on a GPU, which is worth it for a store but not for a query. If params
        have a section `adapt_llm`, the LLM has the adapters in the folder `adapter`; None: those of this run.

        Raises:
            InputError: the adapters belong to another LLM.
            ResourceError: the LLM does not fit the GPU's memory; says how much is missing.
        """
        folder = layout.llm / params.llm.name
        device = settings().torch_device()
        torch.set_num_threads(params.text.cpu_threads)
        if device == "cpu":
            keep_freed_memory()
        if device == "cuda":
            shape = read_shape(params, folder)
            require_llm_memory(params, shape.weight_bytes(params.text.depth, params.text.dtype), free_memory())
        adapter = None if params.adapt_llm is None else adapter or layout.llm_adapter
        compiled = compiled and device == "cuda"
        return cls.load(folder, params.text, params.llm, device, compiled=compiled, adapter=adapter)

    @classmethod
    def load(
        cls,
        folder: Path,
        text: TextParams,
        llm: LLMParams,
        device: str,
        *,
        compiled: bool = False,
        adapter: Path | None = None,
    ) -> TextEncoder:
        """The encoder of an LLM folder, with the adapters in another folder, if any.

        Raises:
            InputError: the folder is damaged, its LLM cannot be read as params specify, or the adapters are not its.
            ResourceError: the GPU cannot compute in float8.
            ComputationError: the architecture cannot be read at all.
        """
        if text.sentence is not None:
            require_readable_sentences(folder, text.sentence)
        if text.dtype == "float8":
            require_float8(device)
        digest = value_digest(read_source(folder)["files"])
        adapted = None if adapter is None else Adapter.read(adapter)
        if adapted is not None:
            adapted.require_llm(digest)
        models = load_cuts(
            folder,
            cuts_of(text),
            DTYPES[text.dtype],
            device,
            trust_remote_code=llm.trust_remote_code,
            adapter=adapted,
        )
        sentences = models[1] if text.sentence is not None else None
        encoder = cls(models[0], load_tokenizer(folder, llm), text, device, sentences=sentences, compiled=compiled)
        encoder.llm_digest = digest
        return encoder

    def encode(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit facet embeddings of texts, [N, K, D] in float32: `embed` of `tokenise`."""
        return self.embed([self.tokenise(kind, texts)])[0]

    def tokenise(self, kind: str, texts: Sequence[str]) -> TokenisedTexts:
        """Texts in the template of their kind; needs no GPU, so it can be done ahead in another thread.

        A kind that ends in `@reference` gives one vector per text, [N, 1, D]: the mean of the facets before
        normalisation, as in FLAME's released query code (so facets with a large norm dominate). The kind `sentence`
        also gives one vector per text, without facets.

        Raises:
            ParamsError: the kind is `sentence`, but params read no sentences.
        """
        unique = dict.fromkeys(texts)
        return TokenisedTexts(kind, list(texts), dict(zip(unique, self.facets.encode_all(kind, unique), strict=True)))

    def embed(
        self, kinds: Sequence[TokenisedTexts], advance: Callable[[int], None] = lambda tokens: None
    ) -> list[np.ndarray]:
        """Unit embeddings of the texts of each kind, [N, K, D] in float32; `advance` gets the tokens of finished rows.

        Raises:
            ComputationError: a value is not finite; names the text.
            ResourceError: the GPU's memory ran out.
        """
        with memory_advice(f"set text.batch_tokens (now {self.params.batch_tokens:,}) to less"):
            return self._embedded(kinds, advance)

    def _embedded(self, kinds: Sequence[TokenisedTexts], advance: Callable[[int], None]) -> list[np.ndarray]:
        results: list[np.ndarray] = []
        for group in self._groups(kinds):
            texts = [text for own in group for text in own.sequences]
            sequences = [sequence for own in group for sequence in own.sequences.values()]
            vectors: list[np.ndarray] = [np.empty(0)] * len(texts)  # [K, D] of each
            for members, found in self._rows(sequences, group[0]):
                start = 0
                for i in members:
                    count = len(sequences[i].readout) if group[0].shares_rows else 1
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
        """Groups of kinds whose texts share rows, in order: adjacent kinds on a GPU, each kind by itself on a CPU."""
        group: list[TokenisedTexts] = []
        for own in kinds:
            if group and (self.backend == "sdpa" or not (own.shares_rows and group[-1].shares_rows)):
                yield group
                group = []
            group.append(own)
        if group:
            yield group

    def _rows(
        self, sequences: Sequence[FacetSequence], kind: TokenisedTexts
    ) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Members of each row and their unit vectors [R, D]; meanwhile the next row is already being computed."""
        how = self.sentence_pass if kind.is_sentence else self.facet_pass
        if how is None:
            raise ComputationError("the LLM was not loaded for sentences: open it with TextEncoder.load")
        head, own = self.share(sequences, how)
        pending: deque[_Pending] = deque()
        for row in plan_rows([len(each) for each in own], self.params.batch_tokens, self.backend):
            members = [own[i] for i in row.members]
            hidden = self.read_tokens(members, head, row.length, how)
            if kind.merged:
                hidden = hidden.unflatten(0, (len(row.members), -1)).mean(dim=1)
            unit = self.reduced(hidden, members) if kind.is_sentence else F.normalize(hidden, dim=-1)
            pending.append(self._fetch(row.members, unit))
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

    @staticmethod
    def reduced(hidden: Tensor, sequences: Sequence[FacetSequence]) -> Tensor:
        """Unit vectors [N, D] of N sentences: each is the mean over its tokens that are read, of hidden [R, D]."""
        if len(hidden) != len(sequences):
            counts = np.array([len(sequence.readout) for sequence in sequences], np.int64)
            lengths = to_device(counts, hidden.device.type)
            hidden = torch.segment_reduce(hidden, "mean", lengths=lengths, unsafe=True)  # deterministic
        return F.normalize(hidden, dim=-1)

    @torch.inference_mode()
    def share(
        self, sequences: Sequence[FacetSequence], how: Pass | None = None
    ) -> tuple[SharedHead | None, Sequence[FacetSequence]]:
        """The computed head that all sequences begin with, and the sequences without it.

        On a GPU, or if the first tokens attend to later ones, there is no head and the sequences stay whole.
        """
        how = how or self.facet_pass
        if self.backend == "flex" or how.bidirectional or not sequences:
            return None, sequences
        first, own = split_head(sequences)
        if not len(first):
            return None, sequences
        head = SharedHead(len(first))
        ids, packing = pack([first], self.backend, self._device)
        packing.recorded, packing.layer = head, how.layer
        how.model(input_ids=ids, position_ids=packing.position, packing=packing, use_cache=False)
        return head, own

    @torch.inference_mode()
    def read_tokens(
        self,
        sequences: Sequence[FacetSequence],
        head: SharedHead | None = None,
        length: int = 0,
        how: Pass | None = None,
    ) -> Tensor:
        """Hidden values [R, D] of the tokens that are read, by sequence; the row is padded to `length` tokens."""
        how = how or self.facet_pass
        ids, packing = pack(sequences, self.backend, self._device, length, how.bidirectional)
        packing.head, packing.layer = head, how.layer
        hidden = how.model(input_ids=ids, position_ids=packing.position, packing=packing, use_cache=False)[0]
        return hidden[0, packing.reads].float()


def cuts_of(text: TextParams) -> list[Cut]:
    """Where params read the LLM: for facets, and for sentences if there are any."""
    cuts = [Cut(text.layer)]
    if text.sentence is not None and text.sentence_layer is not None:
        cuts.append(Cut(text.sentence_layer, text.sentence.final_norm, "text.sentence.layer"))
    return cuts


def compile_layers(model: PreTrainedModel, but: Collection[int] = ()) -> None:
    """Compile a decoder's layers except the last one and those numbered in `but` (1-based).

    The shapes of the excepted layers depend on the number of tokens that are read. In the others, norms, rotary
    positions, activations and casts become a few kernels; attention remains a separate call. The layers share their
    code, so each of the first row lengths is compiled once.
    """
    layers = getattr(model, "layers", None)
    for number, layer in enumerate(layers[:-1] if isinstance(layers, torch.nn.ModuleList) else [], start=1):
        if number not in but:
            layer.compile()
