"""Servable models that tests make: small random towers, with a text tower of their own or for a frozen LLM."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from flame_core.digest import write_json
from flame_core.layout import Layout
from flame_core.measuring.text_side import side_in
from flame_core.model_files import CONFIG, TEXT_WEIGHTS, WEIGHTS
from flame_core.params import Params, TextTowerParams
from flame_core.serving.package import package_files
from flame_core.text import transformer
from flame_core.text.encoder import TextEncoder
from flame_core.text.side import TextSide
from flame_core.text.store import CENTER, TOKENIZER, Centring
from flame_core.vision.tower import ImageTower
from tests.conftest import tiny_llm
from tests.measuring import world

FROZEN, OWN = "plain", "other"  # recipes: texts by the frozen LLM, texts by a text tower of its own
TEXT_TOWER = (TEXT_WEIGHTS, TOKENIZER)  # the files of such a tower
TOWER = TextTowerParams(width=16, depth=1, heads=2, max_tokens=16)
FACETS = ["raw/1", "short/1", "short/2"]
MANIFEST = {"hidden": world.DIMENSIONS, "facets": FACETS, "text_facets": ["raw/1"]}


def project(root: Path, tokenizer: PreTrainedTokenizerFast) -> tuple[Params, Layout]:
    """A project in `root` with a model of each recipe; the same weights in every project."""
    params = world.params(root)
    params.train[OWN] = params.train[OWN].model_copy(update={"text_tower": TOWER})
    layout = Layout(root, root)
    torch.manual_seed(0)
    for name, recipe in params.train.items():
        folder = layout.model(name)
        folder.mkdir(parents=True)
        save_file(ImageTower(recipe.model, world.DIMENSIONS, 0).state_dict(), folder / WEIGHTS)
        kinds = {"hidden": world.DIMENSIONS, "facets": FACETS, "text_facets": {"raw": 1, "short": 2}}
        write_json(folder / CONFIG, {"recipe": recipe.model_dump(mode="json"), "samples": 12, **kinds})
    folder = layout.model(OWN)
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    vocabulary = transformer.Captions(folder / TOKENIZER, TOWER).end + 1
    save_file(transformer.TextTower(TOWER, vocabulary, world.DIMENSIONS).state_dict(), folder / TEXT_WEIGHTS)
    return params, layout


def text_side(layout: Layout, recipe: str) -> TextSide:
    """The text side of a model of this project; a stored text is a vector of its own (`world.lookup`)."""
    centring = Centring.of_file(FACETS, layout.train_embeddings / CENTER)
    store: Any = SimpleNamespace(
        manifest=MANIFEST,
        centring_of=lambda reading: centring,
        lookup=lambda kind, texts, reading: world.lookup(kind, texts),
    )
    return side_in(layout.model(recipe)).of_model(layout.model(recipe), store, no_llm)


def no_llm() -> TextEncoder:
    """In the place of an LLM that no package needs."""
    raise AssertionError("a package was made with the LLM")


def package(made: tuple[Params, Layout], recipe: str, folder: Path, names: list[str], card: str = "") -> Path:
    """The packaged model of a recipe, written to a new folder."""
    params, layout = made
    folder.mkdir()
    files, contents = package_files(params, layout, recipe, text_side(layout, recipe), names, card)
    for name, path in files.items():
        (folder / name).write_bytes(path.read_bytes())
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def llm_folder(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder with a tiny LLM, as `flame fetch-llm` leaves one."""
    tiny_llm("llama").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / "source.json", {"files": {}})
    return folder
