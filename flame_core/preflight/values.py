"""Values that are well-formed and cannot work: languages, benchmarks, layers, sizes that do not divide, recipes."""

from __future__ import annotations

import json
from collections.abc import Iterator

from flame_core.graph.section_stages import linked_place
from flame_core.language_names import code_of, is_language
from flame_core.layout import Layout
from flame_core.params import Params, TrainParams
from flame_core.params.validation import Fault
from flame_core.preflight.benchmarks import benchmark_faults
from flame_core.text.cost import KNOWN, LLMShape
from flame_core.text.llm import SOURCE
from flame_core.training.recipe_check import link_faults, recipe_faults


def value_faults(params: Params, layout: Layout) -> Iterator[Fault]:
    """All of them."""
    yield from _language_faults(params)
    yield from benchmark_faults(params, layout)
    yield from _layer_faults(params, layout)
    yield from _file_faults(params, layout)
    for name, recipe in params.train.items():
        sizes = list(_size_faults(recipe))
        own = [Fault(fault.key, fault.message) for fault in recipe_faults(recipe)]
        if any(fault.key[0] == "model" for fault in sizes):  # timm would say the same in its own words
            own = [fault for fault in own if fault.key[0] != "model"]
        linked = [Fault(each.key, each.message, section=each.section) for each in link_faults(params, layout, name)]
        for fault in (*sizes, *own, *linked):
            yield fault._replace(key=("train", name, *fault.key))


def _language_faults(params: Params) -> Iterator[Fault]:
    evaluate = params.evaluate
    listed = [] if evaluate.languages == "all" else evaluate.languages
    named: dict[tuple[str, ...], str] = {
        ("evaluate", "languages", str(number)): code for number, code in enumerate(listed)
    }
    named["evaluate", "train_language"] = evaluate.train_language
    for name, source in params.sources.items():
        if (code := getattr(source, "language", None)) is not None:
            named["sources", name, "language"] = code
    for key, code in named.items():
        if not is_language(code):
            meant = code_of(code)
            hint = f"did you mean {meant!r}? " if meant else ""
            yield Fault(key, f"unknown language {code!r}; {hint}use an ISO 639 code, such as en, zh or fil")
    for code in evaluate.gates.language_floors:
        if evaluate.languages != "all" and code not in (*listed, evaluate.train_language):
            yield Fault(
                ("evaluate", "gates", "language_floors", code),
                f"{code} is not measured, so this floor always fails: add it to evaluate.languages, or remove it here",
            )


def _file_faults(params: Params, layout: Layout) -> Iterator[Fault]:
    """Files that optional sections name and that do not exist; those in `data/` may be made by a stage."""
    named = {"concepts": params.concepts, "scores": params.scores, "cluster": params.cluster and params.cluster.vectors}
    for section, own in named.items():
        for path in own.paths if own else []:
            place = linked_place(layout, path)
            if not place.exists() and layout.data not in place.parents:
                yield Fault((section,), f"{place} does not exist, which the section names as {path}")


def _layer_faults(params: Params, layout: Layout) -> Iterator[Fault]:
    layers = _layers(params, layout)
    if layers is None:
        return
    sentence = params.text.sentence
    for key, layer in (
        (("text", "layer"), params.text.layer),
        (("text", "sentence", "layer"), sentence.layer if sentence else None),
    ):
        if layer is not None and layer > layers:
            yield Fault(key, f"{params.llm.name} has {layers} layers, and this is {layer}: take 1 to {layers}")


def _layers(params: Params, layout: Layout) -> int | None:
    """How many layers the LLM has; None if it is neither fetched nor known."""
    folders = [layout.resolve(params.llm.source.removeprefix("path:"))] if params.llm.source.startswith("path:") else []
    fetched = layout.llm / params.llm.name
    for folder in [*folders, fetched]:
        try:
            if folder == fetched and json.loads((folder / SOURCE).read_text("utf-8"))["source"] != params.llm.source:
                continue
            return LLMShape.of(json.loads((folder / "config.json").read_text("utf-8"))).layers
        except (OSError, ValueError, KeyError, TypeError):
            continue  # `flame fetch-llm` tells what is wrong with a folder
    return next((shape.layers for source, shape in KNOWN.items() if params.llm.source.startswith(source)), None)


def _size_faults(recipe: TrainParams) -> Iterator[Fault]:
    model, options = recipe.model, recipe.model.backbone_options
    size, patch, width, heads = (
        value if isinstance(value, int) and value > 0 else None
        for value in (options.get(name) for name in ("img_size", "patch_size", "embed_dim", "num_heads"))
    )
    if patch and model.image_size % patch:
        lower = max(model.image_size // patch, 1) * patch
        yield Fault(
            ("model", "image_size"),
            f"{model.image_size} does not divide by backbone_options.patch_size {patch}: take {lower} or "
            f"{lower + patch}",
        )
    elif size and size != model.image_size:
        yield Fault(
            ("model", "image_size"),
            f"{model.image_size}, and backbone_options.img_size is {size}: give both the same value",
        )
    if width and heads and width % heads:
        yield Fault(
            ("model", "backbone_options", "embed_dim"),
            f"{width} does not divide by num_heads {heads}: take {-(-width // heads) * heads}, or other heads",
        )
    tower = recipe.text_tower
    if tower and tower.width % tower.heads:
        wider = -(-tower.width // tower.heads) * tower.heads
        yield Fault(("text_tower", "width"), f"{tower.width} does not divide by heads {tower.heads}: take {wider}")
