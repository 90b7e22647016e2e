"""What to embed: the files that the store will have, each with its texts in row order, from the captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flame_core.captions.table import captions_file, read_captions, read_columns
from flame_core.errors import InputError
from flame_core.params import CaptionKind, Reading, TextParams, TrainParams
from flame_core.text.sentence import SENTENCE

BENCHMARK = "texts/benchmark-"
BENCHMARK_TEXTS = 4096  # texts of a benchmark per file; a killed run loses at most these


@dataclass(frozen=True)
class Job:
    """One file that the store will have, such as `train/00000` or `texts/00000`, and its texts by kind."""

    name: str
    texts: Mapping[str, list[str]]

    @property
    def trains(self) -> bool:
        """Whether it holds training samples rather than texts for evaluation."""
        return self.name.startswith("train/")

    @property
    def reading(self) -> Reading:
        """How the LLM reads its texts."""
        return "sentence" if SENTENCE in self.texts else "facets"

    @property
    def shard(self) -> str:
        """The training shard whose samples it holds."""
        return f"train/{self.name.rpartition('/')[2]}.tar"

    @property
    def of_benchmark(self) -> bool:
        """Whether it holds texts of a benchmark rather than of the held-out split."""
        return self.name.startswith(BENCHMARK)


def captions_a_sample(kind: str, params: TextParams) -> int:
    """How many captions of a kind each training sample has in the store; the kind `sentence` has all of them."""
    if kind == SENTENCE:
        return len(sentence_names(params))
    return params.captions_of(kind)


def training_job(captions: Path, shard: str, params: TextParams, language: str) -> Job:
    """The texts of one training shard in the training language, by kind and then by sample.

    A sample with fewer captions of a kind than `captions_per_image` repeats them. If a sample has no short or long
    caption because its captioner failed, its raw one is used instead.

    Raises:
        InputError: a sample has no raw caption in that language; names it.
    """
    path = captions_file(captions, shard)
    by_row: dict[int, dict[str, list[str]]] = {}
    keys: dict[int, str] = {}
    columns = read_columns(path, ["row", "key", "kind", "text", "language"])
    for row, key, kind, text, spoken in zip(*columns, strict=True):
        kinds = by_row.setdefault(row, {})
        if spoken == language:
            kinds.setdefault(kind, []).append(text)
        keys[row] = key
    for row, key in keys.items():
        if "raw" not in by_row[row]:
            raise InputError(
                f"{path}: sample {key} has no raw caption in {language!r}, the language of "
                "training: run `flame ingest`, which leaves such samples out"
            )
    texts: dict[str, list[str]] = {}
    for kind in params.train_kinds:
        count = captions_a_sample(kind, params)
        for row in range(len(by_row)):
            own = by_row[row].get(kind) or by_row[row]["raw"]
            texts.setdefault(kind, []).extend(own[i % len(own)] for i in range(count))
    return Job(str(Path(shard).with_suffix("")), texts)


def text_jobs(captions: Path, texts: Sequence[tuple[CaptionKind, str]]) -> list[Job]:
    """Texts for evaluation: one job per validation shard, with the texts first seen there, and one for all others."""
    first: dict[tuple[str, str], str] = {}
    for path in sorted((captions / "val").glob("*.parquet")):
        for caption in read_captions(path):
            first.setdefault((caption.kind, caption.text), path.stem)
    jobs: dict[str, dict[str, list[str]]] = {}
    for kind, text in texts:
        jobs.setdefault(first.get((kind, text), "prompts"), {}).setdefault(kind, []).append(text)
    return [Job(f"texts/{name}", own) for name, own in sorted(jobs.items())]


def benchmark_jobs(name: str, kind: str, texts: Sequence[str]) -> list[Job]:
    """The texts of one benchmark, in files of `BENCHMARK_TEXTS`."""
    starts = range(0, len(texts), BENCHMARK_TEXTS)
    return [
        Job(f"{BENCHMARK}{name}-{number:05}", {kind: list(texts[start : start + BENCHMARK_TEXTS])})
        for number, start in enumerate(starts)
    ]


def sentence_jobs(jobs: Sequence[Job], params: TextParams) -> list[Job]:
    """Jobs that read the same texts as sentences; none if params read none.

    A training sample's captions are consecutive, in the order of `sentence_names`. A file of evaluation texts has each
    text once, because as a sentence it has the same vector whatever its kind.
    """
    if params.sentence is None:
        return []
    return [_as_sentences(job, params) for job in jobs]


def _as_sentences(job: Job, params: TextParams) -> Job:
    if not job.trains:
        texts = dict.fromkeys(text for own in job.texts.values() for text in own)
        return Job(f"{job.name}-{SENTENCE}", {SENTENCE: list(texts)})
    columns = []  # per slot, the captions of all samples
    for kind in params.train_kinds:
        count = captions_a_sample(kind, params)
        columns += [job.texts[kind][i::count] for i in range(count)]
    folder, _, shard = job.name.rpartition("/")
    return Job(f"{folder}/{SENTENCE}/{shard}", {SENTENCE: [text for row in zip(*columns, strict=True) for text in row]})


def facet_names(params: TextParams) -> list[str]:
    """Names of a training sample's facets in order: raw/1, short/1 to short/3; for a second raw caption, raw/1#2."""
    names = []
    for kind in params.train_kinds:
        for caption in range(captions_a_sample(kind, params)):
            mark = f"#{caption + 1}" if caption else ""
            names += [f"{kind}/{j}{mark}" for j in range(1, len(params.template[kind].facets) + 1)]
    return names


def sentence_names(params: TextParams) -> list[str]:
    """Names of a training sample's sentences in order, such as raw/sentence, raw/sentence#2; [] if none are read."""
    if params.sentence is None:
        return []
    return [
        f"{kind}/{SENTENCE}{f'#{caption + 1}' if caption else ''}"
        for kind in params.train_kinds
        for caption in range(captions_a_sample(kind, params))
    ]


def slot_names(params: TextParams) -> list[str]:
    """Names of all vectors of a training sample: its facets, then its sentences."""
    return facet_names(params) + sentence_names(params)


def recipe_slots(names: Sequence[str], recipe: TrainParams) -> list[int]:
    """The indices in `names` (`slot_names`) that a recipe draws from: those of its kinds and its reading."""
    return chosen_slots(names, recipe.kinds, recipe.reading)


def chosen_slots(names: Sequence[str], kinds: Sequence[str] | None, reading: Reading) -> list[int]:
    """The indices in `names` (`slot_names`) of a reading, of captions of these kinds, or of all if that is None."""
    return [
        i
        for i, name in enumerate(names)
        if reading_of(name) == reading and (kinds is None or name.partition("/")[0] in kinds)
    ]


def reading_of(name: str) -> Reading:
    """Which reading a name of `slot_names` belongs to."""
    return "sentence" if _part(name) == SENTENCE else "facets"


def facet_number(name: str) -> int:
    """The facet number in a name: 1 for raw/1 and short/1, 3 for short/3, 2 for long/2#2; 0 for a sentence."""
    return 0 if reading_of(name) == "sentence" else int(_part(name))


def _part(name: str) -> str:
    return name.partition("/")[2].partition("#")[0]


def facet_count(names: Sequence[str]) -> int:
    """F, the highest of the names' facet numbers: how many facets an image may have; 0 for sentences."""
    return max(map(facet_number, names))
