"""`semdedup`: a selection without semantic duplicates, by vectors of the pictures; optional."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flame_core.params.clustering import ClusterParams
from flame_core.params.section import Fraction, Positive, Section
from flame_core.params.training import LinkedPath


class SemDedupGates(Section):
    max_empty_fraction: Fraction = Field(default=0.1, description="of clusters without a sample")
    max_over_mean: float = Field(default=20.0, gt=1, description="size of the largest cluster over the mean size")
    min_kept: Fraction = Field(default=0.2, description="share of the samples that are kept")


class SemDedupParams(Section):
    """Of training pictures whose vectors nearly agree, one is kept."""

    vectors: LinkedPath = Field(
        default="data/sidecars/features",
        description="a sidecar of one vector per sample, by default what the stage `features` stores",
    )
    clusters: Positive = Field(description="within which pictures are compared; about one per 1,000 samples")
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.95, description="cosine above which two pictures are duplicates; the paper's 1 - epsilon"
    )
    keep: Literal["farthest", "nearest"] = Field(
        default="farthest", description="from the centroid, of duplicates; the paper keeps the farthest"
    )
    dims: Positive = Field(default=64, description="of the space in which they are clustered, by PCA")
    seed: int = Field(default=0, ge=0, lt=2**32)
    iterations: Positive = Field(default=20, description="at most")
    fit_samples: Positive = Field(
        default=1_000_000, description="samples at most that the centroids are fitted to; all get a cluster"
    )
    gates: SemDedupGates = SemDedupGates()

    @property
    def clustering(self) -> ClusterParams:
        """How the vectors are clustered, as the stage `cluster` says it."""
        shared = {"clusters", "dims", "seed", "iterations", "fit_samples"}
        return ClusterParams(**self.model_dump(include=shared))
