"""Lists of addresses that take several units."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from yarl import URL

from flame_core.data.addresses.request import Answer, Requester
from flame_core.data.addresses.tally import Tally
from flame_core.errors import ResourceError
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
    monkeypatch.setattr("flame_core.data.sources.urls.settings", lambda: SimpleNamespace(workers=4, engine="local"))
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


@pytest.fixture
def one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """All units begin at once, in this process."""
    monkeypatch.setattr("flame_core.data.sources.urls.settings", lambda: SimpleNamespace(workers=1, engine="local"))
    monkeypatch.setattr("flame_core.data.sources.urls._IN_LINE", 99)
    monkeypatch.setattr("flame_core.data.addresses.unit._AT_ONCE", 99)


def test_a_unit_begins_while_earlier_ones_wait_for_answers(web: Web, tmp_path: Path, small_units: None, one_line: None):
    web.awaited = 40
    urls = [web.url(f"/{'last' if n % 5 == 4 else 'ok'}/{n}", HOSTS[n % 8]) for n in range(40)]  # one per host
    unit = download(
        web, write_list(tmp_path / "list.tsv", urls), tmp_path / "work", timeout_s={"connect": 9, "read": 9, "total": 9}
    )
    assert {(row["outcome"], row["tries"]) for row in rows_of(unit).values()} == {("ok", 1)}
    assert max(web.most_open.values()) <= 2


def test_an_error_in_a_unit_ends_no_other(
    web: Web, tmp_path: Path, small_units: None, one_line: None, monkeypatch: pytest.MonkeyPatch
):
    web.latency = 0.02
    path = write_list(tmp_path / "list.tsv", [web.url(f"/ok/{n}", HOSTS[n % 8]) for n in range(60)])
    with monkeypatch.context() as patched:
        answered = Requester.get

        async def get(requester: Requester, url: URL) -> Answer:
            if url.path == "/ok/7":
                raise RuntimeError("not foreseen")
            return await answered(requester, url)

        patched.setattr(Requester, "get", get)
        with pytest.raises(RuntimeError, match="not foreseen"):
            download(web, path, tmp_path / "work")
    del web.log[:]
    unit = download(web, path, tmp_path / "work")
    tars = {name: pq.read_metadata(each.parent / "attempts.parquet").num_rows for name, each in unit.elsewhere.items()}
    again = [name for name, each in unit.elsewhere.items() if "/ok/7" in urls_of(each.parent)]
    assert len(tars) > 2 and len(web.asked()) == sum(tars[name] for name in again)


def urls_of(folder: Path) -> str:
    return " ".join(f"{url} " for url in pq.read_table(folder / "attempts.parquet").column("url").to_pylist())


def test_an_error_of_the_disk_is_told_and_other_units_are_kept(
    web: Web, tmp_path: Path, small_units: None, one_line: None, monkeypatch: pytest.MonkeyPatch
):
    add, full = Tally.add, []

    def refuse(tally: Tally, outcome: str) -> None:
        if outcome == "port_refused":
            full.append(outcome)
            raise OSError(errno.ENOSPC, "No space left on device")
        add(tally, outcome)

    monkeypatch.setattr(Tally, "add", refuse)
    urls = [web.url(f"/ok/{n}", HOSTS[n % 8]) for n in range(60)]
    path = write_list(tmp_path / "list.tsv", [*urls, "http://127.0.0.1:1/ok/60"])
    with pytest.raises(ResourceError, match="Free some room"):
        download(web, path, tmp_path / "work")
    kept = list((tmp_path / "work" / "download").glob("*/attempts.parquet"))
    assert full == ["port_refused"] and len(kept) > 1


def test_ctrl_c_ends_all_units_and_keeps_those_that_are_done(web: Web, tmp_path: Path, small_units: None):
    path = write_list(tmp_path / "list.tsv", [web.url(f"/{'silent' if n == 25 else 'ok'}/{n}") for n in range(40)])
    program = """
import sys
from pathlib import Path
from flame_core.data.addresses import unit
from flame_core.data.sources import urls
from flame_core.params import UrlsSource
from flame_core.work import WorkCache
urls._PER_UNIT, urls._IN_LINE, unit._AT_ONCE = 10, 99, 99
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
    assert not list(done.glob(".tmp*"))
    assert list(done.glob("*/attempts.parquet"))

    del web.log[:]
    web.mended = True
    unit = download(web, path, tmp_path / "work")
    assert len(pictures_of(unit, tmp_path / "raw")) == 40
    assert "/silent/25" in web.asked() and len(web.asked()) < 40
