"""The crossed table: text side {frozen LLM, random LLM, trained} by loss {sigmoid, InfoNCE}, and FLAME's own.

    python -m benchmarks.clip_baseline            # the project's params.yaml (the demo): 8 arms, 48 trainings
    python -m benchmarks.clip_baseline --preset presets/flickr8k.yaml --set sources.flickr8k.path=/where/it/is

Same tower, projector, augmentation, caption draws, batch and steps in every arm. For each arm three learning rates
are tried with a fifth of the training pictures held out, and the best of them (recall@10 in English, both directions)
trains on all with three seeds. Every run is a workspace, so what is done is found again; a table closes the run.
"Better" means by more than two standard errors.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flame_core.data.shards import INDEX, INDEX_SCHEMA, IndexRow, read_index
from flame_core.digest import text_sha256, write_json
from flame_core.evaluation.pictures import encode_pictures
from flame_core.evaluation.retrieval import Pairing, both_ways
from flame_core.evaluation.text_side import trained_texts
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.text.jobs import training_job
from flame_core.text.store import TOKENIZER, TrainStore
from flame_core.training.job import CaptionSource, TrainingJob
from flame_core.vision.tower import CONFIG, load_encoder
from flame_core.workspace import open_workspace, resolve_params

RATES = (5e-4, 1e-3, 2e-3)
SEEDS = (0, 1, 2)
HELD_OUT = 5  # one training picture in so many
RANDOM = ["llm.name=random-llm", "llm.random_seed=0"]
SMALL_TOWER = "train.text_tower={width: 192, depth: 4, heads: 3, max_tokens: 64}"  # as small as the demo's image tower
RAW_ALONE = ["train.kinds=[raw]", "train.objective.texts_per_image=1"]


@dataclass(frozen=True)
class Arm:
    """A row of the table: a recipe, and what is laid over the params for it."""

    name: str
    recipe: str
    overrides: list[str]


ARMS = [
    Arm("frozen LLM, sigmoid (FLAME)", "flame", []),
    Arm("frozen LLM, InfoNCE", "flame-infonce", []),
    Arm("random LLM, sigmoid", "flame", RANDOM),
    Arm("random LLM, InfoNCE", "flame-infonce", RANDOM),
    Arm("trained text, sigmoid", "clip-sigmoid", [SMALL_TOWER]),
    Arm("trained text, InfoNCE (CLIP)", "clip", [SMALL_TOWER]),
    Arm("FLAME, raw caption alone", "flame-raw", RAW_ALONE),
    Arm("FLAME with facet tokens", "flame-facets", []),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--arms", type=int, nargs="*", help="numbers of arms, from 0 (default: all)")
    options = parser.parse_args()
    rows = []
    for number, arm in enumerate(ARMS):
        if options.arms and number not in options.arms:
            continue
        own = [*options.overrides, f"recipes=[{arm.recipe}]", *arm.overrides]
        run(["embed"], own, options.preset)
        rate = max(RATES, key=lambda rate: tuning_score(arm.recipe, own, options.preset, rate))
        scores = [final_scores(arm.recipe, own, options.preset, rate, seed) for seed in SEEDS]
        rows.append((arm.name, rate, *zip(*scores, strict=True)))
        print(line(*rows[-1]), flush=True)
    print("\n| arm | rate | English recall@10 | other languages |\n|---|---|---|---|")
    print("\n".join(line(*row) for row in rows))


def line(name: str, rate: float, english: tuple[float, ...], others: tuple[float, ...]) -> str:
    """A row of the table, in per cent with the deviation over the seeds."""
    shown = [f"{100 * mean(each):.1f} ± {100 * stdev(each):.1f}" for each in (english, others)]
    return f"| {name} | {rate:g} | {shown[0]} | {shown[1]} |"


def run(targets: list[str], overrides: list[str], preset: Path | None) -> tuple[Params, Layout]:
    """Bring stages up to date in the workspace of these params; returns params and layout of that workspace."""
    command = [sys.executable, "-c", "from flame_core.cli import main; main()", "run", *targets]
    command += [word for override in overrides for word in ("--set", override)]
    command += ["--preset", str(preset)] if preset else []
    subprocess.run(command, check=True)
    layout = Layout.find()
    resolved = resolve_params(layout, overrides, preset)
    return resolved.params, open_workspace(layout, resolved)


def final_scores(recipe: str, overrides: list[str], preset: Path | None, rate: float, seed: int) -> tuple[float, float]:
    """Recall@10 of a training on all pictures: English, and the mean of the other languages; both directions."""
    own = [*overrides, f"train.optimizer.learning_rate={rate}", f"train.seed={seed}"]
    _, layout = run([f"evaluate@{recipe}"], own, preset)
    metrics = json.loads((layout.report(recipe) / "metrics.json").read_text())
    ways = ("image_to_text", "text_to_image")
    english, others = (
        mean(metrics[f"retrieval/{language}/{way}/recall@10"] for way in ways) for language in ("en", "other_languages")
    )
    return english, others


def tuning_score(recipe: str, overrides: list[str], preset: Path | None, rate: float) -> float:
    """English recall@10 on held-out training pictures of a training on the others."""
    params, layout = run(["embed"], [*overrides, f"train.optimizer.learning_rate={rate}"], preset)
    chosen = params.train[recipe]
    rows = read_index(layout.shards, "train")
    held = [row for row in rows if int(text_sha256(row.key), 16) % HELD_OUT == 0]
    store = TrainStore(layout.embeddings)
    source = CaptionSource(
        captions=layout.captions,
        tokenizer=layout.embeddings / TOKENIZER,
        text=params.text,
        language=params.evaluate.train_language,
    )
    slots = [i for i, name in enumerate(store.facets) if name.split("/")[0] in chosen.kinds]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "model"
        out.mkdir()
        write_rest(folder / "shards", layout.shards, [row for row in rows if row not in held])
        TrainingJob(
            recipe=chosen,
            shards=folder / "shards",
            embeddings=layout.embeddings,
            slots=slots,
            captions=source if chosen.text_tower else None,
            checkpoints=folder / "checkpoints",
            out=out,
        ).run()
        config = {"recipe": chosen.model_dump(mode="json"), "hidden": store.hidden}
        config["facets"] = [store.facets[i] for i in slots]
        config["text_facets"] = {kind: len(each.facets) for kind, each in params.text.template.items()}
        write_json(out / CONFIG, config)
        z = encode_pictures(load_encoder(out, settings().torch_device()), layout.shards, held)[:, 0]
        trained = trained_texts(out)
    raw = {
        shard: training_job(layout.captions, shard, params.text, params.evaluate.train_language).texts["raw"]
        for shard in {row.shard for row in held}
    }
    count = params.text.captions_per_image
    texts = [raw[row.shard][row.row * count] for row in held]
    slot = [store.facets.index("raw/1")]
    t = trained("raw", texts)[:, 0] if trained else np.stack([store.read(r.shard, r.row, slot)[0] for r in held])
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    pairing = Pairing.of(((i, number[text]) for i, text in enumerate(texts)), list(number))
    distinct = np.stack([t[texts.index(text)] for text in number])
    return mean(found.recall(10) for found in both_ways(z, distinct, pairing).values())


def write_rest(folder: Path, shards: Path, rows: list[IndexRow]) -> None:
    """The same shards with an index of some of their rows."""
    folder.mkdir()
    (folder / "train").symlink_to((shards / "train").resolve())
    table = pa.Table.from_pylist([vars(row) for row in rows], schema=INDEX_SCHEMA)
    pq.write_table(table, folder / INDEX)


if __name__ == "__main__":
    main()
