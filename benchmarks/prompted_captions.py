"""Align-then-LM against the LM loss by itself, with few pairs: captions of held-out pictures, three seeds, equal steps.

    python -m benchmarks.prompted_captions                    # after `flame run` with a section prompts and a tower
    python -m benchmarks.prompted_captions --recipe lit       # the tower of another recipe
    python -m benchmarks.prompted_captions --recipe lit --pairs 60 635 --seeds 0 --alignment 50 500 2000
    python -m benchmarks.prompted_captions --table            # only the table of existing results

It reads the project in the working folder: data/shards, data/captions, data/embeddings, data/prompts, data/llm and the
tower in data/models/<recipe>. The tower is frozen, so its patches are computed once, without crops; only a connector is
trained, a new one in each arm. Arm `lm` has the LM loss in all steps; `align-then-lm` has the alignment in the first
half and the LM loss in the second. A seed draws the pairs, the connector and the batches, the same ones in both arms.
`--alignment` makes other arms: so many steps of it, and then half of the steps with the LM loss.
Captions of a batch are of similar length, since pads cost as much as words, and reference prompts are computed once.
With four prompts and captions of at most 12 tokens (`prompts: {count: 4, max_tokens: 12}`), a step of 8 through
SmolLM2-135M took 1.3 s of one core, or 0.8 s with two threads; the 18 trainings of a tower took 22 minutes.
A line of prompted_captions.jsonl is one training; those that are there are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from flame_core.captioning.held_out import held_out
from flame_core.captioning.pairs import Pair, read_pairs
from flame_core.data.shards import PictureReader
from flame_core.layout import Layout
from flame_core.objectives.prompt_alignment import alignment
from flame_core.params import CaptionWriting, ConnectorParams, load_params
from flame_core.settings import settings
from flame_core.soft_prompts.frozen_llm import FrozenLLM, load_frozen
from flame_core.soft_prompts.prompt_head import PromptHead
from flame_core.soft_prompts.reader import caption_ids, caption_loss, write
from flame_core.stepping.learning_rate import learning_rate
from flame_core.text.store import Drawn, TrainStore
from flame_core.vision.connector import Connector
from flame_core.vision.image_encoder import load_encoder
from flame_core.vision.tower import ImageTower

RESULTS = Path(__file__).parent / "prompted_captions.jsonl"
ARMS = ("lm", "align-then-lm")
LONGER, HELD = "align-{}-then-lm", 100  # an arm of its own; pairs whose prompts are not learned
RATE, WARMUP, SHOWN = 5e-4, 10, 6
WINDOW = 8  # batches among whose samples those of similar length are put together


@dataclass(frozen=True)
class World:
    """What all trainings share.

    Attributes:
        patches: [N, P, C] of the pictures to train on, and `test_patches` of those held out.
        references: prompts [N, n, H] of the captions to train on.
        lengths: tokens [N] of these captions.
    """

    llm: FrozenLLM
    head: PromptHead
    train: list[Pair]
    test: list[Pair]
    patches: Tensor
    test_patches: Tensor
    references: Tensor
    lengths: Tensor

    @classmethod
    def open(cls, recipe: str, tested: int) -> World:
        """Of the project in the working folder."""
        layout, device = Layout.find(), settings().torch_device()
        params = load_params(layout)
        head = PromptHead.load(layout.data / "prompts")
        store, name = TrainStore(layout.embeddings), next(iter(head.config.source["slots"].values()))[0]
        language = params.evaluate.train_language
        train, test = (
            read_pairs(layout.shards, layout.captions, split, [name.partition("/")[0]], language)
            for split in ("train", "val")
        )
        reader, encoder = PictureReader(layout.shards), load_encoder(layout.model(recipe), device)

        def patches(pairs: Sequence[Pair]) -> Tensor:
            return torch.from_numpy(encoder.encode_with(ImageTower.patches, [reader.jpeg(pair.row) for pair in pairs]))

        test = test[:tested]
        slot = store.facets.index(name)
        t = store.read([Drawn(pair.row.shard, pair.row.row, [slot]) for pair in train])[:, 0].float()
        llm = load_frozen(layout.llm / params.llm.name, params.llm, torch.float32, device, head.config.template)
        head.require_llm(llm.digest, llm.name)
        lengths = caption_ids(llm, [pair.captions[0] for pair in train], head.config.max_tokens).mask.sum(dim=1)
        return cls(llm, head, train, test, patches(train), patches(test), head(t), lengths)


def trained(world: World, arm: str, pairs: int, seed: int, steps: int, batch: int) -> dict[str, Any]:
    """The figures of one training."""
    own, llm, start = world.head.config, world.llm, time.process_time()
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(world.train), generator=draw)[:pairs]
    torch.manual_seed(seed)
    sizes = ConnectorParams(prompts=own.prompts, width=256, layers=2, heads=4)
    connector = Connector(world.patches.shape[-1], sizes, own.hidden).to(llm.device)
    connector.start_at(own.scale)
    longer, found = _alignment_of(arm), {}
    if longer:
        _train(world, connector, batches(world.lengths[chosen], batch, longer, draw), chosen, longer)
        found = {"explained": _explained(world, connector, pairs, seed), "before": _tested(world, connector)["scores"]}
        steps //= 2
    drawn = batches(world.lengths[chosen], batch, steps, draw)
    losses = _train(world, connector, drawn, chosen, steps // 2 if arm == "align-then-lm" else 0)
    found |= _tested(world, connector)
    return {**found, "last_loss": mean(losses[-10:]), "seconds": time.process_time() - start}


def _alignment_of(arm: str) -> int:
    """Steps of alignment in an arm with more of them than half; 0 of the others."""
    number = arm.removeprefix("align-").removesuffix("-then-lm")
    return int(number) if number.isdecimal() else 0


def _train(world: World, connector: Connector, drawn: Tensor, chosen: Tensor, aligned: int) -> list[float]:
    """Train on batches `drawn` of rows of `chosen`, the first `aligned` of them by alignment; the LM losses."""
    own, llm, steps, losses = world.head.config, world.llm, len(drawn), []
    optimizer = torch.optim.AdamW(connector.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.05)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, WARMUP, RATE)
        rows = chosen[drawn[step]]
        v = connector(world.patches[rows].to(llm.device))
        if step < aligned:
            loss = alignment(v, world.references[rows].to(llm.device)) / own.scale**2
        else:
            texts = [world.train[row].captions[0] for row in rows.tolist()]
            loss = caption_loss(llm, v, caption_ids(llm, texts, own.max_tokens))
            losses.append(float(loss.detach()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(connector.parameters(), 1.0)
        optimizer.step()
    return losses


def _explained(world: World, connector: Connector, pairs: int, seed: int) -> dict[str, float]:
    """R^2 of the reference prompts, of pairs that were learned and, if there are enough, of others."""
    order = torch.randperm(len(world.train), generator=torch.Generator().manual_seed(seed))
    parts = {"learned": order[:pairs][:HELD]} | ({"others": order[-HELD:]} if pairs <= len(order) - HELD else {})
    middle = world.references.mean(dim=0)

    def share(rows: Tensor) -> float:
        with torch.no_grad():
            left = connector(world.patches[rows].to(world.llm.device)).cpu() - world.references[rows]
        return 1 - float(left.square().mean() / (world.references[rows] - middle).square().mean())

    return {name: share(rows) for name, rows in parts.items()}


def batches(lengths: Tensor, batch: int, steps: int, draw: torch.Generator) -> Tensor:
    """Rows [steps, batch] of samples with these lengths: drawn at random, similar lengths of a window in one batch."""
    found = []
    for _ in range(-(-steps // WINDOW)):
        rows = torch.randint(len(lengths), (WINDOW * batch,), generator=draw)
        rows = rows[lengths[rows].argsort(stable=True)].unflatten(0, (WINDOW, batch))
        found.append(rows[torch.randperm(WINDOW, generator=draw)])
    return torch.cat(found)[:steps]


def _tested(world: World, connector: Connector) -> dict[str, Any]:
    with torch.no_grad():
        v = torch.cat([connector(part.to(world.llm.device)).cpu() for part in world.test_patches.split(32)])
    options = CaptionWriting(max_new_tokens=world.head.config.max_tokens).options
    texts = [" ".join(text.split()) for part in v.split(16) for text in write(world.llm, part, **options)]
    keys, references = [pair.row.key for pair in world.test], [pair.captions for pair in world.test]
    found = held_out(world.llm, v, keys, texts, references, world.head.config.max_tokens)
    shown = [each.text for each in found.written[:SHOWN]]  # without the captions of others
    return {"scores": found.scores(), "shown": shown}


def read_results(path: Path) -> list[dict[str, Any]]:
    """The lines of existing results."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean figures of the seeds by tower, pairs and arm, in Markdown; `different` is the share of different texts."""
    lines = [
        "| tower | pairs | steps | arm | seeds | held-out loss, own / other picture | CIDEr-D | BLEU-4 | different "
        "| R^2 of prompts, learned / others |",
        "|---|" + "---|" * 9,
    ]
    for recipe, pairs, steps in sorted({(row["recipe"], row["pairs"], row["steps"]) for row in rows}):
        for arm in dict.fromkeys([*ARMS, *(row["arm"] for row in rows)]):
            wanted = (recipe, pairs, steps, arm)
            own = [row for row in rows if (row["recipe"], row["pairs"], row["steps"], row["arm"]) == wanted]
            if own:
                figure = {name: mean(row["scores"][name] for row in own) for name in own[0]["scores"]}
                lines.append(
                    f"| {recipe} | {pairs} | {steps} | {arm} | {len(own)} "
                    f"| {figure['loss']:.3f} / {figure['loss_of_others']:.3f} "
                    f"| {figure['cider']:.3f} | {figure['bleu_4']:.1%} | {figure['distinct']:.0%} "
                    f"| {_shares([row.get('explained', {}) for row in own])} |"
                )
    return "\n".join(lines)


