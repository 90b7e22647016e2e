"""A whole LLM, with its head, that only passes gradients through: its weights and its mode never change.

It reads rows of input vectors: the tokenizer's BOS if it adds one, text of the template, n prompts, text of the
template, and the caption's tokens with an end token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flame_core.digest import value_digest
from flame_core.errors import InputError, ParamsError
from flame_core.params import LLMParams
from flame_core.text.caption_tokens import CAPTION, CaptionTokens
from flame_core.text.llm import clear_load_errors, load_tokenizer, quiet_transformers, read_source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = "{prompts}"
TEMPLATE = PROMPTS + CAPTION


def llm_digest(folder: Path) -> str:
    """Digest of all files of an LLM's folder: prompts of one LLM mean nothing to another."""
    return value_digest(read_source(folder)["files"])


@dataclass(frozen=True)
class FrozenLLM:
    """An LLM in evaluation mode, without gradients in its weights.

    Attributes:
        model: a causal language model of transformers.
        tokenizer: its own.
        name: of its folder.
        digest: `llm_digest`.
        before: ids in front of the prompts: BOS, if the tokenizer adds one, and text of the template.
        between: ids of the template's text between prompts and caption.
        end: id of the token behind a caption.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    name: str
    digest: str
    before: tuple[int, ...]
    between: tuple[int, ...]
    end: int

    @classmethod
    def of(
        cls, model: Any, tokenizer: PreTrainedTokenizerBase, name: str, digest: str, template: str = TEMPLATE
    ) -> FrozenLLM:
        """The model, frozen, with what `template` puts around the prompts.

        Raises:
            InputError: the tokenizer has no EOS, so the LLM could not end a caption.
            ParamsError: the template is not `...{prompts}...{caption}`.
        """
        before, prompts, rest = template.partition(PROMPTS)
        between, caption, after = rest.partition(CAPTION)
        if not prompts or not caption or after or PROMPTS in between or CAPTION in before:
            raise ParamsError(f"the template {template!r} must hold {PROMPTS} once, and end with {CAPTION}")
        tokens = CaptionTokens(tokenizer)
        end = tokens.special(True)
        if end is None:
            raise InputError(f"{name}: its tokenizer has no EOS token, so it cannot end a caption")
        return cls(
            model=model.eval().requires_grad_(False),
            tokenizer=tokenizer,
            name=name,
            digest=digest,
            before=(*tokens.bos, *_template_ids(tokenizer, before)),
            between=tuple(_template_ids(tokenizer, between)),
            end=end,
        )

    @property
    def hidden(self) -> int:
        """H, numbers of an input vector."""
        return self.model.get_input_embeddings().embedding_dim

    @property
    def vocabulary(self) -> int:
        """V, rows of the input embeddings."""
        return self.model.get_input_embeddings().num_embeddings

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    def embedded(self, ids: Tensor) -> Tensor:
        """Input vectors [..., H] of ids [...], as the first layer reads them."""
        with torch.no_grad():
            return self.model.get_input_embeddings()(ids.to(self.device))

    @property
    def row_scale(self) -> float:
        """Root mean square of all numbers of the input embeddings, as the first layer reads them."""
        total = 0.0
        for start in range(0, self.vocabulary, _BLOCK):
            rows = self.embedded(torch.arange(start, min(start + _BLOCK, self.vocabulary)))
            total += float(rows.double().square().sum())
        return (total / (self.vocabulary * self.hidden)) ** 0.5


_BLOCK = 4096


def _template_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text of the template, in which control tokens such as `<|im_start|>` are those of the LLM."""
    return tokenizer(text, add_special_tokens=False).input_ids if text else []


def load_frozen(
    folder: Path, params: LLMParams, dtype: torch.dtype, device: str, template: str = TEMPLATE
) -> FrozenLLM:
    """The LLM of a folder with its head, which may be tied to the input embeddings or not.

    Raises:
        InputError: the folder holds no causal language model, or its tokenizer has no EOS.
        ParamsError: the template is not `...{prompts}...{caption}`.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(folder, params)
    with quiet_transformers(), clear_load_errors(folder):
        found: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=params.trust_remote_code, output_loading_info=True
        )
        model, report = found
    if missing := sorted(report["missing_keys"]):  # transformers would draw them at random
        raise InputError(f"{folder}: its weights lack {', '.join(missing[:3])}, so it cannot write: take a whole LLM")
    return FrozenLLM.of(model.to(device), tokenizer, folder.name, llm_digest(folder), template)
