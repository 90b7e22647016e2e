"""What recipes need beside shards, captions and embeddings, as stages of `dvc.yaml`.

`dvc.yaml` is the only DAG, and its stage `train@<recipe>` has the same dependencies for every recipe but for one:
`recipes/<recipe>.yaml`. So a recipe with a teacher, sidecars or a selection stands in `recipes/linked/`, and a stage
`link-<recipe>` that depends on what it needs makes `recipes/<recipe>.yaml` (docs/decisions/edges-between-models.md):

    link-student:
      cmd: flame link --recipe student
      deps: [data/models/flame]
      params: [{recipes/linked/student.yaml: null}]
      outs: [recipes/student.yaml]

Stages of sections that params may lack (`section_stages.py`) are treated likewise: they are in `dvc.yaml` if, and as,
params need them. So are deps that other stages have only with some params (`added_deps.py`).

In the project, people write that stage, and `require_links` says what to write. A workspace gets its own from
`linked_pipeline` and `linked_files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from flame_core.errors import ParamsError
from flame_core.graph.added_deps import added_dep_faults, with_added_deps
from flame_core.graph.opt_out_edges import advice, lacking, with_opt_out
from flame_core.graph.section_stages import SECTIONS, linked_place, relative, section_stages
from flame_core.layout import Layout
from flame_core.names import did_you_mean
from flame_core.params import Params, TrainParams, read_yaml, recipe_of
from flame_core.params.recipe_files import FOLDER, recipe_file

PIPELINE = "dvc.yaml"
LINK_STAGE = "link-"  # what the names of these stages begin with
_COMPARED = ("cmd", "deps", "params", "outs")


def links(layout: Layout, recipe: TrainParams) -> dict[str, Path]:
    """{what: path} of a recipe's needs.

    They are `teacher`, `inherit`, `init`, `sidecars.<name>`, `sampling`, `selection` and `prompts`.
    """
    found: dict[str, Path] = {}
    for what, link in (("teacher", recipe.teacher), ("inherit", recipe.inherit)):
        name = recipe_of(link)
        if link is not None and (name or link.path):  # a model of another project is no edge of the graph
            found[what] = layout.model(name) if name else linked_place(layout, link.path or "")
    if (init := recipe.model.init) is not None and init.kind == "path":
        found["init"] = linked_place(layout, init.place)
    found |= {f"sidecars.{name}": linked_place(layout, path) for name, path in sorted(recipe.sidecars.items())}
    if (source := recipe.sampling.source) is not None:
        found["sampling"] = linked_place(layout, source)
    if recipe.selection is not None:
        found["selection"] = linked_place(layout, recipe.selection)
    if recipe.prompts is not None:
        found["prompts"] = linked_place(layout, recipe.prompts)
    return found


def link_stage(layout: Layout, name: str, recipe: TrainParams) -> dict[str, Any]:
    """The stage that a recipe with links needs in `dvc.yaml`, without its name."""
    llm = [layout.llm] if recipe.lora else []  # whose content the store's manifest has, which the training reads
    return {
        "cmd": f"flame link --recipe {name}",
        "deps": relative(layout, [*links(layout, recipe).values(), *llm]),
        "params": [{f"recipes/{FOLDER}/{name}.yaml": None}],
        "outs": [f"recipes/{name}.yaml"],
        "meta": {"dagster": {"group": "model", "kinds": ["python"], "owners": ["team:models"]}},
    }


def link_stages(layout: Layout, params: Params) -> dict[str, dict[str, Any]]:
    """{name: stage} of the sections that need one (`section_stages`), and of all recipes that need one."""
    return section_stages(layout, params) | {
        f"{LINK_STAGE}{name}": link_stage(layout, name, recipe)
        for name, recipe in params.train.items()
        if links(layout, recipe)
    }


def require_stages(layout: Layout, targets: Sequence[str]) -> None:
    """Refuse targets that are no stage of `dvc.yaml` and no path, before DVC does it in its words.

    Raises:
        ParamsError: names the target, and all stages.
    """
    stages = stages_of(layout.root / PIPELINE)
    for target in targets:
        path = "/" in target or ":" in target or (layout.root / target).exists()
        known = path or target.partition("@")[0] in stages
        if stages and not known:
            section = target.replace("-", "_")
            optional = f" there is one if the params have a section `{section}`;" if section in SECTIONS else ""
            hint = optional or did_you_mean(target, stages)
            raise ParamsError(f"there is no stage {target!r};{hint} {layout.root / PIPELINE} has {', '.join(stages)}")


def require_links(layout: Layout, params: Params) -> None:
    """Refuse recipes whose links `dvc.yaml` does not hold, and links in it that no recipe has.

    Raises:
        ParamsError: names all of them, and says what to write or to remove; or `dvc.yaml` is no YAML.
    """
    pipeline = layout.root / PIPELINE
    stages = _as_written(pipeline) if pipeline.exists() else {}
    wanted, there = link_stages(layout, params), _link_stages_of(stages)
    reasons, to_write = _unwritten(layout, params, wanted, there)
    said = list(added_dep_faults(layout, params, stages, pipeline))
    if layout.opt_out.is_file() and (without := lacking(stages)):
        said.append(advice(pipeline, without))
    said += [*_left_over(layout, params, wanted, there), *reasons]
    if said:
        blocks = {stage: wanted[stage] for stage in to_write}
        raise ParamsError("\n".join(said) + (f" {_to_write(pipeline, blocks)}" if blocks else ""))


def _unwritten(
    layout: Layout, params: Params, wanted: Mapping[str, dict[str, Any]], there: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Why stages have to be written, and their names."""
    pipeline = layout.root / PIPELINE
    said, stages = [], []
    for section in SECTIONS:
        if section in wanted and not _equal(there.get(section), wanted[section]):
            said.append(f"{layout.params} has a section `{section}`, and {pipeline} does not say so.")
            stages.append(section)
    for name, recipe in params.train.items():
        file = recipe_file(layout.recipes, name)
        stage = f"{LINK_STAGE}{name}"
        linked = file.parent.name == FOLDER
        if stage in wanted and not (linked and _equal(there.get(stage), wanted[stage])):
            needs = ", ".join(f"{path} ({what})" for what, path in links(layout, recipe).items())
            move = "" if linked else f" Move it to {layout.recipes / FOLDER}/, from where DVC links it."
            said.append(f"{file} needs {needs}, and {pipeline} does not say so.{move}")
            stages.append(stage)
    return said, stages


