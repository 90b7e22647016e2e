"""Tars that are damaged, cut off, compressed, or in another order than their writer's."""

from __future__ import annotations

import gzip
import tarfile

import pytest

from flame_core.errors import InputError
from flame_core.suite.content import NotAvailable
from flame_core.suite.layouts import read_content
from tests.suite import datasets
from tests.suite.datasets import COLOURS, benchmark, picture, put


def members(count: int, kinds: tuple[str, str] = ("jpg", "cls")) -> list[tuple[str, bytes]]:
    return [
        member
        for i in range(count)
        for member in ((f"s{i}.{kinds[0]}", picture(COLOURS[i])), (f"s{i}.{kinds[1]}", str(i).encode()))
    ]


def of_tar(tmp_path, found):
    datasets.clip_benchmark_classes(tmp_path / "set")
    put(tmp_path / "set/test/nshards.txt", "1")
    datasets.tar(tmp_path / "set/test/0.tar", found)
    return tmp_path / "set/test/0.tar"


@pytest.mark.parametrize("place", ["between samples", "in a picture", "before the end mark"])
def test_a_tar_that_is_cut_off_is_refused(tmp_path, place):
    path = of_tar(tmp_path, members(6))
    with tarfile.open(path) as tar:
        found = tar.getmembers()
    at = {
        "between samples": found[6].offset,
        "in a picture": found[6].offset_data + 100,
        "before the end mark": found[-1].offset_data + 512,
    }[place]
    path.write_bytes(path.read_bytes()[:at])
    with pytest.raises(InputError, match=r"0.tar: cut off"):
        read_content(benchmark("classification", "clip_benchmark"), tmp_path)


def test_a_tar_with_a_rotten_header_is_refused(tmp_path):
    path = of_tar(tmp_path, members(6))
    with tarfile.open(path) as tar:
        at = tar.getmembers()[6].offset
    content = bytearray(path.read_bytes())
    content[at : at + 512] = b"\xff" * 512
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"0.tar: damaged behind s2.cls"):
        read_content(benchmark("classification", "clip_benchmark"), tmp_path)


def test_a_packed_tar_is_called_so(tmp_path):
    path = of_tar(tmp_path, members(6))
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="packed with gzip; unpack it"):
        read_content(benchmark("classification", "clip_benchmark"), tmp_path)


@pytest.mark.parametrize("twice", ["s1.jpg", "s1.png", "s1.CLS"])
def test_a_key_that_comes_twice_is_refused(tmp_path, twice):
    of_tar(tmp_path, [*members(6), (twice, b"0")])
    with pytest.raises(InputError, match=f"the key s1 has {twice} and another"):
        read_content(benchmark("classification", "clip_benchmark"), tmp_path)


def test_members_need_not_stand_together_and_may_have_dots_and_capitals(tmp_path):
    found = members(4, ("10.jpg", "10.CLS"))
    of_tar(tmp_path, [*found[::2], *found[1::2]])
    content = read_content(benchmark("classification", "clip_benchmark"), tmp_path)
    assert [each.name for each in content.pictures] == [f"s{i}.10" for i in range(4)]
    assert content.labels.tolist() == [0, 1, 2, 3]
    assert content.skips.counts == {}


def test_members_that_are_not_used_are_counted(tmp_path):
    more = [("._s0.jpg", b"x"), ("__MACOSX/s0.jpg", b"x"), ("s0.json", b"{}"), ("README", b"x"), ("s9.cls", b"1")]
    of_tar(tmp_path, [*members(2), *more])
    content = read_content(benchmark("classification", "clip_benchmark"), tmp_path)
    assert content.labels.tolist() == [0, 1]
    assert content.skips.names == {
        "hidden files and folders": ["._s0.jpg", "__MACOSX/s0.jpg"],
        "members that are not used": ["s0.json", "README"],
        "classes whose picture is missing": ["s9"],
    }


def test_a_text_in_a_tar_is_utf8_and_of_a_texts_size(tmp_path):
    of_tar(tmp_path, [("a.jpg", picture("red")), ("a.txt", "café".encode("latin-1"))])
    with pytest.raises(InputError, match=r"0.tar: a.txt: line 1 is not utf-8"):
        read_content(benchmark("retrieval", "clip_benchmark"), tmp_path)
    of_tar(tmp_path, [("a.jpg", picture("red")), ("a.txt", b"x" * (1 << 21))])
    with pytest.raises(InputError, match=r"a.txt has 2,097,152 bytes"):
        read_content(benchmark("retrieval", "clip_benchmark"), tmp_path)


def test_a_folder_in_a_tars_place_is_refused_and_one_class_is_nothing_to_tell_apart(tmp_path):
    path = of_tar(tmp_path, members(2))
    put(tmp_path / "set/classnames.txt", "all of them\n")
    with pytest.raises(NotAvailable, match=r"classnames.txt does not name two classes"):
        read_content(benchmark("classification", "clip_benchmark"), tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"0.tar: must be a file"):
        read_content(benchmark("classification", "clip_benchmark"), tmp_path)
