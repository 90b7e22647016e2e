"""`captioner: server`: a server that speaks OpenAI's chat protocol writes the captions.

Its address and key are settings (`FLAME_CAPTION_SERVER`, `FLAME_CAPTION_KEY`), because the same model may run anywhere.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from flame_core.params.section import Positive, Section

_OWN_FIELDS = ("model", "messages", "stream", "n")  # of a request; `extra` cannot replace them
Amount = Annotated[float, Field(ge=0)]


class TokenPrice(Section):
    """What a million tokens cost, for `flame plan`; in no digest."""

    input: Amount = Field(description="per million tokens of prompts, with those of pictures")
    output: Amount = Field(description="per million tokens of answers")
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="three letters, such as EUR")


class ServerCaptioner(Section):
    """A chat server describes the picture, or rewrites the raw caption; `{caption}` in the prompt is replaced."""

    captioner: Literal["server"]
    model: str = Field(
        min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$", description="its name, as the server knows it"
    )
    prompt: str = Field(min_length=1, description="what the server is asked, with {caption} for the raw caption")
    system: str | None = Field(default=None, description="a message of the system before the prompt")
    picture: bool = Field(
        default=True, description="whether the picture is sent; false: the raw caption in the prompt is rewritten"
    )
    detail: Literal["low", "high", "auto"] | None = Field(
        default=None, description="how finely the picture is read, for servers that know `detail`"
    )
    max_new_tokens: Positive = Field(default=64, description="of a caption, at most")
    temperature: float | None = Field(default=0.0, ge=0, le=2, description="null: not sent, so the server's default")
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="draw from the likeliest tokens of this share; null: not sent"
    )
    seed: int | None = Field(default=None, description="sent to the server; null: not sent")
    extra: dict[str, Any] = Field(
        default={},
        description="further fields of the request; null leaves out one that is sent otherwise, such as "
        "{max_tokens: null, max_completion_tokens: 64}",
    )
    price: TokenPrice | None = Field(default=None, description="what tokens cost, for `flame plan`; null: not known")

    @field_validator("extra")
    @classmethod
    def _not_our_own(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if own := [name for name in _OWN_FIELDS if name in extra]:
            raise ValueError(f"{', '.join(own)} cannot be set here")
        return extra

    @model_validator(mode="after")
    def _something_to_read(self) -> ServerCaptioner:
        if not self.picture and "{caption}" not in self.prompt:
            raise ValueError("without the picture, the prompt must contain {caption}")
        return self
