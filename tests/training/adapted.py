"""The world of `world.py` with captions and a tiny LLM, whose adapters are trained along; trainings on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from flame_core.captions.table import Caption, write_captions
from flame_core.data.shards import read_index
from flame_core.data.sidecars import Sidecar, gather_sidecar, write_values
from flame_core.digest import value_digest, write_json
from flame_core.lexical.lexicon import Lexicon, lexicon_of
from flame_core.lexical.values import pack
from flame_core.lexical.vocabulary import Vocabulary, Word
from flame_core.params import LLMParams, TextParams, TrainParams
from flame_core.processes.ranks import Ranks
from flame_core.text.caption_source import CaptionSource, LLMSource
from flame_core.text.llm import SOURCE
from flame_core.training.adapted_llm import AdaptedSamples
from flame_core.training.loader import TrainingSamples
from flame_core.training.loop import Trained, train
from flame_core.work import UnitRecord, WorkCache
from tests.conftest import text_params, tiny_llm
from tests.training.worded import worded_recipe
from tests.training.world import write_world

DIMS, V, TOP, LAYERS = 64, 40, 8, 2
COLOURS = ["red", "green", "blue", "yellow"]
NAMES = ["raw/1", "raw/sentence"]  # of a sample's vectors
LORA = {"rank": 2, "alpha": 4.0, "targets": ["q_proj", "v_proj", "down_proj"]}
LLM = LLMParams(name="tiny", source="path:x")


def adapted_text() -> TextParams:
    sentence = {"read": "last", "final_norm": True, "layer": LAYERS, "prompt": "say {caption} :"}
    return text_params(layer=LAYERS, train_kinds=["raw"], sentence=sentence)


def lexicon(folder: Path) -> Lexicon:
    """V words of the LLM in the folder of a world, with means that are not 0."""
    words = tuple(Word(40 + i, f"word{'abcdefghijklmnopqrstuvwxyzäöüßéèêáàâíóúñ'[i]}", True) for i in range(V))
    plain = lexicon_of(folder / "llm/tiny", Vocabulary(words))
    return Lexicon(plain.vocabulary, plain.rows, np.linspace(-0.1, 0.1, V), plain.length)


def write_llm(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """A tiny LLM with its tokenizer and its record."""
    tiny_llm("llama", layers=LAYERS).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / SOURCE, {"name": "tiny", "source": "path:x", "files": {"model.safetensors": "0"}})


def write_adapted(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    write_world(folder)
    write_llm(folder / "llm/tiny", tokenizer)
    (folder / "captions/train").mkdir(parents=True)
    rows = [
        Caption(i, f"toys/{i:02}", "raw", f"{COLOURS[i % 4]}{' one' if i % 3 else ''}", "en", "made") for i in range(24)
    ]
    write_captions(folder / "captions/train/00000.parquet", rows)
    index = read_index(folder / "shards", "train")

    def write(unit: Path) -> UnitRecord:
        write_values(unit, "lexical", pack(np.zeros((24, V)), TOP)[:, None])
        return UnitRecord({})

    units = {"train/00000.tar": WorkCache(folder / "work", "lexical").get({}, write)}
    out = folder / "data/sidecars/lexical"
    gather_sidecar(out, folder / "state", units, index, "lexical", {}, beside=lexicon(folder).files())


def sources(folder: Path) -> tuple[CaptionSource, LLMSource]:
    tokenizer = folder / "llm/tiny/tokenizer.json"
    captions = CaptionSource(captions=folder / "captions", tokenizer=tokenizer, text=adapted_text(), language="en")
    digest = value_digest({"model.safetensors": "0"})
    llm = LLMSource(folder=folder / "llm/tiny", params=LLM, digest=digest, lexicon=folder / "data/sidecars/lexical")
    return captions, llm


def adapted_recipe(**changes) -> TrainParams:
    own = {"lora": LORA, "reading": "sentence", "kinds": ["raw"], "texts_per_image": 1}
    terms = [{"name": "overuse", "weight": 0.05, "ramp": 0.5, "texts": 0.5}]
    return worded_recipe(**{**own, "terms": terms, **changes})


def adapted_samples(folder: Path, params: TrainParams) -> TrainingSamples:
    assert params.lora is not None
    texts = AdaptedSamples(*sources(folder), params.lora, NAMES, DIMS)
    index = read_index(folder / "shards", "train")
    sidecars = {"lexical": Sidecar(folder / "data/sidecars/lexical")}
    return TrainingSamples(index, folder / "shards", texts, [1], params, sidecars)


def train_adapted(ranks: Ranks, folder: Path, checkpoints: Path, params: TrainParams, *recorders) -> Trained:
    return train(adapted_samples(folder, params), params, checkpoints, ranks, *recorders)
