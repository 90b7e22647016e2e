"""The captioner against `transformers serve` with tiny models: what it writes is what the model writes by itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers.utils.import_utils import is_serve_available

from flame_core.captions.server.answers import Answers, answers_file
from flame_core.captions.server.question import question
from flame_core.captions.table import read_captions
from flame_core.settings import settings
from flame_core.stages import caption
from tests.captions.pictures import box, disc, noise, sample
from tests.captions.tiny_models import save_llava, save_llm
from tests.ports import free_port
from tests.stages.test_caption import make_params, write_shards

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_serve_available(), reason="`transformers serve` needs the package openai"),
]
WORDS = {"s0-0": "A red disc.", "s0-1": "Ein Würfel."}


@contextlib.contextmanager
def serving(folder: Path, log: Path) -> Iterator[str]:
    """`transformers serve` with the model in this folder: its address."""
    port = free_port()
    run = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", run, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--device", "cpu", "--dtype", "float32"], env=os.environ | offline, stdout=file, stderr=file
        )
    try:
        end = time.monotonic() + 300
        while not _ready(port):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def captioned(root: Path, model: Path, monkeypatch, **changes) -> tuple[dict[str, str], str]:
    """{key: the short caption} and the provenance, as `transformers serve` gives them."""
    given = [
        sample(key, picture, captions={"en": [WORDS[key]]})
        for key, picture in (("s0-0", disc("red")), ("s0-1", box("blue")))
    ]
    layout = write_shards(root, {"train/00000.tar": given, "val/00000.tar": [sample("v0", noise())]})
    chosen = {"captioner": "server", "model": str(model), "prompt": "Say {caption}", "max_new_tokens": 12, **changes}
    with serving(model, root / "serve.log") as address:
        monkeypatch.setenv("FLAME_CAPTION_SERVER", address)
        monkeypatch.setenv("FLAME_WORKERS", "1")
        settings.cache_clear()
        params = make_params(short=chosen, long=None)
        caption.run(params, layout)
        settings.cache_clear()
    rows = [row for row in read_captions(layout.captions / "train/00000.parquet") if row.kind == "short"]
    answers = Answers(answers_file(layout))
    told = [answers.get(question(params.caption.short, one).digest) for one in given]
    answers.close()
    assert [answer.completion_tokens for answer in told] == [12, 12]
    assert all(answer.finish == "length" and answer.prompt_tokens > 10 for answer in told)
    return {row.key: row.text for row in rows}, rows[0].provenance


def test_a_rewrite_is_what_the_model_writes_by_itself(tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_llm(tmp_path / "tiny-llm")
    texts, provenance = captioned(tmp_path, folder, monkeypatch, picture=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for key, words in WORDS.items():
        turn = [{"role": "user", "content": f"Say {words}"}]
        inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=12, pad_token_id=1)
        written = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert texts[key] == " ".join(written.split())
    assert provenance.startswith(f"server-rewrite:{folder}"[:40])


def test_a_picture_is_seen(tmp_path, monkeypatch):
    folder = save_llava(tmp_path / "tiny-vlm")
    texts, provenance = captioned(tmp_path, folder, monkeypatch, prompt="Describe it.")
    assert len(set(texts.values())) == 2  # the prompt is the same, so the pictures differ
    assert all(texts.values())
    assert provenance.startswith("server:")
