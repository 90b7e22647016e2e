"""Trainings of a benchmark: the store of one project, a recipe trained on it in this process, and its recall.

A training leaves only its scores: a line of a results file, by which a rerun finds finished trainings. A training on a
part of the pictures is one with a selection (`data/key_selection.py`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.key_selection import KEY
from flame_core.data.shards import INDEX, SPLITS, IndexRow, PictureReader, Split, read_index, read_metas, shard_names
from flame_core.digest import file_sha256, text_sha256, value_digest, write_json
from flame_core.errors import ParamsError
from flame_core.graph.links import links
from flame_core.layout import Layout
from flame_core.measuring.classification import Lookup
from flame_core.measuring.image_vectors import encode_pictures
from flame_core.measuring.measures import Evaluation, evaluate
from flame_core.measuring.retrieval import Pairing, both_ways
from flame_core.measuring.texts import evaluated_languages, pair_up, read_classes, read_validation_captions
from flame_core.model_files import CONFIG
from flame_core.params import Params, TrainParams
from flame_core.settings import settings
from flame_core.suite.tasks.probe import ProbeParams, train_and_test
from flame_core.text.caption_source import CaptionSource
from flame_core.text.jobs import recipe_slots, training_job
from flame_core.text.manifest import MANIFEST, training_folder
from flame_core.text.sentence import SENTENCE
from flame_core.text.store import TOKENIZER, Drawn, TextStore, TrainStore
from flame_core.text.transformer import TrainedTexts
from flame_core.training.job import TrainingJob
from flame_core.vision.image_encoder import ImageEncoder, load_encoder
from flame_core.vision.initial_weights import fetch_initial_weights
from flame_core.workspace import open_workspace, resolve_params

AT = 10
HELD_OUT = 5  # one training picture in five is held out to choose params
PROBE_EPOCHS = 100  # of some hundred pictures, a few of which are a batch
Scores = dict[str, float]  # recall@10 by language, the mean of both directions


@dataclass(frozen=True)
class Store:
    """The outs that a training reads, brought up to date by `flame run embed`."""

    params: Params
    layout: Layout

    @cached_property
    def digest(self) -> str:
        """The digest of the pictures, the captions and their embeddings."""
        files = [self.layout.shards / INDEX, self.layout.train_embeddings / MANIFEST]
        sentences = training_folder(self.layout.train_embeddings, "sentence") / MANIFEST
        files += [sentences] if sentences.is_file() else []
        return value_digest([file_sha256(path) for path in files])


def embedded(overrides: list[str], preset: Path | None, stage: str = "embed") -> Store:
    """Bring a stage of these params up to date, in a workspace if they are not the project's own."""
    command = [sys.executable, "-c", "from flame_core.cli import main; main()", "run", stage]
    command += [word for override in overrides for word in ("--set", override)]
    command += ["--preset", str(preset)] if preset else []
    subprocess.run(command, check=True)
    layout = Layout.find()
    resolved = resolve_params(layout, overrides, preset)
    return Store(resolved.params, open_workspace(layout, resolved) if overrides or preset else layout)


