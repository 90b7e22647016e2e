"""Remedies for checks of texts' vectors, of what is trained, and of what is measured."""

from __future__ import annotations

from flame_core.remedies.remedy import DAMAGED, OTHER_SHARDS, OWN_FAULT, Remedy

MODELS: dict[str, Remedy] = {
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
    "embeddings_unit_norm": Remedy(
        (
            "numbers overflow in text.dtype: set it to float32",
            "text.layer is one that the LLM leaves unused, or its weights are damaged: `flame fetch-llm`",
        )
    ),
    "embeddings_aligned": Remedy((OTHER_SHARDS, DAMAGED)),
    "facets_differ": Remedy(
        (
            "the facets of text.template ask the same: change their words",
            "text.layer is too early for the LLM to answer: take a later one",
            "the LLM is too small to tell facets apart: use one facet per kind, or another LLM",
        ),
        "text.gates.max_facet_cosine",
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
    "adapter_llm_unchanged": Remedy((OWN_FAULT,)),
    "adapter_learned": Remedy(
        ("raise adapt_llm.steps, lower adapt_llm.learning_rate, or name more kinds or languages",),
        "adapt_llm.gates.min_gain",
    ),
    "ceilings_kept": Remedy(("name the language in adapt_llm.languages, or lower adapt_llm.learning_rate",)),
    "captioner_llm_unchanged": Remedy((OWN_FAULT,)),
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
    "recipes_differ": Remedy(
        (
            "the recipes are equally good on so few pictures: raise evaluate.max_pictures",
            "the trainings are too short to differ: raise train.epochs",
        )
    ),
}
