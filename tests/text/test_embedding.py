"""Files of the store: tokenised and written while others are computed, and claimed by several processes."""

from __future__ import annotations

import threading

import pytest
import torch

from flame_core.errors import ResourceError
from flame_core.params import LLMParams
from flame_core.text import embedding, store
from flame_core.text.embedding import TEXTS_FILE, EmbedTask, compute
from flame_core.text.encoder import TextEncoder
from flame_core.text.jobs import Job
from flame_core.text.llm import load_llm
from flame_core.text.tensor_file import TensorFile
from flame_core.work import WorkCache
from tests.conftest import text_params, tiny_llm
from tests.stages.pipeline import folder_source, pipeline_params, tree

SECONDS = 30  # for what must happen at the same time


@pytest.fixture
def params(tmp_path):
    return pipeline_params({"pairs": folder_source(tmp_path)}).model_copy(
        update={"text": text_params(layer=2), "llm": LLMParams(name="tiny", source="path:x")}
    )


@pytest.fixture
def encoder(tmp_path, byte_tokenizer, params) -> TextEncoder:
    tiny_llm("llama").save_pretrained(tmp_path / "llm")
    return TextEncoder(load_llm(tmp_path / "llm", 2, torch.float32, "cpu"), byte_tokenizer, params.text, "cpu")


def tasks(count: int) -> list[EmbedTask]:
    texts = [{"raw": [f"picture {i} of {j}" for j in range(3)], "short": ["a thing"]} for i in range(count)]
    return [EmbedTask(digest=f"{i}", job=Job(f"texts/{i}", own), tokens=1) for i, own in enumerate(texts)]


def test_files_hold_what_the_encoder_says_of_their_own_texts(tmp_path, params, encoder):
    cache = WorkCache(tmp_path, "embed")
    compute(tasks(3), encoder, cache, params, lambda tokens: None)
    for task in tasks(3):
        unit = cache.find(task.digest)
        read = TensorFile(unit.file(TEXTS_FILE))
        for kind, texts in task.job.texts.items():
            stored = encoder.encode(kind, texts).astype("float16").astype("float32")
            assert (read.read(kind, slice(None)) == stored).all()


def test_the_next_file_is_tokenised_and_the_last_one_written_while_one_is_computed(
    tmp_path, params, encoder, monkeypatch
):
    """Each waits for the other, so if they ran one after the other, this would not end in time."""
    tokenised, computing = threading.Event(), threading.Event()
    embed, write = encoder.embed, store.write_texts
    seen = []

    def tokenise(kind, texts, real=encoder.tokenise):
        seen.append(texts[0])
        if texts[0].startswith("picture 2"):
            tokenised.set()
        return real(kind, texts)

    def embed_when_the_next_is_there(own, advance):
        if own[0].texts[0].startswith("picture 1"):
            computing.set()
            assert tokenised.wait(SECONDS)
        return embed(own, advance)

    def write_when_the_next_is_computed(path, vectors, dtype):
        if vectors["raw"][0][0].startswith("picture 0"):
            assert computing.wait(SECONDS)
        write(path, vectors, dtype)

    monkeypatch.setattr(encoder, "tokenise", tokenise)
    monkeypatch.setattr(encoder, "embed", embed_when_the_next_is_there)
    monkeypatch.setattr(store, "write_texts", write_when_the_next_is_computed)
    compute(tasks(3), encoder, WorkCache(tmp_path, "embed"), params, lambda tokens: None)
    assert len(tree(tmp_path / "embed")) == 3 * 3


def test_a_disk_that_is_full_stops_the_work_and_keeps_what_is_finished(tmp_path, params, encoder, monkeypatch):
    write = store.write_texts

    def full(path, vectors, dtype):
        if vectors["raw"][0][0].startswith("picture 1"):
            raise OSError(28, "No space left on device")
        write(path, vectors, dtype)

    monkeypatch.setattr(store, "write_texts", full)
    cache = WorkCache(tmp_path, "embed")
    with pytest.raises(ResourceError, match="No space left"):
        compute(tasks(5), encoder, cache, params, lambda tokens: None)
    assert cache.find("0")
    assert not cache.find("1")
    assert not cache.find("4")


def test_a_task_is_claimed_once(tmp_path):
    for task in tasks(4):
        (tmp_path / f"{task.digest}.json").write_text(task.model_dump_json())
    one, other = embedding._claimed(tmp_path), embedding._claimed(tmp_path)
    taken = [next(one), next(other), next(one), next(other)]
    assert [next(one, None), next(other, None)] == [None, None]
    assert taken == tasks(4)
