"""Random models of real architectures, small enough for one CPU core, saved the way real ones are published."""

from __future__ import annotations

import string
from pathlib import Path

import torch

CHAT = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
LETTERS = set(string.ascii_lowercase + " ")


def byte_tokenizer(chat: str | None = CHAT):
    """A tokenizer of single bytes with control tokens, one of them a place for pictures."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[2:],
        extra_special_tokens={"image_token": "<image>"},
    )
    fast.chat_template = chat
    return fast


def text_config(tokenizer) -> dict:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }


def say_letters(model, tokenizer) -> None:
    """Let greedy decoding write lower-case letters and spaces only, far from a tie between two of them."""
    space = {"Ġ"}
    allowed = {i for token, i in tokenizer.get_vocab().items() if token in LETTERS | space}
    model.generation_config.suppress_tokens = sorted(set(range(len(tokenizer))) - allowed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(8 if "embed" in name or "lm_head" in name else 4)


def say_nothing(model, tokenizer) -> None:
    """Let greedy decoding end at once."""
    model.generation_config.suppress_tokens = sorted(set(range(len(tokenizer))) - {tokenizer.eos_token_id})


def save_llm(folder: Path, *, chat: str | None = CHAT, speak=say_letters) -> Path:
    """A Llama for the `rewrite` captioner."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(chat)
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**text_config(tokenizer)))
    speak(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_llava(folder: Path, *, chat: str | None = CHAT, speak=say_letters) -> Path:
    """A LLaVA: CLIP vision tower, Llama, and a processor that resizes to 32 pixels."""
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = byte_tokenizer(chat)
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    torch.manual_seed(1)
    config = LlavaConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **text_config(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    speak(model, tokenizer)
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    LlavaProcessor(
        CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=chat,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def save_smolvlm(folder: Path, *, chat: str | None = CHAT, speak=say_letters) -> Path:
    """A SmolVLM (Idefics 3): several tiles a picture, merged by pixel shuffle."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessor, Idefics3Processor

    tokenizer = byte_tokenizer(chat)
    torch.manual_seed(1)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
        text_config={"model_type": "llama", **text_config(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=1,
    )
    model = Idefics3ForConditionalGeneration(config)
    speak(model, tokenizer)
    model.save_pretrained(folder)
    images = Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=chat).save_pretrained(folder)
    return folder
