"""What stages cost that send all pictures through towers once: `flame features` and `flame scores`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flame_core.codes.tower_shape import TowerShape
from flame_core.data.stand_in_sidecar import StandInSidecar
from flame_core.params import FeaturesParams, ScoresParams
from flame_core.params.scores import TableScorerParams
from flame_core.quantities import size_text, time_at
from flame_core.text.cost import BYTES


def features_section(
    params: FeaturesParams, samples: int, tower: TowerShape, tflops: float
) -> dict[str, dict[str, str]]:
    """A title, and what the stored vectors of `samples` pictures cost at a rate."""
    views = samples * len(params.views)
    stored = views * tower.dims * BYTES[params.dtype]
    return {
        f"features: {views:,} views of {samples:,} pictures": {
            "pictures through the tower": f"{views:,} of {tower.flops / 1e9:,.3g} G FLOPs",
            "time of the tower": time_at(views * tower.flops, tflops),
            "vectors": f"{size_text(stored)} in {params.dtype}, and as much in the work cache",
        }
    }


def features_stand_in(params: FeaturesParams, dims: int, pictures: int) -> StandInSidecar:
    """Stored vectors of so many pictures; those in int8 are read as float32."""
    dtype = np.float32 if params.dtype == "int8" else np.dtype(params.dtype)
    return StandInSidecar("features", np.zeros((pictures, len(params.views), dims), dtype))


def scores_section(
    params: ScoresParams, samples: int, towers: Mapping[str, TowerShape | str], tflops: float
) -> dict[str, dict[str, str]]:
    """A title, and what scoring `samples` pictures costs at a rate.

    Args:
        params: of the scorers.
        samples: training pictures.
        towers: {scorer: the shape of its model, or why it is unknown}; a table's is not there.
        tflops: rate of the models.
    """
    known = {name: tower for name, tower in towers.items() if isinstance(tower, TowerShape)}
    unknown = {name: tower for name, tower in towers.items() if isinstance(tower, str)}
    flops = sum(tower.flops for tower in known.values()) * samples
    passes = {
        f"pictures through {name}": f"{samples:,} of {own.flops / 1e9:,.3g} G FLOPs" for name, own in known.items()
    }
    time = {"time of the models": f"{time_at(flops, tflops)}, without captions"}
    tables = sum(isinstance(each, TableScorerParams) for each in params.scorers.values())
    return {
        f"scores: {len(params.scorers)} of {samples:,} samples": {
            **passes,
            **({"read from tables": str(tables)} if tables else {}),
            **(time if known else {}),
            "numbers": f"{size_text(4 * samples * len(params.scorers))}, and as much in the work cache",
            **({"not counted": "; ".join(f"{name}: {why}" for name, why in unknown.items())} if unknown else {}),
        }
    }