class Results:
    """One line per finished training: its scores, its settings, and its processor time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def find(self, run: str) -> dict[str, Any] | None:
        return next((row for row in self.rows if row["run"] == run), None)

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
        print(row["arm"], row["phase"], f"rate {row['rate']:g}, seed {row['seed']}:", row["scores"], flush=True)
        return row


def held_out_scores(store: Store, recipe: TrainParams, captions: int | None = None) -> Scores:
    """Scores on a fifth of the training pictures after a training on the others; `captions` as in `train_model`."""
    params, layout = store.params, store.layout
    rows = read_index(layout.shards, "train")
    held = [row for row in rows if is_held_out(row)]
    language = params.evaluate.train_language
    jobs = {name: training_job(layout.captions, name, params.text, language) for name in {row.shard for row in held}}
    raw = [jobs[row.shard].texts["raw"][row.row * params.text.captions_of("raw")] for row in held]
    number = {text: i for i, text in enumerate(dict.fromkeys(raw))}
    pairing = Pairing.of(((i, number[text]) for i, text in enumerate(raw)), list(number))
    facets = TrainStore(layout.embeddings)
    first = {text: held[raw.index(text)] for text in number}
    slot = [facets.facets.index(f"raw/{SENTENCE if recipe.reading == 'sentence' else 1}")]

    def vectors(kind: str, texts: Sequence[str]) -> np.ndarray:
        drawn = [Drawn(first[text].shard, first[text].row, slot) for text in texts]
        return facets.read(drawn).float().numpy()

    with tempfile.TemporaryDirectory() as name:
        keys = [row.key for row in rows if not is_held_out(row)]
        z, lookup = trained(store, recipe, Path(name), held, keys, captions)
        t = (lookup or vectors)("raw", pairing.texts)[:, 0]
    return {language: mean(each.recall(AT) for each in both_ways(z, t, pairing).values())}


def is_held_out(row: IndexRow) -> bool:
    """Whether a training picture is held out to choose params."""
    return int(text_sha256(row.key), 16) % HELD_OUT == 0


def validation_scores(store: Store, recipe: TrainParams, captions: int | None = None) -> Scores:
    """Scores on the validation split, in all its languages, after a training on all training pictures.

    `captions` as in `train_model`.
    """
    rows = validation_rows(store)
    with tempfile.TemporaryDirectory() as name:
        z, lookup = trained(store, recipe, Path(name), rows, captions=captions)
    return scores(store, rows, z, lookup or stored_texts(store, recipe))


def validation_metrics(store: Store, recipe: TrainParams, model: Path) -> dict[str, float]:
    """What `flame evaluate` measures of a model that `train_model` made, with intervals (`measuring/measures.py`).

    With `probe/top1`, the accuracy of a linear classifier on the backbone's features, if the source has categories.
    """
    encoder = load_encoder(model, settings().torch_device())
    texts = TrainedTexts(model, settings().torch_device()).lookup if recipe.text_tower else stored_texts(store, recipe)
    metrics = _evaluation(store, encoder, texts).metrics
    return metrics | linear_probe(store, encoder)


def _evaluation(store: Store, encoder: ImageEncoder, texts: Lookup) -> Evaluation:
    params, layout = store.params, store.layout
    rows, captions = validation_rows(store), read_validation_captions(layout.captions, params.evaluate)
    z = encode_pictures(encoder, layout.shards, rows)
    return evaluate(params, z, [row.key for row in rows], captions, read_classes(layout.shards), texts, {})


def linear_probe(store: Store, encoder: ImageEncoder) -> dict[str, float]:
    """Top-1 of a linear classifier (CLIP_benchmark's recipe) on the categories of all validation pictures.

    The features are the mean of the patch tokens. Only categories with two training pictures or more count.
    """
    shards = store.layout.shards
    found = {split: _categories(shards, split) for split in SPLITS}
    known = list(found["train"].values())
    names = sorted({name for name in known if known.count(name) > 1})
    if len(names) < 2:
        return {}
    number = {name: i for i, name in enumerate(names)}
    parts = []
    for split in SPLITS:
        categories = found[split]
        rows = [row for row in read_index(shards, split) if categories.get(row.key) in number]
        reader = PictureReader(shards)
        jpegs = [reader.jpeg(row) for row in rows]
        x = encoder.encode_with(lambda tower, batch: tower.patches(batch).mean(dim=1), jpegs)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        parts.append((x, np.array([number[categories[row.key]] for row in rows])))
    asked = ProbeParams(kind="linear_probe", epochs=PROBE_EPOCHS)
    train, val = parts
    score = train_and_test(asked, train, val, names, store.params.evaluate.train_language)
    return {"probe/top1": score.metrics["lp_acc1"], "probe/pictures": len(val[1])}


def _categories(shards: Path, split: Split) -> dict[str, str]:
    """{key: top-level category} of a split's pictures that have one."""
    metas = (pair for name in shard_names(shards, split) for pair in read_metas(shards / name))
    named = {key: str(meta.get("category") or "").split("/")[0].strip() for key, meta in metas}
    return {key: name for key, name in named.items() if name}


def stored_texts(store: Store, recipe: TrainParams) -> Lookup:
    """The frozen LLM's texts for evaluation, as the recipe reads them."""
    return partial(TextStore.open(store.layout.embeddings).lookup, reading=recipe.reading)


def validation_rows(store: Store) -> list[IndexRow]:
    """The validation pictures that are measured."""
    captions = read_validation_captions(store.layout.captions, store.params.evaluate)
    chosen = {caption.key for caption in captions}
    return [row for row in read_index(store.layout.shards, "val") if row.key in chosen]


def scores(store: Store, rows: Sequence[IndexRow], z: np.ndarray, lookup: Lookup) -> Scores:
    """Recall of pictures z [N, D] among their captions, by language."""
    params = store.params
    captions = read_validation_captions(store.layout.captions, params.evaluate)
    place = {row.key: i for i, row in enumerate(rows)}
    found: Scores = {}
    for language in evaluated_languages(params.evaluate, captions):
        pairing = pair_up(captions, place, "raw", language)
        if pairing.texts:
            both = both_ways(z, lookup("raw", pairing.texts)[:, 0], pairing)
            found[language] = mean(each.recall(AT) for each in both.values())
    return found


def trained(
    store: Store,
    recipe: TrainParams,
    folder: Path,
    rows: list[IndexRow],
    keys: Sequence[str] | None = None,
    captions: int | None = None,
) -> tuple[np.ndarray, Lookup | None]:
    """z_0 [N, D] of pictures by a model trained here, and its text tower's texts, if it has one."""
    if recipe.text_projection is not None:
        raise ParamsError("the texts here do not pass a text_projection: take benchmarks.pretrained")
    out = train_model(store, recipe, folder, keys, captions)
    z = encode_pictures(load_encoder(out, settings().torch_device()), store.layout.shards, rows)[:, 0]
    return z, TrainedTexts(out, settings().torch_device()).lookup if recipe.text_tower else None


def train_model(
    store: Store,
    recipe: TrainParams,
    folder: Path,
    keys: Sequence[str] | None = None,
    captions: int | None = None,
) -> Path:
    """Train a recipe in this process.

    Args:
        store: what it is trained on; what the recipe is linked to lies in its layout too.
        recipe: with all its values.
        folder: of the model and its checkpoints.
        keys: the training pictures; None: all.
        captions: how many of a picture's stored raw captions are drawn from; None: all.

    Returns:
        The folder of the model.
    """
    params, layout = store.params, store.layout
    facets = TrainStore(layout.embeddings)
    source = CaptionSource(
        captions=layout.captions,
        tokenizer=layout.train_embeddings / TOKENIZER,
        text=params.text,
        language=params.evaluate.train_language,
    )
    slots = [i for i in recipe_slots(facets.facets, recipe) if _is_among_first(facets.facets[i], captions)]
    out = folder / "model"
    out.mkdir()
    TrainingJob(
        recipe=recipe,
        shards=layout.shards,
        embeddings=layout.embeddings,
        slots=slots,
        captions=source if recipe.text_tower else None,
        checkpoints=folder / "checkpoints",
        out=out,
        links={**links(layout, recipe), **_initial(recipe, layout), **_selection(keys, folder)},
    ).run()
    made = facets.manifest_of(recipe.reading)
    config = {"recipe": recipe.model_dump(mode="json"), "hidden": facets.hidden}
    config |= {"llm": made["llm"], "layer": made["layer"]}
    config["facets"] = [facets.facets[i] for i in slots]
    config["text_facets"] = {kind: len(each.facets) for kind, each in params.text.template.items()}
    config |= {"dim": recipe.text_projection.dim} if recipe.text_projection and recipe.text_projection.dim else {}
    write_json(out / CONFIG, config)
    return out


def _is_among_first(slot: str, captions: int | None) -> bool:
    """Whether a slot such as raw/2#3, of the third caption, belongs to one of the first captions."""
    return captions is None or int(slot.partition("#")[2] or 1) <= captions


def _initial(recipe: TrainParams, layout: Layout) -> Mapping[str, Path]:
    """The weights that the tower begins with, from the work cache."""
    if recipe.model.init is None:
        return {}
    return {"init": fetch_initial_weights(recipe.model, layout).folder}


def _selection(keys: Sequence[str] | None, folder: Path) -> Mapping[str, Path]:
    if keys is None:
        return {}
    path = folder / "keys.parquet"
    pq.write_table(pa.table({KEY: list(keys)}), path)
    return {"selection": path}
