"""The `vlm` captioner: an image-text-to-text model describes the picture, greedily and in fixed batches."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from flame_core.captions.captioner import Failure, undecodable
from flame_core.captions.generation import caption_in_batches, fill_prompt, generate, load_model, model_name
from flame_core.data.shards import Sample
from flame_core.layout import Layout
from flame_core.params import VLMCaptioner as VLMParams


class VLMCaptioner:
    """Loads its model when the first shard needs it."""

    def __init__(self, params: VLMParams, layout: Layout) -> None:
        self._params, self._layout = params, layout
        self.provenance = f"vlm:{model_name(params.model)}"

    def captions(self, samples: Sequence[Sample]) -> list[str | Failure]:
        """One text per sample, or why there is none: an unreadable picture, or a model that wrote nothing.

        Raises:
            InputError: the model or its processor is missing or of another kind.
            ResourceError: memory or a package is missing.
        """
        loaded = load_model(self._params, self._layout)

        def write(questions: list[tuple[str, bytes]]) -> list[str]:
            texts = [text for text, _ in questions]
            pictures = [[Image.open(io.BytesIO(jpeg)).convert("RGB")] for _, jpeg in questions]
            bos = loaded.tokenizer.bos_token
            inputs = loaded.processor(
                text=texts,
                images=pictures,
                return_tensors="pt",
                padding=True,
                add_special_tokens=not (bos and texts[0].startswith(bos)),  # unless a chat template added it
            )
            return generate(loaded, inputs, self._params.max_new_tokens)

        questions = [self._question(sample, loaded.processor) for sample in samples]
        return caption_in_batches(questions, self._params.batch_size, write, self._params.model)

    def _question(self, sample: Sample, processor: Any) -> tuple[str, bytes] | Failure:
        prompt = fill_prompt(self._params.prompt, sample.meta, processor.tokenizer)
        if isinstance(prompt, Failure):
            return prompt
        return undecodable(sample.jpeg) or (_turn(processor, prompt), sample.jpeg)


def _turn(processor: Any, prompt: str) -> str:
    """The picture and the prompt as a user's turn in the chat template; without one, image token and prompt."""
    if processor.chat_template is None:
        image = getattr(processor, "image_token", None)
        return f"{image}\n{prompt}" if image else prompt
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
