"""What `flame codes`, `select`, `semdedup` and `noise` cost, from sizes and from measured rates of one core."""

from __future__ import annotations

import math

from flame_core.clustering.cost import cluster_cost
from flame_core.clustering.pipeline import PCA_SAMPLES
from flame_core.clustering.spherical import SEEDED_BY
from flame_core.codes.minibatch import FEWEST_TOKENS
from flame_core.codes.tower_shape import TowerShape
from flame_core.cores import CORE_TFLOPS
from flame_core.params import CodesParams, NoiseParams, SelectParams, SemDedupParams
from flame_core.quantities import core_time, duration, size_text, time_at

NOISE_PER_SECOND = SELECT_PER_SECOND = 50_000.0  # samples on one core: keys, captions, files; without the clusters
_NOISE_BYTES = 600.0  # memory per sample: index, keys, captions
_COMPARED_BYTES = 8.0 * 2**26  # memory: vectors of the clusters that are compared at once
_SELECT_BYTES = 700.0  # memory per sample: index, keys, places
_KEY_BYTES = 12.0  # of a stored key, compressed
_TWICE = 200  # pictures that are coded again, to see whether the codes are the same

Section = dict[str, dict[str, str]]


def codes_section(params: CodesParams, samples: int, tower: TowerShape | str, tflops: float) -> Section:
    """A title, and what coding `samples` pictures costs by a tower at a rate; `tower` may say why it is unknown."""
    title = f"codes: {params.codes:,} of {samples:,} pictures"
    if isinstance(tower, str):
        return {title: {"not counted": tower}}
    made = params.frozen is None
    least = tower.patches if params.codebook == "vq" else FEWEST_TOKENS
    of_tokens = made and params.codebook != "words"
    fitted = _drawn(samples, tower.patches, params.fit_tokens, least) if of_tokens else (0, 0)
    of_pca = _drawn(samples, tower.patches, min(PCA_SAMPLES, params.fit_tokens)) if made else (0, 0)
    forwards = samples + fitted[0] + of_pca[0] + min(_TWICE, 2 * samples)
    space = tower.dims if params.codebook == "words" else params.dims
    batch = min(params.batch_tokens, fitted[1])
    seeded = min(fitted[1], SEEDED_BY * params.codes)
    trained = made and params.codebook == "vq"
    search = _captioner_flops(params, tower.patches) if trained else params.steps * 2.0 * params.codes * space * batch
    flops = {
        "PCA": 2.0 * of_pca[1] * tower.dims**2 + 9.0 * tower.dims**3 if fitted[1] else 0.0,
        "first codes": 2.0 * params.codes * space * (2 + math.log(params.codes)) * seeded,
        "codebook": search,
        "codes": 2.0 * samples * tower.patches * space * (params.codes + (tower.dims if space < tower.dims else 0)),
    }
    memory = max(8.0 * (2 * of_pca[1] * tower.dims + 3 * tower.dims**2), fitted[1] * (2.0 * space + 8))
    return {
        title: {
            "pictures through the tower": f"{forwards:,} of {tower.flops / 1e9:,.3g} G FLOPs",
            "time of the tower": time_at(forwards * tower.flops, tflops),
            "time of one core": core_time(sum(flops.values())),
            "memory": f"{size_text(memory)} beside the tower",
            "codes and keys": size_text(samples * (2 * tower.patches + 4 + _KEY_BYTES)),
        }
    }


def select_section(params: SelectParams, samples: int, codes: int, patches: int) -> Section:
    """A title, and what clustering `samples` pictures of `patches` codes below `codes` and selecting costs."""
    cost = cluster_cost(params, samples, codes, 1, 2 * patches / codes)
    flops = cost.flops if params.frozen is None else {name: cost.flops[name] for name in ("reduction", "labels")}
    seconds = sum(flops.values()) / (CORE_TFLOPS * 1e12) + samples / SELECT_PER_SECOND
    budgets = [min(each.budget(samples), samples) for each in params.selections.values()]
    return {
        f"selections: {len(budgets)} of {samples:,} samples, {params.clusters:,} clusters": {
            "time of one core": duration(seconds),
            "memory": size_text(_SELECT_BYTES * samples + cost.memory),
            "clusters of samples": size_text(samples * (8 + _KEY_BYTES)),
            "keys of the selections": size_text(sum(budgets) * (_KEY_BYTES + 16)),
            "work cache": size_text(cost.cache_bytes),
        }
    }


def semdedup_section(params: SemDedupParams, samples: int, dims: int | str) -> Section:
    """A title, and what clustering and comparing vectors of `dims` numbers costs; `dims` may say why it is unknown."""
    title = f"semantic duplicates: {samples:,} samples, {params.clusters:,} clusters"
    if isinstance(dims, str):
        return {title: {"not counted": dims}}
    cost = cluster_cost(params, samples, dims, 1, 2)
    largest = samples / params.clusters  # if all are of one size
    flops = sum(cost.flops.values()) + 2.0 * samples * largest * dims
    compared = max(_COMPARED_BYTES, 8.0 * largest * dims)
    return {
        title: {
            "time of one core": core_time(flops) + ", if all clusters are of one size",
            "memory": size_text(_SELECT_BYTES * samples + max(cost.memory, compared)),
            "kept and removed": size_text(samples * (_KEY_BYTES + 16)),
            "work cache": size_text(cost.cache_bytes + 16 * samples),
        }
    }


def noise_section(params: NoiseParams, samples: int) -> Section:
    """A title, and what the order of `samples` samples costs."""
    return {
        f"noise: the order of {samples:,} samples": {
            "time of one core": duration(samples / NOISE_PER_SECOND),
            "memory": size_text(_NOISE_BYTES * samples),
            "sidecar": f"{size_text(8 * samples)}, and as much in the work cache",
            "moved": ", ".join(f"{int(share * samples):,} at {share:g}" for share in params.shares),
        }
    }


def _captioner_flops(params: CodesParams, patches: int) -> float:
    """FLOPs of training a codebook with a captioner, on captions of `max_words` words."""
    vq, space = params.vq, params.dims
    per_patch = params.codes * space / 3 + space * vq.width + 2 * vq.layers * vq.width**2  # codes are looked up once
    per_word = vq.layers * (14 * vq.width**2 + 2 * patches * vq.width) + vq.words * vq.width
    return 6.0 * vq.steps * vq.batch_size * (patches * per_patch + vq.max_words * per_word)


def _drawn(samples: int, patches: int, most: int, least: int = FEWEST_TOKENS) -> tuple[int, int]:
    """Pictures that give at most so many tokens in all, and the tokens."""
    each = min(patches, max(least, most // samples))
    pictures = min(samples, max(1, most // each))
    return pictures, pictures * each
