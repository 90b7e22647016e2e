"""train@<recipe>: shards and embeddings -> `data/models/<recipe>/` (weights, config, one line of metrics per step)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_core import gates
from flame_core.data.key_selection import keys_digest
from flame_core.data.shards import INDEX, Index, read_index
from flame_core.data.sidecars import Sidecar
from flame_core.digest import file_sha256, json_bytes, value_digest
from flame_core.errors import InputError
from flame_core.files.whole_folders import scratch
from flame_core.graph.link_contents import link_contents, read_by_training, require_same_space, require_same_store
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.lexical.lexicon import count_words
from flame_core.lexical.text_side import TOP
from flame_core.pages.charts import line_chart, standalone
from flame_core.params import LexicalLossParams, Params, Reading, TrainParams
from flame_core.params.training import FEATURES
from flame_core.processes.nodes import nodes
from flame_core.reporting import curve, facts, picture
from flame_core.settings import settings
from flame_core.text.caption_source import CaptionSource, LLMSource
from flame_core.text.jobs import recipe_slots
from flame_core.text.llm import read_source
from flame_core.text.manifest import MANIFEST, require_training_fit, training_folder
from flame_core.text.sentence import SENTENCE
from flame_core.text.store import CENTER, TOKENIZER, TrainStore
from flame_core.tracking.run import track_training
from flame_core.training.job import METRICS, SIZES, TrainingJob
from flame_core.verification import Verified, verify
from flame_core.work import UnitRecord, WorkCache, gather


def run(params: Params, layout: Layout, recipe: str) -> None:
    """Train one recipe, or resume its training. Of several nodes, only the first writes the model and is tracked."""
    from flame_core.training.checkpoint import resumed_at
    from flame_core.training.inputs import open_inputs
    from flame_core.training.prompts_check import require_references
    from flame_core.training.recipe_check import require_recipe
    from flame_core.training.teacher_check import require_teachable
    from flame_core.training.teacher_texts import store_teacher_texts
    from flame_core.training.teacher_vectors import crop_folders, store_teacher_vectors
    from flame_core.vision.initial_weights import ABOUT, fetch_initial_weights
    from flame_core.vision.stored_features import require_same_tower
    from flame_core.vision.tower import CONFIG, WEIGHTS

    gates.require(layout.shards)
    gates.require(layout.train_embeddings)
    require_recipe(params, layout, recipe)
    written = params.train[recipe]
    small = {
        layout.shards: [INDEX],
        layout.captions: ["train/*"],  # whose digest the manifest holds
        layout.train_embeddings: [MANIFEST, CENTER, f"{SENTENCE}/{MANIFEST}", f"{SENTENCE}/{CENTER}"],
    }
    own = training_folder(layout.train_embeddings, written.reading)
    vectors = (own / "[0-9]*").relative_to(layout.train_embeddings).as_posix()
    large = {layout.shards: ["train/*"], layout.train_embeddings: [vectors]}
    if written.text_tower:
        small[layout.train_embeddings].append(TOKENIZER)
    needs = links(layout, written)
    linked = link_contents(needs)
    wanted = {folder: [*small.get(folder, []), *patterns] for folder, patterns in read_by_training(needs).items()}
    verified = verify({**small, **wanted})
    store = TrainStore(layout.embeddings)
    made = store.manifest_of(written.reading)
    require_training_fit(made, params, layout, written.reading)
    if "teacher" in needs:
        require_same_space(needs["teacher"], made)
    if written.inherit is not None and written.inherit.projector:
        require_same_space(needs["inherit"], made, "inherit")
    index = read_index(layout.shards, "train")
    _require_alignment(store, index, layout, written.reading)
    if (model := written.teacher and written.teacher.model) is not None:
        teacher = store_teacher_texts(params, layout, written, index, model)
        needs |= teacher.links
        linked["teacher"] = teacher.identity
        large[teacher.folder] = ["*"]
    initial = None if written.model.init is None else fetch_initial_weights(written.model, layout)
    if initial is not None:
        needs["init"], linked["init"] = initial.folder, initial.contents
    selected, sidecars, _ = open_inputs(written, needs, index, layout.shards)
    for sidecar in sidecars.values():
        require_same_store(sidecar, layout.train_embeddings)
    if written.reads_features:
        require_same_tower(sidecars[FEATURES], written, None if initial is None else initial.sha256)
    if "selection" in needs:
        linked["selection"] = keys_digest(selected)  # the same keys in another file are the same training
    chosen = written.fitted(len(selected))  # the digest, checkpoints and records have the values, never `auto`
    schedule = chosen.schedule(len(selected))
    slots = recipe_slots(store.facets, chosen)
    if "teacher" in needs and model is None:
        require_teachable(chosen, needs["teacher"], [store.facets[i] for i in slots])
    writes = {}
    if "prompts" in needs:
        names = [store.facets[i] for i in slots]
        writes = require_references(chosen, needs["prompts"], names, store.hidden, made["llm"])
    captions = _caption_source(params, layout) if chosen.text_tower or chosen.lora else None
    llm = _llm_source(params, layout, chosen, made, needs)
    if llm is not None:
        large[layout.llm] = [f"{llm.folder.name}/*"]
    data = {  # only training data: no texts, benchmarks or pictures of the evaluation
        "shards": index.digest(),
        "embeddings": file_sha256(own / MANIFEST),
        **linked,
    }
    cache = WorkCache(layout.work, "train")
    digest = cache.digest({"recipe": chosen.identity, "data": data})
    checkpoints = layout.work / "train-checkpoints" / digest
    config = {
        "recipe_name": recipe,
        "recipe": chosen.dump(),
        **({"auto": written.automatic} if written.automatic else {}),
        **({} if initial is None else {"init": json.loads((initial.folder / ABOUT).read_text("utf-8"))}),
        "hidden": store.hidden,
        **_words(chosen, sidecars),
        **({"dim": chosen.text_projection.dim} if chosen.text_projection and chosen.text_projection.dim else {}),
        **writes,
        "samples": len(selected),
        "facets": [store.facets[i] for i in slots],
        "text_facets": {kind: len(template.facets) for kind, template in params.text.template.items()},
        "llm": made["llm"],
        "layer": made["layer"],
        **({SENTENCE: made[SENTENCE]} if SENTENCE in made else {}),
        "data": data,
    }

    resumed: int | None = None
    where = nodes()

    def compute(folder: Path, journal: Path | None) -> None:
        nonlocal verified
        verified += _verify(large, checkpoints)
        vectors = {}
        if chosen.crops:
            teacher = needs["teacher"]
            stored = store_teacher_vectors(layout, chosen, index, selected, teacher, linked["teacher"])
            vectors = {"teacher": stored}
            large.update({crop: ["*"] for crop in crop_folders(stored)})
        job = TrainingJob(
            recipe=chosen,
            shards=layout.shards,
            embeddings=layout.embeddings,
            slots=slots,
            captions=captions,
            llm=llm,
            checkpoints=checkpoints,
            out=folder,
            journal=journal,
            links=needs | vectors,
        )
        if (processes := settings().train_processes) > 1 or where is not None:
            job.run_on(processes, where)
        else:
            job.run()
        verified += _verify(large, checkpoints)

    def write(folder: Path) -> UnitRecord:
        nonlocal resumed
        compute(folder, tracked.journal)
        resumed = resumed_at(checkpoints)
        steps = len((folder / METRICS).read_text("utf-8").splitlines())
        return UnitRecord({"steps": steps, "images": steps * schedule.batch_size})

    if where is not None and not where.first:
        if cache.find(digest) is None:
            with scratch(cache.folder) as folder:  # to which no rank of this node writes
                compute(folder, None)
        return
    with track_training(params, layout, recipe, chosen, digest) as tracked:
        unit = cache.find(digest) or cache.compute(digest, write)
        steps = [json.loads(line) for line in unit.file(METRICS).read_text("utf-8").splitlines()]
        tracked.trained(steps, unit.file(WEIGHTS))
    shutil.rmtree(checkpoints, ignore_errors=True)
    losses = _main_losses(steps, chosen)
    first, last = _ends(losses)
    checks = [_loss_went_down(first, last, chosen)]
    if SIZES in unit.names():
        config["sizes"] = json.loads(unit.file(SIZES).read_text("utf-8"))
    contents = {CONFIG: json_bytes(config), gates.CHECKS: gates.to_bytes(checks)}
    files = {name: unit.file(name) for name in unit.names() if name != SIZES}
    gather(layout.model(recipe), layout.state, files, contents, unit.sha256)
    facts(
        f"train@{recipe}",
        {
            "samples": len(selected),
            **{f"train.{name}": f"{getattr(chosen, name):,}, chosen for them" for name in written.automatic},
            "texts per picture": f"{min(chosen.texts_per_image, len(slots))} drawn of {len(slots)}",
            "steps": len(steps),
            "first / last loss": f"{first:.3f} / {last:.3f}",
            "from": "trained now" if unit.computed else "the work cache",
            **({} if resumed is None else {"resumed at step": resumed}),
            "verified": verified,
        },
    )
    gates.warn(checks)
    curve("loss", losses, "steps")
    picture(
        "loss, large",
        lambda: standalone(line_chart(range(len(losses)), losses, "Training loss by step", "step")),
        "svg+xml",
    )


def _words(recipe: TrainParams, sidecars: Mapping[str, Sidecar]) -> dict[str, int]:
    """For a recipe of words, how many there are and how many a text keeps, for the model's config."""
    if not isinstance(recipe.objective, LexicalLossParams):
        return {}
    sidecar = sidecars[recipe.objective.words]
    return {"words": count_words(sidecar.folder), TOP: sidecar.manifest.shape[-1]}


