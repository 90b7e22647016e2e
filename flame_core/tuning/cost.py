"""What `flame tune` costs: features of the labelled pictures by every model, then heads on one core."""

from __future__ import annotations

from flame_core.params import TuneParams
from flame_core.quantities import core_time, size_text, time_at

ASSUMED_PICTURES = 10_000  # of a benchmark, whose pictures are not looked at for a plan


def tune_section(
    params: TuneParams, samples: int, towers: dict[str, tuple[float, int]], tflops: float
) -> dict[str, dict[str, str]]:
    """A title, and what the heads of the models in `towers` cost.

    Args:
        params: of the heads.
        samples: training pictures, all of which may have a class.
        towers: {model: (FLOPs of a picture's forward pass, dimensions of its features)}.
        tflops: rate of the towers.
    """
    pictures = samples if params.benchmark is None else ASSUMED_PICTURES
    factors = {preset: len(set(params.factors)) if preset in ("paper", "code") else 1 for preset in params.presets}
    of_towers = heads = of_heads = views = 0.0
    for name, (flops, dims) in towers.items():
        presets = {"lp": 1} if name in params.probed else factors
        crops = params.views.count if any(preset != "lp" for preset in presets) else 0
        of_towers += flops * pictures * (1 + crops)
        views = max(views, 4.0 * pictures * (crops + 1) * dims)
        for preset, tried in presets.items():
            count = tried * len(params.seeds)
            heads += count
            of_heads += count * params.epochs * _epoch(params, pictures, dims, preset == "lp")
    basis = {} if params.benchmark is None else {"basis": f"{pictures:,} training pictures of the benchmark, assumed"}
    uncounted = {"not counted": ", ".join(params.baselines)} if params.baselines else {}
    return {
        f"heads: {heads:,.0f} on {pictures:,} pictures at most": {
            "time of the towers": f"{time_at(of_towers, tflops)}, without tests",
            "time of one core": core_time(of_heads),
            "features": f"{size_text(views)} per model in memory and in the work cache",
            **basis,
            **uncounted,
        }
    }


def _epoch(params: TuneParams, pictures: int, dims: int, probe: bool) -> float:
    """FLOPs of an epoch of a head: the layers forward and backward, L_COV and the singular values of L_SVD."""
    if probe:
        return 0.0
    rows = 2 * min(params.batch_size, pictures)
    small, large = sorted((rows, dims))
    layers = 3 * 2 * 2.0 * rows * params.ratio * dims**2
    spectra = 2.0 * small**2 * large + 3 * (14.0 * small**2 * large + 8.0 * small**3)
    return (layers + spectra) * max(1, pictures // params.batch_size)
