"""A small project with shards, embeddings and a tower whose patches can be coded."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from flame_core import gates
from flame_core.digest import write_json
from flame_core.layout import Layout
from flame_core.model_files import CONFIG, WEIGHTS
from flame_core.params import CodesParams, Params, SelectParams
from flame_core.stages import embed
from flame_core.text.manifest import read_manifest
from flame_core.verification import write_digests
from flame_core.vision.tower import ImageTower
from tests.stages.pipeline import captioned_project
from tests.training.world import recipe

CODES = {"tower": {"recipe": "small"}, "codes": 12, "dims": 6, "steps": 12, "batch_tokens": 200}
SELECT = {
    "clusters": 4,
    "dims": 3,
    "selections": {"quarter": {"share": 0.25}, "half": {"share": 0.5}, "chance": {"share": 0.25, "mode": "random"}},
}
SIZE, PATCH = 32, 8  # 16 patches


def small_recipe(**changes):
    options = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return recipe(model={"backbone_options": options, "image_size": SIZE}, **changes)


def write_tower(folder: Path, hidden: int, seed: int = 0, **config) -> None:
    """A model folder of a tower with random weights."""
    torch.manual_seed(seed)
    made = small_recipe()
    tower = ImageTower(made.model, hidden, 1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).unlink(missing_ok=True)
    save_file(tower.state_dict(), folder / WEIGHTS)
    content = {"recipe": made.dump(), "hidden": hidden, "facets": ["raw/1"], "llm": {"name": "tiny"}, **config}
    write_json(folder / CONFIG, content)
    (folder / gates.CHECKS).write_bytes(gates.to_bytes([]))
    write_digests(folder)


def coded_project(root: Path, tokenizer, pictures: int = 40) -> tuple[Params, Layout]:
    """Shards, captions and embeddings of so many drawings, and the tower of the recipe `small`."""
    params, layout = captioned_project(root, tokenizer, pictures)
    params = params.model_copy(
        update={
            "evaluate": params.evaluate.model_copy(update={"languages": []}),
            "train": {"small": small_recipe(kinds=["raw"])},
        }
    )
    embed.run(params, layout)
    manifest = read_manifest(layout.train_embeddings)
    write_tower(layout.model("small"), **{name: manifest[name] for name in ("hidden", "llm", "layer")})
    return params, layout


def coding(params: Params, **values) -> Params:
    """Params with a section `codes`, whose gates let everything pass unless they are given."""
    loose = {"min_perplexity": 0.0, "max_dead_fraction": 1.0}
    return params.model_copy(update={"codes": CodesParams.model_validate(CODES | {"gates": loose} | values)})


def selecting(params: Params, **values) -> Params:
    """Params with both sections."""
    loose = {"max_empty_fraction": 1.0, "max_over_mean": 100.0}
    own = SelectParams.model_validate(SELECT | {"gates": loose} | values)
    return (params if params.codes else coding(params)).model_copy(update={"select": own})