def _verify(inputs: Mapping[Path, Sequence[str]], checkpoints: Path) -> Verified:
    """Verify the inputs of a training; if they are damaged, move its checkpoints aside, which may be damaged too.

    Raises:
        InputError: names the damaged files, and the new place of the checkpoints.
    """
    try:
        return verify(inputs)
    except InputError as error:
        if not checkpoints.is_dir():
            raise
        aside = checkpoints.with_name(f"{checkpoints.name}.doubtful")
        shutil.rmtree(aside, ignore_errors=True)
        checkpoints.rename(aside)
        raise InputError(
            f"{error}\nIts checkpoints may come from the damaged data, so a new training begins from step 0; "
            f"they are kept in {aside}"
        ) from None


def _caption_source(params: Params, layout: Layout) -> CaptionSource:
    return CaptionSource(
        captions=layout.captions,
        tokenizer=layout.train_embeddings / TOKENIZER,
        text=params.text,
        language=params.evaluate.train_language,
    )


def _llm_source(
    params: Params, layout: Layout, recipe: TrainParams, made: Mapping[str, Any], needs: Mapping[str, Path]
) -> LLMSource | None:
    """For a recipe with adapters, the LLM that they are trained on.

    Raises:
        InputError: it has other files than the one that the embeddings were made with.
    """
    if recipe.lora is None or not isinstance(recipe.objective, LexicalLossParams):
        return None
    folder, digest = layout.llm / params.llm.name, made["llm"]["digest"]
    if value_digest(read_source(folder)["files"]) != digest:
        raise InputError(f"{folder} is another LLM than the embeddings were made with; run `flame embed`")
    return LLMSource(
        folder=folder, params=params.llm, digest=digest, lexicon=needs[f"sidecars.{recipe.objective.words}"]
    )


