"""Finds mistakes in a recipe that its params class cannot find, before anything is computed.

`recipe_faults` builds the tower without weights (torch's meta device) and checks what the terms read; it needs no file
except the recipe. `link_faults` checks what the recipe is linked to, as far as it exists: a stage of `dvc.yaml` may
still make a file. `flame params check` and `flame run` use both, `flame train` only the first.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flame_core.data.sidecars import require_named
from flame_core.errors import FlameError, InputError, ParamsError
from flame_core.graph.link_contents import require_same_space
from flame_core.graph.links import PIPELINE, links
from flame_core.graph.section_stages import section_stages
from flame_core.layout import Layout
from flame_core.model_files import CONFIG
from flame_core.names import did_you_mean
from flame_core.params import Params, TrainParams, read_yaml, recipe_sources
from flame_core.params.recipe_files import recipe_file, recipe_key
from flame_core.params.training import WITHOUT_LOSS
from flame_core.text.manifest import MANIFEST, read_manifest, training_folder
from flame_core.training.inherit_check import inherit_faults
from flame_core.training.prompts_check import prompt_faults
from flame_core.training.teacher_check import teachable_faults

_BESIDE = ("self_distillation", "flops", "overuse")  # terms that read z and give it no meaning


class Fault(NamedTuple):
    """A mistake in a recipe: the key, from the recipe's root, and what is wrong and what to do.

    `section`: the optional section of the params that does not say what the recipe needs.
    """

    key: tuple[str, ...]
    message: str
    section: str | None = None


def require_recipe(params: Params, layout: Layout, name: str) -> None:
    """Refuse a recipe with faults that do not depend on its links.

    Raises:
        ParamsError: names the recipe's file and each key.
    """
    _refuse({name: list(recipe_faults(params.train[name]))}, layout.recipes)


def require_linked_recipes(params: Params, layout: Layout, recipes: Path) -> None:
    """Refuse faults of all recipes with terms, multipliers, sidecars, a selection or a teacher.

    Args:
        params: the run's.
        layout: the run's; its folder need not exist yet.
        recipes: folder of the recipes' files, for error messages.

    Raises:
        ParamsError: names the files and each key.
    """
    found = {}
    for name, recipe in params.train.items():
        if recipe.terms or recipe.optimizer.multipliers or links(layout, recipe):
            found[name] = [*recipe_faults(recipe), *link_faults(params, layout, name)]
    _refuse(found, recipes)


def _refuse(found: Mapping[str, Iterable[Fault]], recipes: Path) -> None:
    lines = [
        f"{recipe_file(recipes, name)}: {'.'.join(fault.key)}: {fault.message}"
        for name, faults in found.items()
        for fault in faults
    ]
    if lines:
        raise ParamsError("\n".join(lines))


def recipe_faults(recipe: TrainParams) -> Iterator[Fault]:
    """Mistakes in the recipe itself: sidecars that its terms read, its backbone, its weights."""
    import torch

    from flame_core.objectives import term_faults, term_needs
    from flame_core.text.transformer import TextTower
    from flame_core.training.inputs import sidecar_readers
    from flame_core.training.weight_groups import require_weights
    from flame_core.vision.frozen_backbone import freeze_backbone, require_statistics
    from flame_core.vision.layer_rates import layer_rates
    from flame_core.vision.tower import ImageTower, require_features

    if recipe.objective.name == "prototypes":  # 0 in its first episode, and then only pictures among themselves
        yield Fault(
            ("objective", "name"), "name prototypes under terms, beside an objective that compares pictures with texts"
        )
    needs = term_needs(recipe)
    yield from _unread(recipe)
    if recipe.crops and not any(each.taught for each in needs.values()):
        yield Fault(("teacher", "copies"), "no term of the recipe learns from the teacher: add one, or remove copies")
    if recipe.reads_features:
        yield from _feature_faults(recipe)
    try:
        require_named(sidecar_readers(recipe), recipe.sidecars)
    except ParamsError as error:
        yield Fault(("sidecars",), str(error))
    try:
        with torch.device("meta"):
            tower = ImageTower(recipe.model, hidden=8, facets=1)
        require_statistics(tower.backbone, recipe)
    except ParamsError as error:
        yield _backbone_fault(recipe, error)
        return
    if recipe.model.head == "none" and recipe.text_projection is not None:
        dim, width = recipe.text_projection.dim, tower.backbone.num_features
        if dim not in (None, width):  # None: the LLM's, which is known when it is fetched
            yield Fault(
                ("text_projection", "dim"),
                f"{dim}, and model.head none keeps the backbone's vectors: set it to {width}",
            )
    try:
        freeze_backbone(tower.backbone, recipe.model.train)
    except ParamsError as error:
        yield Fault(recipe_key(error), error.message)
    if recipe.optimizer.layer_decay is not None:
        try:
            layer_rates(tower.backbone, recipe.optimizer.layer_decay)
        except ParamsError as error:
            yield Fault(recipe_key(error), error.message)
    for name, each in needs.items():
        try:
            require_features(tower.backbone, each.reads, f"the term {name}")
        except ParamsError as error:
            yield Fault(("objective" if name == recipe.objective.name else "terms",), str(error))
            return
    for name, message in term_faults(recipe, tower):
        yield Fault(("objective" if name == recipe.objective.name else "terms",), message)
    multipliers = {
        name: value
        for name, value in recipe.optimizer.multipliers.items()
        if recipe.lora is None or name.partition(".")[0] != "text"  # the LLM's parts are known when it is loaded
    }
    if multipliers:
        towers: dict[str, torch.nn.Module] = {"image": tower}
        if recipe.text_tower is not None:
            with torch.device("meta"):
                towers["text"] = TextTower(recipe.text_tower, vocabulary=1, hidden=8)
        try:
            require_weights(torch.nn.ModuleDict(towers), multipliers)
        except ParamsError as error:
            yield Fault(recipe_key(error), error.message)


def _unread(recipe: TrainParams) -> Iterator[Fault]:
    """Towers whose features no term reads, so that they would not learn."""
    from flame_core.objectives import recipe_needs, term_needs

    needs = recipe_needs(recipe)
    if not needs.reads and recipe.objective.name not in WITHOUT_LOSS:  # which say so themselves
        yield Fault(
            ("objective", "name"), "no term reads pictures: name an objective that compares pictures with texts"
        )
    compared = [name for name, needs in term_needs(recipe).items() if "z" in needs.reads and name not in _BESIDE]
    if "z" in needs.reads and not compared:
        yield Fault(
            ("objective", "name"),
            "no term compares a picture's z with texts or with a teacher's, so its head would not learn: add one",
        )
    for side in ("text_tower", "text_projection"):
        if getattr(recipe, side) is not None and not needs.texts:
            yield Fault(
                (side,), f"no term reads what it gives: add one that compares with texts, or set {side} to null"
            )


def _feature_faults(recipe: TrainParams) -> Iterator[Fault]:
    """What stored vectors of pictures cannot give."""
    from flame_core.objectives import term_needs

    if recipe.augmentation.scale != (1.0, 1.0) or recipe.augmentation.photometric is not None:
        yield Fault(
            ("augmentation", "scale"),
            "stored features are of whole pictures: set augmentation.scale to [1, 1] and photometric to null; flip "
            "draws among the stored views",
        )
    kind = "cls" if recipe.model.reads_class_token else "pooled"
    stored = {"z", kind}
    for name, needs in term_needs(recipe).items():
        if missing := sorted(needs.reads - stored):
            yield Fault(
                ("objective" if name == recipe.objective.name else "terms",),
                f"the term {name} reads {', '.join(missing)}, and stored features are {kind} only: train "
                "on pictures (without the sidecar features)",
            )
        if needs.taught or needs.around or name in WITHOUT_LOSS:  # which choose patches, or what is left of a tower
            yield Fault(("terms",), f"the term {name} looks at pictures, and the recipe trains on stored features")


def _backbone_fault(recipe: TrainParams, error: ParamsError) -> Fault:
    import timm

    name = recipe.model.backbone
    if not timm.is_model(name.partition(".")[0]) and ":" not in name:
        hint = did_you_mean(name, timm.list_models())
        return Fault(("model", "backbone"), f"timm has no model {name!r};{hint} timm.list_models() lists all")
    key = recipe_key(error)
    if key == ("model",):
        key = ("model", "backbone_options" if recipe.model.backbone_options else "image_size")
    return Fault(key, error.message)


def link_faults(params: Params, layout: Layout, name: str) -> Iterator[Fault]:
    """Mistakes in a recipe's links: a missing path that no stage makes, or a teacher of another LLM's space."""
    recipe = params.train[name]
    made = {layout.root / out for stage in section_stages(layout, params).values() for out in stage["outs"]}
    for what, path in links(layout, recipe).items():
        key = tuple(what.split(".", 1))
        if what == "prompts" and path not in made:
            yield from (Fault(("model", "connector", "prompts"), said) for said in prompt_faults(recipe, path))
        if path.exists() or path in made:
            continue
        section, selections = _selections(params, layout, path.parent)
        if section:
            if path.stem not in selections or path.suffix != ".parquet":
                known = ", ".join(f"{each}.parquet" for each in selections) or "no selection"
                yield Fault(key, f"{path}: the section `{section}` makes {known}; name one of them", section=section)
            continue
        if params.noise and path == layout.noise:
            continue
        if (section := _section_of(layout, path)) is not None:
            yield Fault(
                key,
                f"{path} does not exist, and its stage runs only if params have a section `{section}`: write it",
                section=section,
            )
            continue
        if not is_made_by_a_stage(path, layout) and what not in recipe_sources(recipe):
            yield Fault(
                key,
                f"{path} does not exist, and no stage of {PIPELINE} makes it: correct the path, or make it first",
            )
    if recipe.teacher is not None:
        for message in _other_space(params, layout, recipe, "teacher") if recipe.teacher.model is None else ():
            yield Fault(("teacher",), message)
        yield from (Fault(*each) for each in teachable_faults(params, layout, name))
    if recipe.inherit is not None:
        yield from (Fault(*each) for each in inherit_faults(params, layout, recipe))
        for message in _other_space(params, layout, recipe, "inherit") if recipe.inherit.projector else ():
            yield Fault(("inherit",), f"{message}; or set inherit.projector to false")


def _section_of(layout: Layout, path: Path) -> str | None:
    """The optional section whose stage makes a path; None if there is none."""
    makers = {
        layout.clusters: "cluster",
        layout.lexical: "lexical",
        layout.prompts: "prompts",
        layout.features: "features",
        layout.noise: "noise",
        layout.concepts: "concepts",
        layout.concept_weights: "concepts",
        layout.similarity: "codes",
        layout.selections: "select",
        layout.semdedup: "semdedup",
        layout.scores: "scores",
    }
    if path.name.startswith("score-") and path.parent == layout.similarity.parent:
        return "scores"
    return makers.get(path) or makers.get(path.parent)


def _selections(params: Params, layout: Layout, folder: Path) -> tuple[str | None, Collection[str]]:
    """The section that makes selections in a folder, and their names."""
    if params.select and folder == layout.selections:
        return "select", params.select.selections
    if params.scores and folder == layout.scores:
        return "scores", params.scores.selections
    return None, ()


def is_made_by_a_stage(path: Path, layout: Layout) -> bool:
    """Whether a stage of `dvc.yaml` makes a file or folder, or one above it."""
    return any(path == out or out in path.parents for out in _outs(layout))


def _outs(layout: Layout) -> list[Path]:
    """The outs of the stages of `dvc.yaml`; for an out with a placeholder, the folder above it."""
    root = next((root for root in (layout.root, layout.project) if (root / PIPELINE).is_file()), None)
    stages = read_yaml(root / PIPELINE).get("stages") if root else None
    found: list[Path] = []
    for stage in stages.values() if isinstance(stages, dict) else []:
        for out in (stage.get("outs") or []) if isinstance(stage, dict) else []:
            path = next(iter(out)) if isinstance(out, dict) else str(out)
            before, template, _ = path.partition("${")
            place = layout.root / before
            found.append(place.parent if template and not before.endswith("/") else place)
    return found


def _other_space(params: Params, layout: Layout, recipe: TrainParams, what: str) -> Iterator[str]:
    """Why a linked model's LLM space differs from that of the recipe's texts, as far as its files or params show."""
    layer, role = _layer(params, recipe), {"teacher": "teacher", "inherit": "source"}[what]
    if name := recipe_sources(recipe).get(what):
        taught = params.train.get(name)
        if taught is not None and (other := _layer(params, taught)) != layer:
            yield (
                f"the {role} {name} reads layer {other} of the LLM ({taught.reading}), and this recipe layer {layer} "
                f"({recipe.reading}): give both the same reading, or text.sentence the layer of the facets"
            )
        return
    folder = links(layout, recipe)[what]
    if not (folder / CONFIG).is_file():
        return
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        llm = dict(config["llm"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{folder / CONFIG} is damaged ({error}): name the folder of a model that `flame train` made"
        return
    own = {"name": params.llm.name, "source": params.llm.source, "random_seed": params.llm.random_seed}
    wrong = [
        f"the {role}'s {'llm.' if key in own else ''}{key} is {found!r}, and these params have {value!r}"
        for key, found, value in (
            *((key, llm.get(key), value) for key, value in own.items()),
            ("layer", config.get("layer"), layer),
        )
        if found != value
    ]
    if wrong:
        yield f"{folder} was trained into another LLM's space: {'; '.join(wrong)}"
        return
    manifest = _manifest_made_for(params, layout, recipe)
    if manifest is not None:
        try:
            require_same_space(folder, manifest, what)
        except InputError as error:
            yield str(error)


def _layer(params: Params, recipe: TrainParams) -> int | None:
    return params.text.sentence_layer if recipe.reading == "sentence" else params.text.layer


def _manifest_made_for(params: Params, layout: Layout, recipe: TrainParams) -> dict[str, Any] | None:
    """The manifest of the embeddings, if they exist and were made with the LLM and layer in params."""
    folder = training_folder(layout.train_embeddings, recipe.reading)
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(folder)
    except FlameError:  # `flame embed` will make them again
        return None
    llm = manifest.get("llm") or {}
    fits = llm.get("source") == params.llm.source and manifest.get("layer") == _layer(params, recipe)
    return manifest if fits and "hidden" in manifest else None
