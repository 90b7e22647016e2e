"""Lists of addresses, fetched from a server on loopback that fails in every way."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from aiohttp.abc import AbstractResolver

from flame_core.data.sources.listing import read_source
from flame_core.errors import InputError
from tests.bits import flip
from tests.data.addresses.downloads import (
    contents,
    download,
    pictures_of,
    rows_of,
    write_list,
)
from tests.data.addresses.web import HOSTS, Web, bomb
from tests.data.drawings import png

# what each kind of path comes to: (outcome, reason, tries; the last pass is one more)
CASES = {
    "/ok/{}": ("ok", None, 1),
    "/once/{}": ("ok", None, 2),
    "/redirect/5/{}": ("ok", None, 1),
    "/plain/{}": ("ok", None, 1),
    "/gzip/{}": ("ok", None, 1),
    "/usage/{}": ("ok", None, 1),
    "/status/404/{}": ("failed", "gone", 1),
    "/status/410/{}": ("failed", "gone", 1),
    "/status/451/{}": ("failed", "legal", 1),
    "/status/403/{}": ("failed", "forbidden", 2),
    "/status/401/{}": ("failed", "forbidden", 2),
    "/status/418/{}": ("failed", "http_status", 1),
    "/status/500/{}": ("failed", "http_5xx", 4),
    "/status/522/{}": ("failed", "http_5xx", 4),
    "/cut/{}": ("failed", "cut", 4),
    "/reset/{}": ("failed", "reset", 4),
    "/page/{}": ("failed", "not_a_picture", 1),
    "/lie/{}": ("failed", "not_a_picture", 1),
    "/empty/{}": ("failed", "not_a_picture", 1),
    "/redirect/6/{}": ("failed", "redirects", 1),
    "/huge/{}": ("failed", "too_large", 1),
    "/endless/{}": ("failed", "too_large", 1),
    "/to/{}?file:///etc/passwd": ("failed", "redirects", 1),
    "/to/{}?http://127.0.0.1:1/": ("refused", "port_refused", 1),
    "/to/{}?http://127.0.0.1/": ("refused", "address_refused", 1),
    "/to/{}?http://169.254.169.254/latest/": ("refused", "address_refused", 1),
    "/to/{}?http://[::ffff:10.0.0.1]/": ("refused", "address_refused", 1),
    "/noai/noai/{}": ("opted_out", "x_robots_tag", 1),
    "/noai/other-bot:%20noai/{}": ("ok", None, 1),
    "/tdm/{}": ("opted_out", "tdm_reservation", 1),
}


def test_every_kind_of_failure_has_its_reason_and_its_tries(web: Web, tmp_path: Path):
    urls = {web.url(path.format(n), HOSTS[n % 8]): case for n, (path, case) in enumerate(CASES.items())}
    unit = download(web, write_list(tmp_path / "list.tsv", list(urls)), tmp_path / "work")
    rows = rows_of(unit)
    assert {url: (row["outcome"], row["reason"], row["tries"]) for url, row in rows.items()} == urls
    assert rows[web.url("/usage/5", HOSTS[5])]["content_usage"] == "train-ai=n"
    good = sum(outcome == "ok" for outcome, _, _ in urls.values())
    assert read_source(unit.folder)["pairs"] == good == len(pictures_of(unit, tmp_path / "raw"))
    counted = sum(row["count"] for row in read_source(unit.folder)["outcomes"])
    assert counted == read_source(unit.folder)["addresses"] == len(urls)
    assert web.headers["Accept-Encoding"] == "identity" and web.headers["User-Agent"].startswith("flame-mlops/")
    assert not {"Cookie", "Referer"} & web.headers.keys()


def test_a_picture_that_fits_keeps_its_bytes(web: Web, tmp_path: Path):
    path = write_list(tmp_path / "list.tsv", [web.url(f"/ok/{n}") for n in range(3)])
    unit = download(web, path, tmp_path / "work", max_side=None)
    assert pictures_of(unit, tmp_path / "raw") == {f"drawing number {n}": png(n) for n in range(3)}


@pytest.mark.slow
def test_two_thousand_addresses_in_four_processes_go_as_planned(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
):
    monkeypatch.setattr("flame_core.data.sources.urls._PER_UNIT", 200)
    monkeypatch.setattr("flame_core.data.sources.urls.settings", lambda: SimpleNamespace(workers=4, engine="local"))
    cases = list(CASES.items())
    planned = {
        web.url(path.format(n), HOSTS[n // len(cases) % 8]): case
        for n in range(2000)
        for path, case in [cases[n % len(cases)]]
    }
    unit = download(
        web,
        write_list(tmp_path / "list.tsv", list(planned)),
        tmp_path / "work",
        per_host=8,
        connections=16,
        timeout_s={"connect": 20, "read": 20, "total": 60},
    )
    assert {url: (row["outcome"], row["reason"], row["tries"]) for url, row in rows_of(unit).items()} == planned
    assert max(web.most_open.values()) <= 8
    record_property("addresses that fail in every way, in 4 processes", len(planned))


def test_damaged_pictures_are_fetched_and_the_others_kept(web: Web, tmp_path: Path):
    path = write_list(tmp_path / "list.tsv", [web.url(f"/ok/{n}") for n in range(9)])
    unit = download(web, path, tmp_path / "work")
    before = contents(unit)
    row = rows_of(unit)[web.url("/ok/4")]
    (tar,) = (name for name in unit.names() if name.endswith(".tar"))
    flip(unit.file(tar), row["offset"] + 100, 3)
    del web.log[:]
    assert contents(download(web, path, tmp_path / "work")) == before
    assert web.asked() == ["/ok/4"]


def test_a_host_rests_as_long_as_it_asks_and_others_go_on(web: Web, tmp_path: Path):
    urls = [web.url(f"/limit/3/{n}", HOSTS[1]) for n in range(4)] + [web.url(f"/ok/{n}", HOSTS[2]) for n in range(9)]
    web.latency = 0.05
    unit = download(web, write_list(tmp_path / "list.tsv", urls), tmp_path / "work")
    assert {row["outcome"] for row in rows_of(unit).values()} == {"ok"}
    limited = sorted(time for path, times in web.times.items() if "limit" in path for time in times)
    others = [time for path, times in web.times.items() if "ok" in path for time in times]
    waits = [after - before for before, after in pairwise(limited)]
    assert max(waits) >= 2.9 and max(others) < limited[0] + 1.5
    assert web.most_open[HOSTS[1]] <= 2 and web.most_open[HOSTS[2]] <= 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_host_rests_if_its_robots_txt_asks_for_it(web: Web, tmp_path: Path, status: int):
    web.refused, web.refusal = 1, (status, "2")
    path = write_list(tmp_path / "list.tsv", [web.url(f"/ok/{n}") for n in range(30)])
    unit = download(web, path, tmp_path / "work")
    assert {row["outcome"] for row in rows_of(unit).values()} == {"ok"}
    first, second = web.times["/robots.txt"]
    pictures = [time for path, times in web.times.items() if "ok" in path for time in times]
    assert second - first >= 1.9 and min(pictures) > second


@pytest.mark.parametrize(
    ("status", "rest", "reason"),
    [(429, "1", "rate_limited"), (429, "0", "rate_limited"), (503, "", "robots_unreachable")],
)
def test_a_robots_txt_that_keeps_failing_is_asked_as_often_as_an_address(
    web: Web, tmp_path: Path, status: int, rest: str, reason: str
):
    web.refused, web.refusal = 10**6, (status, rest)
    path = write_list(tmp_path / "list.tsv", [web.url(f"/ok/{n}") for n in range(30)])
    unit = download(web, path, tmp_path / "work")
    assert {row["reason"] for row in rows_of(unit).values()} == {reason}
    times = web.times["/robots.txt"]
    assert len(times) <= 3 + 1 and not web.asked()  # `tries`, and the last pass
    assert min(after - before for before, after in pairwise(times)) >= 0.9 * float(rest or 0)


def test_dripping_endless_and_packed_answers_end_in_time_and_in_bounds(web: Web, tmp_path: Path):
    kinds = ["drip", "silent", "endless", "huge", "bomb"]
    bomb()
    urls = [web.url(f"/{kind}/{n}", HOSTS[n]) for kind in kinds for n in range(4)]
    process, highest = psutil.Process(), [psutil.Process().memory_info().rss]
    end = threading.Event()

    def watch() -> None:
        while not end.wait(0.02):
            highest.append(process.memory_info().rss)

    threading.Thread(target=watch, daemon=True).start()
    start = time.monotonic()
    unit = download(web, write_list(tmp_path / "list.tsv", urls), tmp_path / "work", tries=1, per_host=16)
    took = time.monotonic() - start
    end.set()
    reasons = {urlsplit(url).path.split("/")[1]: row["reason"] for url, row in rows_of(unit).items()}
    assert reasons == {
        "drip": "timeout",
        "silent": "timeout",
        "endless": "too_large",
        "huge": "too_large",
        "bomb": "too_large",
    }
    assert took < 2 * (2 + 1) + 6  # two passes of `total` and a second, and time to start
    assert max(highest) - highest[0] < 300e6


class Names(AbstractResolver):
    """Names of the tests; `slow` is slow, `busy` has no answer now, others do not exist."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[Any]:
        if host.startswith("slow"):
            await asyncio.sleep(0.5)
        if host.startswith("busy"):
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        places = {"inside": "10.0.0.1", "metadata": "169.254.169.254", "mapped": "::ffff:127.0.0.1"}
        name = host.partition(".")[0]
        if name not in places and not name.startswith("slow"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        place = places.get(name, "127.0.0.1")
        kind = socket.AF_INET6 if ":" in place else socket.AF_INET
        return [{"hostname": host, "host": place, "port": port, "family": kind, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


def test_names_that_fail_pass_or_lead_inside(web: Web, tmp_path: Path):
    urls = {
        f"http://slow.example:{web.port}/ok/1": "ok",
        f"http://busy.example:{web.port}/ok/2": "dns_temporary",
        f"http://none.example:{web.port}/ok/3": "no_host",
        "http://inside.example/ok/4": "address_refused",
        "http://metadata.example/latest/meta-data/": "address_refused",
        "http://mapped.example:8080/ok/5": "address_refused",
        f"http://127.0.0.1:{web.port}/to/6?http://inside.example:8080/": "address_refused",
    }
    unit = download(web, write_list(tmp_path / "list.tsv", list(urls)), tmp_path / "work", resolver=Names)
    assert {url: row["reason"] or row["outcome"] for url, row in rows_of(unit).items()} == urls


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_nothing_is_fetched_without_a_valid_certificate(web: Web, tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    met: list[bytes] = []

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
                    met.append(secure.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        port = listening.getsockname()[1]
        path = write_list(tmp_path / "list.tsv", [f"https://127.0.0.1:{port}/ok/1"])
        unit = download(web, path, tmp_path / "work", allow=[f"127.0.0.1/32:{port}"], opt_out={"robots_txt": False})
    assert [(row["reason"], row["tries"]) for row in rows_of(unit).values()] == [("tls", 1)] and not any(met)


def test_no_strange_address_reaches_a_server_or_costs_another_row(web: Web, tmp_path: Path):
    """Nothing is allowed here, so the server must never be asked, whatever its address looks like."""
    random = Random(0)
    pieces = [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "2130706433",
        "0x7f.1",
        "@",
        "\\",
        "#",
        "?",
        "%00",
        "%2e",
        "/",
        ":",
        "user:pw@",
    ]
    pieces += [
        f":{web.port}",
        ":80",
        "http://",
        "https://",
        "file:///",
        "data:",
        "\u202e",
        "\u3002",
        "ſ",
        " ",
        "é",
        "a" * 5000,
        "[",
        "]",
    ]
    strange = {"".join(random.choices(pieces, k=random.randint(1, 8))) for _ in range(1000)}
    urls = [f"http://127.0.0.1:{web.port}/ok/1", *("http://" + text for text in sorted(strange)), *sorted(strange)]
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps({"url": url, "caption": "c"}) + "\n" for url in urls))
    unit = download(web, path, tmp_path / "work", resolver=Names, allow=[], columns=None)
    assert web.log == []
    record = read_source(unit.folder)
    assert record["addresses"] == len({url.strip() for url in urls if url.strip()}) and record["pairs"] == 0


def test_pictures_that_are_not_those_of_the_list(web: Web, tmp_path: Path):
    path = tmp_path / "list.csv"
    digests = [hashlib.sha256(png(0)).hexdigest(), "0" * 64, hashlib.sha256(png(2)).hexdigest().upper()]
    lines = [f"{web.url(f'/ok/{n}')},c {n},{digest}" for n, digest in enumerate(digests)]
    path.write_text("url,caption,hash\n" + "\n".join(lines) + "\n")
    for changed, expected in (("drop", ["ok", "dropped", "ok"]), ("keep", ["ok", "ok", "ok"])):
        unit = download(web, path, tmp_path / changed, columns=None, sha256_column="hash", changed=changed)
        rows = [rows_of(unit)[web.url(f"/ok/{n}")] for n in range(3)]
        assert [row["outcome"] for row in rows] == expected
        assert [row["reason"] for row in rows] == [None, "hash_changed", None]
        assert read_source(unit.folder)["pairs"] == expected.count("ok")


@pytest.mark.parametrize("packed", [False, True])
def test_a_robots_txt_counts_packed_or_not(web: Web, tmp_path: Path, packed: bool):
    web.robots, web.packs = "User-agent: *\nDisallow: /ok/1\n", packed
    path = write_list(tmp_path / "list.tsv", [web.url("/ok/0"), web.url("/ok/1")])
    unit = download(web, path, tmp_path / "work")
    assert [rows_of(unit)[web.url(f"/ok/{n}")]["reason"] for n in range(2)] == [None, "robots_txt"]
    assert web.asked() == ["/ok/0"]


def test_many_addresses_need_a_contact(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flame_core.data.sources.urls.NAMELESS", 2)
    path = write_list(tmp_path / "list.tsv", [web.url(f"/ok/{n}") for n in range(3)])
    with pytest.raises(InputError, match="`contact`"):
        download(web, path, tmp_path / "work")
    download(web, path, tmp_path / "work", contact="data@example.org")
    assert web.headers["User-Agent"].endswith("(+data@example.org)")
