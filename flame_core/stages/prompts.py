"""prompts: training captions, the LLM -> `data/prompts/`: a head that turns sentence vectors into soft prompts.

    flame prompts

Only if params have a section `prompts`; no picture is read. The folder holds `head.safetensors` and `config.json`
(`soft_prompts/prompt_head.py`), `metrics.jsonl` with a row per step, and `prompts.html` with what the LLM writes from
the prompts of held-out captions; with `prompts.encoder` also the trained encoder, `encoder.safetensors`.
"""

from __future__ import annotations

import json
from typing import Any

from flame_core import gates
from flame_core.data.shards import INDEX, read_index
from flame_core.digest import file_sha256
from flame_core.errors import ParamsError
from flame_core.layout import Layout
from flame_core.model_files import METRICS
from flame_core.pages.prompts import Rewritten, loss_picture, prompts_page
from flame_core.params import Params, PromptsParams
from flame_core.reporting import facts, picture
from flame_core.settings import settings
from flame_core.soft_prompts.learned import WRITTEN, Learning
from flame_core.soft_prompts.reconstruction import Reconstruction
from flame_core.soft_prompts.sentences import read_sentences, slots_by_kind
from flame_core.text.manifest import MANIFEST, captions_digest, require_training_fit, training_folder
from flame_core.text.store import CENTER, TrainStore
from flame_core.verification import read_digests, verify
from flame_core.work import WorkCache, gather

STAGE = "prompts"
PAGE = "prompts.html"


def run(params: Params, layout: Layout) -> None:
    """Learn the prompts that the section `prompts` asks for, or continue."""
    chosen = params.prompts
    if chosen is None:
        raise ParamsError(f"{layout.params} has no section `prompts`: write `prompts: {{count: 16}}`")
    llm = layout.llm / params.llm.name
    for source in (layout.shards, layout.captions, *([] if chosen.encoder else [layout.train_embeddings])):
        gates.require(source)
    wanted = {layout.shards: [INDEX], layout.captions: ["train/*"], layout.llm: [f"{llm.name}/*"]}
    if chosen.encoder is None:
        wanted[layout.train_embeddings] = [f"{_below(chosen, layout)}{name}" for name in _STORED]
    verified = verify(wanted)
    store = None if chosen.encoder else TrainStore(layout.embeddings)
    if store is not None:
        require_training_fit(store.manifest_of(chosen.reading), params, layout, chosen.reading)
    sentences = read_sentences(chosen, params, layout.captions, read_index(layout.shards, "train"), store)
    learning = Learning(
        params=chosen,
        llm_params=params.llm,
        folder=llm,
        sentences=sentences,
        source=_source(chosen, store, layout),
        captions=captions_digest(layout.captions, "train"),
        cache=WorkCache(layout.work, STAGE),
        device=settings().torch_device(),
    )
    unit = learning.run()
    tested, learned = (Reconstruction.of(rows) for rows in json.loads(unit.file(WRITTEN).read_bytes()))
    rows = [json.loads(line) for line in unit.file(METRICS).read_text("utf-8").splitlines()]
    checks = prompt_checks(tested, chosen, unchanged=not unit.record.counts["llm_changed"])
    losses = [row["lm"] for row in rows]
    figures = {
        "captions learned / held out": f"{len(sentences.learned):,} / {len(sentences.tested):,}",
        "loss per held-out token": f"{rows[-1]['held_out']:.3f} nats",
        "held-out captions written exactly": f"{tested.exact:.1%} of {len(tested.rows)}",
        "overlap of words, held out": f"{tested.overlap:.1%}",
        "overlap by chance": f"{tested.by_chance:.1%}",
        "overlap of words, learned": f"{learned.overlap:.1%}",
    }
    page = prompts_page(_shown(tested), _shown(learned), losses, figures)
    files = {name: unit.file(name) for name in unit.names() if name != WRITTEN}
    contents = {PAGE: page.encode(), gates.CHECKS: gates.to_bytes(checks)}
    gather(layout.prompts, layout.state, files, contents)
    facts(
        STAGE,
        {
            "prompts": f"{chosen.count} of {learning.hidden} numbers for {params.llm.name}",
            **figures,
            "for example": " | ".join(f"{row.text} -> {row.written}" for row in tested.rows[:3]),
            "page": layout.prompts / PAGE,
            "verified": verified,
        },
    )
    gates.warn(checks)
    picture("loss", lambda: loss_picture(losses), "svg+xml")


_STORED = ("[0-9]*", MANIFEST, CENTER)  # of the embeddings


def _below(chosen: PromptsParams, layout: Layout) -> str:
    """The folder of the vectors that are read, in that of the training embeddings, with a slash; or nothing."""
    below = training_folder(layout.train_embeddings, chosen.reading).relative_to(layout.train_embeddings).as_posix()
    return "" if below == "." else f"{below}/"


def _source(chosen: PromptsParams, store: TrainStore | None, layout: Layout) -> dict[str, Any]:
    """Which vectors the prompts are made from, as the head's config says it."""
    if store is None:
        return {"vectors": "encoder"}
    slots = {kind: [store.facets[i] for i in own] for kind, own in slots_by_kind(store.facets, chosen).items()}
    below = _below(chosen, layout)
    files = {
        name: sha256
        for name, sha256 in read_digests(layout.train_embeddings).items()
        if name.startswith(below) and "/" not in name.removeprefix(below) and name.endswith(".safetensors")
    }
    manifest = file_sha256(layout.train_embeddings / below / MANIFEST)
    return {"vectors": "stored", "reading": chosen.reading, "slots": slots, "embeddings": manifest, "files": files}


def _shown(found: Reconstruction) -> list[Rewritten]:
    return [Rewritten(row.text, row.written, row.overlap, row.nearest) for row in found.rows]


def prompt_checks(tested: Reconstruction, chosen: PromptsParams, *, unchanged: bool) -> list[gates.Check]:
    """Checks of what was written from held-out captions, and of the LLM."""
    worst = sorted(tested.rows, key=lambda row: row.overlap)[:20]
    return [
        gates.Check(
            "prompts_reconstruct",
            tested.overlap >= chosen.gates.min_overlap,
            "overlap of the words of held-out captions and of what the LLM writes from their prompts",
            value=tested.overlap,
            threshold=chosen.gates.min_overlap,
            keys=[f"{row.text} -> {row.written}" for row in worst],
        ),
        gates.Check(
            "prompts_beat_chance",
            tested.overlap > tested.by_chance,
            "the same overlap, against that with other captions",
            value=tested.overlap,
            threshold=tested.by_chance,
        ),
        gates.Check(
            "prompts_llm_unchanged",
            unchanged,
            "weights of the LLM after training, against those before",
            value=unchanged,
            threshold=True,
        ),
    ]
