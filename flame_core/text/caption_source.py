"""Where a text tower reads its captions: a value that is sent to the processes of a training."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flame_core.params import TextParams


class CaptionSource(BaseModel):
    """Where a text tower that is trained with the image tower finds its captions and its tokenizer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    captions: Path
    tokenizer: Path
    text: TextParams
    language: str
