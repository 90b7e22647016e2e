from __future__ import annotations

from pathlib import Path

import pytest

from flame_core.data.addresses.opt_out import read_lists, reserved
from flame_core.errors import InputError


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
