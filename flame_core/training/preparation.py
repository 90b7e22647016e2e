"""A training before its first step: its inputs, checked against each other, and what identifies it.

Small inputs (manifests, captions, configs) are verified here. Large ones (pictures, vectors, the weights of an LLM) are
listed for whoever reads them, since a training that is found in the work cache reads none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flame_core import gates
from flame_core.data.key_selection import keys_digest
from flame_core.data.shards import INDEX, Index, read_index
from flame_core.data.sidecars import Sidecar
from flame_core.digest import file_sha256, value_digest
from flame_core.errors import InputError
from flame_core.graph.link_contents import link_contents, read_by_training, require_same_space, require_same_store
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.lexical.lexicon import count_words
from flame_core.lexical.text_side import TOP
from flame_core.objectives import recipe_needs
from flame_core.params import LexicalLossParams, Params, TrainParams
from flame_core.params.sampling import CappedSampling
from flame_core.params.training import FEATURES
from flame_core.text.caption_source import CaptionSource, LLMSource
from flame_core.text.jobs import recipe_slots
from flame_core.text.llm import read_source
from flame_core.text.manifest import MANIFEST, require_training_fit, training_folder
from flame_core.text.sentence import SENTENCE
from flame_core.text.store import CENTER, TOKENIZER, TrainStore
from flame_core.training.inputs import open_inputs
from flame_core.training.job import TrainingJob
from flame_core.training.prompts_check import require_references
from flame_core.training.recipe_check import require_recipe
from flame_core.training.teacher_check import require_teachable
from flame_core.training.teacher_texts import store_teacher_texts
from flame_core.training.teacher_vectors import store_teacher_vectors
from flame_core.verification import Verified, verify
from flame_core.vision.initial_weights import ABOUT, fetch_initial_weights
from flame_core.vision.stored_features import require_same_tower


@dataclass(frozen=True)
class PreparedTraining:
    """A training whose inputs fit together.

    Attributes:
        layout: of the run.
        recipe: with values in place of every `auto`.
        automatic: names of those values.
        index: all rows of the training split.
        selected: the samples to train on.
        needs: what the recipe is linked to, with the folders of its foreign teacher and of its initial weights.
        linked: their contents, which identify them wherever they lie.
        slots: columns of a sample's row in the store that texts are drawn from.
        captions: for recipes with a text tower, or adapters on the LLM.
        llm: for recipes with adapters.
        config: of the model's folder, as far as it is known before the training; `data` are digests of the inputs.
        large: files to verify before they are read, and after.
        verified: the small files, already.
    """

    layout: Layout
    recipe: TrainParams
    automatic: Sequence[str]
    index: Index
    selected: Index
    needs: dict[str, Path]
    linked: dict[str, Any]
    slots: list[int]
    captions: CaptionSource | None
    llm: LLMSource | None
    config: dict[str, Any]
    large: dict[Path, list[str]]
    verified: Verified

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the weights."""
        foreign = self.recipe.teacher is not None and self.recipe.teacher.model is not None
        follow = self.recipe.noise and (foreign or recipe_needs(self.recipe).sidecars)
        moved = {"moved": ["texts", "sidecars"]} if follow else {}
        some = self.recipe.selection is not None and isinstance(self.recipe.sampling, CappedSampling)
        counted = {"counted": "in selected samples"} if some else {}
        return {"recipe": self.recipe.identity, "data": self.config["data"], **moved, **counted}

    @property
    def batch_size(self) -> int:
        """Pictures of a step."""
        return self.recipe.schedule(len(self.selected)).batch_size

    def store_crops(self) -> Path | None:
        """The folder of the teacher's vectors of stored crops, made if it is not there; None: the recipe has none."""
        if not self.recipe.crops:
            return None
        teacher, identity = self.needs["teacher"], self.linked["teacher"]
        return store_teacher_vectors(self.layout, self.recipe, self.index, self.selected, teacher, identity)

    def job(self, out: Path, checkpoints: Path, journal: Path | None, crops: Path | None) -> TrainingJob:
        """The training itself, which writes to the folder `out`; stored crops take the teacher's place."""
        return TrainingJob(
            recipe=self.recipe,
            shards=self.layout.shards,
            embeddings=self.layout.embeddings,
            slots=self.slots,
            captions=self.captions,
            llm=self.llm,
            checkpoints=checkpoints,
            out=out,
            journal=journal,
            links=self.needs | ({} if crops is None else {"teacher": crops}),
        )

    def facts(self) -> dict[str, Any]:
        """What to show about it."""
        return {
            "samples": len(self.selected),
            **{f"train.{name}": f"{getattr(self.recipe, name):,}, chosen for them" for name in self.automatic},
            "texts per picture": f"{min(self.recipe.texts_per_image, len(self.slots))} drawn of {len(self.slots)}",
        }


