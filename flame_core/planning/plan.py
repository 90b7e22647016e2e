"""`flame plan`: what all of a params file costs, and what that is based on; `flame status`: single stages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from flame_core.captions.server.tokens import server_sections
from flame_core.cores import CORE_TFLOPS
from flame_core.data.addresses.expected import count_rows, expected
from flame_core.data.shards import INDEX, read_index
from flame_core.errors import InputError, ResourceError
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.model_files import CONFIG
from flame_core.params import ClusterParams, Params, TrainParams, UrlsSource, recipe_of, teacher_recipe
from flame_core.planning.evaluation_texts import PartCost, evaluation_costs
from flame_core.planning.section_costs import llm_section_costs, section_costs, time_of
from flame_core.planning.start import Given, given
from flame_core.preflight.data_look import ingest_sizes_of, look
from flame_core.quantities import core_time, size_text, time_at
from flame_core.settings import settings
from flame_core.text.cost import BYTES, LLMShape, read_shape, text_cost
from flame_core.text.jobs import facet_names, recipe_slots, sentence_names, slot_names

if TYPE_CHECKING:
    from torch import Tensor

    from flame_core.clustering.cost import ClusterCost
    from flame_core.training.cost_figures import StoringCost, TrainingCost
    from flame_core.training.linked_folders import LinkedFolders


def plan(params: Params, layout: Layout, start: Given, tflops: float, processes: int) -> dict[str, dict[str, str]]:
    """The cost of a run, as text in sections: captions, the texts' store, optional stages, each recipe's training."""
    shape = read_shape(params, layout.llm / params.llm.name)
    text = text_cost(params, shape, start.images, start.lengths, start.count)
    others = evaluation_costs(params, layout, shape, start)
    evaluated = sum(others.values(), PartCost())
    flops = text.flops + evaluated.flops
    names = slot_names(params.text)
    sections = address_sections(params, layout)
    sections |= server_sections(
        params, layout.captions, start.images, start.lengths["raw"], start.count, settings().caption_requests
    )
    sections |= {
        f"texts: {params.llm.name}, layer {params.text.layer}": {
            "training pictures": f"{start.images:,}",
            "vectors per picture": f"{text.vectors}",
            "tokens": f"{text.tokens + evaluated.tokens:,.0f}",
            "training captions": f"{text.tokens:,.0f} tokens ({text.tokens / start.images:.0f} per picture)",
            **({"of these, as sentences": f"{text.sentence_tokens:,.0f}"} if text.sentence_tokens else {}),
            **{part: f"{cost.tokens:,.0f} tokens" for part, cost in others.items()},
            **({} if start.seen else {"not counted": "texts of the evaluation, since --images was given"}),
            "against separate passes": f"{text.separate_tokens / text.tokens:.2f} times fewer tokens",
            "FLOPs": f"{flops:.3g}",
            "time": time_at(flops, tflops),
            "store": f"{size_text(text.store_bytes + evaluated.store_bytes)} in {params.text.store_dtype}",
            "LLM in memory": f"{size_text(text.weight_bytes)} in {params.text.dtype}",
            "basis": start.basis,
        }
    }
    if params.cluster is not None:
        title, cost = _cluster_cost(params, params.cluster, shape, start.images)
        sections[title] = {
            "FLOPs": ", ".join(f"{part} {count:.2g}" for part, count in cost.flops.items()),
            "time of one core": core_time(sum(cost.flops.values())),
            "vectors read": size_text(cost.read_bytes),
            "memory": size_text(cost.memory),
            "labels and centroids": size_text(cost.stored_bytes),
            "work cache": size_text(cost.cache_bytes),
        }
    for section in _section_costs(params, layout, shape, start, tflops).values():
        sections |= section
    for name, recipe in params.train.items():
        cost = _training_cost(params, recipe, layout, shape, names, start.images, processes)
        if isinstance(cost, str):
            sections[f"training: {name}"] = {"not counted": cost}
            continue
        sections[f"training: {name}"] = {
            "trained weights": f"{cost.weights / 1e6:,.1f} M",
            "steps": f"{cost.steps:,} of {cost.batch_size:,} pictures",
            **({"of these": _auto(cost.chosen)} if cost.chosen else {}),
            "FLOPs": f"{cost.flops:.3g}",
            **({"teacher's vectors": _storing(cost.storing)} if cost.storing else {}),
            **_step(cost),
            "time": time_at(cost.flops, tflops, processes),
            "memory per process": f"{size_text(cost.memory)} ({cost.held:,} pictures held at once)",
            "of that": ", ".join(f"{part} {size_text(held)}" for part, held in cost.memory_parts.items()),
        }
    return sections


def _storing(cost: StoringCost) -> str:
    return f"{cost.flops:.3g} of the FLOPs, once, before the first step; {size_text(cost.bytes)} in the work cache"


def address_sections(params: Params, layout: Layout) -> dict[str, dict[str, str]]:
    """What lists of addresses are expected to give, a section each."""
    sections = {}
    for name, source in params.sources.items():
        if isinstance(source, UrlsSource):
            with suppress(InputError, OSError, ValueError):  # `flame params check` tells what is wrong
                rows = count_rows(layout.resolve(source.path), source.needed_columns)
                sections[f"addresses: {name}"] = expected(rows, source, settings().workers)
    return sections


def _auto(values: Mapping[str, float]) -> str:
    """`auto: batch_size 8, epochs 100`, or "" if nothing is `auto`."""
    return f"auto: {', '.join(f'{name} {value:,}' for name, value in values.items())}" if values else ""


def _cluster_cost(params: Params, cluster: ClusterParams, shape: LLMShape, images: int) -> tuple[str, ClusterCost]:
    """A title, and the cost of clustering the stored vectors; those of a teacher count as if they were stored."""
    from flame_core.clustering.cost import cluster_cost

    kinds = cluster.kinds or params.text.train_kinds
    names = facet_names(params.text) if cluster.reading == "facets" else sentence_names(params.text)
    vectors = 1 if cluster.vectors else sum(name.partition("/")[0] in kinds for name in names)
    return f"clusters: {cluster.clusters:,} of {images:,} samples", cluster_cost(
        cluster, images, shape.hidden, vectors, BYTES[params.text.store_dtype]
    )


def _section_costs(
    params: Params, layout: Layout, shape: LLMShape, start: Given, tflops: float
) -> dict[str, dict[str, dict[str, str]]]:
    """The costs of optional stages: {stage: {title: values}}."""
    found = section_costs(params, layout, start.images, tflops)
    return found | llm_section_costs(params, layout, shape, start, tflops)


def _training_cost(
    params: Params,
    recipe: TrainParams,
    layout: Layout,
    shape: LLMShape,
    names: Sequence[str],
    images: int,
    processes: int,
) -> TrainingCost | str:
    """The cost of a recipe's training, or why it cannot be counted yet."""
    from flame_core.planning.stand_ins import stand_ins
    from flame_core.training.adapted_cost import ReadLLM
    from flame_core.training.cost import training_cost
    from flame_core.training.linked_folders import UNLINKED, LinkedFolders

    linked = links(layout, recipe)
    slots = [names[i] for i in recipe_slots(names, recipe)]
    vocabulary = shape.vocabulary + 1  # a text tower has an additional end token
    count = partial(training_cost, recipe, shape.hidden, slots, processes=processes, vocabulary=vocabulary)
    if recipe.lora is not None:
        count = partial(count, llm=ReadLLM.of(params.text, shape))
    inherited = linked.pop("inherit", None)  # whose weights cost nothing: it need not be there
    if inherited is not None and not _is_of_params(inherited, params.train.get(recipe_of(recipe.inherit) or "")):
        inherited = None
    linked.pop("teacher", None)  # `_taught` finds it

    def finished(samples: int, extra: Mapping[str, Tensor], folders: LinkedFolders) -> TrainingCost | str:
        """The cost with all that is read, but for the teacher, which comes now."""

        def with_teacher(teacher: Path | None, values: Mapping[str, Tensor]) -> TrainingCost:
            known = replace(folders, teacher=teacher, inherited=inherited)
            return count(samples, extra={**extra, **values}, linked=known)

        if recipe.teacher is None:
            return with_teacher(None, {})
        return _taught(params, layout, recipe, shape, names, samples, with_teacher)

    if not linked:
        return finished(images, {}, UNLINKED)
    missing = [what for what, path in linked.items() if not path.exists()]
    if missing or not (layout.shards / INDEX).is_file():
        if (before := stand_ins(params, layout, shape, linked, images)) is not None:
            with TemporaryDirectory() as folder:
                return finished(before.samples, *before.write(Path(folder)))
        if missing:
            return f"{', '.join(missing)} of the recipe is not there yet"
        return "which samples it trains on is known after `flame ingest`"
    samples, extra = _linked_values(recipe, layout, linked)
    return finished(samples, extra, LinkedFolders.of(linked))


