"""`semdedup`: a selection without semantic duplicates, by vectors of the pictures; optional."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flame_core.params.clustering import ClusterSizeGates, KMeansParams
from flame_core.params.section import Fraction, Positive
from flame_core.params.training import LinkedPath


class SemDedupGates(ClusterSizeGates):
    """Thresholds of the checks of `flame semdedup`."""

    min_kept: Fraction = Field(default=0.2, description="share of the samples that are kept")


class SemDedupParams(KMeansParams):
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
    gates: SemDedupGates = SemDedupGates()