def _shares(explained: Sequence[dict[str, float]]) -> str:
    """Means of the seeds, learned and others, as far as they were measured."""
    means = {name: mean(each[name] for each in explained) for name in explained[0]}
    return " / ".join(f"{share:.2f}" for share in means.values())


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[60, 200, 735])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tested", type=int, default=64, help="held-out pictures")
    parser.add_argument("--recipe", default="flame", help="of the tower")
    parser.add_argument("--alignment", type=int, nargs="+", default=[], help="steps of it, in arms of their own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print existing results only")
    chosen = parser.parse_args()
    rows = read_results(chosen.results)
    if not chosen.table:
        world: World | None = None
        for pairs in chosen.pairs:
            for seed in chosen.seeds:
                for arm in map(LONGER.format, chosen.alignment) if chosen.alignment else ARMS:
                    run = {"recipe": chosen.recipe, "pairs": pairs, "seed": seed, "arm": arm}
                    run |= {"steps": chosen.steps, "batch": chosen.batch}
                    if any(run.items() <= row.items() for row in rows):
                        continue
                    if world is None:
                        world = World.open(chosen.recipe, chosen.tested)
                        torch.set_num_threads(chosen.threads)  # opening has set that of the params
                    row = run | trained(world, arm, min(pairs, len(world.train)), seed, chosen.steps, chosen.batch)
                    row["llm"] = world.llm.name
                    rows.append(row)
                    with chosen.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n")
                    print(json.dumps(row, ensure_ascii=False), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
