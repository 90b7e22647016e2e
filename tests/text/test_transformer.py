"""The text tower that is trained with the image tower: its ids, its causality, and a training that learns."""

from __future__ import annotations

import json
import shutil
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing  # teaches the pickler to hand tensors over as handles

from flame_core.captions.table import Caption, write_captions
from flame_core.digest import write_json
from flame_core.errors import InputError
from flame_core.model_files import METRICS
from flame_core.params import TextTowerParams
from flame_core.settings import settings
from flame_core.text.caption_source import CaptionSource, DrawnCaptions
from flame_core.text.store import Drawn
from flame_core.text.transformer import PAD, Captions, CaptionSamples, TextTower, TrainedTexts
from flame_core.training.job import TrainingJob
from tests.conftest import text_params
from tests.training.world import HIDDEN, recipe, write_world

KINDS = ("raw", "short")
PARAMS = TextTowerParams(width=16, depth=2, heads=2, max_tokens=8)


@pytest.fixture
def tokenizer(byte_tokenizer, tmp_path):
    """A tokenizer of bytes: `<s>` is 0, `</s>` is 1, and the 256 bytes follow."""
    path = tmp_path / "tokenizer.json"
    byte_tokenizer.backend_tokenizer.save(str(path))
    return path


def test_a_text_is_cut_ended_and_padded(tokenizer):
    tokens = Captions(tokenizer, PARAMS)
    assert tokens.end == 258
    ids = tokens.ids(["ab", "", "abcdefghij"])
    a, b = ids[0, :2]
    assert a != b
    assert ids[0].tolist() == [a, b, 258] + [PAD] * 5
    assert ids[1].tolist() == [258] + [PAD] * 7
    assert ids[2, :2].tolist() == [a, b]
    assert (ids[2] != PAD).all() and ids[2, -1] == 258 and ids.dtype == np.int64


def test_a_vector_depends_on_its_text_alone(tokenizer):
    torch.manual_seed(0)
    tokens = Captions(tokenizer, PARAMS)
    tower = TextTower(PARAMS, 259, 10).eval()
    texts = ["a", "abcdef", "abcdex", "b"]
    together = tower(torch.from_numpy(tokens.ids(texts)))
    alone = torch.cat([tower(torch.from_numpy(tokens.ids([text]))) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    assert (together[1] - together[2]).abs().max() > 1e-3


def test_a_slot_of_the_store_stands_for_the_caption_it_was_read_from(tokenizer, tmp_path):
    (tmp_path / "captions/train").mkdir(parents=True)
    rows = []
    for row, key in enumerate(["x", "y"]):
        rows += [Caption(row, key, "raw", f"{key} {n}", "en", "made") for n in ("one", "two")]
        rows.append(Caption(row, key, "short", f"{key} s", "en", "made"))
    write_captions(tmp_path / "captions/train/00000.parquet", rows)
    tokens = Captions(tokenizer, PARAMS)
    names = ["raw/1", "raw/1#2", "short/1", "short/2", "short/3"]
    text = text_params(train_kinds=["raw", "short"], captions_per_image=2)
    source = CaptionSource(captions=tmp_path / "captions", tokenizer=tokenizer, text=text, language="en")
    samples = CaptionSamples(source, PARAMS, names, hidden=12)
    read = samples.read([Drawn("train/00000.tar", 1, [1, 4, 0]), Drawn("train/00000.tar", 0, [0, 2, 3])])
    texts = [["y two", "y s", "y one"], ["x one", "x s", "x s"]]
    np.testing.assert_array_equal(read, np.stack([tokens.ids(own) for own in texts]))


def captions_of(folder: Path, *shards: int) -> DrawnCaptions:
    """A raw and a short caption of so many samples in each shard."""
    for number, samples in enumerate(shards):
        own = [(row, kind) for row in range(samples) for kind in KINDS]
        rows = [Caption(row, f"k{row}", kind, f"{kind} {number} {row}", "en", "made") for row, kind in own]
        write_captions(folder / f"train/{number:05}.parquet", rows)
    text = text_params(train_kinds=list(KINDS))
    source = CaptionSource(captions=folder, tokenizer=folder, text=text, language="en")
    return DrawnCaptions(source, ["raw/1", "short/1", "short/2"])


def test_captions_lie_in_memory_of_which_a_worker_is_handed_no_copy(tmp_path):
    sizes = []
    for count in (2, 900):
        (tmp_path / f"{count}/train").mkdir(parents=True)
        captions = captions_of(tmp_path / str(count), count, 1)
        shutil.rmtree(tmp_path / str(count))
        drawn = [Drawn("train/00000.tar", row, [2, 0]) for row in (count - 1, 0)]
        last = f"short 0 {count - 1}", f"raw 0 {count - 1}"
        assert captions.of(drawn) == [*last, "short 0 0", "raw 0 0"]
        assert captions.of([Drawn("train/00001.tar", 0, [1])]) == ["short 1 0"]
        sizes.append(len(ForkingPickler.dumps(captions)))
    assert sizes[1] < sizes[0] + 200


def test_a_row_beyond_a_shard_is_not_the_next_shard_s(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(IndexError):
        captions_of(tmp_path, 2, 2).of([Drawn("train/00000.tar", 2, [0])])


def test_it_learns_with_the_image_tower_and_is_read_back(tokenizer, tmp_path):
    write_world(tmp_path)
    (tmp_path / "captions/train").mkdir(parents=True)
    colours = ["red", "green", "blue", "yellow"]
    rows = [Caption(i, f"toys/{i:02}", "raw", colours[i % 4], "en", "made") for i in range(24)]
    write_captions(tmp_path / "captions/train/00000.parquet", rows)
    params = recipe(
        epochs=30,
        kinds=["raw"],
        text_tower=PARAMS.model_dump(),
        objective={"name": "infonce"},
        texts_per_image=1,
    )
    out = tmp_path / "out"
    out.mkdir()
    source = CaptionSource(
        captions=tmp_path / "captions", tokenizer=tokenizer, text=text_params(train_kinds=["raw"]), language="en"
    )
    TrainingJob(
        recipe=params,
        shards=tmp_path / "shards",
        embeddings=tmp_path / "embeddings",
        slots=[0],
        captions=source,
        checkpoints=tmp_path / "checkpoints",
        out=out,
    ).run()
    losses = [json.loads(line)["loss"] for line in (out / METRICS).read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]
    config = {"recipe": params.model_dump(mode="json"), "hidden": HIDDEN, "text_facets": {"raw": 1, "short": 3}}
    write_json(out / "config.json", config)
    texts = TrainedTexts(out, settings().torch_device())
    t = texts.lookup("raw", colours)
    assert t.shape == (4, 1, HIDDEN)
    short = texts.lookup("short", colours)
    np.testing.assert_allclose(short, np.repeat(t, 3, axis=1), atol=1e-6)
    cosines = t[:, 0] @ t[:, 0].T
    assert cosines[~np.eye(4, dtype=bool)].max() < 0.9  # it tells the colours apart


def test_a_folder_without_the_tokenizer_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.json is missing: run `flame embed`"):
        Captions(tmp_path / "data/embeddings/tokenizer.json", PARAMS)
