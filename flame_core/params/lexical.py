"""`lexical`: captions as weights of words of the LLM's vocabulary, for recipes with `model.head: lexical`; optional."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flame_core.params.section import CaptionKind, Fraction, Positive, Section


class WordRule(Section):
    """Which tokens of the LLM are words."""

    min_letters: Positive = Field(default=2, description="of a token")
    alphabet: Literal["latin", "any"] = Field(default="latin", description="whose letters a token consists of")
    whole: bool = Field(default=False, description="only tokens that begin a word; false: pieces of words as well")


class LexicalGates(Section):
    """Thresholds of the checks of `flame lexical`."""

    max_word_share: Fraction = Field(
        default=0.3, description="of the training captions that one word is active in; only warns"
    )
    min_recall: Fraction = Field(
        default=0.3, description="of a caption's own words that are among its 50 heaviest; only warns"
    )


class LexicalParams(Section):
    """Words of captions, from what the LLM would say next after a prompt (`text.sentence`)."""

    top: Positive = Field(default=512, description="words kept per caption, the heaviest; 4 bytes each")
    words: Positive | None = Field(
        default=None,
        le=2**16,
        description="words at most: those that most training captions have among their `top`; null: all, up to 65,536",
    )
    rule: WordRule = WordRule()
    center: bool = Field(
        default=True, description="subtract each word's mean logit over the training captions, so that empty words go"
    )
    kinds: list[CaptionKind] = Field(default=["raw"], min_length=1, description="kinds of captions that are trained on")
    gates: LexicalGates = LexicalGates()

    @model_validator(mode="after")
    def _keeps_fewer_than_there_are(self) -> LexicalParams:
        if self.words is not None and self.top > self.words:
            raise ValueError(f"top {self.top} is more than the {self.words} words: lower it")
        return self
