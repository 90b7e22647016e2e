"""A training as one value: what is trained, on which data, and where weights and metrics are written.

It runs in the stage's own process, or on several: `FLAME_TRAIN_PROCESSES=8 flame train flame`, on one node or several
(`processes/nodes.py`). The launcher then runs this module in each process.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from flame_core.data.shards import read_index
from flame_core.digest import json_lines_bytes, write_json
from flame_core.lexical import LEXICON_FILES
from flame_core.model_files import METRICS
from flame_core.params import LexicalLossParams, TrainParams
from flame_core.processes.launcher import Launch, launch, serve
from flame_core.processes.nodes import Nodes
from flame_core.processes.ranks import ALONE, Ranks
from flame_core.text.caption_source import CaptionSource, LLMSource

if TYPE_CHECKING:
    from flame_core.training.texts import TrainingTexts

SIZES = "sizes.json"  # of a tower that was pruned, for its config
ORIGINS = "inherited.json"  # {weight: where it comes from}


class TrainingJob(BaseModel):
    """Folders and params of a training, which writes `model.safetensors` and `metrics.jsonl` to the folder `out`.

    If there is a text tower, it also writes `text.safetensors` and `tokenizer.json`, or the adapters of the LLM; if the
    tower inherits, `inherited.json`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: TrainParams
    shards: Path
    embeddings: Path
    slots: list[int]  # columns of a sample's row in the store that texts are drawn from
    captions: CaptionSource | None  # for recipes with a text tower, or adapters on the LLM
    llm: LLMSource | None = None  # for recipes with adapters
    checkpoints: Path
    out: Path
    journal: Path | None = None  # where the first rank records every step, if anywhere
    links: dict[str, Path] = {}  # what the recipe is linked to: its teacher, sidecars, selection, ...

    def run(self, ranks: Ranks = ALONE) -> None:
        """Train, or resume; the first rank writes."""
        from flame_core.files.weights import save_weights
        from flame_core.model_files import WEIGHTS
        from flame_core.objectives.stored_teacher import StoredVectors
        from flame_core.tracking.journal import Journal
        from flame_core.tracking.steps import StepRecorder
        from flame_core.training.inputs import open_inputs
        from flame_core.training.linked_folders import LinkedFolders
        from flame_core.training.loader import TrainingSamples
        from flame_core.training.loop import train
        from flame_core.training.teacher_vectors import crop_origin
        from flame_core.vision.block_sizes import sizes_of

        texts, whole = self._texts(), read_index(self.shards, "train")
        index, sidecars, draws = open_inputs(self.recipe, self.links, whole, self.shards)
        taught = None
        if self.recipe.crops:
            taught = StoredVectors(self.links["teacher"])
            taught.require(whole, crop_origin(self.recipe))
        samples = TrainingSamples(index, self.shards, texts, self.slots, self.recipe, sidecars, taught)
        recorders = []
        if self.journal is not None and ranks.first:
            recorders.append(StepRecorder(Journal(self.journal)).record)
        linked = LinkedFolders.of(self.links)
        trained = train(samples, self.recipe, self.checkpoints, ranks, *recorders, linked=linked, draws=draws)
        if ranks.first:
            save_weights(trained.tower, self.out / WEIGHTS)
            texts.save(trained.text_tower, self.out)
            if isinstance(self.recipe.objective, LexicalLossParams):
                folder = self.links[f"sidecars.{self.recipe.objective.words}"]
                for name in LEXICON_FILES:
                    shutil.copyfile(folder / name, self.out / name)
            (self.out / METRICS).write_bytes(json_lines_bytes(trained.metrics))
            if self.recipe.learns_masks:
                write_json(self.out / SIZES, sizes_of(trained.tower.backbone).model_dump())
            if trained.tower.origins is not None:
                write_json(self.out / ORIGINS, trained.tower.origins)
        ranks.barrier()

    def _texts(self) -> TrainingTexts:
        from flame_core.text.projection import ProjectedSamples
        from flame_core.text.store import TrainStore
        from flame_core.text.transformer import CaptionSamples

        store = TrainStore(self.embeddings)
        if self.captions is not None and self.llm is not None and self.recipe.lora is not None:
            from flame_core.training.adapted_llm import AdaptedSamples

            return AdaptedSamples(self.captions, self.llm, self.recipe.lora, store.facets, store.hidden)
        if self.recipe.text_projection is not None:
            return ProjectedSamples(store, self.recipe.text_projection)
        if self.captions is None or self.recipe.text_tower is None:
            return store
        return CaptionSamples(self.captions, self.recipe.text_tower, store.facets, store.hidden)

    def run_on(self, processes: int, nodes: Nodes | None = None) -> None:
        """Train, or resume, on several processes of this node; each of several nodes calls this.

        Raises:
            ResourceError: more processes than GPUs, a process was killed, or the nodes do not meet.
            Interrupted: a stop signal came; the state was saved.
            FlameError: what a process raised.
        """
        from flame_core.processes.gpu import release_memory

        release_memory()  # a teacher whose texts or vectors were stored in this process
        again = "to resume from the last checkpoint"
        launch(Launch(__name__, self.model_dump_json(), "FLAME_TRAIN_PROCESSES", again), processes, nodes)


def _on_rank(content: str, rank: int) -> None:
    from flame_core.processes.ranks import join
    from flame_core.settings import settings

    for harmless in ("Grad strides do not match bucket view strides", "`broadcast_buffers` is deprecated"):
        warnings.filterwarnings("ignore", harmless)  # a dimension of size 1; a name that torch will change
    with join(settings().torch_device()) as ranks:
        TrainingJob.model_validate_json(content).run(ranks)


if __name__ == "__main__":
    sys.exit(serve(_on_rank))
