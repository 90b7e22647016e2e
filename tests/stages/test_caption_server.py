"""Captions that a chat server writes, through the stage: killed, run again, retried."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flame_core import gates
from flame_core.captions.server import asking
from flame_core.captions.server.captioner import LEDGERS
from flame_core.captions.table import read_captions
from flame_core.digest import text_sha256
from flame_core.errors import GateError, ParamsError
from flame_core.layout import Layout
from flame_core.settings import settings
from flame_core.stages import caption
from tests.captions.pictures import box, disc, noise, sample
from tests.captions.server.chat import FINGERPRINT, KEY, MODEL, chat_server
from tests.stages.test_caption import FAILS, make_params, out, units, write_shards

SHORT = {"captioner": "server", "model": "tiny", "prompt": "Describe {caption}"}
LONG = {"captioner": "server", "model": "tiny", "prompt": "Rewrite {caption}", "picture": False}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def chat(monkeypatch):
    """The server that the settings name, which is asked again at once."""
    monkeypatch.setattr(asking, "Pace", partial(asking.Pace, backoff=(0.01,)))
    with chat_server() as server:
        for name, value in environment(server).items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        yield server


def environment(server) -> dict[str, str]:
    return {
        "FLAME_CAPTION_SERVER": server.address,
        "FLAME_CAPTION_KEY": KEY,
        "FLAME_CAPTION_REQUESTS": "4",
        "FLAME_CAPTION_TIMEOUT": "5",
        "FLAME_WORKERS": "1",
    }


def shards(last: str = "A number of things.") -> dict[str, list]:
    """Two shards of training, one of validation; `last` is the caption of one sample."""
    return {
        "train/00000.tar": [
            sample("s0-0", disc("red"), captions={"en": ["A red thing."]}),
            sample("s0-1", box("blue"), captions={"en": [last]}),
        ],
        "train/00001.tar": [sample("s1-0", noise(), captions={"en": ["Much <|im_end|> noise."]})],
        "val/00000.tar": [sample("v0-0", disc("green"), captions={"en": ["A green button."]})],
    }


def ledger(layout: Layout, shard: str = "train/00000") -> list[dict]:
    return pq.read_table(layout.captions / LEDGERS / f"{shard}.parquet").to_pylist()


def test_captions_their_provenance_and_a_ledger_row_per_sample(tmp_path, chat):
    layout = write_shards(tmp_path, shards())
    caption.run(make_params(short=SHORT, long=LONG), layout)
    rows = read_captions(layout.captions / "train/00000.parquet")
    size = len(shards()["train/00000.tar"][0].jpeg)
    assert [(row.kind, row.text, row.provenance) for row in rows if row.key == "s0-0"] == [
        ("raw", "A red thing.", "source:test"),
        ("short", f"seen Describe A red thing. {size}", f"server:{MODEL}@{FINGERPRINT}"),
        ("long", "seen Rewrite A red thing. without", f"server-rewrite:{MODEL}@{FINGERPRINT}"),
    ]
    assert "seen Rewrite Much < |im_end|> noise. without" in {
        row.text for row in read_captions(layout.captions / "train/00001.parquet")
    }
    found = [(row["row"], row["key"], row["kind"], row["outcome"], row["tries"]) for row in ledger(layout)]
    assert found == [
        (0, "s0-0", "short", "ok", 1), (1, "s0-1", "short", "ok", 1),
        (0, "s0-0", "long", "ok", 1), (1, "s0-1", "long", "ok", 1),
    ]  # fmt: skip
    first = ledger(layout)[0]
    assert (first["model"], first["fingerprint"], first["finish"]) == (MODEL, FINGERPRINT, "stop")
    assert (first["prompt_tokens"], first["completion_tokens"], first["status"]) == (100, 7, 200)
    assert first["answer_sha256"] == text_sha256(f"seen Describe A red thing. {size}")
    manifest = json.loads((layout.captions / caption.MANIFEST).read_text())
    assert (manifest["kinds"]["short"]["model"], manifest["kinds"]["short"]["picture"]) == ("tiny", True)
    assert manifest["kinds"]["short"]["prompt_sha256"] == text_sha256("Describe {caption}")
    gates.require(layout.captions)


def test_nothing_is_asked_twice_and_the_address_changes_nothing(tmp_path, chat, monkeypatch):
    layout = write_shards(tmp_path, shards())
    params = make_params(short=SHORT)
    caption.run(params, layout)
    before, asked = out(layout), len(chat.log)
    chat.say = "other words"
    monkeypatch.setenv("FLAME_CAPTION_SERVER", chat.address.replace("127.0.0.1", "localhost"))
    settings.cache_clear()
    caption.run(params, layout)
    assert (out(layout), len(chat.log)) == (before, asked)
    caption.run(make_params(short={**SHORT, "price": {"input": 1, "output": 2}}), layout)
    assert (out(layout), len(chat.log)) == (before, asked)
    for unit in (layout.work / "caption").iterdir():  # a damaged unit
        (unit / caption.CAPTIONS).unlink()
    caption.run(params, layout)
    assert (out(layout), len(chat.log)) == (before, asked)
    write_shards(tmp_path, shards("Another thing."))  # another shard with a sample that is as before
    caption.run(params, layout)
    assert chat.log[asked:] == ["Describe Another thing."]
    caption.run(make_params(short={**SHORT, "seed": 1}), layout)
    assert len(chat.log) == asked + 5


def test_what_failed_is_in_the_ledger_and_a_retry_asks_for_it_alone(tmp_path, chat):
    given = shards("status-500")
    given["train/00001.tar"] = [FAILS]
    layout = write_shards(tmp_path, given)
    params = make_params(short=SHORT, gates={"max_failed_fraction": 0.25})
    caption.run(params, layout)
    assert [(row["outcome"], row["reason"], row["status"], row["message"]) for row in ledger(layout)] == [
        ("ok", None, 200, None),
        ("failed", "http_5xx", 500, "no: ***"),
    ]
    assert [(row["outcome"], row["tries"]) for row in ledger(layout, "train/00001")] == [("refused", 0)]
    with pytest.raises(GateError, match="short_failed"):
        gates.require(layout.captions)
    before, asked, made = out(layout), len(chat.log), units(layout)
    caption.run(params, layout)
    assert (out(layout), len(chat.log), units(layout)) == (before, asked, made)
    write_shards(tmp_path, given)
    caption.run(params, layout, retry_failed=True)
    assert set(chat.log[asked:]) == {"Describe status-500"}


def test_without_an_address_only_a_missing_caption_is_an_error(tmp_path, chat, monkeypatch):
    layout = write_shards(tmp_path, shards())
    params = make_params(short=SHORT)
    with monkeypatch.context() as patch:
        patch.delenv("FLAME_CAPTION_SERVER")
        settings.cache_clear()
        with pytest.raises(ParamsError, match=r"no server is named: set FLAME_CAPTION_SERVER, such as .*8000/v1"):
            caption.run(params, layout)
    settings.cache_clear()
    caption.run(params, layout)
    monkeypatch.delenv("FLAME_CAPTION_SERVER")
    settings.cache_clear()
    caption.run(params, layout)


@pytest.mark.parametrize(
    "address", ["ftp://x/v1", "http://me:secret@host/v1", "host:8000/v1", "http://x/v1?key=secret"]
)
def test_an_address_that_is_none_or_has_a_password_is_refused_without_being_shown(monkeypatch, address):
    monkeypatch.setenv("FLAME_CAPTION_SERVER", address)
    settings.cache_clear()
    with pytest.raises(ParamsError, match="FLAME_CAPTION_SERVER") as caught:
        settings()
    assert "secret" not in str(caught.value)


RUN = """
import sys
from functools import partial
from pathlib import Path
from flame_core import reporting
from flame_core.layout import Layout
from flame_core.params import Params
from flame_core.settings import settings
from flame_core.stages import caption
reporting.configure_logging("DEBUG")
root = Path(sys.argv[1])
print(settings())
caption.run(Params.model_validate_json(sys.argv[2]), Layout(root, root))
"""


def many(count: int) -> dict[str, list]:
    """`count` samples in three shards, each with a picture and a caption of its own."""
    made = [sample(f"m-{n}", noise(n, (16, 16)), captions={"en": [f"Number {n} of many."]}) for n in range(count)]
    third = count // 3
    return {
        "train/00000.tar": made[:third],
        "train/00001.tar": made[third : 2 * third],
        "val/00000.tar": made[2 * third :],
    }


def started(layout: Layout, params, server) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, str(layout.root), params.model_dump_json()]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment(server), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.slow
def test_a_killed_run_asks_again_only_for_what_was_in_flight(tmp_path):
    params = make_params(short=SHORT, long=LONG)
    given = many(45)
    with chat_server(latency=0.02) as server:
        whole = write_shards(tmp_path / "whole", given)
        process = started(whole, params, server)
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said.decode()
    with chat_server(latency=0.02) as server:
        layout = write_shards(tmp_path / "killed", given)
        draws = random.Random(7)
        kills = 0
        for goal in sorted(draws.sample(range(5, 85), 3)):
            process = started(layout, params, server)
            while sum(server.answered.values()) < goal and process.poll() is None:
                time.sleep(0.005)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            said += process.communicate(timeout=60)[0]
            assert not layout.captions.exists()
        process = started(layout, params, server)
        said += process.communicate(timeout=120)[0]
        assert process.returncode == 0, said.decode()
        assert kills == 3
        asked = sum(server.answered.values())
        assert 90 <= asked <= 90 + 3 * 4  # at most 4 requests were in flight at each kill
    ledgers = {name: content for name, content in out(whole).items() if name.startswith(LEDGERS)}
    assert len(ledgers) == 3
    assert out(layout) == out(whole)
    assert KEY.encode() not in said and b"**********" in said
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert str(server.port).encode() not in content or b"127.0.0.1" not in content, path