def _taught(
    params: Params,
    layout: Layout,
    recipe: TrainParams,
    shape: LLMShape,
    names: Sequence[str],
    images: int,
    count: Callable[[Path, Mapping[str, Tensor]], TrainingCost],
) -> TrainingCost | str:
    """The cost of a recipe with a teacher, which may not be trained yet, or be of another project.

    `count` takes the teacher's folder, and the values that are read of it.
    """
    from flame_core.objectives import recipe_needs
    from flame_core.suite.models.source import in_project, local_place
    from flame_core.training.teacher_stand_in import StandIn, foreign_teacher, stored_teacher, untrained_teacher

    folder = links(layout, recipe).get("teacher")
    source, taught = recipe.teacher and recipe.teacher.model, params.train.get(teacher_recipe(recipe) or "")
    if folder is not None and _is_of_params(folder, taught):
        stand_in = nullcontext(StandIn(folder, {}))
    elif source is not None:
        if local_place(source, layout) is None:
            return f"its teacher {source} is not on this machine: fetch it, and name its folder or file"
        stand_in = foreign_teacher(in_project(source, layout))
    elif taught is not None:
        stand_in = untrained_teacher(taught, shape.hidden, [names[i] for i in recipe_slots(names, taught)])
    else:
        return f"its teacher {folder} is not there yet"
    try:
        with stand_in as teacher:
            if not (recipe.crops and recipe_needs(recipe).taught):
                return count(teacher.folder, teacher.extra)
            with stored_teacher(recipe, teacher, images) as (stored, storing):
                return replace(count(stored.folder, stored.extra), storing=storing)
    except ResourceError as error:  # its package is not installed
        return str(error)