def _require_alignment(store: TrainStore, index: Index, layout: Layout, reading: Reading) -> None:
    """Refuse embeddings whose row counts are not those of the shards."""
    for shard, count in sorted(index.shard_sizes().items()):
        if (found := store.rows(shard, reading)) != count:
            raise InputError(f"{layout.embeddings}: {shard} has {found} rows for {count} samples; run `flame embed`")


def _main_losses(steps: Sequence[Mapping[str, float]], recipe: TrainParams) -> list[float]:
    """The loss of the recipe's `objective`, without its `terms`, in each step in which it counts."""
    name = f"loss/{recipe.objective.name}"
    shares = [[value for key, value in step.items() if key == name or key.startswith(f"{name}/")] for step in steps]
    if any(shares):
        return [sum(own) for own in shares if own]
    return [step["loss"] for step in steps]


def _ends(losses: list[float]) -> tuple[float, float]:
    """Mean loss over the first and the last twentieth of the steps."""
    window = max(1, len(losses) // 20)
    return sum(losses[:window]) / window, sum(losses[-window:]) / window


def _loss_went_down(first: float, last: float, recipe: TrainParams) -> gates.Check:
    return gates.Check(
        "loss_went_down",
        last / first < recipe.gates.max_loss_ratio,
        "mean loss of the last twentieth of the steps over that of the first",
        value=last / first,
        threshold=recipe.gates.max_loss_ratio,
    )
