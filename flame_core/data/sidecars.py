"""Sidecars: one small value per training sample, stored by a stage and read by the terms of an objective.

A value is a cluster's label, a teacher's vector or a weight. `data/sidecars/<name>/` holds

    00000.safetensors   the values of data/shards/train/00000.tar, [rows, ...], one row per sample of the shard
    manifest.json       type and shape of a value, the training index it is aligned with, and its origin
    checks.json, digests.json

A stage writes the values of a shard into a unit of its work cache (`write_values`) and gathers all units at the end
(`gather_sidecar`); `own_sidecar` does both for values that lie in memory. A training opens the sidecars that its recipe
names (`open_sidecars`); docs/sidecars.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flame_core import gates
from flame_core.absent_outs import bringing
from flame_core.data.shards import Index
from flame_core.digest import bytes_sha256, json_bytes
from flame_core.errors import ComputationError, InputError, ParamsError
from flame_core.files.int8_rows import OFFSET, SCALE, coded
from flame_core.files.stored_rows import RowFile, StoredTensor, read_rows
from flame_core.names import Name
from flame_core.work import Unit, gather, stage_versions

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
VALUES = "values"  # name of the one tensor of a file
ValueType = Literal["int64", "int32", "float32", "float16", "int8"]
_STORED: dict[str, ValueType] = {  # by safetensors' names
    "I64": "int64",
    "I32": "int32",
    "F32": "float32",
    "F16": "float16",
    "I8": "int8",  # codes of vectors (`int8_rows`)
}


class SidecarManifest(BaseModel):
    """The type, shape and origin of a sidecar's values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    stage: Name  # the stage that made it
    dtype: ValueType
    shape: tuple[Annotated[int, Field(gt=0)], ...]  # of one value: [] for a number, [D] for a vector
    index: str  # digest of the training split's index
    origin: dict[str, Any]  # as given by the stage
    files: dict[str, str]  # sha256 by file name


