"""What does not fit together between an optional section, such as `cluster`, and the rest of the params."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from os.path import normpath
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from flame_core.language_names import without_variant
from flame_core.params.concepts import HELD_OUT_CLASSES
from flame_core.params.model_links import recipe_of, with_sources
from flame_core.params.sampling import COUNTED

if TYPE_CHECKING:
    from flame_core.params.prompts import PromptsParams
    from flame_core.params.whole import Params

SIMILARITY, FEATURES = "data/sidecars/similarity", "data/sidecars/features"  # which stages of the pipeline make

Misfit = tuple[tuple[str, ...], str]  # a key, and why its value does not fit to others


def optional_section_misfits(params: Params) -> Iterator[Misfit]:
    """All of them."""
    for find in (
        _impossible_clusters,
        _impossible_words,
        _impossible_adapters,
        _impossible_adaptations,
        _impossible_prompts,
        _impossible_alignments,
        _impossible_concepts,
        _impossible_fits,
        _impossible_selections,
        _impossible_scores,
        _impossible_heads,
        _impossible_captioners,
    ):
        yield from find(params)


def _impossible_clusters(params: Params) -> Iterator[Misfit]:
    if (cluster := params.cluster) is None or cluster.vectors is not None:
        return
    if missing := [kind for kind in cluster.kinds or [] if kind not in params.text.train_kinds]:
        yield ("cluster", "kinds"), f"cluster.kinds has {missing}, which text.train_kinds does not embed"
    if cluster.reading == "sentence" and params.text.sentence is None:
        yield ("cluster", "reading"), "cluster.reading is sentence, and text.sentence is null: say there how"


def _impossible_words(params: Params) -> Iterator[Misfit]:
    if params.lexical is None:
        return
    if missing := [kind for kind in params.lexical.kinds if kind not in params.text.train_kinds]:
        yield ("lexical", "kinds"), f"lexical.kinds has {missing}, which text.train_kinds does not embed"
    sentence = params.text.sentence
    if sentence is None or sentence.read != "last" or not sentence.final_norm:
        yield (
            ("lexical",),
            "lexical needs text.sentence with read: last, final_norm: true and the LLM's last layer: words come "
            "from what the LLM would say next",
        )
    if params.text.center != "none":
        yield ("text", "center"), "lexical needs text.center none; lexical.center removes what captions share"


def _impossible_adapters(params: Params) -> Iterator[Misfit]:
    sentence = params.text.sentence
    names = [name for name, recipe in params.train.items() if recipe.lora is not None]
    if names and (sentence is None or sentence.read != "last" or not sentence.final_norm or sentence.bidirectional):
        yield (
            ("text", "sentence"),
            f"{names[0]} trains adapters on the LLM (lora), which needs text.sentence with read: last, final_norm: "
            "true and bidirectional: false",
        )
    if names and params.text.dtype == "float8":
        yield ("text", "dtype"), f"{names[0]} trains adapters on the LLM (lora), which needs bfloat16 or float32"


def _impossible_adaptations(params: Params) -> Iterator[Misfit]:
    if (chosen := params.adapt_llm) is None:
        return
    if missing := [kind for kind in chosen.kinds if kind not in params.text.template]:
        yield ("adapt_llm", "kinds"), f"adapt_llm.kinds has {missing}, which text.template does not hold"
    if chosen.reading == "sentence" and params.text.sentence is None:
        yield ("adapt_llm", "reading"), "adapt_llm.reading is sentence, and text.sentence is null: say there how"
    if params.text.dtype == "float8":
        yield ("text", "dtype"), "adapt_llm trains adapters on the LLM, which needs bfloat16 or float32"
    words = [name for name, recipe in params.train.items() if recipe.lora is not None]
    if params.lexical is not None or words:
        yield (
            ("adapt_llm",),
            "adapt_llm changes what the LLM would say next, which lexical and recipes with lora read: unset either",
        )


def _impossible_prompts(params: Params) -> Iterator[Misfit]:
    if (prompts := params.prompts) is None:
        return
    if missing := [kind for kind in prompts.kinds if kind not in params.text.train_kinds]:
        yield ("prompts", "kinds"), f"prompts.kinds has {missing}, which text.train_kinds does not embed"
    if prompts.encoder is None and prompts.reading == "sentence" and params.text.sentence is None:
        yield ("prompts", "reading"), "prompts.reading is sentence, and text.sentence is null: say there how"


def _impossible_concepts(params: Params) -> Iterator[Misfit]:
    if (concepts := params.concepts) is None:
        return
    known = {HELD_OUT_CLASSES, *params.evaluate.benchmarks.names}
    if strange := [name for name in concepts.benchmarks if name not in known]:
        yield (
            ("concepts", "benchmarks"),
            f"concepts.benchmarks has {strange}; known are {', '.join(sorted(known))} (those of "
            "evaluate.benchmarks.names)",
        )
    if missing := [kind for kind in concepts.kinds if kind != "raw" and getattr(params.caption, kind) is None]:
        yield ("concepts", "kinds"), f"concepts.kinds has {missing}, which the section caption does not make"
    if concepts.nouns is not None and without_variant(params.evaluate.train_language) != "en":
        yield ("concepts", "nouns"), "concepts.nouns are found in English captions only: give a file of concepts"
    if concepts.tower is not None and concepts.tower not in params.train:
        yield (
            ("concepts", "images", "tagger", "recipe"),
            f"concepts.images.tagger: {concepts.tower} is not among the recipes; list it under recipes",
        )
    elif concepts.tower is not None:
        for name in with_sources(params.train, concepts.tower):
            if params.train[name].sampling.source in COUNTED:
                yield (
                    ("concepts", "images", "tagger", "recipe"),
                    f"concepts.images.tagger: {name} draws its samples by these counts, so neither can be first; take "
                    "another recipe",
                )


def _impossible_fits(params: Params) -> Iterator[Misfit]:
    if (fit := params.concept_fit) is None:
        return
    if params.concepts is None:
        yield ("concept_fit",), "concept_fit reads what the section concepts makes: write that section too"
    elif fit.frequency != "text" and params.concepts.images is None:
        yield (
            ("concept_fit", "frequency"),
            f"concept_fit.frequency is {fit.frequency}: say in concepts.images how pictures are tagged",
        )
    for name in fit.recipes:
        if name not in params.train:
            yield (
                ("concept_fit", "recipes"),
                f"concept_fit.recipes: {name} is not among the recipes; list it under recipes",
            )


def _impossible_alignments(params: Params) -> Iterator[Misfit]:
    if (prompts := params.prompts) is None:
        return
    for name, recipe in params.train.items():
        if recipe.prompts is None or normpath(recipe.prompts) != "data/prompts":
            continue
        connector = recipe.model.connector
        if prompts.encoder is not None:
            yield (
                ("prompts", "encoder"),
                f"recipe {name} is aligned with prompts of stored vectors, and prompts.encoder reads captions: set it "
                "to null",
            )
        if connector is not None and connector.prompts != prompts.count:
            yield (
                ("train", name, "model", "connector", "prompts"),
                f"recipe {name} has {connector.prompts} prompts per picture, and prompts.count is {prompts.count}: set "
                "both to the same number",
            )
        if recipe.reading != prompts.reading:
            yield (
                ("train", name, "reading"),
                f"recipe {name} draws {recipe.reading}, and prompts.reading is {prompts.reading}: give both the same",
            )
        elif misfit := _without_prompts(params, name, recipe.kinds, prompts):
            yield ("train", name, "kinds"), misfit


def _without_prompts(params: Params, name: str, drawn: Sequence[str], prompts: PromptsParams) -> str | None:
    """Why a recipe draws texts for which the section `prompts` has no reference prompts, and what to set."""
    facets = {kind: len(template.facets) for kind, template in params.text.template.items()}
    whole = prompts.reading == "sentence"  # else prompts follow from the first facet of a caption
    usable = [kind for kind in drawn if kind in prompts.kinds and (whole or facets.get(kind, 1) == 1)]
    strange = [kind for kind in drawn if kind not in usable]
    if not strange:
        return None
    parts = [
        f"{kind} (its {facets[kind]} facets; prompts are of the first one)" if kind in prompts.kinds else kind
        for kind in strange
    ]
    way = (
        f"set train.by_recipe.{name}.kinds to [{', '.join(usable)}]"
        if usable
        else f"let the recipe draw one of prompts.kinds ({', '.join(prompts.kinds)}) that has one facet"
    )
    return f"recipe {name} draws captions that have no prompts: {', '.join(parts)}; {way}"


def _impossible_captioners(params: Params) -> Iterator[Misfit]:
    if (chosen := params.caption_lm) is None:
        return
    if (name := recipe_of(chosen)) is not None and name not in params.train:
        yield ("caption_lm", "recipe"), f"caption_lm: {name} is not among the recipes; list it under recipes"
    elif name is not None and chosen.start == "aligned" and params.train[name].model.connector is None:
        yield (
            ("caption_lm", "recipe"),
            f"caption_lm.start is aligned, and the recipe {name} has no connector: take one with the term prompts, or "
            "start unaligned",
        )
    if strange := [kind for kind in chosen.kinds if kind != "raw" and getattr(params.caption, kind) is None]:
        yield ("caption_lm", "kinds"), f"caption_lm.kinds has {strange}, which the section caption does not make"


def _impossible_scores(params: Params) -> Iterator[Misfit]:
    if (scores := params.scores) is None:
        return
    for scorer, tower in ((name, each.recipe) for name, each in scores.scorers.items() if each.kind == "tower"):
        key = ("scores", "scorers", scorer, "recipe")
        if tower not in params.train:
            yield key, f"scores.scorers.{scorer}: {tower} is not among the recipes; list it under recipes"
            continue
        for name in with_sources(params.train, tower):
            recipe = params.train[name]
            read = [recipe.selection, recipe.sampling.source, *recipe.sidecars.values()]
            if any(normpath(path).startswith(("data/scores/", "data/sidecars/score-")) for path in read if path):
                yield (
                    key,
                    f"scores.scorers.{scorer}: {name} is trained by these scores, so neither can be first: take "
                    "another tower",
                )


def _impossible_heads(params: Params) -> Iterator[Misfit]:
    if (tune := params.tune) is None:
        return
    known: list[tuple[str, list[str], Collection[str], str]] = [
        ("recipes", tune.recipes, params.train, "recipes"),
        ("probed", tune.probed, params.train, "recipes"),
        ("baselines", tune.baselines, params.evaluate.baselines, "evaluate.baselines"),
        ("domains", tune.domains, params.domains or {}, "domains"),
    ]
    for key, names, there, where in known:
        if missing := sorted(set(names) - set(there)):
            yield ("tune", key), f"tune.{key} has {', '.join(missing)}, which {where} does not list"


def _impossible_selections(params: Params) -> Iterator[Misfit]:
    if params.select is not None and params.codes is None:
        yield ("select",), "select clusters what the stage `codes` makes: write a section codes as well"
    for name, each in (params.select.selections if params.select is not None else {}).items():
        stored = params.codes is not None and params.codes.similarity
        if each.filter is not None and normpath(each.filter.scores) == SIMILARITY and not stored:
            yield (
                ("select", "selections", name, "filter", "scores"),
                f"selection {name} reads {SIMILARITY}, which only codes.similarity: true makes: set it, or name other "
                "scores",
            )
    if params.semdedup is not None and normpath(params.semdedup.vectors) == FEATURES and params.features is None:
        yield (
            ("semdedup", "vectors"),
            f"semdedup reads {FEATURES}, which the stage `features` makes: write its section, or name other vectors",
        )
    if params.select is not None and params.select.counted == "concepts" and params.concepts is None:
        yield (
            ("select", "counted"),
            "select.counted is concepts, which the stage `concepts` counts: write its section",
        )
    for section, out in ((params.codes, "codes"), (params.select, "selections")):
        if section is not None and section.frozen is not None and normpath(section.frozen) == f"data/{out}":
            key = "codes" if out == "codes" else "select"
            yield (key, "frozen"), f"{key}.frozen is this run's own out: copy it elsewhere, and name the copy"
    if params.codes is None or (tower := params.codes.tower.recipe) is None:
        return
    if tower not in params.train:
        yield ("codes", "tower", "recipe"), f"codes.tower: {tower} is not among the recipes; list it under recipes"
        return
    for name in with_sources(params.train, tower):
        selection = params.train[name].selection
        if selection is not None and PurePosixPath(normpath(selection)).parts[:2] == ("data", "selections"):
            yield (
                ("codes", "tower", "recipe"),
                f"codes.tower is {tower}, and {name} is trained on a selection by these codes, so neither can be "
                "first: take another tower, or train that recipe on all samples",
            )
