"""The embedding store: facet embeddings of every training sample, and texts for evaluation found by content.

`data/embeddings/`:

    manifest.json                  what all vectors depend on, how the facets are named, and the benchmarks
    texts/00000.safetensors        one tensor a caption kind, [texts, facets of the kind, hidden]
    texts/00000.parquet            kind, row and text of each of them
    train/                         all that a training reads, so that new texts to evaluate retrain no model:
      manifest.json                what the training vectors depend on
      00000.safetensors            [rows, facets, hidden], aligned with data/shards/train/00000.tar
      center.safetensors           mean of the training embeddings, [facets, hidden]; only with text.center
      tokenizer.json               the LLM's, for recipes that train a text side of their own
      checks.json, digests.json    of this folder

Vectors are unit vectors in `text.store_dtype`. Centring happens when they are read, so a stored row depends on its
caption and the manifest alone (in int8 on its file's mean too).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.errors import InputError
from flame_core.text.facets import REFERENCE
from flame_core.text.manifest import read_manifest
from flame_core.text.tensor_file import TensorFile, read_vectors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

EMBEDDINGS = "embeddings"  # name of the one tensor of a training shard
TRAIN = "train"  # the folder that trainings read
CENTER = "center.safetensors"
TOKENIZER = "tokenizer.json"
TEXT_SCHEMA = pa.schema({"kind": pa.string(), "row": pa.int32(), "text": pa.string()})


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors over their length, along the last axis; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _load_center(training: Path, manifest: dict[str, Any]) -> np.ndarray | None:
    if manifest["center"] == "none":
        return None
    return TensorFile(training / CENTER).read(EMBEDDINGS, slice(None))


class Drawn(NamedTuple):
    """A sample of a shard, and the facets that were drawn of it."""

    shard: str
    row: int
    facets: Sequence[int]


class TrainStore:
    """Facet embeddings of the training samples, aligned with the shards."""

    files_per_shard = 1

    def __init__(self, embeddings: Path) -> None:
        self.manifest = read_manifest(embeddings / TRAIN)
        self.facets: list[str] = self.manifest["facets"]
        self.hidden: int = self.manifest["hidden"]
        self._folder = embeddings
        self._center = _load_center(embeddings / TRAIN, self.manifest)
        self._files: dict[str, TensorFile] = {}

    def encoder(self) -> None:
        """None: texts are vectors already."""

    def save(self, encoder: nn.Module | None, folder: Path) -> None:
        """Nothing: a model's text side is the store and the LLM."""

    def rows(self, shard: str) -> int:
        """Number of samples in the embeddings of a shard."""
        return self._file(shard).tensor(EMBEDDINGS).shape[0]

    def read(self, samples: Sequence[Drawn]) -> Tensor:
        """The drawn facets of samples, K each: unit vectors [B, K, hidden], float32 where centred or stored in int8.

        Else they are of the stored type: half the bytes on their way to the GPU.
        """
        shards, rows, facets = zip(*samples, strict=True)
        t = read_vectors(EMBEDDINGS, [self._file(shard) for shard in shards], rows, facets)
        if self._center is None:
            return t
        import torch

        return torch.from_numpy(unit(t.float().numpy() - self._center[np.array(facets)]))

    def _file(self, shard: str) -> TensorFile:
        if shard not in self._files:
            self._files[shard] = TensorFile(self._folder / Path(shard).with_suffix(".safetensors"))
        return self._files[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # descriptors do not travel to worker processes


class TextStore:
    """Texts that were embedded for evaluation, found by kind and content."""

    def __init__(self, embeddings: Path) -> None:
        self.manifest = read_manifest(embeddings)
        self._folder = embeddings
        self._center = _load_center(embeddings / TRAIN, self.manifest)
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

    def lookup(self, kind: str, texts: Sequence[str]) -> np.ndarray:
        """Unit facet embeddings of texts, [N, K of the kind, hidden] in float32, centred when the params say so.

        Raises:
            InputError: names a text that was not embedded.
        """
        try:
            places = [self._places[kind, text] for text in texts]
        except KeyError as error:
            missing = error.args[0][1]
            raise InputError(
                f"{self._folder}: no embedding of the {kind} text {missing[:200]!r}; run `flame embed`, which embeds "
                "what evaluation needs, or `flame embed-texts` where a benchmark is new"
            ) from None
        t = np.empty((len(texts), len(self._facets(kind)), self.manifest["hidden"]), dtype=np.float32)
        for i, (file, row) in enumerate(places):
            if file not in self._files:
                self._files[file] = TensorFile(self._folder / "texts" / f"{file}.safetensors")
            t[i] = self._files[file].read(kind, row)
        return self.centred(kind, t)

    def centred(self, kind: str, t: np.ndarray) -> np.ndarray:
        """Unit vectors [N, K of the kind, hidden] from the LLM as `lookup` returns them: centred, or as they are."""
        if self._center is None:
            return t
        return unit(t - self._center[[self._center_row(name) for name in self._facets(kind)]])

    def _facets(self, kind: str) -> list[str]:
        if kind.endswith(REFERENCE):
            return [f"{kind}/1"]
        return [name for name in self.manifest["text_facets"] if name.startswith(f"{kind}/")]

    def _center_row(self, facet: str) -> int:
        """Which mean a facet is centred by: its own where it was trained on, else that of the first facet."""
        trained: list[str] = self.manifest["facets"]
        return trained.index(facet) if facet in trained else 0


def _read_texts(path: Path) -> list[dict[str, Any]]:
    try:
        return pq.ParquetFile(path).read().cast(TEXT_SCHEMA).to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable list of texts ({error}); run `flame embed` again") from None


def write_texts(path: Path, vectors: Mapping[str, tuple[list[str], np.ndarray]], dtype: str) -> None:
    """Write a safetensors file of vectors [N, K, hidden] by kind, and beside it a parquet file with their texts."""
    rows = [
        {"kind": kind, "row": i, "text": text} for kind, (texts, _) in vectors.items() for i, text in enumerate(texts)
    ]
    write_tensors(path, {kind: t for kind, (_, t) in vectors.items()}, dtype)
    table = pa.Table.from_pylist(rows, schema=TEXT_SCHEMA)
    pq.write_table(table, path.with_suffix(".parquet"), compression="zstd")
