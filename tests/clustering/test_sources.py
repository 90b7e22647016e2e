"""What is refused of the vectors that are clustered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flame_core.clustering.sources import require_dims
from flame_core.errors import ParamsError


def test_more_dimensions_than_vectors_have_are_refused_with_the_param_to_lower():
    source: Any = SimpleNamespace(dims=32)
    require_dims("cluster.dims", 32, source, 33)
    with pytest.raises(ParamsError, match=r"^select\.dims 33: 40 vectors of 32 dimensions have at most 32; lower it$"):
        require_dims("select.dims", 33, source, 40)
    with pytest.raises(
        ParamsError, match=r"^semdedup\.dims 32: 32 vectors of 32 dimensions have at most 31; lower it$"
    ):
        require_dims("semdedup.dims", 32, source, 32)
