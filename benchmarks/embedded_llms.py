"""The demo with Gemma 3 270M beside SmolLM2: what their texts can tell apart, and what towers trained on them find.

    python -m benchmarks.embedded_llms                       # texts only: embeds, trains nothing
    python -m benchmarks.embedded_llms --seeds 0 1 2         # and trains the recipe flame on each LLM

Texts: a held-out caption of each language must find the English caption of its picture (`measuring/ceilings.py`),
with the vectors as they are, less the mean of the English training captions, and less the mean of each language's own
training captions, of which `--captions` are embedded for it. No measured text is part of a mean.

Pictures: `flame run` for every LLM, `text.center` and seed, in a workspace each; recall@10 of the held-out pictures,
mean of both directions, with texts centred as the model's are and by their language's mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, pstdev

import numpy as np

from benchmarks.measure import record
from benchmarks.trainings import Store, embedded, validation_rows
from flame_core.captions.table import Caption, read_captions
from flame_core.data.shards import shard_names
from flame_core.measuring.image_vectors import encode_pictures
from flame_core.measuring.retrieval import both_ways, retrieve
from flame_core.measuring.texts import evaluated_languages, pair_up, read_validation_captions
from flame_core.settings import settings
from flame_core.text.encoder import TextEncoder
from flame_core.text.store import Drawn, TextStore, TrainStore, unit
from flame_core.vision.image_encoder import load_encoder

PRESETS: Mapping[str, Path | None] = {"SmolLM2": None, "Gemma 3": Path("presets/demo-gemma.yaml")}
CENTRES = ("none", "per_facet")
RAW = "raw/1"  # the slot of a raw caption


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=100, help="training captions per language for its mean")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="of the trainings; none by default")
    options = parser.parse_args()
    for name, preset in PRESETS.items():
        # two threads wait for each other on a machine that does other work as well
        overrides = ["train.cpu_threads=1", "text.center=none"]
        texts = Texts(embedded(overrides, preset), options.captions)
        record("embedded_llms", f"{name}: the store", texts.store_tokens, "tokens")
        record("embedded_llms", f"{name}: for the means", texts.mean_tokens, "tokens")
        for centring in ("none", "english", "language"):
            for language, recall in texts.recall(centring).items():
                record(
                    "embedded_llms", f"{name}: {language}, text to text, centred by {centring}", 100 * recall, "% R@1"
                )
        for center in CENTRES if options.seeds else ():
            runs = []
            for seed in options.seeds:
                own = [overrides[0], f"text.center={center}", f"train.seed={seed}"]
                model = embedded(own, preset, "evaluate@flame").layout.model("flame")
                runs.append(picture_recall(texts, model, center=center))
            record_runs(name, center, runs)


@dataclass(frozen=True)
class Texts:
    """Texts of a store without centring, and the mean of each language's training captions."""

    store: Store
    captions: int

    @cached_property
    def store_tokens(self) -> int:
        """Tokens of all vectors in the store."""
        return TextStore.open(self.store.layout.embeddings).manifest["tokens"]

    @cached_property
    def languages(self) -> list[str]:
        return evaluated_languages(self.store.params.evaluate, self.measured)

    @cached_property
    def measured(self) -> list[Caption]:
        return read_validation_captions(self.store.layout.captions, self.store.params.evaluate)

    @cached_property
    def _training(self) -> dict[str, list[str]]:
        """The first distinct training captions of each language but the training language, in shard order."""
        found: dict[str, dict[str, None]] = {language: {} for language in self.languages[1:]}
        for name in shard_names(self.store.layout.shards, "train"):
            for caption in read_captions(self.store.layout.captions / Path(name).with_suffix(".parquet")):
                own = found.get(caption.language)
                if caption.kind == "raw" and own is not None and len(own) < self.captions:
                    own[caption.text] = None
        return {language: list(own) for language, own in found.items()}

    @cached_property
    def mean_tokens(self) -> int:
        """Tokens that are embedded for the means alone."""
        return sum(self._encoder.facets.count("raw", texts) for texts in self._training.values())

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder.open(self.store.params, self.store.layout)

    @cached_property
    def means(self) -> dict[str, np.ndarray]:
        """The mean vector [D] of each language's training captions; of the training language, of all of them."""
        own = {
            language: self._encoder.encode("raw", texts)[:, 0].mean(axis=0)
            for language, texts in self._training.items()
            if texts
        }
        return {self.languages[0]: self._trained_mean, **own}

    @cached_property
    def _trained_mean(self) -> np.ndarray:
        store = TrainStore(self.store.layout.embeddings)
        slot = store.facets.index(RAW)
        names = shard_names(self.store.layout.shards, "train")
        vectors = [
            store.read([Drawn(name, row, [slot]) for row in range(store.rows(name))]).float().numpy()[:, 0]
            for name in names
        ]
        return np.concatenate(vectors).mean(axis=0)

    def vectors(self, language: str, texts: Sequence[str], centring: str) -> np.ndarray:
        """Unit vectors [N, D] of raw texts of a language, centred in one of three ways."""
        t = TextStore.open(self.store.layout.embeddings).lookup("raw", texts)[:, 0]
        if centring == "none":
            return t
        return unit(t - self.means[language if centring == "language" else self.languages[0]])

    def recall(self, centring: str) -> dict[str, float]:
        """Recall@1 of each language's captions among the English ones, one per picture (`measuring/ceilings.py`)."""
        english = self.languages[0]
        rows = {key: i for i, key in enumerate(dict.fromkeys(c.key for c in self.measured if c.language == english))}
        read = pair_up([c for c in self.measured if c.key in rows], rows, "raw", english)
        own = {row: read.texts[text] for row, text in reversed(read.edges.tolist())}
        pictures = self.vectors(english, [own[row] for row in range(len(rows))], centring)
        found = {}
        for language in self.languages:
            pairing = pair_up([c for c in self.measured if c.key in rows], rows, "raw", language)
            t = self.vectors(language, pairing.texts, centring)
            found[language] = retrieve(pictures, t, pairing, "text_to_image").recall(1)
        return found


