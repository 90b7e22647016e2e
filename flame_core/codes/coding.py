"""The steps of `flame codes` as units of a work cache: a killed one continues with the unit that it was working on.

1. the PCA of patch tokens, fitted to the tokens of a few pictures;
2. per shard, the reduced tokens that the codebook is fitted to;
3. per ten steps of mini-batch k-means, its state;
4. per shard, the codes of every picture's patches.

A given codebook takes the place of 1 to 3, words of the LLM that of 2 and 3. A codebook that is trained with a
captioner (`flame_core/vq`) takes the place of 3, on whole pictures. Tokens themselves are never stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from flame_core.clustering.pipeline import PCA_SAMPLES, chosen_rows
from flame_core.clustering.spherical import fit_reduction
from flame_core.codes.code_files import CODES, Coded, write_codes
from flame_core.codes.codebook import Codebook, on_grid
from flame_core.codes.minibatch import FEWEST_TOKENS, Batches, Fit, drawn_from, first_fit, next_fit
from flame_core.codes.patch_tokens import BATCH, PatchTower
from flame_core.data.shards import Index, IndexRow, PictureReader
from flame_core.digest import text_sha256, write_json
from flame_core.errors import InputError
from flame_core.params import CodesParams
from flame_core.reporting import progress
from flame_core.work import Unit, UnitRecord, WorkCache

_FILE, _REPEATED = "values.safetensors", "repeated.json"
_STEPS = 10  # of k-means in a unit


@dataclass(frozen=True)
class Drawn:
    """What a codebook is fitted to.

    Attributes:
        keys: of the pictures, [n].
        tokens: reduced, [n, T, E] in int16, times `UNIT`; T of each picture.
        reduction: `mean` [D] and `basis` [D, E], as in a codebook.
        sha256: of the tokens by shard, and of the reduction.
    """

    keys: list[str]
    tokens: np.ndarray
    reduction: Mapping[str, np.ndarray]
    sha256: Mapping[str, object]


@dataclass(frozen=True)
class Coding:
    """The coding of the pictures of an index; everything is computed that is not in the cache.

    Attributes:
        params: of the codes.
        tower: gives the tokens.
        index: all rows of the training split.
        shards: their folder.
        sha256: of the shards' tars by name, such as train/00000.tar.
        cache: of the stage.
    """

    params: CodesParams
    tower: PatchTower
    index: Index
    shards: Path
    sha256: Mapping[str, str]
    cache: WorkCache

    def fitted(self) -> Codebook:
        """A codebook by k-means.

        Raises:
            InputError: there are fewer tokens than codes, or fewer dimensions than `codes.dims`.
        """
        reduction, fit = self._reduction_unit, None
        tokens = _FitTokens(self._fit_units)
        if (count := sum(unit.record.counts["tokens"] for unit in self._fit_units.values())) < self.params.codes:
            raise InputError(f"codes.codes is {self.params.codes}, and there are {count} patch tokens: lower it")
        batches = Batches(count, self.params.batch_tokens, self.params.seed)
        names = ("codes", "batch_tokens", "seed")
        inputs: dict[str, object] = {"tokens": {shard: unit.sha256[_FILE] for shard, unit in self._fit_units.items()}}
        inputs |= {name: getattr(self.params, name) for name in names}
        with progress("k-means", self.params.steps, "steps") as bar:
            for start in range(0, self.params.steps, _STEPS):
                steps = range(start, min(start + _STEPS, self.params.steps))

                def write(folder: Path, before: Fit | None = fit, steps: range = steps) -> UnitRecord:
                    found = before or first_fit(tokens.all, self.params.codes, self.params.seed)
                    for step in steps:
                        found = next_fit(found, tokens.all[batches.rows(step)])
                    (folder / _FILE).write_bytes(save(found.arrays()))
                    return UnitRecord({"steps": len(steps)})

                unit = self.cache.get({**inputs, "start": start, "steps": len(steps)}, write)
                before, fit = fit, Fit(**load_file(unit.file(_FILE)))
                inputs["before"] = unit.sha256[_FILE]
                bar.advance(len(steps))
                if count <= self.params.batch_tokens and before and np.array_equal(before.codes, fit.codes):
                    break  # every step sees all tokens, and nothing moves any more
        assert fit is not None
        arrays = load_file(reduction.file(_FILE))
        return Codebook(fit.codes, arrays["mean"], arrays["basis"], {"tower": self.tower.identity})

    def drawn(self) -> Drawn:
        """The pictures that the codebook is fitted to, with their reduced tokens."""
        rows, each = self._drawn(self.params.fit_tokens, self._least)
        keys = [own[row].key for shard, chosen in rows.items() for own in [self._rows(shard)] for row in chosen]
        tokens = _FitTokens(self._fit_units).all
        digests = {shard: unit.sha256[_FILE] for shard, unit in self._fit_units.items()}
        sha256 = {"tokens": digests, "reduction": self._reduction_unit.sha256[_FILE]}
        return Drawn(keys, tokens.reshape(len(keys), each, -1), load_file(self._reduction_unit.file(_FILE)), sha256)

    def of_words(self, words: Sequence[str], vectors: np.ndarray) -> Codebook:
        """A codebook of the LLM's words, whose rows of its output matrix are `vectors` [K, D].

        Raises:
            InputError: the tower's tokens have other dimensions.
        """
        mean = load_file(self._mean_unit.file(_FILE))["mean"]
        if len(mean) != vectors.shape[1]:
            raise InputError(f"{self.tower.name} projects into {len(mean)} dimensions, the LLM has {vectors.shape[1]}")
        from flame_core.clustering.spherical import on_sphere

        unit = on_grid(vectors)
        codes = on_sphere(unit - np.rint(unit.mean(axis=0))).astype(np.int16)
        return Codebook(codes, mean, None, {"tower": self.tower.identity, "words": list(words)})

    def codes(self, codebook: Codebook) -> dict[str, Unit]:
        """Units with `CODES` by shard."""
        units, digest = {}, codebook.digest
        with progress("code", len(self.index), "pictures") as bar:
            for shard, rows in self._sizes.items():

                def write(folder: Path, shard: str = shard) -> UnitRecord:
                    found = [codebook.assign_pictures(tokens) for tokens in self._tokens(shard)]
                    codes = np.concatenate([codes for codes, _ in found])
                    cosine = np.concatenate([cosine for _, cosine in found]).astype(np.float32)
                    write_codes(folder / CODES, Coded([row.key for row in self._rows(shard)], codes, cosine))
                    return UnitRecord({"samples": len(codes)})

                units[shard] = self.cache.get({"codes": self._identity(shard), "codebook": digest}, write)
                bar.advance(rows)
        return units

    def repeated(self, codebook: Codebook) -> float:
        """The share of equal codes if the first pictures of the first shard are coded twice."""
        shard = next(iter(self._sizes))

        def write(folder: Path) -> UnitRecord:
            jpegs = list(self._jpegs(shard, range(min(BATCH, self._sizes[shard]))))
            first, second = (codebook.assign_pictures(self.tower.tokens(jpegs))[0] for _ in range(2))
            write_json(folder / _REPEATED, {"equal": int((first == second).sum()), "of": int(first.size)})
            return UnitRecord({"samples": len(jpegs)})

        unit = self.cache.get({"repeated": self._identity(shard), "codebook": codebook.digest}, write)
        counted = json.loads(unit.file(_REPEATED).read_bytes())
        return counted["equal"] / counted["of"]

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return dict(sorted(self.index.shard_sizes().items()))

    @cached_property
    def _parts(self) -> dict[str, Index]:
        return self.index.by_shard()

    def _identity(self, shard: str) -> dict[str, object]:
        return {"shard": self.sha256[shard], "rows": self._sizes[shard], "tower": self.tower.identity}

    def _rows(self, shard: str) -> list[IndexRow]:
        return list(self._parts[shard])

    def _jpegs(self, shard: str, rows: Sequence[int]) -> Iterator[bytes]:
        reader, own = PictureReader(self.shards), self._rows(shard)
        return (reader.jpeg(own[row]) for row in rows)

    def _tokens(self, shard: str, rows: Sequence[int] | None = None) -> Iterator[np.ndarray]:
        """Tokens [n, L, D] of rows of a shard, or of all, `BATCH` pictures at a time."""
        reader, own = PictureReader(self.shards), self._rows(shard)
        wanted = range(len(own)) if rows is None else rows
        for start in range(0, len(wanted), BATCH):
            yield self.tower.tokens([reader.jpeg(own[row]) for row in wanted[start : start + BATCH]])

    @property
    def _least(self) -> int:
        """How many tokens a picture gives to the fit of the codebook, if it has so many."""
        return self._patches if self.params.codebook == "vq" else FEWEST_TOKENS

    def _drawn(self, most: int, least: int = FEWEST_TOKENS) -> tuple[dict[str, list[int]], int]:
        """Rows by shard of pictures that give at most `most` tokens in all, and how many each gives."""
        pictures, each = drawn_from(len(self.index), self._patches, most, least)
        rows = chosen_rows(self._sizes, pictures, self.params.seed)
        return {shard: own.tolist() for shard, own in rows.items() if len(own)}, each

    @cached_property
    def _patches(self) -> int:
        """L, of the first picture."""
        shard = next(iter(self._sizes))
        return next(self._tokens(shard, [0])).shape[1]

    def _sample(self, shard: str, rows: Sequence[int], each: int) -> Iterator[np.ndarray]:
        """Tokens [n, D]: `each` of every picture, drawn by its key."""
        own, start = self._rows(shard), 0
        for tokens in self._tokens(shard, rows):
            for number, picture in enumerate(tokens):
                key = own[rows[start + number]].key
                draw = np.random.default_rng(int(text_sha256(f"{self.params.seed} {key}")[:16], 16))
                yield picture[np.sort(draw.permutation(len(picture))[:each])]
            start += len(tokens)

    @cached_property
    def _reduction_unit(self) -> Unit:
        rows, each = self._drawn(min(PCA_SAMPLES, self.params.fit_tokens))

        def write(folder: Path) -> UnitRecord:
            tokens = np.concatenate([part for shard, own in rows.items() for part in self._sample(shard, own, each)])
            if (most := min(tokens.shape[1], len(tokens) - 1)) < self.params.dims:
                raise InputError(
                    f"codes.dims {self.params.dims}: {len(tokens)} tokens of {tokens.shape[1]} dimensions have at most "
                    f"{most}; lower it"
                )
            found = fit_reduction(on_grid(tokens), self.params.dims)
            arrays = {"mean": found.mean.astype(np.int32), "basis": found.basis.astype(np.int32)}
            (folder / _FILE).write_bytes(save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
            return UnitRecord({"tokens": len(tokens)})

        inputs = {"pca": {shard: self._identity(shard) for shard in rows}, "each": each}
        return self.cache.get({**inputs, "rows": sum(map(len, rows.values())), **self._seeded}, write)

    @cached_property
    def _mean_unit(self) -> Unit:
        rows, each = self._drawn(min(PCA_SAMPLES, self.params.fit_tokens))

        def write(folder: Path) -> UnitRecord:
            total, count = 0.0, 0
            for shard, own in rows.items():
                for part in self._sample(shard, own, each):
                    total, count = total + on_grid(part).sum(axis=0), count + len(part)  # whole numbers: exact
            (folder / _FILE).write_bytes(save({"mean": np.rint(np.asarray(total) / count).astype(np.int32)}))
            return UnitRecord({"tokens": count})

        inputs = {"mean": {shard: self._identity(shard) for shard in rows}, "each": each}
        return self.cache.get({**inputs, "rows": sum(map(len, rows.values())), "seed": self.params.seed}, write)

    @property
    def _seeded(self) -> dict[str, object]:
        return {"dims": self.params.dims, "seed": self.params.seed}

    @cached_property
    def _fit_units(self) -> dict[str, Unit]:
        rows, each = self._drawn(self.params.fit_tokens, self._least)
        arrays = load_file(self._reduction_unit.file(_FILE))
        book = Codebook(np.zeros((1, self.params.dims), np.int16), arrays["mean"], arrays["basis"], {})
        units = {}
        with progress("tokens", len(rows), "shards") as bar:
            for shard, own in rows.items():

                def write(folder: Path, shard: str = shard, own: list[int] = own) -> UnitRecord:
                    parts = [book.reduced(part) for part in self._sample(shard, own, each)]
                    tokens = np.concatenate(parts)
                    (folder / _FILE).write_bytes(save({"tokens": tokens}))
                    return UnitRecord({"tokens": len(tokens)})

                inputs = {"fit": self._identity(shard), "basis": self._reduction_unit.sha256[_FILE], "each": each}
                chosen = text_sha256(",".join(map(str, own)))
                units[shard] = self.cache.get({**inputs, "chosen": chosen, "seed": self.params.seed}, write)
                bar.advance()
        return units


@dataclass(frozen=True)
class _FitTokens:
    """The reduced tokens that the codebook is fitted to, read when they are needed."""

    units: Mapping[str, Unit]

    @cached_property
    def all(self) -> np.ndarray:
        """[n, E] in int16."""
        return np.concatenate([load_file(unit.file(_FILE))["tokens"] for unit in self.units.values()])
