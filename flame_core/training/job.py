"""A training as one value: what is trained, on which data, and where weights and metrics go.

The stage runs it in its own process, or hands it to `launcher`, which starts this module once a process:

    python -m flame_core.training.job job.json
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
import warnings
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from torch.nn import Module

from flame_core.data.shards import read_index
from flame_core.digest import write_json
from flame_core.errors import FlameError
from flame_core.params import TextParams, TrainParams
from flame_core.training.distributed import ALONE, Ranks

METRICS = "metrics.jsonl"
_PARENT_SECONDS = 2.0  # between two looks whether the launcher is still there


class CaptionSource(BaseModel):
    """Where a text tower that is trained along finds its captions and its tokenizer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    captions: Path
    tokenizer: Path
    text: TextParams
    language: str


class TrainingJob(BaseModel):
    """Folders and params of a training; the folder `out` gets `model.safetensors` and `metrics.jsonl`.

    With a text tower, also `text.safetensors` and its `tokenizer.json`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: TrainParams
    shards: Path
    embeddings: Path
    slots: list[int]  # places in a sample's row of the store that texts are drawn from
    captions: CaptionSource | None  # of recipes with a text tower
    checkpoints: Path
    out: Path
    journal: Path | None = None  # where the first rank records every step, if anywhere

    def run(self, ranks: Ranks = ALONE) -> None:
        """Train, or resume; the first rank writes."""
        from flame_core.data.loader import TrainingSamples
        from flame_core.text import transformer
        from flame_core.text.store import TOKENIZER, TrainStore
        from flame_core.tracking.journal import Journal
        from flame_core.tracking.steps import StepRecorder
        from flame_core.training.loop import train
        from flame_core.vision.tower import WEIGHTS

        store = texts = TrainStore(self.embeddings)
        if (source := self.captions) is not None and self.recipe.text_tower is not None:
            tokens = transformer.Captions(source.tokenizer, self.recipe.text_tower)
            texts = transformer.CaptionSamples(source.captions, tokens, store.facets, source.text, source.language)
        samples = TrainingSamples(read_index(self.shards, "train"), self.shards, texts, self.slots, self.recipe)
        record = {}
        if self.journal is not None and ranks.first:
            record = {"on_step": StepRecorder(Journal(self.journal)).record}
        trained = train(samples, store.hidden, self.recipe, self.checkpoints, ranks, **record)
        if ranks.first:
            _save(trained.tower, self.out / WEIGHTS)
            lines = [json.dumps(row, sort_keys=True) + "\n" for row in trained.metrics]
            (self.out / METRICS).write_text("".join(lines), "utf-8")
            if source is not None and trained.text_tower is not None:
                _save(trained.text_tower, self.out / transformer.WEIGHTS)
                shutil.copyfile(source.tokenizer, self.out / TOKENIZER)
        ranks.barrier()


def _save(tower: Module, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: w.detach().cpu().contiguous() for name, w in sorted(tower.state_dict().items())}, path)


def error_file(folder: Path, rank: int) -> Path:
    """Where a rank of a job writes the error that it ended with."""
    return folder / f"error-{rank:05}.json"


def _main(path: Path) -> int:
    from flame_core.reporting import configure_logging
    from flame_core.settings import settings
    from flame_core.training.distributed import join

    rank = int(os.environ["RANK"])
    warnings.filterwarnings(
        "ignore", "Grad strides do not match bucket view strides"
    )  # a dimension of size 1: harmless
    configure_logging(settings().log_level if rank == 0 else "WARNING")
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    job = TrainingJob.model_validate_json(path.read_text("utf-8"))
    try:
        with join(settings().torch_device()) as ranks:
            job.run(ranks)
    except FlameError as error:
        write_json(error_file(path.parent, rank), {"code": error.exit_code, "message": str(error)})
        return error.exit_code
    return 0


def _end_with(parent: int) -> None:
    """A launcher that was killed leaves no process behind."""
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
