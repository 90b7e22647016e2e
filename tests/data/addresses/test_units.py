"""Lists of addresses that take several units."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flame_core.data.addresses.request import Answer, Requester
from tests.data.addresses.downloads import contents, download, params_of, pictures_of, rows_of, write_list
from tests.data.addresses.web import HOSTS, Web


def mixed(web: Web, number: int) -> list[str]:
    """Addresses of which a fifth fails for a while, and some for ever."""
    kinds = ["/ok/{}", "/ok/{}", "/ok/{}", "/ok/{}", "/once/{}", "/status/500/{}", "/status/404/{}", "/cut/{}"]
    return [web.url(kinds[n % 8].format(n), HOSTS[n // 8 % 8]) for n in range(number)]


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flame_core.data.sources.urls._PER_UNIT", 10)


def test_one_worker_and_four_and_a_longer_list_give_the_same_bytes(
    web: Web, tmp_path: Path, small_units: None, monkeypatch: pytest.MonkeyPatch
):
    path = write_list(tmp_path / "list.tsv", mixed(web, 80))
    first = contents(download(web, path, tmp_path / "one"))
    web.times.clear()
    monkeypatch.setattr("flame_core.data.sources.urls.settings", lambda: SimpleNamespace(workers=4))
    assert contents(download(web, path, tmp_path / "four")) == first
    assert max(web.most_open.values()) <= 2
    asked = len(web.asked())
    assert contents(download(web, path, tmp_path / "four")) == first and len(web.asked()) == asked


def test_a_longer_list_asks_only_for_what_is_new(web: Web, tmp_path: Path, small_units: None):
    urls = [web.url(f"/ok/{n}", HOSTS[n % 8]) for n in range(60)]
    path = write_list(tmp_path / "list.tsv", urls[:50])
    old = pictures_of(download(web, path, tmp_path / "work"), tmp_path / "old")
    del web.log[:]
    new = pictures_of(download(web, write_list(path, urls), tmp_path / "work"), tmp_path / "new")
    assert sorted(web.asked()) == sorted(f"/ok/{n}" for n in range(50, 60))
    assert {caption: new[caption] for caption in old} == old and len(new) == 60


def test_a_retry_asks_only_for_failed_addresses_and_loses_nothing(web: Web, tmp_path: Path, small_units: None):
    path = write_list(tmp_path / "list.tsv", urls := mixed(web, 80))
    first = download(web, path, tmp_path / "work")
    good = pictures_of(first, tmp_path / "first")
    failed = {url for url, row in rows_of(first).items() if row["reason"] in ("http_5xx", "cut")}
    assert len(failed) == 20 and len(good) == 50 and len(urls) == 80

    web.down = True
    down = pictures_of(download(web, path, tmp_path / "work", retry=True), tmp_path / "down")
    assert down == good

    web.down, web.mended = False, True
    del web.log[:]
    mended = download(web, path, tmp_path / "work", retry=True)
    assert {web.url(asked, host) for host, asked in web.log if asked != "/robots.txt"} == failed
    pictures = pictures_of(mended, tmp_path / "mended")
    assert len(pictures) == 70 and {caption: pictures[caption] for caption in good} == good
    assert {row["reason"] for row in rows_of(mended).values() if row["outcome"] == "failed"} == {"gone"}


def test_a_unit_begins_while_earlier_ones_wait_for_answers(
    web: Web, tmp_path: Path, small_units: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flame_core.data.sources.urls.settings", lambda: SimpleNamespace(workers=1))
    monkeypatch.setattr("flame_core.data.sources.urls._IN_LINE", 99)
    monkeypatch.setattr("flame_core.data.addresses.unit._AT_ONCE", 99)
    web.awaited = 40
    urls = [web.url(f"/{'last' if n % 5 == 4 else 'ok'}/{n}", HOSTS[n % 8]) for n in range(40)]  # one per host
    unit = download(
        web, write_list(tmp_path / "list.tsv", urls), tmp_path / "work", timeout_s={"connect": 9, "read": 9, "total": 9}
    )
    assert {(row["outcome"], row["tries"]) for row in rows_of(unit).values()} == {("ok", 1)}
    assert max(web.most_open.values()) <= 2


def test_what_goes_wrong_in_a_connection_ends_the_download(
    web: Web, tmp_path: Path, small_units: None, monkeypatch: pytest.MonkeyPatch
):
    async def get(*_: object) -> Answer:
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(Requester, "get", get)
    monkeypatch.setattr("flame_core.data.sources.urls.settings", lambda: SimpleNamespace(workers=1))
    with pytest.raises(RuntimeError, match="not foreseen"):
        download(web, write_list(tmp_path / "list.tsv", mixed(web, 40)), tmp_path / "work")


def test_ctrl_c_ends_all_units_and_keeps_those_that_are_done(web: Web, tmp_path: Path, small_units: None):
    path = write_list(tmp_path / "list.tsv", [web.url(f"/{'silent' if n == 25 else 'ok'}/{n}") for n in range(40)])
    program = """
import sys
from pathlib import Path
from flame_core.data.sources import urls
from flame_core.params import UrlsSource
from flame_core.work import WorkCache
urls._PER_UNIT = 10
params = UrlsSource.model_validate_json(sys.argv[1])
urls.Urls(params, Path(params.path)).download(WorkCache(Path(sys.argv[2]), "download"))
"""
    params = params_of(web, path, timeout_s={"connect": 50, "read": 50, "total": 50})
    command = [sys.executable, "-c", program, params.model_dump_json(exclude_unset=True), str(tmp_path / "work")]
    environment = {**os.environ, "FLAME_WORKERS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    done = tmp_path / "work" / "download"
    end = time.monotonic() + 60
    while len(web.asked()) < 40 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    while len(list(done.glob("*/attempts.parquet"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode != 0 and said.rstrip().endswith("KeyboardInterrupt"), said
    assert not list(done.glob(".tmp-*"))
    assert list(done.glob("*/attempts.parquet"))

    del web.log[:]
    web.mended = True
    unit = download(web, path, tmp_path / "work")
    assert len(pictures_of(unit, tmp_path / "raw")) == 40
    assert "/silent/25" in web.asked() and len(web.asked()) < 40
