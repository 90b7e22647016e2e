"""A small captioner: it reads the codes of a picture's patches and writes the caption word by word.

A transformer decoder with cross-attention over the codes as directions. It is not told where in the picture a code is,
so it can use only what the histogram of the codes keeps (`selections/histograms.py`). Words are the most frequent ones
of the captions, so no LLM and no tokenizer is needed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

PAD, START, END, OTHER = range(4)
_FIRST = 4  # number of the first word
_HEAD = 32  # dimensions of an attention head
_SPACELESS = "\u3040-\u30ff\u3400-\u9fff"  # kana and Chinese characters, which no space separates: a word each
_WORD = re.compile(rf"[{_SPACELESS}]|[^\W_{_SPACELESS}]+")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


class Vocabulary:
    """The words that are written; others are one word, `OTHER`."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._numbers = {word: place + _FIRST for place, word in enumerate(words)}

    @classmethod
    def of(cls, texts: Iterable[str], most: int) -> Vocabulary:
        """The `most` most frequent words of texts; of equally frequent ones the first by alphabet."""
        counts = Counter(word for text in texts for word in words_of(text))
        return cls([word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]])

    def __len__(self) -> int:
        return _FIRST + len(self.words)

    def ids(self, text: str, most: int) -> list[int]:
        """The numbers of the first `most` words between `START` and `END`."""
        return [START, *(self._numbers.get(word, OTHER) for word in words_of(text)[:most]), END]


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Numbers of words [B, T], filled up with `PAD`."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)


class CaptionDecoder(nn.Module):
    """Writes captions of at most `longest` words behind codes of E dimensions."""

    def __init__(self, dims: int, words: int, width: int, layers: int, longest: int) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Linear(dims, width), nn.LayerNorm(width))  # codes have length 1
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(0.02 * torch.randn(longest + 1, width))
        nn.init.normal_(self.words.weight, std=0.02)
        layer = nn.TransformerDecoderLayer(
            width, max(1, width // _HEAD), 4 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.write = nn.Linear(width, words)

    def losses(self, codes: Tensor, ids: Tensor) -> Tensor:
        """Nats of each word [B, T - 1] of captions ids [B, T] behind codes [B, L, E]; 0 for padding."""
        before, after = ids[:, :-1], ids[:, 1:]
        x = self.words(before) + self.places[: before.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(before.shape[1], device=x.device)
        y = self.layers(x, self.read(codes), tgt_mask=mask, tgt_is_causal=True)
        return cross_entropy(self.write(y).transpose(1, 2), after, ignore_index=PAD, reduction="none")

    def loss(self, codes: Tensor, ids: Tensor) -> Tensor:
        """L_LM: mean nats per word."""
        return self.losses(codes, ids).sum() / (ids[:, 1:] != PAD).sum()
