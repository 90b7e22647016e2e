"""Facet templates: how a caption is put to the LLM, and at which tokens its facet embeddings are read.

A sequence is a prefix that holds the caption (segment 0) and K facets (segments 1 to K), each a prompt that asks
for one word. Prefix and facets are tokenised apart and joined as ids, so a facet's tokens never depend on what
stands before it. Positions restart at the end of the prefix for every facet; a facet is read at its last token.
(FLAME, arXiv 2411.11927, section 3; the templates themselves are params, `text.template`.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flame_core.digest import value_digest
from flame_core.params import TextParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BOS = "{bos}"  # in a facet: the tokenizer's BOS id, or nothing where the tokenizer adds none
CAPTION = "{caption}"
REFERENCE = "@reference"  # behind a caption kind: one vector a text, the mean of its facets before normalisation
_END_MARKS = '.?"' + "'"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")


def normalise_sentence(text: str, rule: str) -> str:
    """The caption as it enters the template.

    `flame`: a final full stop where no `.`, `?` or quote stands, double quotes become single ones, a final `?`
    becomes `.`; an empty caption stays empty. `none`: only control characters become spaces, as in `flame`.
    """
    text = _UNPRINTABLE.sub(" ", text).strip()
    if rule == "none" or not text:
        return text
    if text[-1] not in _END_MARKS:
        text += "."
    text = text.replace('"', "'")
    return text[:-1] + "." if text.endswith("?") else text


@dataclass(frozen=True)
class FacetSequence:
    """A caption with its facets as token ids. All lists but `readout` have one entry a token (length S)."""

    ids: list[int]
    segment: list[int]  # 0 in the prefix, j in facet j
    position: list[int]  # restarts at the end of the prefix for every facet
    readout: list[int]  # index of the last token of each facet, length K

    def __len__(self) -> int:
        return len(self.ids)


class FacetTokenizer:
    """Puts captions into the templates of `params` with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, params: TextParams) -> None:
        self._tokenizer = tokenizer
        self._params = params
        bos: Any = tokenizer.bos_token_id
        adds_bos = isinstance(bos, int) and tokenizer("a").input_ids[:1] == [bos]
        self._bos: list[int] = [bos] if adds_bos else []
        self._facets: dict[str, list[list[int]]] = {
            kind: [self._facet_ids(facet) for facet in template.facets] for kind, template in params.template.items()
        }

        self._prefixes: dict[str, str] = {kind: template.prefix for kind, template in params.template.items()}

    @cached_property
    def template_hash(self) -> str:
        """Digest of all that turns a caption into ids: templates, normalisation, truncation, the facets' tokens."""
        return value_digest(
            {
                "template": {kind: template.model_dump() for kind, template in self._params.template.items()},
                "normalise": self._params.normalise,
                "max_caption_tokens": self._params.max_caption_tokens,
                "bos": self._bos,
                "facets": self._facets,
            }
        )

    def facet_count(self, kind: str) -> int:
        """K of a caption kind."""
        return len(self._facets[kind])

    def encode(self, kind: str, text: str) -> FacetSequence:
        """The sequence of one caption: prefix, then the facets of its kind (`@reference` asks the same ones)."""
        kind = kind.removesuffix(REFERENCE)
        head, tail = self._prefixes[kind].split(CAPTION)
        caption = normalise_sentence(self._truncate(text), self._params.normalise)
        ids = self._bos + self._plain_ids(head + caption + tail)
        prefix = len(ids)
        segment, position, readout = [0] * prefix, list(range(prefix)), []
        for j, facet in enumerate(self._facets[kind], start=1):
            ids += facet
            segment += [j] * len(facet)
            position += range(prefix, prefix + len(facet))
            readout.append(len(ids) - 1)
        return FacetSequence(ids, segment, position, readout)

    def count(self, kind: str, texts: Iterable[str]) -> int:
        """Tokens that these texts put through the LLM; equal texts count once, pads never."""
        return sum(len(self.encode(kind, text)) for text in dict.fromkeys(texts))

    def is_cut(self, text: str) -> bool:
        """Whether a caption has more than `max_caption_tokens` tokens, so that its end is not read."""
        return len(text.encode()) >= self._params.max_caption_tokens and self._truncate(text) != text

    def _truncate(self, text: str) -> str:
        """The text up to its token number `max_caption_tokens`, cut in the text itself: no decoding."""
        limit = self._params.max_caption_tokens
        text = text[: limit * 32]  # far beyond the limit in any language; a bound on the work
        encoded = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        offsets = encoded["offset_mapping"]
        return text if len(offsets) <= limit else text[: offsets[limit - 1][1]]

    def _facet_ids(self, facet: str) -> list[int]:
        before, mark, after = facet.partition(BOS)
        if not mark:
            return self._plain_ids(facet)
        return self._plain_ids(before.rstrip()) + self._bos + self._plain_ids(after)

    def _plain_ids(self, text: str) -> list[int]:
        """Ids of a text in which special-token strings such as `</s>` are nothing but characters."""
        if not text:
            return []
        return self._tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