def _left_over(
    layout: Layout, params: Params, wanted: Mapping[str, dict[str, Any]], there: Mapping[str, Any]
) -> list[str]:
    """What is to be removed or moved: stages that nothing needs, linked recipes without links."""
    pipeline = layout.root / PIPELINE
    said, told = [], set()
    for name in params.train:
        file = recipe_file(layout.recipes, name)
        stage = f"{LINK_STAGE}{name}"
        if file.parent.name == FOLDER and stage not in wanted:
            told.add(stage)
            said.append(
                f"{file} needs no teacher, sidecars or selection with these params: move it to {layout.recipes}/, and "
                f"remove the stage {stage} from {pipeline} if it is there"
            )
    strange = sorted(there.keys() - wanted.keys() - told)
    said += [
        f"{pipeline} has the stage {section}, and {layout.params} has no section `{section}`: write one, or remove the "
        "stage"
        for section in strange
        if section in SECTIONS
    ]
    if recipes := [stage for stage in strange if stage not in SECTIONS]:
        names = ", ".join(stage.removeprefix(LINK_STAGE) for stage in recipes)
        said.append(
            f"{pipeline} has the stage {', '.join(recipes)}, and no recipe {names} with links is listed under "
            f"`recipes` of {layout.params}: list it, or remove the stage"
        )
    return said


def _to_write(pipeline: Path, stages: Mapping[str, dict[str, Any]]) -> str:
    """What to do about stages that `dvc.yaml` lacks, or that say something else."""
    blocks = (
        yaml.safe_dump({name: content}, sort_keys=False, allow_unicode=True, default_flow_style=None)
        for name, content in stages.items()
    )
    text = "\n\n".join("\n".join(f"  {line}" for line in block.splitlines()) for block in blocks)
    return f"Write under `stages:` of {pipeline}, in place of any other {', '.join(stages)}:\n\n{text}\n"


def _as_written(pipeline: Path) -> dict[str, Any]:
    """The stages of a `dvc.yaml` that is there."""
    stages = read_yaml(pipeline).get("stages")
    return stages if isinstance(stages, dict) else {}


def stages_of(pipeline: Path) -> dict[str, Any]:
    """The stages of a `dvc.yaml`; none of a broken one, of which DVC tells the line."""
    try:
        return _as_written(pipeline)
    except ParamsError:
        return {}


def _link_stages_of(stages: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stage for name, stage in stages.items() if name in SECTIONS or str(name).startswith(LINK_STAGE)}


def _equal(found: Any, wanted: Mapping[str, Any]) -> bool:
    """Whether a stage says to DVC what it should; `desc` and `meta` are the writer's own."""
    if not isinstance(found, dict):
        return False
    deps = found.get("deps")
    here = {**found, "deps": sorted(map(str, deps))} if isinstance(deps, list) else found
    return all(here.get(key) == wanted[key] for key in _COMPARED)


def linked_pipeline(pipeline: bytes, layout: Layout, params: Params) -> bytes:
    """A `dvc.yaml` for the run in `layout`: its links are those of the recipes in `params` and no others."""
    content = _stages_in(pipeline)
    wanted = link_stages(layout, params)
    there = _link_stages_of(content["stages"])
    forgets = layout.opt_out.is_file() and bool(lacking(content["stages"]))
    changed = with_added_deps(content["stages"], layout, params) or forgets
    if not changed and there.keys() == wanted.keys() and all(_equal(there[n], stage) for n, stage in wanted.items()):
        return pipeline
    content["stages"] = {name: stage for name, stage in content["stages"].items() if name not in there} | wanted
    if forgets:
        content["stages"] = with_opt_out(content["stages"])
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def _stages_in(pipeline: bytes) -> dict[str, Any]:
    try:
        content = yaml.safe_load(pipeline)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"dvc.yaml is no YAML: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("stages"), dict):
        raise ParamsError("dvc.yaml has no `stages`: `flame upgrade` writes those that are missing")
    return content


def linked_files(recipes: Path, layout: Layout, params: Params) -> dict[str, bytes]:
    """{name in the run's folder: content} of all recipe files of the folder `recipes`, each where its links want it."""
    found: dict[str, bytes] = {}
    for path in [*recipes.glob("*.yaml"), *(recipes / FOLDER).glob("*.yaml")]:
        if path != recipe_file(recipes, path.stem):
            continue  # what a link made
        recipe = params.train.get(path.stem)
        linked = path.parent.name == FOLDER if recipe is None else bool(links(layout, recipe))
        found[f"recipes/{FOLDER}/{path.name}" if linked else f"recipes/{path.name}"] = path.read_bytes()
    return found
