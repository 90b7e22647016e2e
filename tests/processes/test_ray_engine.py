"""The Ray engine: the contract of `map_units`, deaths of workers, of the driver, and the stages' bytes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from flame_core.errors import InputError, ParamsError, ResourceError
from flame_core.params import ScoresParams
from flame_core.processes.engines import map_units
from flame_core.settings import settings
from flame_core.stages import caption, embed, ingest, scores
from tests.concepts.test_taggers import classifier
from tests.processes.test_engines import _fail, _square
from tests.stages.pipeline import captioned_project, tree

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ray_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_ENGINE", "ray")
    monkeypatch.setenv("FLAME_WORKERS", "2")
    settings.cache_clear()


@pytest.fixture
def cluster(ray_engine: None) -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="needs the extra `scale`")
    yield ray
    ray.shutdown()


def mapped(fn: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return list(map_units(fn, tasks, 1, "test", "unit"))


def _pid_and_settings(_: int) -> tuple[int, str, str]:
    time.sleep(0.05)
    return os.getpid(), settings().experiment, settings().engine


def _die_once(mark: Path) -> str:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.name


def _die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _wait(mark: Path) -> None:
    mark.with_suffix(".begun").write_text(str(os.getpid()))
    time.sleep(2)
    mark.touch()


def test_without_the_package_an_error_says_how_to_install_it(ray_engine: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ParamsError, match=r"flame-mlops\[scale\].*FLAME_ENGINE=local"):
        mapped(_square, range(3))


@pytest.mark.slow
def test_tasks_of_ray_keep_the_contract_of_map_units(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAME_EXPERIMENT", "of-the-driver")
    assert mapped(_square, range(30)) == [n * n for n in range(30)]
    assert mapped(_square, []) == []
    pids, experiments, engines = (set(each) for each in zip(*mapped(_pid_and_settings, range(6)), strict=True))
    assert os.getpid() not in pids and experiments == {"of-the-driver"} and engines == {"local"}
    with pytest.raises(InputError, match=r"^number 3 is bad$"):
        mapped(_fail, range(8))
    # a worker that dies is replaced, and its task runs again
    assert mapped(_die_once, [tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    with pytest.raises(ResourceError, match=r"unit 3 of 4: its worker died 3 times"):
        mapped(_die, range(4))
    assert mapped(_square, range(3)) == [0, 1, 4]


@pytest.mark.slow
def test_a_stopped_map_finishes_what_has_begun_and_begins_nothing_else(cluster: Any, tmp_path: Path):
    marks = [tmp_path / str(number) for number in range(8)]
    results = map_units(_wait, marks, 1, "test", "unit")
    next(results)
    results.close()  # as an error or Ctrl-C does
    begun = {path.stem for path in tmp_path.glob("*.begun")}
    assert {path.name for path in tmp_path.iterdir() if not path.suffix} == begun
    assert 1 <= len(begun) < len(marks)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "no.such.host.invalid:6379"])
def test_an_address_without_a_cluster_is_told_at_once(cluster: Any, monkeypatch: pytest.MonkeyPatch, address: str):
    monkeypatch.setenv("FLAME_RAY_ADDRESS", address)
    settings.cache_clear()
    with pytest.raises(ParamsError, match=rf"FLAME_RAY_ADDRESS={re.escape(address)}: no connection"):
        mapped(_square, range(3))


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_behind(cluster: Any, tmp_path: Path):
    script = tmp_path / "driver.py"
    script.write_text(
        "from flame_core.processes.engines import map_units\nfrom tests.processes.test_engines import _hang\n"
        "if __name__ == '__main__': list(map_units(_hang, [1, 2], 2, 'test', 'unit'))\n"
    )
    driver = subprocess.Popen([sys.executable, script], env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT)
    process, deadline = psutil.Process(driver.pid), time.monotonic() + 240
    family: list[psutil.Process] = []
    while sum("ray::_work" in _title(each) for each in family) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
        family = process.children(recursive=True)
    assert sum("ray::_work" in _title(each) for each in family) == 2
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 180  # Ray's agents see after 70 s that theirs is gone
    while (alive := [each for each in family if _is_alive(each)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    for left in alive:
        left.kill()
    assert not alive


def _is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended stays a zombie where process 1 does not wait for it, as in a container."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.slow
def test_stages_write_the_bytes_of_the_local_engine(
    cluster: Any, tmp_path: Path, byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLAME_ENGINE", "local")
    settings.cache_clear()
    params, layout = captioned_project(tmp_path / "local", byte_tokenizer, 24)
    embed.run(params, layout)
    cats = {
        "kind": "classifier",
        "source": f"transformers:{classifier(tmp_path / 'vit', several=False)}",
        "label": "cat",
    }
    scored = params.model_copy(update={"scores": ScoresParams.model_validate({"scorers": {"cats": cats}})})
    scores.run(scored, layout)
    outs = [layout.shards, layout.captions, layout.embeddings, layout.score("cats"), layout.scores]
    expected = [tree(out) for out in outs]

    monkeypatch.setenv("FLAME_ENGINE", "ray")
    settings.cache_clear()
    (layout.state / "work").rename(tmp_path / "work of local")  # nothing is found in the work cache
    for stage in (ingest, caption, embed):
        stage.run(params, layout)
    scores.run(scored, layout)
    assert [tree(out) for out in outs] == expected
    assert (layout.state / "work" / "embed").is_dir()
