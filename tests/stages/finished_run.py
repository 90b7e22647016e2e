"""A finished run that tests make: real shards, a real (untrained) tower and a real store."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from flame_core import gates
from flame_core.captions.table import write_captions
from flame_core.data.ledger import LEDGER, LedgerEntry, ledger_table
from flame_core.data.shards import INDEX, INDEX_SCHEMA, Sample, write_shard
from flame_core.digest import write_json
from flame_core.layout import Layout
from flame_core.measuring.texts import class_names, evaluation_texts
from flame_core.params import Params
from flame_core.text.manifest import MANIFEST, captions_digest, template_content
from flame_core.text.store import write_texts
from flame_core.verification import write_digests
from tests.measuring import world


def finished_run(tmp_path: Path) -> tuple[Params, Layout]:
    """Params and layout of a run of two untrained recipes, as far as `train`."""
    params = world.params(tmp_path, gates={"min_recall_over_chance": 0.0})
    layout = Layout(tmp_path, tmp_path)
    for folder in ("shards/train", "shards/val", "captions/train", "captions/val", "embeddings/texts"):
        (layout.data / folder).mkdir(parents=True)
    captions = world.captions()
    classes = world.classes()
    samples = [
        Sample(key, world.jpeg(index), {"category": f"{classes[key]}/small" if key in classes else None})
        for index, key in enumerate(world.KEYS)
    ]
    rows = []
    for split, chosen in (("train", samples[:3]), ("val", samples)):
        shard = f"{split}/00000.tar"
        places = write_shard(layout.shards / shard, chosen)
        for row, (sample, (offset, size)) in enumerate(zip(chosen, places, strict=True)):
            values = (sample.key, split, shard, row, offset, size, 48, 40, "0", 1)
            rows.append(dict(zip(INDEX_SCHEMA.names, values, strict=True)))
        own = [caption for caption in captions if caption.row < len(chosen)]
        write_captions(layout.captions / split / "00000.parquet", own)
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), layout.shards / INDEX)
    pq.write_table(ledger_table([LedgerEntry("made", "x", "dropped", "no_caption", "")]), layout.shards / LEDGER)

    wanted = evaluation_texts(params, captions, class_names(classes))
    vectors = {}
    for kind in ("raw", "short"):
        texts = [text for other, text in wanted if other == kind]
        vectors[kind] = (texts, world.lookup(kind, texts))
    write_texts(layout.embeddings / "texts" / "00000.safetensors", vectors, "float32")
    manifest = {
        "llm": {"name": params.llm.name, "source": params.llm.source},
        "layer": params.text.layer,
        "template": template_content(params),
        "normalise": params.text.normalise,
        "center": "none",
        "store_dtype": params.text.store_dtype,
        "facets": ["raw/1", "short/1", "short/2"],
        "text_facets": ["raw/1", "short/1", "short/2"],
        "captions": captions_digest(layout.captions),
        "hidden": world.DIMENSIONS,
        "report": {"anisotropy": {}},
    }
    write_json(layout.embeddings / MANIFEST, manifest)
    for seed, recipe in enumerate(params.recipes):
        model(params, layout.model(recipe), recipe, seed)
    for out in (layout.shards, layout.captions, layout.embeddings, *map(layout.model, params.recipes)):
        (out / gates.CHECKS).write_bytes(gates.to_bytes([]))
        write_digests(out)
    return params, layout


def model(params, folder: Path, recipe: str, seed: int) -> None:
    from flame_core.model_files import CONFIG, WEIGHTS
    from flame_core.vision.tower import ImageTower

    torch.manual_seed(seed)
    tower = ImageTower(params.train[recipe].model, world.DIMENSIONS, facets=2)
    folder.mkdir(parents=True)
    save_file(tower.state_dict(), folder / WEIGHTS)
    recipe_params = params.train[recipe].model_dump(mode="json")
    llm = {"name": params.llm.name, "source": params.llm.source}
    config = {"recipe": recipe_params, "hidden": world.DIMENSIONS, "facets": ["raw/1", "short/1", "short/2"]}
    config |= {"llm": llm, "layer": params.text.layer}
    write_json(folder / CONFIG, config)
    lines = [{"step": s, "loss": 2.0 - s / 10, "learning_rate": 0.1} for s in range(5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
