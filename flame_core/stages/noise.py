"""noise: keys of the training samples -> `data/sidecars/noise/`: the order by which samples swap texts.

    flame noise

Only if params have a section `noise`. The folder is a sidecar (docs/sidecars.md) of one whole number per sample, its
place in the order (`data/noise_order.py`), and holds `noise.html`, which shows what shares of noise do to the captions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flame_core import gates
from flame_core.captions.table import captions_file, first_captions
from flame_core.data.noise_order import NOISE, draw_order, moved, text_rows
from flame_core.data.shards import INDEX, Index, read_index
from flame_core.data.sidecars import gather_sidecar, write_values
from flame_core.digest import bytes_sha256
from flame_core.errors import InputError, ParamsError
from flame_core.layout import Layout
from flame_core.pages.noise import Share, noise_page, shares_chart
from flame_core.params import NoiseParams, Params
from flame_core.reporting import facts, picture, progress
from flame_core.verification import verify
from flame_core.work import UnitRecord, WorkCache

STAGE = "noise"
PAGE = "noise.html"


def run(params: Params, layout: Layout) -> None:
    """Draw the order that the section `noise` asks for."""
    chosen = params.noise
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `noise`: write `noise: {{seed: 0}}`")
    for source in (layout.shards, layout.captions):
        gates.require(source)
    verified = verify({layout.shards: [INDEX], layout.captions: ["train/*"]})
    index = read_index(layout.shards, "train")
    if len(index) < 2:
        raise InputError(f"{layout.shards}: noise needs two training samples, and there are {len(index)}")
    order = draw_order(index.table.column("key").to_pylist(), chosen.seed)
    texts = _texts(layout.captions, index, params.evaluate.train_language)
    shares = [Share.of(share, text_rows(order, share), texts) for share in chosen.shares]
    checks = noise_checks(order, shares, chosen)
    cache, units = WorkCache(layout.work, STAGE), {}
    spans, rows = index.spans(), index.table.column("row").to_numpy()
    with progress("order", len(spans), "shards") as bar:
        for shard, span in sorted(spans.items()):
            part = slice(span.start, span.stop)
            own = order[part][np.argsort(rows[part], kind="stable")]

            def write(folder: Path, own: np.ndarray = own) -> UnitRecord:
                write_values(folder, NOISE, own)
                return UnitRecord({"samples": len(own)})

            units[shard] = cache.get({"shard": shard, "places": bytes_sha256(own.tobytes())}, write)
            bar.advance()
    page = noise_page(chosen.seed, len(index), shares, texts, text_rows(order, max(chosen.shares)), order)
    origin = {"seed": chosen.seed, "samples": len(index)}
    gather_sidecar(layout.noise, layout.state, units, index, STAGE, origin, checks, {PAGE: page.encode()})
    facts(
        STAGE,
        {
            "samples": len(index),
            **{f"noise {each.share:g}": f"{each.moved:,} moved, {each.same:,} to an equal caption" for each in shares},
            "page": layout.noise / PAGE,
            "verified": verified,
        },
    )
    gates.warn(checks)
    picture("moved", lambda: shares_chart(shares, len(index)), "svg+xml")


def _texts(captions: Path, index: Index, language: str) -> list[str]:
    """The first raw caption of each sample in the language; an empty text if it has none."""
    texts, rows = [""] * len(index), index.table.column("row").to_numpy()
    for shard, own in sorted(index.spans().items()):
        found = first_captions(captions_file(captions, shard), "raw", language)
        texts[own.start : own.stop] = [found.get(row, "") for row in rows[own.start : own.stop].tolist()]
    return texts


def noise_checks(order: np.ndarray, shares: list[Share], chosen: NoiseParams) -> list[gates.Check]:
    """Checks that each share moves as many samples as it says, none to itself, and that texts differ then."""
    wrong = [each.share for each in shares if each.moved != moved(len(order), each.share)]
    largest = max(shares, key=lambda each: each.share)
    same = largest.same / largest.moved if largest.moved else 1.0  # nothing is moved, so nothing is told apart
    return [
        gates.Check(
            "noise_moves",
            np.array_equal(np.sort(order), np.arange(len(order))) and not wrong,
            "every share moves the number of samples that it says, and each to the texts of another",
            value=[each.moved for each in shares],
            threshold=[moved(len(order), each.share) for each in shares],
            keys=[f"{share:g}" for share in wrong],
        ),
        gates.Check(
            "noise_tells",
            same <= chosen.gates.max_same_fraction,
            "share of the moved samples whose new caption is the same as their own",
            value=round(same, 6),
            threshold=chosen.gates.max_same_fraction,
            blocking=False,
            keys=largest.equal_texts,
        ),
    ]
