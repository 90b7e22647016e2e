"""Warnings about params that do not fit the data, as far as the data are there (`data_look.py`)."""

from __future__ import annotations

from collections.abc import Iterator

from flame_core.captions.captioner import KINDS
from flame_core.captions.table import MANIFEST
from flame_core.data.key_selection import select
from flame_core.data.shards import read_index
from flame_core.errors import FlameError, ParamsError
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.measuring.measures import headline_k, measurable
from flame_core.params import FoundCaptioner, LearnedMasksParams, Params, ServerCaptioner, TrainParams
from flame_core.params.auto import Schedule, fitting_batch, fitting_warmup, pictures_needed
from flame_core.params.recipe_files import recipe_key
from flame_core.params.section import AUTO
from flame_core.params.validation import Fault
from flame_core.preflight.data_look import DataLook, ingest_sizes_of, place_of
from flame_core.settings import settings

WIDE = 0.10  # an interval of +- 10 points is the widest that is worth reading
_NAMED = 2  # pairs named in one warning


def data_warnings(params: Params, layout: Layout, seen: DataLook) -> list[Fault]:
    """What a run with these params would do that its user may not want."""
    found = [*_half_pairs(params, seen), *_language_warnings(params, seen), *_server_warnings(params, layout)]
    found += [*_foreign_captions(params), *_repeated_captions(params)]
    for name, recipe in params.train.items():
        if "raw" not in recipe.kinds:
            kinds = ", ".join(recipe.kinds)
            said = (
                f"only generated captions ({kinds}), which may say the same of different pictures: keep raw beside them"
            )
            found.append(Fault(("train", name, "kinds"), said))
        samples = training_samples(recipe, layout, seen)
        if samples is not None:
            own = _training_warnings(recipe, samples, seen.about)
            found += [warning._replace(key=("train", name, *warning.key)) for warning in own]
    if seen.train is not None:
        found += _cluster_warnings(params, seen.train, seen.about)
        found += _code_warnings(params, layout, seen.train, seen.about)
    if seen.val is not None:
        found += _held_out_warnings(params, seen, seen.val)
    return found


def _foreign_captions(params: Params) -> Iterator[Fault]:
    """Written captions that no training reads, since they are in another language than it is in."""
    spoken = params.evaluate.train_language
    by_language: dict[str, list[str]] = {}
    for kind in KINDS:
        chosen = getattr(params.caption, kind)
        language = chosen.language if isinstance(chosen, FoundCaptioner) else "en"
        if kind in params.text.train_kinds and language != spoken:
            by_language.setdefault(language, []).append(kind)
    for language, kinds in by_language.items():
        who = "captioners write English" if language == "en" else f"these captions are in {language!r}"
        others = ", ".join(kind for kind in params.text.train_kinds if kind not in kinds) or "raw"
        said = (
            f"{who}, and the language of training is {spoken!r}: instead of {' and '.join(kinds)} captions the raw "
            f"ones are read; set it to [{others}]"
        )
        yield Fault(("text", "train_kinds"), said)


def _repeated_captions(params: Params) -> Iterator[Fault]:
    """Kinds of which more captions are embedded than their captioner writes."""
    for kind in KINDS:
        count, chosen = params.text.captions_of(kind), getattr(params.caption, kind)
        if count > 1 and kind in params.text.train_kinds and not isinstance(chosen, FoundCaptioner):
            said = (
                f"a captioner writes one {kind} caption, which would be embedded {count} times; a table or a column "
                "may have more"
            )
            yield Fault(("text", "captions_per_image", kind), said)


def _server_warnings(params: Params, layout: Layout) -> Iterator[Fault]:
    """A chat server that no setting names, if captions are still to be written."""
    if settings().caption_server is not None or (layout.captions / MANIFEST).is_file():
        return
    for kind in KINDS:
        if isinstance(getattr(params.caption, kind), ServerCaptioner):
            yield Fault(("caption", kind), "no server is named: set FLAME_CAPTION_SERVER before `flame caption`")


