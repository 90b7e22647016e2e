"""Clusters are fitted to enough samples, whatever is clustered."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from flame_core.params import ClusterParams, KMeansParams, SelectParams, SemDedupParams

SELECTIONS = {"half": {"mode": "random", "share": 0.5}}


@pytest.mark.parametrize(
    ("section", "values"), [(ClusterParams, {}), (SemDedupParams, {}), (SelectParams, {"selections": SELECTIONS})]
)
def test_fewer_samples_than_clusters_are_refused(section: type[KMeansParams], values: dict) -> None:
    assert section.model_validate({"clusters": 20, "fit_samples": 20, **values}).fit_samples == 20
    for few in ({"clusters": 20, "fit_samples": 19}, {"clusters": 1_000_001}):
        with pytest.raises(ValidationError, match=r"samples make no [\d,]+ clusters"):
            section.model_validate(few | values)
