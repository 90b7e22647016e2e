"""The `rewrite` captioner: a local causal language model rewrites the raw caption, greedily and in fixed batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flame_core.captions.captioner import Failure
from flame_core.captions.generation import caption_in_batches, fill_prompt, generate, load_model, model_name
from flame_core.data.shards import Sample
from flame_core.layout import Layout
from flame_core.params import RewriteCaptioner as RewriteParams


class RewriteCaptioner:
    """Loads its model when the first shard needs it."""

    def __init__(self, params: RewriteParams, layout: Layout) -> None:
        self._params, self._layout = params, layout
        self.provenance = f"rewrite:{model_name(params.model)}"

    def captions(self, samples: Sequence[Sample]) -> list[str | Failure]:
        """One text per sample, or why there is none.

        Raises:
            InputError: the model is missing or is not a causal language model.
            ResourceError: memory or a package is missing.
        """
        loaded = load_model(self._params, self._layout)

        def write(prompts: list[str]) -> list[str]:
            chat = loaded.tokenizer.chat_template is not None
            inputs = loaded.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=not chat)
            return generate(loaded, inputs, self._params.max_new_tokens)

        prompts = [fill_prompt(self._params.prompt, sample.meta, loaded.tokenizer) for sample in samples]
        turns = [prompt if isinstance(prompt, Failure) else _turn(loaded.tokenizer, prompt) for prompt in prompts]
        return caption_in_batches(turns, self._params.batch_size, write, self._params.model)


def _turn(tokenizer: Any, prompt: str) -> str:
    """The prompt as a user's turn in the tokenizer's chat template, if it has one."""
    if tokenizer.chat_template is None:
        return prompt
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,  # only some templates use it
    )
