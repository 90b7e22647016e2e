"""The sentence reading: a caption as one vector, read at its last token or averaged over its tokens.

LIFT trains against one vector per caption from an LLM that was tuned to embed text (NV-Embed, e5-mistral, SFR, Linq);
`text.sentence` says how the authors of that LLM read it. The vector depends on the caption's text but not on its kind:
all kinds are presented to the LLM in the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flame_core.digest import value_digest
from flame_core.errors import ParamsError
from flame_core.params import TextParams
from flame_core.text.caption_tokens import CAPTION, CaptionTokens, printable
from flame_core.text.sequence import FacetSequence

if TYPE_CHECKING:
    from tokenizers import Encoding

SENTENCE = "sentence"  # the kind under which the encoder reads sentences and the store keeps their texts


def sentence_content(params: TextParams) -> dict[str, Any]:
    """`text.sentence`, completed with the values that it takes from `text`, as manifests and models record it.

    Raises:
        ParamsError: `text.sentence` is null.
    """
    own = _required(params)
    limit = own.max_caption_tokens or params.max_caption_tokens
    return {**own.model_dump(), "layer": params.sentence_layer, "max_caption_tokens": limit}


def _required(params: TextParams) -> Any:
    if params.sentence is None:
        raise ParamsError("text.sentence is null, so captions cannot be read as sentences; say in it how to read them")
    return params.sentence


class SentenceTokenizer:
    """Puts captions into the prompt of `text.sentence` with one tokenizer."""

    def __init__(self, tokens: CaptionTokens, params: TextParams) -> None:
        own = _required(params)
        self._tokens, self._own = tokens, own
        self._content = sentence_content(params)
        self._limit: int = self._content["max_caption_tokens"]
        self._before, self._after = own.prompt.split(CAPTION)
        end = tokens.special(own.end_token)
        if own.end_token and end is None:
            named = "EOS token" if own.end_token is True else f"token {own.end_token!r}"
            raise ParamsError(f"text.sentence.end_token: the LLM's tokenizer has no {named}")
        self._end = [] if end is None else [end]

    @cached_property
    def digest(self) -> str:
        """Digest of everything that turns a caption into ids and determines how they are read."""
        return value_digest({"sentence": self._content, "bos": self._tokens.bos, "end": self._end})

    def encode(self, text: str) -> FacetSequence:
        """The sequence of one caption, as `encode_all`."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[FacetSequence]:
        """The sequences of captions, and the tokens at which each is read.

        A caption without tokens is read at the last token of the prompt and special tokens around it.

        Raises:
            ParamsError: one is empty, and neither the prompt nor the tokenizer adds any tokens.
        """
        captions = list(map(printable, self._tokens.cut_all(texts, self._limit)))
        read = self._tokens.read([self._before + caption + self._after for caption in captions])
        return [self._sequence(caption, own) for caption, own in zip(captions, read, strict=True)]

    def _sequence(self, caption: str, prompt: Encoding) -> FacetSequence:
        """The sequence of a caption in its prompt."""
        ids = [*self._tokens.bos, *prompt.ids, *self._end] or self._nothing()
        first, last = len(self._before), len(self._before) + len(caption)
        read = [len(ids) - 1]
        if self._own.read == "mean" and caption:
            start = len(self._tokens.bos)
            read = [start + i for i, (begin, end) in enumerate(prompt.offsets) if begin < last and end > first]
        return FacetSequence(ids, [0] * len(ids), list(range(len(ids))), read)

    def is_cut(self, text: str) -> bool:
        """Whether a caption has more than `max_caption_tokens` tokens, so that its end is not read."""
        return self._tokens.is_cut(text, self._limit)

    def _nothing(self) -> list[int]:
        end = self._tokens.special(True)
        if end is None:
            raise ParamsError(
                "an empty text cannot be read as a sentence: this LLM's tokenizer has no BOS or EOS token, and "
                "text.sentence.prompt adds nothing to the caption"
            )
        return [end]
