"""A sidecar of the right sizes in place of one that no stage has made yet: what a training costs follows from sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from flame_core.data.sidecars import MANIFEST, SidecarManifest, ValueType, write_values
from flame_core.digest import file_sha256, json_bytes

_SHARD = "00000"


@dataclass(frozen=True)
class StandInSidecar:
    """Values [n, ...] of n samples, the stage that will make the real ones, and what the folder holds beside them."""

    stage: str
    values: np.ndarray
    origin: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Make the folder, as the stage will; returns it."""
        folder.mkdir()
        write_values(folder, _SHARD, self.values)
        for name, content in self.beside.items():
            (folder / name).write_bytes(content)
        manifest = SidecarManifest(
            name=folder.name,
            stage=self.stage,
            dtype=cast(ValueType, self.values.dtype.name),
            shape=self.values.shape[1:],
            index="",
            origin=dict(self.origin),
            files={f"{_SHARD}.safetensors": file_sha256(folder / f"{_SHARD}.safetensors")},
        )
        (folder / MANIFEST).write_bytes(json_bytes(manifest.model_dump()))
        return folder
