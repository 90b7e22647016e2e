"""Tiny random models of `transformers`: CLIP, Meta CLIP 2, SigLIP and SigLIP 2, with tokenizer and processor."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from tokenizers import processors

VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**VISION, "vocab_size": 300, "max_position_embeddings": 64}
SIZE = {"image_size": 32, "patch_size": 8}
NAFLEX = {"num_patches": 16, "patch_size": 8}  # of any shape


def save(folder: Path, tokenizer, family: str = "clip", projection: int = 24) -> Path:
    """A random model; `projection` is its dimension if it has one (SigLIP's is that of its towers)."""
    from transformers import AutoConfig, AutoModel, CLIPImageProcessor, Siglip2ImageProcessor, SiglipImageProcessor

    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = AutoConfig.for_model(
        family,
        vision_config={**VISION, **(NAFLEX if family == "siglip2" else SIZE)},
        text_config={**TEXT, **ends},
        projection_dim=projection,
    )
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():  # random enough for pictures to differ
            if weight.ndim > 1:
                weight.mul_(4)
    model.save_pretrained(folder)
    tokenizer = copy.deepcopy(tokenizer)  # CLIP reads a text at its end token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    if family == "siglip2":  # read as Gemma's, which must have one
        tokenizer.unk_token = "<s>"
    tokenizer.save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    if family == "siglip2":
        processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    elif family == "siglip":
        processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    else:
        processor = CLIPImageProcessor(**size)
    processor.save_pretrained(folder)
    return folder
