"""What captions of a chat server will cost in tokens, and in money if params have a price. For `flame plan`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds

from flame_core.captions.captioner import KINDS
from flame_core.captions.server.captioner import LEDGERS
from flame_core.params import Params, ServerCaptioner
from flame_core.quantities import duration

_PATCH = 28  # pixels of the longer and shorter side that make one token, as in Qwen-VL
_LOW = 85  # tokens of a picture with `detail: low`, as OpenAI counts
_TURN = 10  # tokens of a chat template, assumed
_SECONDS = 2.0  # for an answer, assumed


class Tokens(NamedTuple):
    """Mean tokens of a request and of its answer, and where they come from."""

    prompt: float
    answer: float
    basis: str


def server_sections(
    params: Params, captions: Path, images: int, raw_tokens: float, count: Callable[[str], int], requests: int
) -> dict[str, dict[str, str]]:
    """A section of `flame plan` for each kind that a server writes.

    Args:
        params: the params.
        captions: the folder `data/captions`, whose ledger has the tokens of answers that are there.
        images: training pictures.
        raw_tokens: mean tokens of a raw caption.
        count: counts the tokens of a text.
        requests: in flight at once.
    """
    share = params.ingest.val_fraction
    samples = round(images / (1.0 - share)) if isinstance(share, float) and share < 1.0 else images
    sections = {}
    for kind in KINDS:
        chosen = getattr(params.caption, kind)
        if isinstance(chosen, ServerCaptioner):
            each = _measured(captions, kind) or _assumed(chosen, params.ingest.max_side, raw_tokens, count)
            sections[f"captions: {kind}, by {chosen.model}"] = _section(chosen, each, samples, requests)
    return sections


def _section(chosen: ServerCaptioner, each: Tokens, samples: int, requests: int) -> dict[str, str]:
    read, written = samples * each.prompt, samples * each.answer
    section = {
        "requests": f"{samples:,}",
        "tokens read": f"{read:,.0f} ({each.prompt:,.0f} per request)",
        "tokens written": f"{written:,.0f} ({each.answer:,.0f} per answer)",
    }
    if (price := chosen.price) is not None:
        cost = (read * price.input + written * price.output) / 1e6
        section["cost"] = f"{price.currency} {cost:,.2f}, without what is asked again after failures"
    time = duration(samples * _SECONDS / requests)
    return section | {
        "time": f"{time}, if {requests} requests in flight get an answer in {_SECONDS:g} s each (assumed)",
        "basis": each.basis,
    }


def _measured(captions: Path, kind: str) -> Tokens | None:
    """The means of the answers that are there and say how many tokens they took."""
    folder = captions / LEDGERS
    if not folder.is_dir():
        return None
    try:
        rows = ds.dataset(folder, format="parquet").to_table(
            ["prompt_tokens", "completion_tokens"], (ds.field("kind") == kind) & ds.field("prompt_tokens").is_valid()
        )
    except (OSError, pa.ArrowException):
        return None
    if not rows.num_rows:
        return None
    prompt, answer = (sum(value or 0 for value in rows.column(name).to_pylist()) for name in rows.column_names)
    return Tokens(prompt / rows.num_rows, answer / rows.num_rows, f"means of {rows.num_rows:,} answers that are there")


def _assumed(chosen: ServerCaptioner, side: int, raw_tokens: float, count: Callable[[str], int]) -> Tokens:
    text = _TURN + count(chosen.prompt.replace("{caption}", "")) + count(chosen.system or "")
    text += raw_tokens if "{caption}" in chosen.prompt else 0
    picture = 0 if not chosen.picture else _LOW if chosen.detail == "low" else (side / _PATCH) ** 2
    basis = f"words counted; an answer of max_new_tokens; {picture:,.0f} tokens per picture (assumed)"
    return Tokens(text + picture, chosen.max_new_tokens, basis)
