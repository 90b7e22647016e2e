"""Remedies for checks of sources, shards and captions."""

from __future__ import annotations

from flame_core.remedies.remedy import DAMAGED, OTHER_SHARDS, OWN_FAULT, Remedy

_FAILED = Remedy(
    (
        "the captioner's model does not suit these pictures or texts: look at the examples in data/captions",
        "a table has no text for them: add rows; without them, the raw captions are read in their place",
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
DATA: dict[str, Remedy] = {
    "success": Remedy(
        (
            "pages have gone away since the list was made, as is usual: look at the reasons in attempts.parquet of the "
            "source, and lower min_success if they are final",
            "the network or a host was down: `flame download --retry-failed` asks again for what failed",
            "a host refuses so many requests: lower per_host of the source",
        ),
        "sources.<name>.min_success",
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
            "rows of a table have no caption, or more fields than the header: `problems` in source.json of the source "
            "name them",
        )
    ),
    "keys_unique": Remedy((OWN_FAULT,)),
    "samples_decode": Remedy(("the disk is full or unsound: check it, then `flame ingest`", OWN_FAULT)),
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
    "sources_readable": Remedy(
        (
            "files were cut while they were copied: copy those that are named again",
            "rows of a table have no caption, or more fields than the header: data/shards/ledger.parquet names them",
        )
    ),
    "samples_present": Remedy((OTHER_SHARDS, DAMAGED)),
    "raw_present": Remedy(("captions of these samples are empty after they were cleaned: correct or remove them",)),
    **{f"{kind}_failed": _FAILED for kind in ("short", "long")},
    **{f"{kind}_{fault}": _ALIKE for kind in ("short", "long") for fault in ("copied", "repeated")},
}
