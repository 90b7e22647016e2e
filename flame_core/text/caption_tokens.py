"""Captions as plain text for a tokenizer: strings that look like special tokens are ordinary characters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flame_core.errors import InputError
from flame_core.names import is_text

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

CAPTION = "{caption}"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")


def printable(text: str) -> str:
    """The text with control characters replaced by spaces, stripped."""
    return _UNPRINTABLE.sub(" ", text).strip()


def require_content(text: str, name: str) -> None:
    """Refuse a text of which a model would read nothing, or that no tokenizer takes; `name` is what it is called.

    Raises:
        InputError: it is empty, or blanks and control characters, or holds half a character.
    """
    if not is_text(text):
        raise InputError(f"{name} holds lone surrogates, halves of characters that UTF-8 cannot hold: take them out")
    if not printable(text):
        raise InputError(f"{name} is empty: write what to look for")


class CaptionTokens:
    """A tokenizer without its special tokens, except for the BOS that it may put before a text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        bos: Any = tokenizer.bos_token_id
        adds_bos = isinstance(bos, int) and tokenizer("a").input_ids[:1] == [bos]
        self.bos: list[int] = [bos] if adds_bos else []

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.ids_of_all([text])[0]

    def ids_of_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, computed together."""
        return [read.ids if text else [] for text, read in zip(texts, self.read(texts), strict=True)]

    def read(self, texts: Sequence[str]) -> list[Encoding]:
        """Each of at least one text: its token `ids`, and their `offsets`, the characters (start, end) of each."""
        read = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return read.encodings or []

    def cut(self, text: str, limit: int) -> str:
        """The first `limit` tokens of a text, cut in the text itself, without decoding."""
        return self.cut_all([text], limit)[0]

    def cut_all(self, texts: Sequence[str], limit: int) -> list[str]:
        """The first `limit` tokens of each text, as `cut`, computed together."""
        texts = [text[: limit * 32] for text in texts]  # far beyond the limit in any language; bounds the work
        return [
            text if len(read) <= limit else text[: read.offsets[limit - 1][1]]
            for text, read in zip(texts, self.read(texts), strict=True)
        ]

    def is_cut(self, text: str, limit: int) -> bool:
        """Whether a text has more than `limit` tokens, so that its end is not read."""
        return len(text.encode()) >= limit and self.cut(text, limit) != text

    def special(self, token: bool | str) -> int | None:
        """The id of a token by name, or of the tokenizer's EOS if True; None if False or if there is no such token."""
        if isinstance(token, str):
            return self._tokenizer.get_vocab().get(token)
        end: Any = self._tokenizer.eos_token_id
        return end if token and isinstance(end, int) else None
