"""What the frozen LLM makes of soft prompts: the loss of a caption behind them, and the text that it writes itself.

    loss = mean over the captions' tokens of -log p(token | template, prompts, earlier tokens)

Gradients flow through the LLM into the prompts, and into nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from flame_core.soft_prompts.frozen_llm import FrozenLLM
from flame_core.text.caption_tokens import CaptionTokens, printable

IGNORED = -100  # a label that no loss counts


@dataclass(frozen=True)
class CaptionIds:
    """Captions as ids [B, T] with their end tokens, and which of these are no padding [B, T]."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> CaptionIds:
        """The same on a device."""
        return CaptionIds(self.ids.to(device), self.mask.to(device))


def caption_ids(llm: FrozenLLM, texts: Sequence[str], limit: int) -> CaptionIds:
    """Captions as the LLM writes them: at most `limit` tokens each, one end token, padded at the right."""
    tokens = CaptionTokens(llm.tokenizer)
    return padded([[*tokens.ids(tokens.cut(printable(text), limit)), llm.end] for text in texts], llm.end)


def padded(rows: Sequence[Sequence[int]], fill: int) -> CaptionIds:
    """Ids of several captions in one tensor."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return CaptionIds(ids, torch.arange(longest)[None] < lengths[:, None])


def labels(captions: CaptionIds, slots: int) -> Tensor:
    """Labels [B, slots + T]: -100 where prompts and the template stand and at pads, else the caption's ids."""
    own = captions.ids.masked_fill(~captions.mask, IGNORED)
    return F.pad(own, (slots, 0), value=IGNORED)


def token_losses(llm: FrozenLLM, prompts: Tensor, captions: CaptionIds) -> Tensor:
    """Cross entropy in nats of each token of the captions [B, T] behind prompts [B, n, H]; 0 at pads."""
    captions = captions.to(llm.device)
    context = _context(llm, prompts)
    slots, length = context.shape[1], captions.ids.shape[1]
    x = torch.cat([context, llm.embedded(captions.ids)], dim=1)
    ones = captions.mask.new_ones((len(x), slots))
    options: dict[str, Any] = {"inputs_embeds": x, "attention_mask": torch.cat([ones, captions.mask], dim=1).long()}
    if "logits_to_keep" in signature(llm.model.forward).parameters:
        options["logits_to_keep"] = length + 1  # from the last slot on
    logits = llm.model(**options, use_cache=False).logits[:, -length - 1 : -1].float()  # [B, T, V]
    wanted = labels(captions, slots)[:, slots:]
    return F.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")


def caption_loss(llm: FrozenLLM, prompts: Tensor, captions: CaptionIds) -> Tensor:
    """Mean cross entropy over all tokens of the captions, as one number."""
    return token_losses(llm, prompts, captions).sum() / captions.mask.sum().to(llm.device)


@torch.no_grad()
def write(llm: FrozenLLM, prompts: Tensor, **generation: Any) -> list[str]:
    """The texts that the LLM writes behind prompts [B, n, H]: greedily, or as options of transformers' `generate` say.

    For example `max_new_tokens=40, do_sample=True, top_p=0.9`, or `num_beams=4`; without them, at most 64 tokens.
    """
    context = _context(llm, prompts)
    options = {"do_sample": False, "num_beams": 1, "max_new_tokens": 64} | generation
    ids = llm.model.generate(
        inputs_embeds=context,
        attention_mask=torch.ones(context.shape[:2], dtype=torch.long, device=llm.device),
        eos_token_id=llm.end,
        pad_token_id=llm.end,
        **options,
    )
    return [text.strip() for text in llm.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def _context(llm: FrozenLLM, prompts: Tensor) -> Tensor:
    """What stands in front of a caption [B, slots, H]: BOS, the template's texts and the prompts."""
    own = prompts.to(llm.device, llm.dtype)
    parts = [own]
    if llm.before:
        parts.insert(0, llm.embedded(torch.tensor(llm.before)).expand(len(own), -1, -1))
    if llm.between:
        parts.append(llm.embedded(torch.tensor(llm.between)).expand(len(own), -1, -1))
    return torch.cat(parts, dim=1)
