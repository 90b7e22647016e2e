"""The `safetensors` format: the trained weights as they are, a config that says everything, and a loader in the card.

It is also the only format with the text tower of a model that was trained with one: the others hold pictures only. The
config also says which texts the vectors are comparable with, so the folder can be the `teacher` of a recipe.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from flame_core.digest import write_json
from flame_core.export import class_files
from flame_core.export.preprocessing import processor_config, program
from flame_core.export.projector_program import patch_tokens, projected, projector_layers
from flame_core.export.resize_program import resize_program
from flame_core.export.subject import Subject
from flame_core.export.usage import Usage
from flame_core.graph.link_contents import EXPORTED
from flame_core.model_files import WEIGHTS
from flame_core.text.transformer import TrainedTexts


def write(subject: Subject, folder: Path) -> Usage:
    """Write the files of this format."""
    config = {
        "format": EXPORTED,
        **subject.tower_config(),
        "preprocessing": processor_config(subject),
        "recipe": {name: subject.config["recipe"].get(name) for name in ("model", "text_tower")},
        **{name: subject.config.get(name) for name in ("hidden", "facets", "llm", "layer")},
    }
    shutil.copyfile(subject.folder / WEIGHTS, folder / WEIGHTS)
    files = {
        WEIGHTS: "`backbone.*` in timm's names, `projector.layers.*`"
        + ", `facet_tokens.tokens`" * bool(subject.facets),
        "config.json": "architecture and preprocessing",
    }
    programs = {"Vectors": _IMPORTS + program(subject) + "\n\n" + resize_program(subject) + _loader(subject)}
    if subject.zero_shot is not None:
        class_files.write_classes(subject.zero_shot, folder)
        files |= class_files.FILES
        programs["Vectors"] += class_files.PROGRAM
    if subject.has_text_tower:
        config["text_tower"] = subject.config["recipe"]["text_tower"]
        weights, tokenizer = TrainedTexts.required()
        for name in (weights, tokenizer):
            shutil.copyfile(subject.folder / name, folder / name)
        files |= {weights: "the text tower", tokenizer: "its tokenizer, as the package tokenizers reads it"}
        programs["Texts"] = _text_loader(subject, weights, tokenizer)
    write_json(folder / "config.json", config)
    return Usage("pytorch", programs, files)


def _loader(subject: Subject) -> str:
    facet_module = (
        f',\n    "facet_tokens": nn.ParameterDict({{"tokens": torch.empty({subject.facets}, {subject.width})}})'
    )
    return f"""\
config = json.load(open("config.json"))
projector = {projector_layers(subject)}
tower = nn.ModuleDict({{
    "backbone": timm.create_model(config["architecture"], **config["model_args"]),
    "projector": nn.ModuleDict({{"layers": projector}}){facet_module if subject.facets else ""},
}})
{'resize(tower["backbone"], config["sizes"])' + chr(10) if subject.sizes else ""}\
tower.load_state_dict(load_file("{WEIGHTS}"))
backbone = tower.eval()["backbone"]

pictures = torch.from_numpy(pixels("bird.jpg"))
with torch.inference_mode():
{_FACETS if subject.facets else f"    patches = {patch_tokens(subject)}"}
    vectors = nn.functional.normalize({projected(subject, "projector")}, dim=-1)  # [1, {subject.dim}]
"""


_IMPORTS = """\
import json

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

"""
_FACETS = """\
    x = backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(pictures))))
    first = len(backbone.blocks) - config["facet_blocks"]
    for block in backbone.blocks[:first]:
        x = block(x)
    own = x.shape[1]
    x = torch.cat([x, tower["facet_tokens"]["tokens"].expand(len(x), -1, -1)], dim=1)
    sees = torch.eye(x.shape[1], dtype=torch.bool)  # a facet sees the picture and itself,
    sees[:, :own] = True  # the picture sees no facet
    for block in backbone.blocks[first:]:
        x = block(x, attn_mask=sees)
    x = backbone.norm(x)
    patches, facets = x[:, backbone.num_prefix_tokens : own], nn.functional.normalize(projector(x[:, own:]), dim=-1)"""


def _text_loader(subject: Subject, weights: str, tokenizer: str) -> str:
    tower = subject.config["recipe"]["text_tower"]
    width, heads, depth, most = (tower[name] for name in ("width", "heads", "depth", "max_tokens"))
    return f"""\
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn

tokenizer = Tokenizer.from_file("{tokenizer}")
end = tokenizer.get_vocab_size()
layer = nn.TransformerEncoderLayer(
    {width}, {heads}, {4 * width}, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
)
tower = nn.ModuleDict({{
    "tokens": nn.Embedding(end + 1, {width}),
    "blocks": nn.TransformerEncoder(layer, {depth}, nn.LayerNorm({width}), enable_nested_tensor=False),
    "projection": nn.Linear({width}, {subject.dim}, bias=False),
}})
loaded = load_file("{weights}")
positions = loaded.pop("positions")
tower.load_state_dict(loaded)
tower.eval()


@torch.inference_mode()
def encode_text(text):
    ids = torch.tensor([*tokenizer.encode(text, add_special_tokens=False).ids[: {most - 1}], end])
    x = tower["tokens"](ids)[None] + positions[: len(ids)]
    mask = nn.Transformer.generate_square_subsequent_mask(len(ids))
    x = tower["blocks"](x, mask=mask, is_causal=True)[:, -1]
    return nn.functional.normalize(tower["projection"](x), dim=-1)


texts = torch.cat([encode_text("a small bird"), encode_text("ein Boot")])  # [2, {subject.dim}]
"""
