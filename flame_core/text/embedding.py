"""Computes the files of a store, in this process or in one process per GPU.

The next file is tokenised and the previous one written while one is computed. A file's bytes follow from its texts and
the params, so neither the order of files nor the process that computes one matters.
`FLAME_EMBED_PROCESSES=8 flame embed` starts this module once per GPU; each process claims the next file, the largest
first, and puts it into the work cache that all processes share. With `FLAME_ENGINE=ray` each file is a task of a Ray
cluster, whose workers keep their LLM.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.processes.engines import map_units
from flame_core.processes.launcher import Launch, launch, serve
from flame_core.reporting import progress
from flame_core.settings import settings
from flame_core.text import store
from flame_core.text.jobs import Job, captions_a_sample
from flame_core.text.tensor_file import write_tensors
from flame_core.work import Unit, UnitRecord, WorkCache

if TYPE_CHECKING:
    from flame_core.text.encoder import TextEncoder, TokenisedTexts

STAGE = "embed"  # whose work cache holds the files
TOKENS = "tokens"  # in the counts of a unit; older ones have none
TRAIN_FILE, TEXTS_FILE = "train.safetensors", "texts.safetensors"  # in a unit of work


class EmbedTask(BaseModel):
    """A file to compute, the digest of its unit in the work cache, and its number of tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    digest: str
    job: Job
    tokens: int


class _Share(BaseModel):
    """What `embed_files` tells a process that it starts: the run, and the folder where files are claimed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: Params
    root: Path
    tasks: Path
    tokens: int  # of all files, for all processes together
    adapter: Path | None  # of the LLM


def embed_files(tasks: Sequence[EmbedTask], params: Params, layout: Layout, adapter: Path | None = None) -> float:
    """Put the units of all tasks into the work cache; returns the tokens per second.

    Args:
        tasks: the files.
        params: of the run.
        layout: of the run.
        adapter: see `TextEncoder.open`.

    Raises:
        ResourceError: more processes than GPUs, or a process was killed.
        FlameError: what an encoder or a disk raised; finished files are kept.
    """
    from flame_core.text.encoder import TextEncoder

    total = sum(task.tokens for task in tasks)
    processes = min(settings().embed_processes, len(tasks))
    start = time.monotonic()
    if settings().engine == "ray":
        compute_one = partial(_in_worker, content=params.model_dump_json(), root=layout.root, adapter=adapter)
        for _ in map_units(compute_one, _largest_first(tasks), 1, "embed", "files", gpu=True):
            pass
        return total / (time.monotonic() - start)
    if processes > 1:
        _start_processes(processes, tasks, params, layout, total, adapter)
        return total / (time.monotonic() - start)
    encoder = TextEncoder.open(params, layout, compiled=True, adapter=adapter)
    with progress("embed", total, "tokens") as bar:
        compute(tasks, encoder, WorkCache(layout.work, STAGE), params, bar.advance)
        return total / bar.seconds


def compute(
    tasks: Iterable[EmbedTask], encoder: TextEncoder, cache: WorkCache, params: Params, advance: Callable[[int], None]
) -> None:
    """Embed one file after the other; meanwhile the next one is tokenised and the previous one is written."""
    coming = iter(tasks)

    def tokenised() -> tuple[EmbedTask, dict[str, TokenisedTexts]] | None:
        task = next(coming, None)
        return task and (task, {kind: encoder.tokenise(kind, texts) for kind, texts in task.job.texts.items()})

    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(1) as behind:
        following = ahead.submit(tokenised)
        written: Future[Unit] | None = None
        while (found := following.result()) is not None:
            task, tokens = found
            following = ahead.submit(tokenised)
            vectors = dict(zip(tokens, encoder.embed(list(tokens.values()), advance), strict=True))
            if written is not None:
                written.result()
            written = behind.submit(cache.compute, task.digest, partial(_write, task, vectors, params))
        if written is not None:
            written.result()


def _write(task: EmbedTask, vectors: Mapping[str, np.ndarray], params: Params, folder: Path) -> UnitRecord:
    """Write the vectors [N, K, hidden] of each kind as the file of a unit."""
    job = task.job
    dtype = params.text.store_dtype
    if job.trains:
        slots = []
        for kind, t in vectors.items():
            count = captions_a_sample(kind, params.text)
            slots.append(t.reshape(len(t) // count, count * t.shape[1], t.shape[2]))
        tensors = {store.EMBEDDINGS: np.concatenate(slots, axis=1)}  # [rows, facets, hidden]
        write_tensors(folder / TRAIN_FILE, tensors, dtype)
    else:
        own = {kind: (list(job.texts[kind]), t) for kind, t in vectors.items()}
        store.write_texts(folder / TEXTS_FILE, own, dtype)
    return UnitRecord({"texts": sum(map(len, job.texts.values())), TOKENS: task.tokens})


def _start_processes(
    processes: int, tasks: Sequence[EmbedTask], params: Params, layout: Layout, total: int, adapter: Path | None
) -> None:
    with tempfile.TemporaryDirectory(prefix="flame-embed-") as name:
        folder = Path(name)
        for number, task in enumerate(_largest_first(tasks)):
            (folder / f"{number:08}.json").write_text(task.model_dump_json(), "utf-8")
        share = _Share(params=params, root=layout.root, tasks=folder, tokens=total, adapter=adapter)
        again = "to go on: finished files are kept"
        launch(Launch(__name__, share.model_dump_json(), "FLAME_EMBED_PROCESSES", again), processes)


def _largest_first(tasks: Sequence[EmbedTask]) -> list[EmbedTask]:
    return sorted(tasks, key=lambda task: -task.tokens)


def _in_worker(task: EmbedTask, content: str, root: Path, adapter: Path | None) -> None:
    """In a process that computes one file after the other with one LLM."""
    params, layout = Params.model_validate_json(content), Layout.find(root)
    compute([task], _kept_encoder(content, root, adapter), WorkCache(layout.work, STAGE), params, lambda _: None)


@lru_cache(maxsize=1)
def _kept_encoder(content: str, root: Path, adapter: Path | None) -> TextEncoder:
    from flame_core.text.encoder import TextEncoder

    params, layout = Params.model_validate_json(content), Layout.find(root)
    return TextEncoder.open(params, layout, compiled=True, adapter=adapter)


def _claimed(folder: Path) -> Iterator[EmbedTask]:
    """The tasks that no other process has taken, one at a time."""
    for path in sorted(folder.glob("*.json")):
        own = path.with_suffix(f".{os.getpid()}")
        try:
            path.rename(own)
        except FileNotFoundError:
            continue
        yield EmbedTask.model_validate_json(own.read_text("utf-8"))


def _on_rank(content: str, rank: int) -> None:
    import torch

    from flame_core.text.encoder import TextEncoder

    share = _Share.model_validate_json(content)
    layout = Layout.find(share.root)
    if settings().torch_device() == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    encoder = TextEncoder.open(share.params, layout, compiled=True, adapter=share.adapter)
    world = int(os.environ["WORLD_SIZE"])
    with progress(f"embed, one of {world} processes", share.tokens // world, "tokens") as bar:
        compute(_claimed(share.tasks), encoder, WorkCache(layout.work, STAGE), share.params, bar.advance)


if __name__ == "__main__":
    sys.exit(serve(_on_rank))
