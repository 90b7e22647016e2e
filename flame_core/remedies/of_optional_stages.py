"""Remedies for checks of clusters, concepts, codes, selections, noise, and heads on frozen features."""

from __future__ import annotations

from flame_core.remedies.remedy import DAMAGED, OWN_FAULT, Remedy

_INACTIVE = (
    "the chosen weights are too small to do this: heads.html shows what larger ones do; raise tune.factors",
    "the terms pull against each other: COV raises both SVDE and LSVR, and SVD lowers both",
    "there are fewer validation pictures than dimensions: raise tune.validation",
)
_RECOUNT = Remedy((OWN_FAULT, DAMAGED))
OPTIONAL_STAGES: dict[str, Remedy] = {
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
        ("the device computes the same pictures differently each time: code on a CPU (FLAME_DEVICE=cpu)", OWN_FAULT)
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
    "budgets_met": Remedy((OWN_FAULT,)),
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
    "scores_differ": Remedy(
        (
            "the model has untrained weights, or the head is of another model: correct its source",
            "a table has one value everywhere: see its column",
        ),
    ),
    "scores_kept": Remedy(
        (
            "the rules are strict: loosen them in scores.selections; the page says which share of the samples lies "
            "below a score",
        ),
        "scores.gates.min_kept",
    ),
    "noise_moves": Remedy((OWN_FAULT,)),
    "noise_tells": Remedy(
        (
            "many samples share a caption, such as `untitled`, so the noise is less than its share: mend the captions",
            "there are few samples: take a larger share",
        ),
        "noise.gates.max_same_fraction",
    ),
    "spectrum_bounds": Remedy((OWN_FAULT,)),
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
    "tune_spectra": Remedy((OWN_FAULT,)),
    "tune_classes": Remedy(
        (
            "classes have few training pictures: add some, or lower tune.min_pictures",
            "classes have no test picture: add some, or test on a benchmark that has them",
        )
    ),
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
    "tune_features_kept": Remedy(("the cross entropy moves features more than MSE holds them: raise tune.factors",)),
}
