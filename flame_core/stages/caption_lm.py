"""caption_lm: a model with a connector, pictures and captions -> `data/captioner/`, a model that writes captions.

    flame caption-lm

Only if params have a section `caption_lm`. The folder is that of a model (`model.safetensors`, `config.json`) with
`captions.json`, the texts of held-out pictures and their figures, `captioner.html` and `metrics.jsonl`. It is made of
two units of work: the training, and what is written afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_core import gates
from flame_core.captioning.checks import captioner_checks, ends
from flame_core.captioning.pairs import Batches, Pair, read_pairs
from flame_core.captioning.start import started_config, started_tower, tower_of
from flame_core.captioning.writer import PictureWriter
from flame_core.data.shards import INDEX, PictureReader
from flame_core.digest import json_bytes, json_lines_bytes, value_digest
from flame_core.errors import ParamsError
from flame_core.files.weights import own_weights_sha256, save_weights
from flame_core.graph.section_stages import captioner_start
from flame_core.layout import Layout
from flame_core.model_files import CONFIG, METRICS, WEIGHTS
from flame_core.pages.captioner import captioner_page
from flame_core.pages.charts import line_chart, standalone
from flame_core.params import CaptionLMParams, Params, changed_values
from flame_core.reporting import facts, picture
from flame_core.settings import settings
from flame_core.soft_prompts import RECORD, WRITES
from flame_core.soft_prompts.frozen_llm import FrozenLLM, load_frozen
from flame_core.text.cost import read_shape
from flame_core.verification import read_digests, verify
from flame_core.vision.image_encoder import ImageEncoder
from flame_core.work import Unit, UnitRecord, WorkCache, gather

STAGE = "caption_lm"
PAGE = "captioner.html"
_NOT_OF_WEIGHTS = ("gates", "recipe", "path", "written", "writing")


def run(params: Params, layout: Layout) -> None:
    """Train the captioner that the section `caption_lm` asks for, or resume."""
    import torch

    chosen = params.caption_lm
    if chosen is None:
        raise ParamsError(
            f"{layout.params} has no section `caption_lm`: write `caption_lm: {{recipe: p-former-align}}`"
        )
    source, llm = captioner_start(layout, chosen), layout.llm / params.llm.name
    for folder in (layout.shards, layout.captions, source):
        gates.require(folder)
    verified = verify(
        {
            layout.shards: [INDEX, "*.tar"],
            layout.captions: ["*.parquet"],
            source: [CONFIG, WEIGHTS],
            layout.llm: [f"{llm.name}/*"],
        }
    )
    config = started_config(chosen, source, llm, read_shape(params, llm).hidden)
    language = params.evaluate.train_language
    pairs = read_pairs(layout.shards, layout.captions, "train", chosen.kinds, language, chosen.pairs)
    shown = read_pairs(layout.shards, layout.captions, "val", ["raw"], language, chosen.written)
    torch.set_num_threads(chosen.cpu_threads)

    def open_llm() -> FrozenLLM:
        dtype, device = getattr(torch, chosen.dtype), settings().torch_device()
        return load_frozen(llm, params.llm, dtype, device, config[WRITES]["template"])

    data = {
        "model": {name: digest for name, digest in read_digests(source).items() if name in (CONFIG, WEIGHTS)},
        "llm": config[WRITES]["llm"],
        "pairs": _identity(pairs, layout),
    }
    values = {name: value for name, value in changed_values(chosen).items() if name not in _NOT_OF_WEIGHTS}
    trained = _trained(chosen, layout, pairs, source, config, {"params": values, **data}, open_llm)
    written = _written(chosen, layout, shown, trained, config, open_llm)
    record = json.loads(written.file(RECORD).read_text("utf-8"))
    losses = [json.loads(line)["loss"] for line in trained.file(METRICS).read_text("utf-8").splitlines()]
    checks = captioner_checks(record["scores"], losses, bool(trained.record.counts["llm_unchanged"]), chosen)
    about = {"start": chosen.start, "training pairs": f"{len(pairs):,}", "steps": f"{len(losses):,}", "LLM": llm.name}
    reader, rows = PictureReader(layout.shards), {pair.row.key: pair.row for pair in shown}
    page = captioner_page(about, record["scores"], record["captions"], losses, lambda key: reader.jpeg(rows[key]))
    contents = {
        CONFIG: json_bytes({**config, STAGE: {**values, "samples": len(pairs)}, "data": data}),
        PAGE: page.encode(),
        gates.CHECKS: gates.to_bytes(checks),
    }
    files = {WEIGHTS: trained.file(WEIGHTS), METRICS: trained.file(METRICS), RECORD: written.file(RECORD)}
    gather(layout.captioner, layout.state, files, contents)
    _tell(about, record["scores"], losses, layout, trained, verified)
    gates.warn(checks)


def _trained(
    chosen: CaptionLMParams,
    layout: Layout,
    pairs: Sequence[Pair],
    source: Path,
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    open_llm: Callable[[], FrozenLLM],
) -> Unit:
    """The unit with the tower's weights and the loss of each step."""
    import torch

    from flame_core.captioning.fit import fit
    from flame_core.stepping.stepwise import trained_unit

    def train(folder: Path, checkpoints: Path) -> UnitRecord:
        llm = open_llm()
        before = own_weights_sha256(llm.model)
        tower = started_tower(chosen, source, config, llm.row_scale)
        torch.use_deterministic_algorithms(llm.device.type == "cpu")
        size = config["recipe"]["model"]["image_size"]
        batches = Batches(pairs, layout.shards, chosen.batch_size, size, chosen.augmentation, chosen.seed)
        metrics = fit(tower, llm, batches, chosen, checkpoints)
        save_weights(tower, folder / WEIGHTS)
        (folder / METRICS).write_bytes(json_lines_bytes(metrics))
        return UnitRecord({"steps": len(metrics), "llm_unchanged": int(own_weights_sha256(llm.model) == before)})

    return trained_unit(WorkCache(layout.work, STAGE), inputs, train)