def _is_of_params(folder: Path, recipe: TrainParams | None) -> bool:
    """Whether a model is there, and is the one that this recipe trains, if it is one of the params' own.

    With a preset or overrides, the project's model of that name may be another.
    """
    if recipe is None or not folder.exists():
        return folder.exists()
    try:
        return json.loads((folder / CONFIG).read_text("utf-8"))["recipe"]["model"] == recipe.dump()["model"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _linked_values(recipe: TrainParams, layout: Layout, linked: Mapping[str, Path]) -> tuple[int, dict[str, Tensor]]:
    """The number of samples that a recipe with links trains on, and stored values of a few of them."""
    from flame_core.training.cost import PICTURES
    from flame_core.training.inputs import open_inputs

    inputs = open_inputs(recipe, linked, read_index(layout.shards, "train"), layout.shards)
    rows = [inputs.selected[number % len(inputs.selected)] for number in range(PICTURES)]
    places = [(row.shard, row.row) for row in rows]
    return len(inputs.selected), {name: sidecar.read(places) for name, sidecar in inputs.sidecars.items()}


def _step(cost: TrainingCost) -> dict[str, str]:
    """The cost of a step's computation, by part."""
    rows = {}
    flops = cost.step_flops
    for name, tower in cost.towers.items():
        item = "view" if tower is cost.image else "caption"
        rows[name] = (
            f"{flops[name] / sum(flops.values()):.1%} of the FLOPs; a picture has {_items(tower.items, item)} of "
            f"{tower.forward_flops / 1e9:,.1f} G forward, {_items(tower.forwards, 'forward')} and a backward"
        )
    if before := flops.get("before the towers"):
        rows["before the towers"] = (
            f"{before / sum(flops.values()):.1%} of the FLOPs: teachers and averages, forward only"
        )
    share = flops["objective"] / sum(flops.values())
    return {**rows, "objective": f"{share:.1%} of the FLOPs, {cost.objective.weights:,} weights"}


def _items(count: float, name: str) -> str:
    return f"{count:.3g} {name}{'' if count == 1 else 's'}"


def stage_costs(params: Params, layout: Layout, tflops: float | None) -> dict[str, str]:
    """What stages cost at most, {stage: text}: `embed`, optional stages, every training, and what `auto` stands for.

    With a rate in TFLOP/s, how long they take, too. {} if the number of pictures is not known yet.
    """
    seen = look(params, layout)
    if not seen.train:
        return {}
    start = given(params, layout, None, {})
    shape = read_shape(params, layout.llm / params.llm.name)
    text = text_cost(params, shape, start.images, start.lengths, start.count)
    evaluated = sum(evaluation_costs(params, layout, shape, start).values(), PartCost())
    names = slot_names(params.text)
    sizes = ingest_sizes_of(params, layout, seen)
    costs = {"ingest": _auto(sizes)} if sizes else {}
    tokens = f"{text.tokens + evaluated.tokens:,.0f} tokens, {text.tokens:,.0f} of them of training captions"
    costs |= {"embed": _cost(tokens, text.flops + evaluated.flops, tflops)}
    if params.cluster is not None:
        title, clustering = _cluster_cost(params, params.cluster, shape, start.images)
        costs["cluster"] = _cost(title, sum(clustering.flops.values()), None)
    for stage, section in _section_costs(params, layout, shape, start, tflops or CORE_TFLOPS).items():
        ((title, values),) = section.items()
        costs[stage] = f"{title}, {time_of(values)}"
    for name, recipe in params.train.items():
        cost = _training_cost(params, recipe, layout, shape, names, start.images, 1)
        costs[f"train@{name}"] = (
            f"not counted: {cost}"
            if isinstance(cost, str)
            else _cost(f"{cost.steps:,} steps of {cost.batch_size:,} pictures", cost.flops, tflops)
            + (f"; {_auto(cost.chosen)}" if cost.chosen else "")
        )
    return costs


def _cost(what: str, flops: float, tflops: float | None) -> str:
    return f"{what}, {flops:.3g} FLOPs" + (f", {time_at(flops, tflops)}" if tflops else "")
