"""What to do about a failed check: the param that holds its threshold, likely causes, and how to go on.

These texts are printed and shown only. `checks.json` says what was measured, and is an out.
"""

from __future__ import annotations

from typing import NamedTuple

GO_ON = "flame run"


class Remedy(NamedTuple):
    """How to go on after a failed check.

    Attributes:
        causes: each with what to do, the most likely first.
        param: the key that holds the threshold; None if it is none.
    """

    causes: tuple[str, ...]
    param: str | None = None


_DAMAGED = "an out was changed or damaged after it was made: `dvc checkout` restores it"
_OWN_FAULT = "a fault of this program: please report it with the examples"
_PRESENT = "captions were made for other shards: `flame caption` makes them anew"
_FAILED = Remedy(
    (
        "the captioner's model does not suit these pictures or texts: look at the examples in data/captions",
        "a server failed or refused: data/captions/answers says why; `flame caption --retry-failed` asks it again",
        "it ran out of memory: lower `batch_size` of the captioner, then `flame caption --retry-failed`",
        "caption.<kind> is not needed: set it to null, and take the kind out of text.train_kinds",
    ),
    "caption.gates.max_failed_fraction",
)
_ALIKE = Remedy(
    (
        "the pairs have little to tell apart (few words, no category or keywords): give more metadata, or another "
        "captioner",
        "the prompt of the captioner makes it repeat itself: change caption.<kind>.prompt",
        "caption.<kind> is not needed: set it to null, and take the kind out of text.train_kinds",
    ),
    "caption.gates.max_identical_fraction",
)
_SAMPLES = "there are few pairs: add more, or set ingest.val_fraction so that both splits have enough, such as to auto"
_SPLIT = "pairs with equal captions are in one split, and there are few different captions: set `group_field`"
_INACTIVE = (
    "the chosen weights are too small to do this: heads.html shows what larger ones do; raise tune.factors",
    "the terms pull against each other: COV raises both SVDE and LSVR, and SVD lowers both",
    "there are fewer validation pictures than dimensions: raise tune.validation",
)

