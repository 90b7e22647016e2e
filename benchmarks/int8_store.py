"""How much recall an int8 store costs: the demo's training on int8 vectors against the same on float16 ones.

    python -m benchmarks.int8_store        # after `make demo`; embeds once more, then two trainings per seed

Both stores are made from the LLM's own output. Trainings share params and seeds, and the seeds show how much of a
difference is chance. For queries, one model trained on float16 vectors is queried with float16 and with int8 texts, so
that nothing else differs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev

from benchmarks.clip_baseline import SMALL
from benchmarks.measure import record
from benchmarks.trainings import Scores, Store, embedded, scores, trained, validation_rows
from flame_core.layout import Layout
from flame_core.text.store import TextStore
from flame_core.workspace import resolve_params

INT8 = ["text.store_dtype=int8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    stores = {"float16": embedded([], None), "int8": embedded(INT8, None)}
    differences: dict[str, list[dict[str, float]]] = {"trained and asked": [], "asked": []}
    for seed in range(parser.parse_args().seeds):
        exact = asked(stores["float16"], [stores["float16"], stores["int8"]], seed)
        coarse = asked(stores["int8"], [stores["int8"]], seed)
        for name, other in (("trained and asked", coarse[0]), ("asked", exact[1])):
            differences[name].append({group: other[group] - exact[0][group] for group in exact[0]})
        print(f"seed {seed}: float16 {exact[0]}, int8 {coarse[0]}, int8 texts alone {exact[1]}", flush=True)
    for name, found in differences.items():
        for group in found[0]:
            own = [100 * each[group] for each in found]
            record("int8_store", f"{name}, {group}", mean(own), "points of recall@10")
            record(
                "int8_store", f"{name}, {group}, standard error", stdev(own) / len(own) ** 0.5, "points of recall@10"
            )


def asked(store: Store, texts: list[Store], seed: int) -> list[dict[str, float]]:
    """Recall of a model trained on one store, queried with the texts of each of several stores."""
    recipe = resolve_params(Layout.find(), [*SMALL, f"train.seed={seed}"], None).params.train["flame"]
    rows = validation_rows(store)
    with tempfile.TemporaryDirectory() as name:
        z, _ = trained(store, recipe, Path(name), rows)
    return [grouped(scores(each, rows, z, TextStore.open(each.layout.embeddings).lookup)) for each in texts]


def grouped(found: Scores) -> dict[str, float]:
    """English, and the mean of the other languages."""
    others = [score for language, score in found.items() if language != "en"]
    return {"English": found["en"], "other languages": mean(others)}


if __name__ == "__main__":
    main()
