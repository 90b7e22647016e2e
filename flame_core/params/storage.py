"""`storage`: what DVC keeps beside the working tree."""

from __future__ import annotations

from pydantic import Field

from flame_core.params.section import Section


class StorageParams(Section):
    """Honoured by workspaces, whose `dvc.yaml` is written by `flame run`."""

    cache: bool = Field(
        default=True,
        description="DVC's cache keeps versions of shards and embeddings; false where terabytes shall exist once",
    )