def chosen_values(params: Params, layout: Layout, seen: DataLook) -> dict[str, str]:
    """{param that is `auto`: what it stands for, and in which data}."""
    found: dict[str, str] = {}
    sizes = ingest_sizes_of(params, layout, seen)
    pairs = "" if seen.pairs is None else f", for {seen.about_pairs}{seen.pairs:,} pairs"
    for name in params.ingest.automatic:
        found[f"ingest.{name}"] = f"{sizes[name]:g}{pairs}" if name in sizes else "known after `flame download`"
    for name, recipe in params.train.items():
        samples = training_samples(recipe, layout, seen)
        for key in recipe.automatic:
            value = None if samples is None else getattr(recipe.schedule(samples), key)
            found[f"{key} of {name}"] = (
                "known after `flame ingest`" if value is None else f"{value:,}, for {seen.about}{samples:,} samples"
            )
    return found


def training_samples(recipe: TrainParams, layout: Layout, seen: DataLook) -> int | None:
    """How many samples a recipe trains on; None if that is not known yet."""
    if recipe.selection is None or seen.train is None:
        return seen.train
    path = links(layout, recipe)["selection"]
    if not seen.exact or not path.is_file():
        return None
    try:
        return len(select(read_index(layout.shards, "train"), path))
    except FlameError:
        return None  # a mistake of its own


def _half_pairs(params: Params, seen: DataLook) -> Iterator[Fault]:
    """Captions without a picture, pictures without a caption, and what cannot be read."""
    for name, source in seen.sources.items():
        where = place_of(params, name)
        if source.lost:
            told = "; ".join(source.lost[:_NAMED])
            yield Fault(
                where,
                f"{len(source.lost):,} of {source.pairs:,} pairs have a caption and no picture, and are left out: "
                f"{told}{_more(source.lost)}",
            )
        if source.silent:
            told = ", ".join(source.silent[:_NAMED])
            yield Fault(
                where,
                f"{len(source.silent):,} of {source.pairs:,} pairs have no caption, and are left out: {told}"
                f"{_more(source.silent)}",
            )

        if source.damaged:
            count = sum(number for _, number in source.damaged)
            told = "; ".join(said for said, _ in source.damaged[:_NAMED])
            what = "file or row cannot be read, and is" if count == 1 else "files or rows cannot be read, and are"
            yield Fault(where, f"{count:,} {what} left out: {told}")


def _more(names: list[str]) -> str:
    return f"; and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""


def _training_warnings(recipe: TrainParams, samples: int, about: str) -> Iterator[Fault]:
    pictures = f"{about}{samples:,} training pictures"
    if not samples:
        yield Fault((), "no training picture is left: hold out less (ingest.val_fraction), or add pairs")
        return
    schedule = recipe.schedule(samples)
    if recipe.batch_size != AUTO and recipe.batch_size > samples:
        yield Fault(
            ("batch_size",),
            f"{recipe.batch_size:,}, and there are {pictures}: each step would take all of them, and an epoch be one "
            f"step; {fitting_batch(samples)} fits, and auto chooses it",
        )
    if recipe.warmup_steps != AUTO and recipe.warmup_steps >= schedule.steps:
        yield Fault(
            ("warmup_steps",),
            f"{recipe.warmup_steps:,}, and the whole training has {about}{schedule.steps:,} steps "
            f"({schedule.epochs} epochs of {pictures}): the learning rate would never reach its peak; a tenth of the "
            f"steps fits, {fitting_warmup(schedule.steps):,}, and auto chooses it; or take more epochs",
        )
    for key, said in _refused_steps(recipe, schedule):
        yield Fault(key, f"`flame train` will refuse it with {pictures}: {said}")


def _refused_steps(recipe: TrainParams, schedule: Schedule) -> Iterator[tuple[tuple[str, ...], str]]:
    """(key, why) of what cannot be done in so many steps."""
    from flame_core.objectives.learned_masks import step_faults
    from flame_core.training.head_first import held_steps

    for term in recipe.terms:
        if isinstance(term, LearnedMasksParams):
            for said in step_faults(term, schedule.steps):
                yield ("terms",), f"the term {term.name}: {said}"
    try:
        held_steps(recipe, schedule)
    except ParamsError as error:
        yield recipe_key(error), error.message


