"""Bodies of the requests that the search server reads."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_TEXTS, MOST_HITS = 64, 200
_Text = Annotated[str, Field(max_length=20_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SearchRequest(_Body):
    """A text, words, a picture (base64 of a file), or the number of a picture in the index: one of them."""

    text: _Text | None = None
    words: _Text | None = Field(default=None, description="such as 'dog, grass'; of a model of words")
    picture: str | None = None
    number: int | None = Field(default=None, ge=0)
    index: str | None = Field(default=None, description="one of the server's; by default the first")
    top: int = Field(default=12, ge=1, le=MOST_HITS)
    facets: float = Field(default=0.0, ge=0, le=1, description="weight of the facets of a text")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("text", "words", "picture", "number") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of text, words, picture and number, not {' and '.join(given) or 'none'}")
        if self.facets and self.text is None:
            raise ValueError("facets go with a text: a picture is asked as a whole")
        return self


class EncodeRequest(_Body):
    """Texts and pictures (base64 of files)."""

    texts: list[_Text] = Field(default=[], max_length=MOST_TEXTS)
    pictures: list[str] = Field(default=[], max_length=MOST_TEXTS)
    facets: bool = Field(default=False, description="all vectors of each, not only the first")


class ClassifyRequest(_Body):
    """Pictures (base64 of files)."""

    pictures: list[str] = Field(min_length=1, max_length=MOST_TEXTS)
    top: int = Field(default=5, ge=1, description="classes of each picture")


class PatchRequest(_Body):
    """A picture (base64 of a file) or the number of one in the index."""

    picture: str | None = None
    number: int | None = Field(default=None, ge=0)
    index: str | None = None
    text: _Text | None = Field(default=None, description="also the cosine of every patch with it")
    words: _Text | None = Field(default=None, description="such as 'dog, grass': also what every patch gives to each")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.picture is None) == (self.number is None):
            raise ValueError("give one of picture and number")
        return self
