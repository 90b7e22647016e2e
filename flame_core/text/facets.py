"""Facet templates: how a caption is presented to the LLM, and at which tokens its facet embeddings are read.

A sequence is a prefix that holds the caption (segment 0) and K facets (segments 1 to K), each a prompt that asks
for one word. Prefix and facets are tokenised separately and joined as ids, so a facet's tokens never depend on what
comes before it. Positions restart at the end of the prefix for every facet; a facet is read at its last token.
(FLAME, arXiv 2411.11927, section 3; the templates themselves are params, `text.template`.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from flame_core.digest import value_digest
from flame_core.params import TextParams
from flame_core.text.caption_tokens import CAPTION, CaptionTokens, printable
from flame_core.text.sentence import SENTENCE, SentenceTokenizer
from flame_core.text.sequence import FacetSequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BOS = "{bos}"  # in a facet: the tokenizer's BOS id, or nothing if the tokenizer adds none
REFERENCE = "@reference"  # after a caption kind: one vector per text, the mean of its facets before normalisation
_AT_ONCE = 256  # texts that are tokenised together; bounds the memory
_END_MARKS = '.?"' + "'"


def normalise_sentence(text: str, rule: str) -> str:
    """The caption as it enters the template.

    Control characters become spaces, and surrounding space is removed. `none`: nothing else changes. `flame`: a full
    stop is added unless the caption ends in `.`, `?` or a quote, double quotes become single ones, and a final `?`
    becomes `.`; an empty caption stays empty.
    """
    text = printable(text)
    if rule == "none" or not text:
        return text
    if text[-1] not in _END_MARKS:
        text += "."
    text = text.replace('"', "'")
    return text[:-1] + "." if text.endswith("?") else text


class FacetTokenizer:
    """Puts captions into the templates of `params` with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, params: TextParams) -> None:
        self._tokens = CaptionTokens(tokenizer)
        self._params = params
        self._facets: dict[str, list[list[int]]] = {
            kind: [self._facet_ids(facet) for facet in template.facets] for kind, template in params.template.items()
        }
        self._prefixes: dict[str, str] = {kind: template.prefix for kind, template in params.template.items()}
        self.sentence = None if params.sentence is None else SentenceTokenizer(self._tokens, params)

    @cached_property
    def template_hash(self) -> str:
        """Digest of everything that turns a caption into ids: templates, normalisation, truncation, facet tokens."""
        return value_digest(
            {
                "template": {kind: template.model_dump() for kind, template in self._params.template.items()},
                "normalise": self._params.normalise,
                "max_caption_tokens": self._params.max_caption_tokens,
                "bos": self._tokens.bos,
                "facets": self._facets,
            }
        )

    def facet_count(self, kind: str) -> int:
        """K of a caption kind."""
        return len(self._facets[kind])

    def encode(self, kind: str, text: str) -> FacetSequence:
        """The sequence of one caption, as `encode_all`."""
        return next(self.encode_all(kind, [text]))

    def encode_all(self, kind: str, texts: Iterable[str]) -> Iterator[FacetSequence]:
        """The sequences of captions: prefix, then the facets of their kind (`@reference` has the same ones).

        The kind `sentence` has no facets: it is the caption in the prompt of `text.sentence`.
        """
        left = iter(texts)
        while some := list(islice(left, _AT_ONCE)):
            yield from self._encoded(kind, some)

    def _encoded(self, kind: str, texts: Sequence[str]) -> list[FacetSequence]:
        if kind == SENTENCE:
            return (self.sentence or SentenceTokenizer(self._tokens, self._params)).encode_all(texts)
        kind = kind.removesuffix(REFERENCE)
        head, tail = self._prefixes[kind].split(CAPTION)
        captions = self._tokens.cut_all(texts, self._params.max_caption_tokens)
        prefixes = [head + normalise_sentence(caption, self._params.normalise) + tail for caption in captions]
        return [self._sequence(kind, self._tokens.bos + ids) for ids in self._tokens.ids_of_all(prefixes)]

    def _sequence(self, kind: str, ids: list[int]) -> FacetSequence:
        """The ids of a prefix with the facets of a kind."""
        prefix = len(ids)
        segment, position, readout = [0] * prefix, list(range(prefix)), []
        for j, facet in enumerate(self._facets[kind], start=1):
            ids += facet
            segment += [j] * len(facet)
            position += range(prefix, prefix + len(facet))
            readout.append(len(ids) - 1)
        return FacetSequence(ids, segment, position, readout)

    def count(self, kind: str, texts: Iterable[str]) -> int:
        """Number of tokens of these texts that the LLM reads; equal texts count once, padding does not count."""
        return sum(map(len, self.encode_all(kind, dict.fromkeys(texts))))

    def is_cut(self, text: str) -> bool:
        """Whether a caption has more than `max_caption_tokens` tokens, so that its end is not read."""
        return self._tokens.is_cut(text, self._params.max_caption_tokens)

    def _facet_ids(self, facet: str) -> list[int]:
        before, mark, after = facet.partition(BOS)
        if not mark:
            return self._tokens.ids(facet)
        return self._tokens.ids(before.rstrip()) + self._tokens.bos + self._tokens.ids(after)
