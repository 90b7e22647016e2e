"""A server as `flame serve` starts it: it announces itself, reads texts for `flame query`, and ends cleanly."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from flame_core.layout import Layout
from flame_core.model.loaded import Model
from flame_core.model.locate import model_of_run
from flame_core.web_search.running import announced, read_by_server
from tests.conftest import tiny_llm
from tests.search.runs import run_here

FLAME = [sys.executable, "-m", "flame_core"]


@dataclass
class Served:
    layout: Layout
    model: Model
    process: subprocess.Popen[str]
    url: str


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byte_tokenizer) -> Iterator[Served]:
    """A project with a tiny LLM, and a server of its first model."""
    params, layout = run_here(tmp_path, monkeypatch)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")  # with params.yaml it makes the folder a project
    folder = layout.llm / params.llm.name
    tiny_llm("llama").save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    (folder / "source.json").write_text(json.dumps({"files": {}}))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [*FLAME, "serve", "--port", "0"],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
            yield Served(layout, model_of_run(params, layout, params.recipes[0]), process, found[0])
            break
    else:
        pytest.fail("".join(said))
    process.kill()
    process.wait()


def test_a_text_is_read_by_the_server_as_the_model_reads_it(served: Served):
    text = "a text that nobody stored"
    read = read_by_server(served.layout, served.model.of_texts, "raw", text)
    assert read is not None
    np.testing.assert_allclose(read, served.model.text_views("raw", [text])[0], atol=1e-6)
    assert read_by_server(served.layout, "another text side", "raw", text) is None
    with urllib.request.urlopen(f"{served.url}api/model") as answer:
        assert json.load(answer)["indexes"] == ["held-out", "all"]

    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(timeout=30) == 0
    assert not (served.layout.state / "search-server.json").exists()


def test_a_server_that_is_gone_reads_nothing(tmp_path: Path):
    layout = Layout(tmp_path, tmp_path)
    assert read_by_server(layout, "", "raw", "text") is None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with announced(layout, port):
        assert read_by_server(layout, "", "raw", "text") is None
    layout.state.joinpath("search-server.json").write_text('{"url": "http://example.org/"}')
    assert read_by_server(layout, "", "raw", "text") is None


def test_a_taken_port_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from flame_core.errors import ResourceError
    from flame_core.search.ask import Searcher
    from flame_core.web_search.server import serve

    params, layout = run_here(tmp_path, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ResourceError, match="--port takes another"):
        searcher = Searcher(params, layout, model_of_run(params, layout, "plain"))
        serve(layout, searcher, [], "127.0.0.1", taken.getsockname()[1], print)


def test_a_stop_while_the_llm_is_loaded_is_no_abort(tmp_path: Path):
    """Python ends below a thread in torch's code, which aborts the process unless it is left at once."""
    code = (
        "import os, signal, sys, threading, time\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "import torch\n"
        "from flame_core.layout import Layout\n"
        "from flame_core.web_search import server\n"
        "server.SearchService.open = lambda self: None\n"
        "big = torch.randn(400, 400)\n"
        "def load(self):\n"
        "    while True:\n"
        "        torch.mm(big, big)\n"
        "server.SearchService.load_texts = load\n"
        "def stop():\n"
        "    time.sleep(1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "folder = Path(sys.argv[1])\n"
        "layout = Layout(folder, folder)\n"
        "searcher = SimpleNamespace(layout=layout)\n"
        "ready = lambda url: threading.Thread(target=stop, daemon=True).start()\n"
        "server.serve(layout, searcher, [], '127.0.0.1', 0, ready)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    for _ in range(3):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, cwd=Path(__file__).parents[2]
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert not (Layout(tmp_path, tmp_path).state / "search-server.json").exists()