def picture_recall(texts: Texts, model: Path, *, center: str) -> dict[str, dict[str, float]]:
    """{centring of texts: {language: recall@10, the mean of both directions}} of a trained model's pictures.

    A model that was trained on vectors as they are gets texts of other languages moved by the difference of the means;
    one that was trained on centred vectors gets each language's texts centred by their own mean.
    """
    layout, english = texts.store.layout, texts.languages[0]
    rows = validation_rows(texts.store)
    place = {row.key: i for i, row in enumerate(rows)}
    z = encode_pictures(load_encoder(model, settings().torch_device()), layout.shards, rows)[:, 0]
    found: dict[str, dict[str, float]] = {"the model's": {}, "language": {}}
    for language in texts.languages:
        pairing = pair_up(texts.measured, place, "raw", language)
        t = texts.vectors(language, pairing.texts, "none")
        for how, by in found.items():
            mean_ = texts.means[language if how == "language" else english]
            moved = unit(t - mean_ + (texts.means[english] if center == "none" else 0))
            by[language] = mean(each.recall(10) for each in both_ways(z, moved, pairing).values())
    return found


def record_runs(name: str, center: str, runs: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    """Record mean and spread over the seeds of what `picture_recall` found."""
    for how in runs[0] if runs else ():
        for language in runs[0][how]:
            figures = [100 * run[how][language] for run in runs]
            case = f"{name}, center {center}, texts centred by {how}, {language}, {len(runs)} seeds"
            record("embedded_llms", case, mean(figures), "% recall@10")
            if len(runs) > 1:
                record("embedded_llms", f"{case}, deviation", pstdev(figures), "points")


if __name__ == "__main__":
    main()