def prepare(params: Params, layout: Layout, name: str) -> PreparedTraining:
    """Check a recipe and all that it trains on.

    Only training data decide about it: no texts, benchmarks or pictures of the evaluation. The vectors that a foreign
    teacher has of the training captions, and initial weights that are not there yet, are stored here.

    Raises:
        ParamsError: the recipe cannot be trained, as `flame params check` says.
        InputError: an input is missing or damaged, or does not fit the others or the params.
        GateError: an input failed a check.
    """
    gates.require(layout.shards)
    gates.require(layout.train_embeddings)
    require_recipe(params, layout, name)
    recipe = params.train[name]
    needs = links(layout, recipe)
    linked = link_contents(needs)
    small, large = _files(layout, recipe, needs)
    verified = verify(small)
    store = TrainStore(layout.embeddings)
    manifest = store.manifest_of(recipe.reading)
    index = read_index(layout.shards, "train")
    _require_store(store, manifest, params, layout, recipe, needs, index)
    foreign = recipe.teacher and recipe.teacher.model
    if foreign is not None:
        teacher = store_teacher_texts(params, layout, recipe, index, foreign)
        needs |= teacher.links
        linked["teacher"] = teacher.identity
        large[teacher.folder] = ["*"]
    initial = None if recipe.model.init is None else fetch_initial_weights(recipe.model, layout)
    if initial is not None:
        needs["init"], linked["init"] = initial.folder, initial.contents
    selected, sidecars, _ = open_inputs(recipe, needs, index, layout.shards)
    for sidecar in sidecars.values():
        require_same_store(sidecar, layout.train_embeddings)
    if recipe.reads_features:
        require_same_tower(sidecars[FEATURES], recipe, None if initial is None else initial.sha256)
    if "selection" in needs:
        linked["selection"] = keys_digest(selected)  # the same keys in another file are the same training
    chosen = recipe.fitted(len(selected))  # the digest, checkpoints and records have the values, never `auto`
    slots = recipe_slots(store.facets, chosen)
    facets = [store.facets[i] for i in slots]
    if "teacher" in needs and foreign is None:
        require_teachable(chosen, needs["teacher"], facets)
    llm = _llm_source(params, layout, chosen, manifest, needs)
    if llm is not None:
        large[layout.llm] = [f"{llm.folder.name}/*"]
    own = training_folder(layout.train_embeddings, recipe.reading)
    config = {
        "recipe_name": name,
        "recipe": chosen.dump(),
        **({"auto": recipe.automatic} if recipe.automatic else {}),
        **({} if initial is None else {"init": json.loads((initial.folder / ABOUT).read_text("utf-8"))}),
        "hidden": store.hidden,
        **_words(chosen, sidecars),
        **({"dim": chosen.text_projection.dim} if chosen.text_projection and chosen.text_projection.dim else {}),
        **_references(chosen, needs, facets, store.hidden, manifest),
        "samples": len(selected),
        "facets": facets,
        "text_facets": {kind: len(template.facets) for kind, template in params.text.template.items()},
        "llm": manifest["llm"],
        "layer": manifest["layer"],
        **({"center": center} if (center := manifest.get("center", "none")) != "none" else {}),
        **({SENTENCE: manifest[SENTENCE]} if SENTENCE in manifest else {}),
        "data": {"shards": index.digest(), "embeddings": file_sha256(own / MANIFEST), **linked},
    }
    return PreparedTraining(
        layout=layout,
        recipe=chosen,
        automatic=recipe.automatic,
        index=index,
        selected=selected,
        needs=needs,
        linked=linked,
        slots=slots,
        captions=_caption_source(params, layout, chosen) if chosen.text_tower or chosen.lora else None,
        llm=llm,
        config=config,
        large=large,
        verified=verified,
    )


def _files(
    layout: Layout, recipe: TrainParams, needs: Mapping[str, Path]
) -> tuple[dict[Path, list[str]], dict[Path, list[str]]]:
    """({folder: patterns} of the files that are always read, and of those that only a training reads)."""
    small = {
        layout.shards: [INDEX],
        layout.captions: ["train/*"],  # whose digest the manifest holds
        layout.train_embeddings: [MANIFEST, CENTER, f"{SENTENCE}/{MANIFEST}", f"{SENTENCE}/{CENTER}"],
    }
    if recipe.text_tower:
        small[layout.train_embeddings].append(TOKENIZER)
    for folder, patterns in read_by_training(needs).items():
        small[folder] = [*small.get(folder, []), *patterns]
    own = training_folder(layout.train_embeddings, recipe.reading)
    vectors = (own / "[0-9]*").relative_to(layout.train_embeddings).as_posix()
    return small, {layout.shards: ["train/*"], layout.train_embeddings: [vectors]}


def _require_store(
    store: TrainStore,
    manifest: dict[str, Any],
    params: Params,
    layout: Layout,
    recipe: TrainParams,
    needs: Mapping[str, Path],
    index: Index,
) -> None:
    """Refuse embeddings that belong to other params, to another space than linked models, or to other shards."""
    require_training_fit(manifest, params, layout, recipe.reading)
    if "teacher" in needs:
        require_same_space(needs["teacher"], manifest)
    if recipe.inherit is not None and recipe.inherit.projector:
        require_same_space(needs["inherit"], manifest, "inherit")
    for shard, count in sorted(index.shard_sizes().items()):
        if (found := store.rows(shard, recipe.reading)) != count:
            raise InputError(f"{layout.embeddings}: {shard} has {found} rows for {count} samples; run `flame embed`")


def _references(
    recipe: TrainParams, needs: Mapping[str, Path], facets: Sequence[str], hidden: int, manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """For a recipe with learned prompts, what its model records about them."""
    if "prompts" not in needs:
        return {}
    return require_references(recipe, needs["prompts"], facets, hidden, manifest["llm"])


def _words(recipe: TrainParams, sidecars: Mapping[str, Sidecar]) -> dict[str, int]:
    """For a recipe of words, how many there are and how many a text keeps, for the model's config."""
    if not isinstance(recipe.objective, LexicalLossParams):
        return {}
    sidecar = sidecars[recipe.objective.words]
    return {"words": count_words(sidecar.folder), TOP: sidecar.manifest.shape[-1]}


def _caption_source(params: Params, layout: Layout, recipe: TrainParams) -> CaptionSource:
    """The captions of the recipe's kinds alone, which all lie in memory."""
    kinds = [kind for kind in params.text.train_kinds if kind in recipe.kinds]
    return CaptionSource(
        captions=layout.captions,
        tokenizer=layout.train_embeddings / TOKENIZER,
        text=params.text.model_copy(update={"train_kinds": kinds}),
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