class Sidecar:
    """The values of a sidecar, read by shard and row. A copy for another process opens its files again.

    Raises:
        InputError: the folder or its manifest is missing, or the manifest is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest, self.digest = _read_manifest(folder)  # digest: of all values and their origin
        own = self.manifest.stage not in stage_versions()
        self._maker = f"{'dvc repro' if own else 'flame'} {self.manifest.stage}"
        self._files: dict[str, RowFile] = {}
        self._offsets: dict[str, Tensor] = {}

    def require_aligned(self, index: Index) -> None:
        """Refuse values of other samples; reads the header of every file.

        Args:
            index: all rows of the training split, even if only a selection is used for training.

        Raises:
            InputError: the manifest names another index, or a file is missing or has other rows, type or shape.
        """
        if self.manifest.index != index.digest():
            raise InputError(f"{self.folder}: aligned with other shards; run `{self._maker}` again")
        for shard, rows in sorted(index.shard_sizes().items()):
            found = self._file(shard).tensor(VALUES).shape[0]
            if found != rows:
                raise InputError(
                    f"{self.folder / _file_name(shard)}: {found} values for the {rows} samples of {shard}; "
                    f"run `{self._maker}` again"
                )

    def read_rows(self, rows: Index) -> Tensor:
        """The values of the samples of an index [N, ...], as `read` gives them; read shard by shard."""
        import torch

        places, parts = rows.table.column("row").to_numpy(), []
        for shard, own in rows.spans().items():
            parts.append(self.read([(shard, row) for row in places[own.start : own.stop].tolist()]))
        return torch.cat(parts) if parts else self.read([])

    def read(self, places: Sequence[tuple[str, int]]) -> Tensor:
        """The values at (shard, row), [b, ...] in the stored type; vectors in int8 as float32.

        Raises:
            IndexError: a shard has no such row.
            InputError: a file is missing or damaged, or a value is not finite.
        """
        import torch

        if not places:
            kind = "float32" if self.manifest.dtype == "int8" else self.manifest.dtype
            return torch.empty((0, *self.manifest.shape), dtype=getattr(torch, kind))
        files, rows = [self._file(shard) for shard, _ in places], [row for _, row in places]
        values = read_rows(VALUES, files, rows)
        if self.manifest.dtype == "int8":
            scales = read_rows(VALUES + SCALE, files, rows)
            offsets = torch.stack([self._offset(shard) for shard, _ in places])
            values = values.float().mul_(scales[..., None]).add_(offsets)
        finite = values.isfinite()
        if not finite.all():
            shard, row = places[int(finite.flatten(1).all(dim=1).logical_not().nonzero()[0])]
            raise InputError(
                f"{self.folder / _file_name(shard)}: the value of row {row} is not finite; run `{self._maker}` again"
            )
        return values

    def _offset(self, shard: str) -> Tensor:
        """The means of the vectors of a shard in int8, read once."""
        if shard not in self._offsets:
            file = self._file(shard)
            count = file.tensor(VALUES + OFFSET).shape[0]
            self._offsets[shard] = read_rows(VALUES + OFFSET, [file] * count, range(count))
        return self._offsets[shard]

    def _file(self, shard: str) -> RowFile:
        if shard not in self._files:
            path = self.folder / _file_name(shard)
            if not path.is_file():
                raise InputError(f"{path} is missing, which holds the values of {shard}; run `{self._maker}` again")
            file = RowFile(path, self._maker)
            found, wanted = _kind(file.tensor(VALUES)), _shown(self.manifest.dtype, ("rows", *self.manifest.shape))
            if found != wanted:
                raise InputError(f"{path}: holds {found}, and {MANIFEST} says {wanted}; run `{self._maker}` again")
            self._files[shard] = file
        return self._files[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_offsets": {}}  # file descriptors are not valid in worker processes


def open_sidecars(needed: Mapping[str, Sequence[str]], given: Mapping[str, Path], index: Index) -> dict[str, Sidecar]:
    """The sidecars of a recipe by name, aligned with the training index and with no failed check.

    Args:
        needed: {term of the objective: names of the sidecars that it reads}.
        given: {name: folder}, from the recipe.
        index: all rows of the training split, even if only a selection is used for training.

    Raises:
        ParamsError: a term reads a sidecar that the recipe does not give, or no term reads one that it gives.
        InputError: a sidecar is missing, damaged or aligned with other shards.
        GateError: a blocking check of a sidecar failed.
    """
    require_named(needed, given)
    opened = {}
    for name, folder in sorted(given.items()):
        opened[name] = Sidecar(folder)
        gates.require(folder)
        opened[name].require_aligned(index)
    return opened


def require_named(needed: Mapping[str, Sequence[str]], given: Collection[str]) -> None:
    """Refuse terms and a recipe that do not name the same sidecars; no file is read.

    Args:
        needed: {term of the objective: names of the sidecars that it reads}.
        given: names, from the recipe.

    Raises:
        ParamsError: a term reads a sidecar that the recipe does not give, or no term reads one that it gives.
    """
    for term, names in needed.items():
        for name in names:
            if name not in given:
                raise ParamsError(
                    f"{term} reads the sidecar {name!r}, which the recipe does not give: write "
                    f"`sidecars: {{{name}: data/sidecars/{name}}}` into the recipe"
                )
    if unread := sorted(set(given) - {name for names in needed.values() for name in names}):
        raise ParamsError(
            f"no term of the recipe reads the sidecar {unread[0]!r}: take it out of `sidecars`, or name a term that "
            "reads it"
        )


def write_values(folder: Path, name: str, values: np.ndarray) -> None:
    """Write the values of a shard's samples, [rows, ...], into the folder of a unit of work.

    Raises:
        ComputationError: the type is none of `ValueType`, or a value is not finite.
    """
    from safetensors.numpy import save

    kind, known = values.dtype.name, [each for each in get_args(ValueType) if each != "int8"]
    if kind not in known or not values.ndim or not all(values.shape[1:]):
        raise ComputationError(
            f"{name}: values of type {kind} and shape {list(values.shape)}; a sidecar holds [rows, ...] in "
            f"{', '.join(known)}"
        )
    if not (finite := np.isfinite(values)).all():
        row = np.argwhere(~finite)[0][0]
        raise ComputationError(f"{name}: the value of row {row} is not finite")
    (folder / f"{name}.safetensors").write_bytes(save({VALUES: np.ascontiguousarray(values, dtype=kind)}))


def write_int8(folder: Path, name: str, vectors: np.ndarray) -> None:
    """Write the vectors of a shard's samples, [rows, ..., D] in float32, as `int8_rows` codes them.

    Raises:
        ComputationError: a number is not finite.
    """
    import torch
    from safetensors.torch import save

    if not np.isfinite(vectors).all():
        raise ComputationError(f"{name}: the value of row {np.argwhere(~np.isfinite(vectors))[0][0]} is not finite")
    content = save(coded(VALUES, torch.from_numpy(np.ascontiguousarray(vectors, np.float32))))
    (folder / f"{name}.safetensors").write_bytes(content)


def gather_sidecar(
    out: Path,
    state: Path,
    units: Mapping[str, Unit],
    index: Index,
    stage: str,
    origin: Mapping[str, Any],
    checks: Iterable[gates.Check] = (),
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Make the sidecar `out` from finished units; its name is that of the folder.

    Args:
        out: the sidecar's folder, such as `data/sidecars/labels`.
        state: folder for incomplete folders (`Layout.state`).
        units: {shard: the unit into which `write_values` wrote the values of its samples}.
        index: all rows of the training split.
        stage: the stage that makes it: `cluster` for `flame cluster`, or one of the project's own.
        origin: what the values depend on, params and digests of inputs, as JSON.
        checks: the stage's checks; consumers refuse a sidecar with a failed blocking check.
        beside: further small files of the folder; `origin` names the digests of those that a training reads.

    Raises:
        ComputationError: the units are not of the index's shards and rows, or differ in type or shape.
    """
    sizes = index.shard_sizes()
    if differing := sorted(sizes.keys() ^ units.keys()):
        raise ComputationError(f"{out}: values of {len(units)} shards for {len(sizes)}; {differing[0]} is only in one")
    own = f"{out.name}.safetensors"  # the name within a unit
    tensors = {shard: RowFile(units[shard].file(own), f"flame {stage}").tensor(VALUES) for shard in sorted(sizes)}
    for shard, tensor in tensors.items():
        if tensor.shape[0] != sizes[shard]:
            raise ComputationError(f"{out}: {tensor.shape[0]} values for the {sizes[shard]} samples of {shard}")
    kinds = {_kind(tensor): shard for shard, tensor in tensors.items()}
    if len(kinds) != 1:
        shown = " and ".join(f"{kind} in {shard}" for kind, shard in kinds.items()) or "none"
        raise ComputationError(f"{out}: the values of a sidecar are of one type and shape; these are {shown}")
    first = tensors[min(tensors)]
    digests = {_file_name(shard): unit.sha256[own] for shard, unit in units.items()}
    manifest = SidecarManifest(
        name=out.name,
        stage=stage,
        dtype=_STORED[first.dtype],
        shape=first.shape[1:],
        index=index.digest(),
        origin=dict(origin),
        files=digests,
    )
    contents = {**(beside or {}), MANIFEST: json_bytes(manifest.model_dump()), gates.CHECKS: gates.to_bytes(checks)}
    gather(out, state, {_file_name(shard): unit.file(own) for shard, unit in units.items()}, contents, digests)


def _read_manifest(folder: Path) -> tuple[SidecarManifest, str]:
    """The manifest and the sha256 of its bytes."""
    path = folder / MANIFEST
    if not path.is_file():
        what = path if folder.is_dir() else folder
        raise InputError(f"the sidecar {what} is missing: {bringing(folder)}")
    try:
        content = path.read_bytes()
        return SidecarManifest.model_validate_json(content), bytes_sha256(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is damaged ({where}: {first['msg']}): run the stage that writes it again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}): run the stage that writes it again") from None


def _kind(tensor: StoredTensor) -> str:
    """Type and shape of stored values, such as `float16 [rows, 512]`."""
    return _shown(_STORED.get(tensor.dtype, tensor.dtype), ("rows", *tensor.shape[1:]) if tensor.shape else ())


def _shown(dtype: str, shape: tuple[str | int, ...]) -> str:
    return f"{dtype} [{', '.join(map(str, shape))}]"


def _file_name(shard: str) -> str:
    """00000.safetensors of train/00000.tar."""
    return Path(shard).with_suffix(".safetensors").name