def _cluster_warnings(params: Params, samples: int, about: str) -> Iterator[Fault]:
    """Stages that would make more clusters than there are samples."""
    select = params.select if params.select and params.select.frozen is None else None
    made = {"cluster": params.cluster, "select": select, "semdedup": params.semdedup}
    for section, chosen in made.items():
        if chosen is not None and chosen.clusters > samples:
            yield Fault(
                (section, "clusters"),
                f"`flame {section}` will refuse it: {chosen.clusters:,} clusters of {about}{samples:,} training "
                f"samples; for 10 samples per cluster, set {max(1, samples // 10):,}",
            )


def _code_warnings(params: Params, layout: Layout, samples: int, about: str) -> Iterator[Fault]:
    """A codebook of more codes than there are patches that it is fitted to."""
    chosen = params.codes
    if chosen is None or chosen.frozen is not None or chosen.codebook == "words":
        return
    from flame_core.codes.minibatch import FEWEST_TOKENS, drawn_from
    from flame_core.codes.tower_shape import codes_shape

    try:
        shape = codes_shape(params, chosen, layout)
    except FlameError:
        return  # a mistake of its own
    if isinstance(shape, str):
        return  # the tower is not there yet
    least = shape.patches if chosen.codebook == "vq" else FEWEST_TOKENS
    most, each = drawn_from(samples, shape.patches, chosen.fit_tokens, least)
    pictures = min(samples, most)
    if pictures * each < chosen.codes:
        yield Fault(
            ("codes", "codes"),
            f"`flame codes` will refuse it: {chosen.codes:,} codes of {pictures * each:,} patches ({each} of each of "
            f"{about}{pictures:,} pictures); take fewer codes",
        )


def _held_out_warnings(params: Params, seen: DataLook, val: int) -> Iterator[Fault]:
    evaluate = params.evaluate
    limited = evaluate.max_pictures is not None and evaluate.max_pictures < val
    measured = min(val, evaluate.max_pictures or val)
    key = ("evaluate", "max_pictures") if limited else ("ingest", "val_fraction")
    needed = pictures_needed(WIDE, evaluate.confidence)
    level = f"{evaluate.confidence:.0%}"
    k = headline_k(evaluate)
    more = (
        f"{needed:,} give a {level} interval of +- {WIDE:.0%}, {pictures_needed(WIDE / 2, evaluate.confidence):,} one "
    )
    more += f"of +- {WIDE / 2:.0%}"
    if val < params.ingest.gates.min_val_samples:
        yield Fault(
            ("ingest", "val_fraction"),
            f"{seen.about}{val:,} held-out pictures, and ingest.gates.min_val_samples is "
            f"{params.ingest.gates.min_val_samples:,}: hold out more, or add pairs; pairs with equal captions are on "
            "one side",
        )
    elif not measurable(measured, k):
        yield Fault(
            key,
            f"{seen.about}{measured:,} held-out pictures are too few to tell a model from chance: recall@{k} of a "
            f"random order is {min(1, k / max(measured, 1)):.0%}, so the gate on it measures nothing; take {2 * k} or "
            f"more; {more}",
        )
    elif measured < needed:
        yield Fault(key, f"{seen.about}{measured:,} held-out pictures are few: {more}")


def _language_warnings(params: Params, seen: DataLook) -> Iterator[Fault]:
    """Languages that no caption has: of the held-out split, or of any pair if that is not there yet."""
    evaluate = params.evaluate
    if seen.languages is None:
        return
    what = "held-out caption" if seen.held_out else "caption"
    known = ", ".join(sorted(seen.languages)) or "none"
    if evaluate.train_language not in seen.languages:
        yield Fault(
            ("evaluate", "train_language"),
            f"no {what} is in {evaluate.train_language!r}: nothing would be trained and measured in it; the "
            f"captions are in {known}",
        )
    listed = [] if evaluate.languages == "all" else evaluate.languages
    absent = {code: str(number) for number, code in enumerate(listed) if code not in seen.languages}
    absent.pop(evaluate.train_language, None)
    if absent:
        codes = ", ".join(map(repr, absent))
        yield Fault(
            ("evaluate", "languages", *([*absent.values()] if len(absent) == 1 else [])),
            f"no {what} is in {codes}, so {'it is' if len(absent) == 1 else 'they are'} not measured; the captions are "
            f"in {known}, and `languages: all` takes those",
        )