def _written(
    chosen: CaptionLMParams,
    layout: Layout,
    shown: Sequence[Pair],
    trained: Unit,
    config: Mapping[str, Any],
    open_llm: Callable[[], FrozenLLM],
) -> Unit:
    """The unit with the texts of held-out pictures and their figures."""
    from safetensors.torch import load_file

    from flame_core.captioning.held_out import held_out

    def write(folder: Path) -> UnitRecord:
        tower, llm, reader = tower_of(config), open_llm(), PictureReader(layout.shards)
        tower.load_state_dict(load_file(trained.file(WEIGHTS)))
        read = {**config, "recipe": {**config["recipe"], "cpu_threads": chosen.cpu_threads}}
        writer = PictureWriter(ImageEncoder(tower, read, str(llm.device)), llm)
        v = writer.prompts([reader.jpeg(pair.row) for pair in shown])
        texts = writer.texts(v, chosen.writing)
        keys, references = [pair.row.key for pair in shown], [pair.captions for pair in shown]
        found = held_out(llm, v, keys, texts, references, chosen.max_tokens)
        (folder / RECORD).write_bytes(json_bytes(found.record()))
        return UnitRecord({"pictures": len(shown)})

    inputs = {
        "weights": trained.sha256[WEIGHTS],
        "reads": config[WRITES],
        "dtype": chosen.dtype,
        "writing": chosen.writing.model_dump(),
        "pictures": _identity(shown, layout),
    }
    return WorkCache(layout.work, STAGE).get(inputs, write)


def _identity(pairs: Sequence[Pair], layout: Layout) -> str:
    tars = read_digests(layout.shards)
    return value_digest([[pair.row.key, tars[pair.row.shard], list(pair.captions)] for pair in pairs])


def _tell(
    about: Mapping[str, str],
    scores: Mapping[str, float],
    losses: Sequence[float],
    layout: Layout,
    trained: Unit,
    verified: Any,
) -> None:
    first, last = ends(losses)
    facts(
        STAGE,
        {
            **about,
            "first / last loss": f"{first:.3f} / {last:.3f}",
            "held-out loss, own / other picture": f"{scores['loss']:.3f} / {scores['loss_of_others']:.3f}",
            "BLEU-4": f"{scores['bleu_4']:.1%}",
            "CIDEr-D": f"{scores['cider']:.2f}",
            "different texts": f"{scores['distinct']:.0%}",
            "from": "trained now" if trained.computed else "the work cache",
            "page": layout.captioner / PAGE,
            "verified": verified,
        },
    )
    chart = line_chart(range(len(losses)), list(losses), "Loss by step, in nats per token", "step")
    picture("loss", lambda: standalone(chart), "svg+xml")
