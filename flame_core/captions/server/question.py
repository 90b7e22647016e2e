"""What a server is asked about a sample.

Its digest covers everything that the answer depends on, except which machine answers: model, messages with the
picture's sha256, and sampling. So a picture that moves to another shard, or a changed gate, asks nothing again.

The raw caption is foreign text: a space breaks what a chat template could take for a control token, such as
`<|im_end|>` or `[INST]`.
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from typing import Any

from PIL import Image

from flame_core.captions.captioner import Failure
from flame_core.captions.generation import prompt_caption
from flame_core.data.shards import Sample
from flame_core.digest import bytes_sha256, text_sha256, value_digest
from flame_core.params import ServerCaptioner

_CONTROL = re.compile(r"<(?=[|/!\w][^<>\s]{0,60}>)|\[(?=/?[A-Z_]{2,20}\])")


@dataclass(frozen=True)
class Question:
    """A request, without the picture's bytes in its digest.

    Attributes:
        digest: by which its answer is found.
        prompt: with the raw caption in it.
        jpeg: the picture; None if it is not sent.
    """

    digest: str
    params: ServerCaptioner
    prompt: str
    jpeg: bytes | None

    def body(self) -> dict[str, Any]:
        """The request, as it is sent."""
        return _body(
            self.params, self.prompt, self._picture(base64.b64encode(self.jpeg).decode()) if self.jpeg else None
        )

    def _picture(self, content: str) -> dict[str, Any]:
        place = {"url": f"data:image/jpeg;base64,{content}"}
        return {
            "type": "image_url",
            "image_url": place | ({"detail": self.params.detail} if self.params.detail else {}),
        }


def question(params: ServerCaptioner, sample: Sample) -> Question | Failure:
    """What is asked about a sample, or why nothing can be: no raw caption, or a damaged picture."""
    prompt = params.prompt
    if "{caption}" in prompt:
        caption = prompt_caption(sample.meta)
        if isinstance(caption, Failure):
            return caption
        prompt = prompt.replace("{caption}", plain(caption))
    jpeg = sample.jpeg if params.picture else None
    if jpeg is not None and (fault := _no_picture(jpeg)):
        return fault
    picture = None if jpeg is None else {"sha256": bytes_sha256(jpeg), "detail": params.detail}
    return Question(value_digest(_body(params, prompt, picture)), params, prompt, jpeg)


def plain(text: str) -> str:
    """`text` with a space in everything that looks like a control token of a chat template."""
    return _CONTROL.sub(lambda found: f"{found[0]} ", text)


def _no_picture(jpeg: bytes) -> Failure | None:
    """Why bytes are no picture, by their header only: `ingest` has decoded them all, and the server will again."""
    try:
        with Image.open(io.BytesIO(jpeg)):
            return None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged pictures
        return Failure(f"the picture cannot be decoded ({type(error).__name__})")


def identity(params: ServerCaptioner) -> dict[str, Any]:
    """What the texts depend on, for a unit's digest and the manifest; no prompt, but its digest."""
    asked = _body(params, "", {"detail": params.detail} if params.picture else None)
    return {
        "captioner": params.captioner,
        "model": params.model,
        "prompt_sha256": text_sha256(params.prompt),
        "request_sha256": value_digest(asked),
        "picture": params.picture,
    }


def _body(params: ServerCaptioner, prompt: str, picture: dict[str, Any] | None) -> dict[str, Any]:
    words = {"type": "text", "text": prompt}
    messages: list[dict[str, Any]] = [{"role": "user", "content": [picture, words] if picture else prompt}]
    if params.system is not None:
        messages.insert(0, {"role": "system", "content": params.system})
    sampling = {
        "max_tokens": params.max_new_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "seed": params.seed,
    }
    fields = {**sampling, **params.extra}
    sent = {name: value for name, value in fields.items() if value is not None}
    return {"model": params.model, "messages": messages, **sent}
