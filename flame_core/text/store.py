"""The embedding store: vectors of every training sample, and texts for evaluation found by content.

`data/embeddings/`:

    manifest.json                  what all vectors depend on, names of the facets, and the benchmarks
    texts/00000.safetensors        one tensor per caption kind, [texts, facets of the kind, hidden]
    texts/00000.parquet            kind, row and text of each vector
    language_means.safetensors, languages.parquet      only with text.center per_language (`language_means`)
    texts/00000-sentence.*         the same for the texts as sentences: one tensor `sentence`, [texts, 1, hidden]
    train/                         everything that a training reads, so that new evaluation texts retrain no model:
      manifest.json                what the training vectors depend on
      00000.safetensors            [rows, facets, hidden], aligned with data/shards/train/00000.tar
      center.safetensors           mean of the training embeddings, [facets, hidden]; only with text.center; with
                                   whiten also a matrix [hidden, hidden]
      tokenizer.json               the LLM's, for recipes that train a text tower
      checks.json, digests.json    of this folder
      sentence/                    the captions as sentences, only with text.sentence: a manifest, 00000.safetensors
                                   [rows, sentences, hidden] and a separate center, so that a change in them does
                                   not retrain recipes that read facets

Vectors are unit vectors in `text.store_dtype`. They are centred when read, so a stored row depends only on its caption
and the manifest (in int8 also on its file's mean).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from flame_core.errors import InputError
from flame_core.params import Reading
from flame_core.text.facets import REFERENCE
from flame_core.text.language_means import LanguageMeans
from flame_core.text.manifest import read_manifest, training_folder
from flame_core.text.sentence import SENTENCE
from flame_core.text.tensor_file import TensorFile, read_vectors, write_tensors
from flame_core.text.whitening import MATRIX

if TYPE_CHECKING:
    from torch import Tensor, nn

EMBEDDINGS = "embeddings"  # name of the one tensor of a training shard
TRAIN = "train"  # the folder that trainings read
CENTER = "center.safetensors"
TOKENIZER = "tokenizer.json"
CUT_SENTENCES = "cut_sentences"  # in the manifest: {benchmark: texts that text.sentence cuts}
TEXT_SCHEMA = pa.schema({"kind": pa.string(), "row": pa.int32(), "text": pa.string()})


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors divided by their length, along the last axis; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


class Centring:
    """What `text.center` does to vectors of a reading: subtract the mean training vector of each slot, and whiten."""

    def __init__(
        self,
        names: Sequence[str],
        mean: np.ndarray | None,
        file: Path | None = None,
        matrix: np.ndarray | None = None,
    ) -> None:
        """Take the names of the slots in training, and their means [slots, hidden] and the file of these, if any.

        `matrix` [hidden, hidden] is that of `whiten`.
        """
        self.names, self.mean, self.file, self.matrix = list(names), mean, file, matrix

    @classmethod
    def of(cls, folder: Path, manifest: Mapping[str, Any]) -> Centring:
        """The centring of the training vectors in a folder with this manifest."""
        centred = manifest["center"] != "none"
        return cls._read(manifest["facets"], folder / CENTER) if centred else cls(manifest["facets"], None)

    @classmethod
    def of_file(cls, names: Sequence[str], file: Path) -> Centring:
        """The centring by a file of means; if there is no such file, nothing is subtracted."""
        return cls._read(names, file) if file.is_file() else cls(names, None)

    @classmethod
    def _read(cls, names: Sequence[str], file: Path) -> Centring:
        mean = TensorFile(file).read(EMBEDDINGS, slice(None))
        return cls(names, mean, file, load_file(file).get(MATRIX))

    def applied(self, t: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Unit vectors t [N, K, hidden] of K named slots, centred if `text.center` says so.

        A slot that was trained on is centred by its own mean, any other by that of the first slot.
        """
        if self.mean is None:
            return t
        rows = [self.names.index(name) if name in self.names else 0 for name in names]
        return self.moved(t, self.mean[rows])

    def moved(self, t: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Unit vectors of t [N, K, hidden] about a mean that broadcasts to it."""
        moved = t - mean
        return unit(moved if self.matrix is None else moved @ self.matrix)


class Drawn(NamedTuple):
    """A sample of a shard, and the numbers of the facets that were drawn for it."""

    shard: str
    row: int
    facets: Sequence[int]


class TrainStore:
    """Vectors of the training samples, aligned with the shards: facets, and sentences if any are read.

    Attributes:
        facets: names of a sample's vectors in order: facets, then sentences.
        hidden: dimensions of a vector.
        manifest: of the facets.
    """

    files_per_shard = 1

    def __init__(self, embeddings: Path) -> None:
        folder = embeddings / TRAIN
        self._folders: dict[Reading, Path] = {"facets": folder}
        if (sentences := training_folder(folder, "sentence")).is_dir():
            self._folders["sentence"] = sentences
        self._manifests: dict[Reading, dict[str, Any]] = {
            reading: read_manifest(own) for reading, own in self._folders.items()
        }
        self.manifest = self._manifests["facets"]
        self.hidden: int = self.manifest["hidden"]
        self._count = len(self.manifest["facets"])
        self.facets: list[str] = [name for own in self._manifests.values() for name in own["facets"]]
        self._centring = {reading: Centring.of(self._folders[reading], own) for reading, own in self._manifests.items()}
        self._files: dict[tuple[Reading, str], TensorFile] = {}

    def encoder(self) -> None:
        """None: texts are already vectors."""

    def save(self, encoder: nn.Module | None, folder: Path) -> None:
        """Nothing: a model's text side is the store and the LLM."""

    def manifest_of(self, reading: Reading) -> dict[str, Any]:
        """What the vectors of a reading depend on.

        Raises:
            InputError: the store holds no such vectors.
        """
        if reading not in self._manifests:
            raise InputError(f"{self._folders['facets']} holds no vectors of the {reading} reading: run `flame embed`")
        return self._manifests[reading]

    def rows(self, shard: str, reading: Reading = "facets") -> int:
        """Number of samples in the vectors of a shard."""
        return self._file(reading, shard).tensor(EMBEDDINGS).shape[0]

    def read(self, samples: Sequence[Drawn]) -> Tensor:
        """The K drawn unit vectors of each sample, [B, K, hidden], in float32 if centred or stored in int8.

        Otherwise they keep the stored type, which halves the bytes that are copied to the GPU.

        Raises:
            ValueError: some are facets and others sentences; no recipe draws both.
        """
        shards, rows, facets = zip(*samples, strict=True)
        columns = np.array(facets)  # [B, K]
        reading: Reading = "facets"
        if "sentence" in self._manifests and columns.max() >= self._count:
            if columns.min() < self._count:
                raise ValueError("facets and sentences cannot be read together")
            reading, columns = "sentence", columns - self._count
        t = read_vectors(EMBEDDINGS, [self._file(reading, shard) for shard in shards], rows, columns)
        centring = self._centring[reading]
        if centring.mean is None:
            return t
        import torch

        return torch.from_numpy(centring.moved(t.float().numpy(), centring.mean[columns]))

    def _file(self, reading: Reading, shard: str) -> TensorFile:
        if (reading, shard) not in self._files:
            name = Path(shard).with_suffix(".safetensors").name
            self._files[reading, shard] = TensorFile(self._folders[reading] / name)
        return self._files[reading, shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # file descriptors cannot be sent to worker processes


class TextStore:
    """Texts that were embedded for evaluation, found by kind and content."""

    def __init__(self, embeddings: Path) -> None:
        self.manifest = read_manifest(embeddings)
        self._folder = embeddings
        train = embeddings / TRAIN
        self._centring: dict[Reading, Centring] = {"facets": Centring.of(train, self.manifest)}
        if SENTENCE in self.manifest:
            sentences = training_folder(train, "sentence")
            self._centring["sentence"] = Centring.of(sentences, read_manifest(sentences))
        self._languages = LanguageMeans.of(embeddings) if self.manifest["center"] == "per_language" else None
        self._files: dict[str, TensorFile] = {}
        self._places: dict[tuple[str, str], tuple[str, int]] = {}
        for path in sorted((embeddings / "texts").glob("*.parquet")):
            for row in _read_texts(path):
                self._places.setdefault((row["kind"], row["text"]), (path.stem, row["row"]))

    @classmethod
    def open(cls, embeddings: Path) -> TextStore:
        """The text store below `data/embeddings`."""
        return cls(embeddings)

    def __contains__(self, place: tuple[str, str]) -> bool:
        return place in self._places

    def centring_of(self, reading: Reading) -> Centring:
        """The centring of a reading's vectors.

        Raises:
            InputError: the store has no such vectors.
        """
        if reading not in self._centring:
            raise InputError(f"{self._folder} holds no vectors of the {reading} reading; run `flame embed`")
        return self._centring[reading]

    def lookup(
        self, kind: str, texts: Sequence[str], reading: Reading = "facets", *, by_language: bool = True
    ) -> np.ndarray:
        """Unit vectors of texts, [N, K of the kind, hidden] in float32, centred if params say so.

        Without `by_language`, texts are centred as if nobody knew their language, as those of a query.

        Raises:
            InputError: a text was not embedded (names it), or the store has no sentences.
        """
        stored = asked_kind(kind, reading)
        try:
            places = [self._places[stored, text] for text in texts]
        except KeyError as error:
            missing = error.args[0][1]
            raise InputError(
                f"{self._folder}: no embedding of the {stored} text {missing[:200]!r}; run `flame embed`, which embeds "
                "what evaluation needs, or `flame embed-texts` if a benchmark is new"
            ) from None
        slots = slots_of(kind, reading, self.manifest["text_facets"])
        t = self._vectors(stored, places, len(slots))
        centring = self.centring_of(reading)
        centred = centring.applied(t, slots)
        for i, text in enumerate(texts if by_language else ()):
            if self._languages and (mean := self._languages.of_text(stored, text)) is not None:
                centred[i] = centring.moved(t[i], mean)
        return centred

    def _vectors(self, kind: str, places: Sequence[tuple[str, int]], slots: int) -> np.ndarray:
        """The stored vectors [N, slots, hidden] of texts of a kind by file and row, in float32."""
        if not places:
            return np.empty((0, slots, self.manifest["hidden"]), np.float32)
        names, rows = zip(*places, strict=True)
        for name in set(names) - self._files.keys():
            self._files[name] = TensorFile(self._folder / "texts" / f"{name}.safetensors")
        files = [self._files[name] for name in names]
        return read_vectors(kind, files, rows, [range(slots)] * len(rows)).float().numpy()


def asked_kind(kind: str, reading: Reading) -> str:
    """The kind under which the LLM reads and the store keeps texts of a caption kind."""
    return SENTENCE if reading == "sentence" else kind


def slots_of(kind: str, reading: Reading, text_facets: Sequence[str]) -> list[str]:
    """Names of a text's vectors by its kind: K of the facets in params, one for their mean, or one for a sentence."""
    if reading == "sentence":
        return [f"{kind.removesuffix(REFERENCE)}/{SENTENCE}"]
    if kind.endswith(REFERENCE):
        return [f"{kind}/1"]
    return [name for name in text_facets if name.startswith(f"{kind}/")]


def _read_texts(path: Path) -> list[dict[str, Any]]:
    try:
        return pq.ParquetFile(path).read().cast(TEXT_SCHEMA).to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable list of texts ({error}); run `flame embed` again") from None


def write_texts(path: Path, vectors: Mapping[str, tuple[list[str], np.ndarray]], dtype: str) -> None:
    """Write a safetensors file of vectors [N, K, hidden] by kind, and next to it a parquet file of their texts."""
    rows = [
        {"kind": kind, "row": i, "text": text} for kind, (texts, _) in vectors.items() for i, text in enumerate(texts)
    ]
    write_tensors(path, {kind: t for kind, (_, t) in vectors.items()}, dtype)
    table = pa.Table.from_pylist(rows, schema=TEXT_SCHEMA)
    pq.write_table(table, path.with_suffix(".parquet"), compression="zstd")