_RECOUNT = Remedy((_OWN_FAULT, _DAMAGED))
REMEDIES: dict[str, Remedy] = {
    "success": Remedy(
        (
            "pages have gone away since the list was made, as is usual: look at the reasons in attempts.parquet of the "
            "source, and lower min_success if they are final",
            "the network or a host was down: `flame download --retry-failed` asks again for what failed",
            "a host refuses so many requests: lower per_host of the source",
        ),
        "sources.<name>.min_success",
    ),
    "features_differ": Remedy(
        (
            "the file holds other weights than the backbone's, or features.model.pixels are not those of its training",
            "the pictures are nearly all alike: look at data/shards/contact_sheet.jpg",
        ),
        "features.gates.max_cosine",
    ),
    "baselines_read": Remedy(
        (
            "the folder or file holds another kind of model: `flame docs evaluation` lists the kinds that are read",
            "the download is incomplete: fetch it anew",
            "it is not needed: take it out of evaluate.baselines",
        )
    ),
    "pairs": Remedy(
        (
            "`path` or `table` of the source names another place than its pictures and captions",
            "captions have another column, field or suffix than the source says: `flame docs params`, Your own pairs",
            "pictures are of a kind that is not read, such as .heic: convert them",
        )
    ),
    "readable": Remedy(
        (
            "files were cut while they were copied: copy those that are named again",
            "texts are in another encoding: set `encoding` of the source, such as cp1252",
        )
    ),
    "keys_unique": Remedy((_OWN_FAULT,)),
    "samples_decode": Remedy(("the disk is full or unsound: check it, then `flame ingest`", _OWN_FAULT)),
    "kept_fraction": Remedy(
        (
            "many pairs lack their picture or caption, or repeat one another: data/shards/ledger.parquet says which",
            "captions are in another encoding or language code than the source says",
            "near-duplicates are wanted, such as frames of a film: set ingest.near_duplicate_distance to -1",
        ),
        "ingest.gates.min_kept_fraction",
    ),
    "train_samples": Remedy((_SAMPLES, _SPLIT), "ingest.gates.min_train_samples"),
    "val_samples": Remedy((_SAMPLES, _SPLIT), "ingest.gates.min_val_samples"),
    "languages": Remedy(
        (
            "the held-out split is small: raise ingest.val_fraction, or set it to auto",
            "val_shards or the pairs' own splits put one language into training only",
        ),
        "ingest.gates.min_val_samples",
    ),
    "pictures_disjoint": Remedy(
        ("the source's own split has the same picture on both sides: remove one, or leave the split to a hash",)
    ),
    "captions_disjoint": Remedy(
        ("the source's own split has the same caption on both sides: remove one, or set `group_field`",)
    ),
    "looks_disjoint": Remedy(
        (
            "the source's own split has near-duplicates on both sides: remove one of each pair",
            "different pictures look alike, such as drawings on white: lower ingest.near_duplicate_distance",
        ),
        "ingest.near_duplicate_distance",
    ),
    "sources_readable": Remedy(("files were cut while they were copied: copy those that are named again",)),
    "samples_present": Remedy((_PRESENT, _DAMAGED)),
    "raw_present": Remedy(("captions of these samples are empty after they were cleaned: correct or remove them",)),
    **{f"{kind}_failed": _FAILED for kind in ("short", "long")},
    **{f"{kind}_{fault}": _ALIKE for kind in ("short", "long") for fault in ("copied", "repeated")},
    "embeddings_unit_norm": Remedy(
        (
            "numbers overflow in text.dtype: set it to float32",
            "text.layer is one that the LLM leaves unused, or its weights are damaged: `flame fetch-llm`",
        )
    ),
    "embeddings_aligned": Remedy((_PRESENT, _DAMAGED)),
    "facets_differ": Remedy(
        (
            "the facets of text.template ask the same: change their words",
            "text.layer is too early for the LLM to answer: take a later one",
            "the LLM is too small to tell facets apart: use one facet per kind, or another LLM",
        ),
        "text.gates.max_facet_cosine",
    ),
    "clusters_filled": Remedy(
        ("many captions are the same, or there are too few for so many clusters: lower cluster.clusters",),
        "cluster.gates.max_empty_fraction",
    ),
    "clusters_balanced": Remedy(
        (
            "many captions are the same, such as `untitled`: clusters.html shows which; mend or remove them",
            "there are too few clusters for captions so different: raise cluster.clusters",
        ),
        "cluster.gates.max_over_mean",
    ),
    "words_overused": Remedy(
        (
            "words that say nothing are in most captions: set lexical.center to true",
            "captions are much alike, such as `a drawing of ...`: this is then no fault",
            "lexical.top is large for so few words: lower it",
        ),
        "lexical.gates.max_word_share",
    ),
    "words_recalled": Remedy(
        (
            "the prompt does not ask for words of the caption: change text.sentence.prompt (docs/words.md)",
            "the LLM is small: a larger one says more words of its own",
        ),
        "lexical.gates.min_recall",
    ),
    "prompts_reconstruct": Remedy(
        (
            "training was too short, or there are too few captions: the stage's page shows learned and held-out ones "
            "side by side; raise prompts.steps, or add captions (no pictures are needed)",
            "the LLM does not expect to write a caption: put prompts and caption into a turn of its chat template "
            "(prompts.template, docs/captions-from-pictures.md)",
            "the vectors do not hold what captions say: take prompts.reading sentence, or write prompts.encoder: {}",
            "captions are longer than the prompts can say: raise prompts.count",
        ),
        "prompts.gates.min_overlap",
    ),
    "prompts_beat_chance": Remedy(
        ("the LLM writes the same whatever the caption is: raise prompts.learning_rate or prompts.steps",)
    ),
    "prompts_llm_unchanged": Remedy(("the LLM's weights changed in memory, which must not happen: report it",)),
    "clusters_large_enough": Remedy(
        ("there are too few samples for so many clusters: lower cluster.clusters",), "cluster.gates.min_samples"
    ),
    "concept_counts_joint": _RECOUNT,
    "concept_shards_complete": _RECOUNT,
    "concept_shards_add_up": _RECOUNT,
    "concepts_found": Remedy(
        (
            "the concepts are of other data: the page of the stage names those that are never mentioned",
            "captions name things otherwise: look at a few, and give concepts.file names as they are written there",
            "the data lack them, which is what this stage is to find out: add data, or accept it by a higher threshold",
        ),
        "concepts.gates.max_zero_fraction",
    ),
    "concept_words_known": Remedy(
        (
            "names hold words that no caption has, such as `(bird of prey)`: shorten them, or set concepts.unknown to "
            "drop",
        ),
        "concepts.gates.max_unknown_fraction",
    ),
    "concept_sides_agree": Remedy(
        (
            "the tagger does not see these concepts: take another one, or correct concepts.images.threshold",
            "captions do not name what their pictures show",
        ),
        "concepts.gates.min_sides_spearman",
    ),
    "concept_pairs_aligned": Remedy(
        (
            "the threshold lets the tagger see concepts that are not there: raise concepts.images.threshold",
            "captions do not belong to their pictures: look at data/shards",
        ),
        "concepts.gates.max_misaligned",
    ),
    "concept_thresholds_calibrated": Remedy(
        (
            "label pictures that show the concept and pictures that do not, some of each, in concepts.images.labels",
            "the tagger does not tell this concept, whatever the threshold: take another one",
        ),
        "concepts.gates.min_agreement",
    ),
    "concept_fit_points": Remedy(
        (
            "few concepts are both counted and measured: add benchmarks whose classes are in concepts.benchmarks, or "
            "nouns with concept_fit.retrieval",
        ),
        "concept_fit.min_points",
    ),
    "codes_used": Remedy(
        (
            "the tower gives all patches nearly the same token, as early in a training: take a trained tower",
            "there are too few pictures for so many codes: lower codes.codes",
            "with codes.codebook words, most words name nothing that a patch shows: take kmeans, or a lower threshold",
        ),
        "codes.gates.min_perplexity",
    ),
    "codes_alive": Remedy(
        (
            "there are too few pictures for so many codes: lower codes.codes",
            "it was stopped early: raise codes.steps, with codebook vq codes.vq.steps",
        ),
        "codes.gates.max_dead_fraction",
    ),
    "codes_repeatable": Remedy(
        ("the device computes the same pictures differently each time: code on a CPU (FLAME_DEVICE=cpu)", _OWN_FAULT)
    ),
    "codes_describe": Remedy(
        (
            "the captioner has learned its captions by heart: give it more pictures (codes.fit_tokens), or lower "
            "codes.vq.steps",
            "captions do not say what pictures show: look at some, or take codebook kmeans",
        ),
        "codes.gates.min_caption_gain",
    ),
    "codes_steady": Remedy(
        ("the new pictures are of another kind than those of the codebook: remove codes.frozen to make a new one",),
        "codes.gates.max_drift",
    ),
    "groups_filled": Remedy(
        ("many pictures are the same, or there are too few for so many clusters: lower select.clusters",),
        "select.gates.max_empty_fraction",
    ),
    "groups_balanced": Remedy(
        (
            "many pictures look the same, such as placeholders: selections.html shows which; remove them",
            "there are too few clusters for pictures so different: raise select.clusters",
        ),
        "select.gates.max_over_mean",
    ),
    "budgets_met": Remedy((_OWN_FAULT,)),
    "groups_steady": Remedy(
        ("the new pictures are of another kind than those of the clusters: remove select.frozen to make new ones",),
        "select.gates.max_drift",
    ),
    "captions_distinct": Remedy(
        (
            "generated captions of different pictures say nearly the same, so they train no model without the original "
            "ones: keep raw in the recipe's kinds",
            "the captioner repeats itself: change caption.<kind>.prompt, or its model",
        ),
        "select.gates.max_caption_cosine",
    ),
    "semdedup_filled": Remedy(
        ("many pictures have the same vector, or there are too few for so many clusters: lower semdedup.clusters",),
        "semdedup.gates.max_empty_fraction",
    ),
    "semdedup_balanced": Remedy(
        (
            "many pictures look the same, such as placeholders: set ingest.filters.near_duplicates",
            "there are too few clusters for pictures so different: raise semdedup.clusters",
        ),
        "semdedup.gates.max_over_mean",
    ),
    "semdedup_kept": Remedy(
        (
            "the vectors hardly differ, as those of an untrained tower: take another one's (semdedup.vectors)",
            "the threshold is low: raise semdedup.threshold; the run says what others would keep",
        ),
        "semdedup.gates.min_kept",
    ),
    "noise_moves": Remedy((_OWN_FAULT,)),
    "noise_tells": Remedy(
        (
            "many samples share a caption, such as `untitled`, so the noise is less than its share: mend the captions",
            "there are few samples: take a larger share",
        ),
        "noise.gates.max_same_fraction",
    ),
    "adapter_llm_unchanged": Remedy((_OWN_FAULT,)),
    "adapter_learned": Remedy(
        ("raise adapt_llm.steps, lower adapt_llm.learning_rate, or name more kinds or languages",),
        "adapt_llm.gates.min_gain",
    ),
    "ceilings_kept": Remedy(("name the language in adapt_llm.languages, or lower adapt_llm.learning_rate",)),
    "captioner_llm_unchanged": Remedy((_OWN_FAULT,)),
    "captioner_learned": Remedy(
        (
            "training was too short: raise caption_lm.steps",
            "the rate is too high or too low: captioner.html shows the loss by step; change caption_lm.learning_rate",
        ),
        "caption_lm.gates.max_loss_ratio",
    ),
    "captioner_looks": Remedy(
        (
            "the LLM learned what captions are like, and nothing of the picture: train longer, or on more pairs",
            "the tower does not see what captions say: start from one that was trained longer",
        ),
        "caption_lm.gates.min_gain",
    ),
    "captions_differ": Remedy(
        ("the LLM writes the same about many pictures: train longer, or on more pairs; or captions are much alike",),
        "caption_lm.gates.min_distinct",
    ),
    "loss_went_down": Remedy(
        (
            "the training is too short, or its warm-up as long as it: raise train.epochs or lower train.warmup_steps, "
            "or set both to auto; `flame params check` compares them with the data",
            "train.batch_size is as large as the training split, so that an epoch is one step: lower it, or set it to "
            "auto",
            "train.optimizer.learning_rate is too high for this batch: divide it by ten",
            "pictures and captions do not belong together: look at data/shards and data/captions",
        ),
        "train.gates.max_loss_ratio",
    ),
    "recall_over_chance": Remedy(
        (
            "there are too few held-out pictures to tell a model from chance: add pairs, raise ingest.val_fraction (or "
            "set it to auto) or evaluate.max_pictures; `flame params check` says how many are needed",
            "the training is too short for its data: raise train.epochs or lower train.batch_size, or set both to auto",
            "the language is one that the LLM hardly knows, or that few captions have: take it out of language_floors",
            "captions say nothing of their pictures: look at the examples in the report",
        ),
        "evaluate.gates.min_recall_over_chance (of other languages: evaluate.gates.language_floors)",
    ),
    "languages_present": Remedy(
        (
            "no held-out caption is in these languages: take them out of evaluate.languages",
            "a source names its captions' language wrongly: set `language` of the source",
        ),
        "evaluate.languages",
    ),
    "benchmarks_disjoint": Remedy(
        (
            "the training data hold pictures of the benchmark: training_twins.parquet in the report names them; remove "
            "them from the source, or `flame forget` them, and train again",
            "different pictures look alike, such as drawings on white: lower evaluate.looks_disjoint.distance",
        ),
        "evaluate.looks_disjoint.refuse",
    ),
    "spectrum_bounds": Remedy((_OWN_FAULT,)),
    "spectrum_rows": Remedy(
        ("a vector is 0 in every coordinate: the training diverged, or its weights are damaged; `flame train` again",)
    ),
    "spectrum_direction": Remedy(
        (
            "texts: an LLM's vectors often share one direction: set text.center to global or per_facet",
            "pictures: the training is too short to tell them apart: raise train.epochs",
        ),
        "evaluate.spectrum.max_top_share",
    ),
    "domain_classes": Remedy(
        ("a category of domains.<name>.classes is spelled otherwise than in the source: correct it, or leave it out",)
    ),
    "domain_readable": Remedy(("files were cut while they were copied: copy those that are named again",)),
    "tune_spectra": Remedy((_OWN_FAULT,)),
    "tune_classes": Remedy(("classes have few pictures: add some, or lower tune.min_pictures",), "tune.min_pictures"),
    "tune_learned": Remedy(
        (
            "the tower was trained too briefly: raise train.epochs",
            "heads are trained too briefly: raise tune.epochs",
            "classes say nothing of the pictures' looks: name a benchmark in tune.benchmark",
        )
    ),
    "tune_terms_active": Remedy(
        ("the weights are too small to do anything, as those of `code` usually are: raise tune.factors",)
    ),
    "tune_svde_raised": Remedy(_INACTIVE),
    "tune_lsvr_lowered": Remedy(_INACTIVE),
    "tune_features_kept": Remedy(_INACTIVE),
    "recipes_differ": Remedy(
        (
            "the recipes are equally good on so few pictures: raise evaluate.max_pictures",
            "the trainings are too short to differ: raise train.epochs",
        )
    ),
}


def remedy_of(check: str) -> Remedy | None:
    """The remedy of a check, whose name may hold a source, language or direction: `recall_over_chance/en/text`."""
    return next((REMEDIES[part] for part in reversed(check.split("/")) if part in REMEDIES), None)


def advice(check: str) -> list[str]:
    """Lines that say how to go on after a check has failed; none of a check that is not known here."""
    remedy = remedy_of(check)
    if remedy is None:
        return []
    threshold = f"threshold: {remedy.param}" if remedy.param else "threshold: fixed, no param changes it"
    causes = [f"{number}. {cause}" for number, cause in enumerate(remedy.causes, start=1)]
    return [threshold, "likely causes, the likeliest first:", *causes, f"then go on with `{GO_ON}`"]
