"""Opt-outs: what headers, pages and lists say, and what a download makes of lists."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote

import pytest

from flame_core.data.addresses.opt_out import read_lists, reserved
from flame_core.data.forgotten import Forgotten, ForgottenSample
from flame_core.data.perceptual import perceptual_hash
from flame_core.data.sources.listing import read_source
from flame_core.data.sources.urls import Urls
from flame_core.errors import InputError
from flame_core.work import WorkCache
from tests.data.addresses.downloads import QUICK, params_of, rows_of, write_list
from tests.data.addresses.web import HOSTS, Web
from tests.data.drawings import drawing, png


@pytest.mark.parametrize(
    ("lines", "out"),
    [
        (["noai"], True),
        (["NoImageAI, nofollow"], True),
        (["index", "noindex"], True),
        (["flame-mlops: noai"], True),
        (["*: noml"], True),
        (["googlebot: noindex"], False),
        (["googlebot: nofollow, noindex"], False),
        (["googlebot: noindex, flame-mlops: noai"], True),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST"], False),
        (["unavailable_after: 25 Jun 2010, noindex"], True),
        (["max-image-preview: none"], False),
        (["all"], False),
        ([], False),
    ],
)
def test_x_robots_tag(lines: list[str], out: bool):
    assert (reserved(lines, []) == "x_robots_tag") == out


def test_a_reservation_of_text_and_data_mining():
    assert reserved([], ["1"]) == "tdm_reservation"
    assert reserved([], ["0"]) is None


def test_lists_name_addresses_hosts_bytes_and_looks(tmp_path: Path):
    path = tmp_path / "list.txt"
    path.write_text(f"# by mail\n\nhttp://a.org/1.jpg\nB.org.\n{'AB' * 32}\np:00000000000000ff\n")
    lists = read_lists([path])
    assert lists.sha256 == {"ab" * 32} and lists.hashes == {255}
    assert lists.names_address("http://a.org/1.jpg", "a.org") and not lists.names_address("http://a.org/2.jpg", "a.org")
    assert lists.names_address("http://img.b.org/", "img.b.org") and not lists.names_address("http://cb.org/", "cb.org")
    with pytest.raises(InputError, match=r"opt_out\.lists"):
        read_lists([tmp_path / "none.txt"])


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("HTTPS://A.org/x", "https://a.org/x"),
        ("https://a.org/x", "https://A.org:443/x"),
        ("http://a.org", "http://a.org/"),
        ("http://a.org?b=1", "http://a.org/?b=1"),
        ("http://a.org/%7ex#top", "http://a.org/~x"),
        ("http://bücher.de/é 1.jpg?b=c d", "http://xn--bcher-kva.de/%C3%A9%201.jpg?b=c+d"),
        ("http://[::1", "http://[::1"),  # no address, and so by its letters
        ("http://[a]b@", "http://[a]b@"),
    ],
)
def test_an_address_is_named_however_it_is_written(tmp_path: Path, line: str, url: str):
    path = tmp_path / "list.txt"
    path.write_text(f"{line}\n", "utf-8")
    lists = read_lists([path])
    assert lists.names_address(url, None)
    assert not lists.names_address(f"{url}y", None)


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("xn--bcher-kva.de", "b\u00fccher.de"),  # as yarl gives the host of either form
        ("B\u00dcCHER.de", "b\u00fccher.de"),
        ("b\u00fccher.de", "img.xn--bcher-kva.de"),
        ("a.org", "a.org."),
        ("*.a.org", "img.a.org"),
        (".a.org", "img.a.org"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_a_host_is_named_however_it_is_written(tmp_path: Path, line: str, host: str):
    path = tmp_path / "list.txt"
    path.write_text(f"{line}\n", "utf-8")
    lists = read_lists([path])
    assert lists.names_address(f"http://{host}/1.jpg", host)
    assert not lists.names_address("http://b.org/1.jpg", "b.org")


@pytest.mark.parametrize("line", ["www.a.org/pictures", "p:00ff", "a.org 7 May", "sha256:00", "a.org:8080", "me@a.org"])
def test_a_line_that_would_name_nothing_is_refused(tmp_path: Path, line: str):
    path = tmp_path / "list.txt"
    path.write_text(f"# by mail\n{line}\n")
    with pytest.raises(InputError, match=r"list\.txt, line 2: "):
        read_lists([path])


def test_opt_outs_are_kept_before_a_request_and_after_it(web: Web, tmp_path: Path):
    web.robots = "User-agent: *\nDisallow: /\n\nUser-agent: flame-mlops\nDisallow: /ok/1\nAllow: /ok/12\n"
    urls = [web.url(f"/ok/{n}") for n in (0, 1, 12, 3, 4)] + [web.url("/ok/5", HOSTS[6])]
    listed = tmp_path / "opted-out.txt"
    sha256 = hashlib.sha256(png(3)).hexdigest()
    looks = f"p:{perceptual_hash(drawing(4)):016x}"
    listed.write_text(f"# asked by mail\n{HOSTS[6]}\n{sha256}\n{looks}\n")
    path = write_list(tmp_path / "list.tsv", urls)
    params = params_of(web, path, opt_out={"lists": [str(listed)]}, max_side=None)
    unit = Urls(params, path, [listed], pace=QUICK).download(WorkCache(tmp_path / "work", "download"))
    reasons = [row["reason"] for url in urls for row in [rows_of(unit)[url]]]
    assert reasons == [None, "robots_txt", None, "opt_out_list", "opt_out_list", "opt_out_list"]
    assert HOSTS[6] not in {host for host, _ in web.log}
    with listed.open("a") as file:
        file.write(urls[0] + "\n")  # a later wish: the picture is here already
    late = Urls(params, path, [listed], pace=QUICK).download(WorkCache(tmp_path / "work", "download"))
    assert rows_of(late)[urls[0]]["reason"] == "opt_out_list" and read_source(late.folder)["pairs"] == 1


def test_what_lists_of_opt_outs_name_no_more_is_asked_for(web: Web, tmp_path: Path):
    urls = [web.url(f"/ok/{n}") for n in range(5)] + [web.url(f"/to/5?{quote(web.url('/ok/6'), safe='')}")]
    path, listed, work = write_list(tmp_path / "list.tsv", urls), tmp_path / "out.txt", tmp_path / "work"
    digest, looks = hashlib.sha256(png(1)).hexdigest(), f"{perceptual_hash(drawing(2)):016x}"
    by_bytes = ForgottenSample(sha256=(hashlib.sha256(png(3)).hexdigest(),))
    forgotten = Forgotten((by_bytes, ForgottenSample(phash=f"{perceptual_hash(drawing(4)):016x}")))
    wishes = {urls[0]: "/ok/0", digest: "/ok/1", f"p:{looks}": "/ok/2", web.url("/ok/6"): "/ok/6"}
    params = params_of(web, path, opt_out={"lists": [str(listed)]}, max_side=None)

    def left_out() -> set[str]:
        listed.write_text("\n".join(wishes))
        source = Urls(params, path, [listed], forgotten, pace=QUICK)
        rows = rows_of(source.download(WorkCache(work, "download")))
        assert {row["outcome"] for row in rows.values() if row["reason"] != "opt_out_list"} <= {"ok"}
        return {url for url, row in rows.items() if row["reason"] == "opt_out_list"}

    places = {"/ok/6": urls[5]}
    assert left_out() == set(urls)
    while wishes:
        _, asked = wishes.popitem()
        del web.log[:]
        named = {places.get(each, web.url(each)) for each in wishes.values()}
        assert left_out() == {*named, urls[3], urls[4]}  # these two are forgotten
        assert [each for each in web.asked() if "/to/" not in each] == [asked]
        del web.log[:]
        assert left_out() == {*named, urls[3], urls[4]} and not web.log


@pytest.mark.parametrize("max_side", [None, 40])
def test_pictures_that_are_here_are_left_out_by_a_later_wish(web: Web, tmp_path: Path, max_side: int | None):
    urls = [web.url(f"/ok/{n}") for n in range(5)]
    path, listed, work = write_list(tmp_path / "list.tsv", urls), tmp_path / "out.txt", tmp_path / "work"
    params = params_of(web, path, opt_out={"lists": [str(listed)]}, max_side=max_side)
    wishes = {
        0: urls[0],
        1: hashlib.sha256(png(1)).hexdigest(),
        2: f"p:{perceptual_hash(drawing(2)):016x}",
    }
    listed.write_text("")
    for number, wish in [(None, ""), *wishes.items()]:
        asked = len(web.asked())
        with listed.open("a") as file:
            file.write(f"{wish}\n")
        unit = Urls(params, path, [listed], pace=QUICK).download(WorkCache(work, "download"))
        left_out = {url for url in urls if rows_of(unit)[url]["reason"] == "opt_out_list"}
        assert left_out == {urls[each] for each in wishes if number is not None and each <= number}
        assert read_source(unit.folder)["pairs"] == 5 - len(left_out)
        assert number is None or len(web.asked()) == asked  # they are here


def test_a_redirect_leads_to_no_host_or_address_that_opted_out(web: Web, tmp_path: Path):
    listed = tmp_path / "opted-out.txt"
    listed.write_text(f"{HOSTS[6]}\n{web.url('/ok/2')}\n")
    targets = [web.url("/ok/1", HOSTS[6]), web.url("/ok/2"), web.url("/ok/3")]
    urls = [web.url(f"/to/{number}?{quote(target, safe='')}") for number, target in enumerate(targets)]
    path = write_list(tmp_path / "list.tsv", urls)
    params = params_of(web, path, opt_out={"lists": [str(listed)]})
    unit = Urls(params, path, [listed], pace=QUICK).download(WorkCache(tmp_path / "work", "download"))
    rows = [rows_of(unit)[url] for url in urls]
    assert [row["outcome"] for row in rows] == ["opted_out", "opted_out", "ok"]
    assert [row["reason"] for row in rows] == ["opt_out_list", "opt_out_list", None]
    assert [path for path in web.asked() if not path.startswith("/to/")] == ["/ok/3"]
    assert HOSTS[6] not in {host for host, _ in web.log}
