"""`cluster`: labels for the training samples, from clusters of their captions' vectors; optional."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, model_validator

from flame_core.params.section import CaptionKind, Fraction, Positive, Reading, Section, refuse
from flame_core.params.training import LinkedPath


class TeacherVectors(Section):
    """Vectors of another text model, one per training sample."""

    sidecar: LinkedPath | None = Field(default=None, description="folder of a sidecar of vectors")
    npy: LinkedPath | None = Field(default=None, description="a .npy file of vectors [N, D], float16 or float32")
    keys: LinkedPath | None = Field(
        default=None, description="text file with the key of each vector of `npy`, one per line"
    )

    @model_validator(mode="after")
    def _names_one(self) -> TeacherVectors:
        if (self.sidecar is None) == (self.npy is None) or (self.npy is None) != (self.keys is None):
            raise ValueError("name a sidecar, or npy and keys")
        return self

    @property
    def paths(self) -> list[str]:
        """What is read."""
        return [path for path in (self.sidecar, self.npy, self.keys) if path is not None]


class ClusterSizeGates(Section):
    """Thresholds of the sizes of clusters."""

    max_empty_fraction: Fraction = Field(default=0.1, description="of clusters without a sample")
    max_over_mean: float = Field(default=20.0, gt=1, description="size of the largest cluster over the mean size")


class ClusterGates(ClusterSizeGates):
    """Thresholds of the checks of `flame cluster`."""

    min_samples: float = Field(default=10.0, ge=1, description="samples per cluster on average; only warns")


class KMeansParams(Section):
    """Spherical k-means over one vector per training sample."""

    clusters: Positive
    dims: Positive = Field(default=64, description="of the space in which they are clustered, by PCA")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the clusters")
    iterations: Positive = Field(default=20, description="at most")
    fit_samples: Positive = Field(
        default=1_000_000, description="samples at most that the centroids are fitted to; all get a cluster"
    )

    @model_validator(mode="after")
    def _enough_are_fitted_to(self, info: ValidationInfo) -> KMeansParams:
        if self.fit_samples < self.clusters:
            said = (
                f"{self.fit_samples:,} samples make no {self.clusters:,} clusters: raise it to 10 times as many or more"
            )
            refuse([(("fit_samples",), said)], info)
        return self


class ClusterParams(KMeansParams):
    """Clusters of the captions' vectors, or of other ones."""

    clusters: Positive = Field(description="K; 10 to 40 samples per cluster are usual")
    kinds: list[CaptionKind] | None = Field(
        default=None, min_length=1, description="kinds of captions whose vectors are averaged; null: text.train_kinds"
    )
    reading: Reading = Field(default="facets", description="the LLM's reading of the captions")
    vectors: TeacherVectors | None = Field(default=None, description="vectors to cluster; null: the stored ones")
    gates: ClusterGates = ClusterGates()
